"""Queries that see no key where different numbers hide: HDP programs compute what PyTorch does."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from heatc.errors import HeatcError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from compiled_kit import Compiled, worst_cosine  # noqa: E402
from masked_models import Array  # noqa: E402

SEQUENCES, TOKENS, WIDTH, HEADS = 3, 10, 16, 2
LOWEST = torch.finfo(torch.float32).min
PLACES = torch.arange(TOKENS)
CAUSAL = PLACES[:, None] >= PLACES
NEAR = -0.5 * (PLACES[:, None] - PLACES).abs().float()

Spelling = Callable[[Any, Any], Any]


def _where(keep: Any, fill: float) -> Any:
    return torch.where(keep, 0.0, fill)


SPELLINGS: dict[str, Spelling] = {
    # `mask` is 1 where a query sees a key and 0 elsewhere; (batch, 1, tokens, tokens).
    "integers": lambda s, mask: s + (1.0 - mask.float()) * LOWEST,
    "integers and a bias": lambda s, mask: (s + NEAR) + (1.0 - mask.float()) * LOWEST,
    "weak integers": lambda s, mask: s + (1.0 - mask.float()) * -1e4,
    "two sums": lambda s, mask: s + _where(CAUSAL, -1e9) + _where(mask > 0, -1e9),
    "sums of two strengths": lambda s, mask: s + _where(CAUSAL, -1e5) + _where(mask > 0, -1e9),
    "a weak sum": lambda s, mask: s + _where(CAUSAL, -1e9) + _where(mask > 0, -2e4),
    "a bias in a weak sum": lambda s, mask: (
        s + ((1.5 + NEAR) + _where(CAUSAL, -1e4) + _where(mask > 0, -1e4))
    ),
    "two fills": lambda s, mask: s.masked_fill(mask == 0, -1e9).masked_fill(~CAUSAL, -1e5),
    "a bias behind a weak fill": lambda s, mask: s.masked_fill(mask == 0, -1e4) + NEAR,
    "a bias before a weak fill": lambda s, mask: (s + NEAR).masked_fill(mask == 0, -1e4),
    "a weak fill and a sum": lambda s, mask: s.masked_fill(~CAUSAL, -1e4) + _where(mask > 0, -1e9),
    "a sum and infinity": lambda s, mask: (s + _where(mask > 0, -1e9)).masked_fill(
        ~CAUSAL, -math.inf
    ),
}


class Model(torch.nn.Module):
    """One attention, whose mask is spelled in one of many ways."""

    def __init__(self, spelling: Spelling):
        super().__init__()
        torch.manual_seed(3)
        self.spelling = spelling
        self.q, self.k, self.v = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.q.weight.data *= 3  # so that no softmax is near its mean

    def forward(self, x: Any, mask: Any) -> Any:
        """(batch, tokens, width), (batch, tokens, tokens) to the former."""
        q, k, v = (
            f(x).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for f in (self.q, self.k, self.v)
        )
        scores = self.spelling(q @ k.transpose(-1, -2) / (WIDTH // HEADS) ** 0.5, mask[:, None])
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def inputs(dtype: str = "int64") -> dict[str, Array]:
    """Queries that see some keys, under a causal mask none; all; none. No mask is key padding."""
    mask = np.ones((SEQUENCES, TOKENS, TOKENS), dtype)
    mask[0, :, :4], mask[2] = 0, 0
    x = np.random.default_rng(8).standard_normal((SEQUENCES, TOKENS, WIDTH))
    return {"x": x.astype(np.float32), "mask": mask}


def _agrees(compiled: Compiled) -> None:
    found = compiled.run()
    assert worst_cosine(found, compiled.expected) >= 0.999
    np.testing.assert_array_equal(found, compiled.interpreted())


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_query_without_a_key_gives_what_pytorch_gives(spelling: str):
    _agrees(Compiled(Model(SPELLINGS[spelling]), inputs()))


@pytest.mark.parametrize("rule", ["paper rho_b=0.1 pruned_score=mean", "ours", "topk density=0.4"])
def test_rules_decide_on_what_is_seen(rule: str):
    """Program and level agree bit for bit, where a row sees no key too."""
    compiled = Compiled(Model(SPELLINGS["two sums"]), inputs(), rule)
    np.testing.assert_array_equal(compiled.run(), compiled.interpreted())


def test_a_mask_between_real_and_padding():
    """A float mask lowers scores by any number: the greatest decides where all are low."""
    given = inputs("float32")
    given["mask"][0, 3] = 0.0
    given["mask"][0, 3, 4:] = 0.25
    given["mask"][2] = np.linspace(0.0, 0.5, TOKENS)
    given["mask"][2, 2, 6] = 0.5
    model = Model(lambda s, mask: s + (1.0 - mask.clamp(0.0, 1.0)) * -1e9)
    _agrees(Compiled(model, given))


def test_numbers_that_an_input_adds():
    """An input of numbers hides a whole row in two strengths."""
    given = inputs("float32")
    given["mask"] = np.where(given["mask"] == 0, np.float32(-1e9), np.float32(0.5))
    given["mask"][2, :, 3:] = 2 * np.float32(-1e9)
    _agrees(Compiled(Model(lambda s, mask: s + mask), given))


def test_what_has_no_number_in_pytorch_is_refused():
    """Twice the lowest number is minus infinity, and so is every score of the last sequence."""
    twice = Model(lambda s, mask: s + _where(mask > 0, LOWEST) + _where(mask > 0, LOWEST))
    compiled = Compiled(twice, inputs())
    assert np.isnan(compiled.expected[2]).all()
    with pytest.raises(HeatcError, match="sees no key"):
        compiled.run()


def test_two_kinds_of_hidden_scores_in_a_row_are_refused():
    """What a fill of -1e4 leaves of a score, and what a sum leaves, cannot stand in one row."""
    mixed = Model(lambda s, mask: s.masked_fill(~CAUSAL, -1e4) + (1.0 - mask.float()) * -1e9)
    with pytest.raises(Exception, match="fill with -1e9, or use --target numpy"):
        Compiled(mixed, inputs())
