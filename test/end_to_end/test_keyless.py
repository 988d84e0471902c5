"""A query that sees no key: what PyTorch gives for each spelling, raised and as written."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import run_numpy

from heatc.api import make_context
from heatc.capture import capture_module
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import Numpy, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

BATCH, HEADS, TOKENS, WIDTH = 3, 2, 6, 8
SPELLINGS: dict[str, Any] = {
    "bool": lambda q, k, v, keep: torch.nn.functional.scaled_dot_product_attention(q, k, v, keep),
    "additive -inf": lambda q, k, v, keep: torch.nn.functional.scaled_dot_product_attention(
        q, k, v, torch.zeros(keep.shape).masked_fill(~keep, -math.inf)
    ),
    "additive lowest": lambda q, k, v, keep: torch.nn.functional.scaled_dot_product_attention(
        q, k, v, torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
    ),
    "filled -inf": lambda q, k, v, keep: (
        (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -math.inf).softmax(-1) @ v
    ),
    "filled lowest": lambda q, k, v, keep: (
        (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, torch.finfo(torch.float32).min).softmax(-1)
        @ v
    ),
    "filled -1e4": lambda q, k, v, keep: (
        (q @ k.transpose(-1, -2) / 2).masked_fill(~keep, -1e4).softmax(-1) @ v
    ),
    "where -1e9": lambda q, k, v, keep: (
        torch.where(keep, q @ k.transpose(-1, -2) / 2, -1e9).softmax(-1) @ v
    ),
    "added -1e4": lambda q, k, v, keep: (
        (q @ k.transpose(-1, -2) / 2 + (1.0 - keep.float()) * -1e4).softmax(-1) @ v
    ),
    "added -inf": lambda q, k, v, keep: (
        (q @ k.transpose(-1, -2) / 2 + torch.where(keep, 0.0, -math.inf)).softmax(-1) @ v
    ),
}


class Model(torch.nn.Module):
    """One attention in one spelling; `keep` is bool (batch, tokens, tokens)."""

    def __init__(self, spelling: str):
        super().__init__()
        self.spelling = SPELLINGS[spelling]
        torch.manual_seed(2)
        self.q, self.k, self.v = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.q.weight.data *= 4  # so that no softmax is near its mean

    def forward(self, x: Any, keep: Any) -> Any:
        """(batch, tokens, width) to the same."""
        q, k, v = (
            part(x).view(BATCH, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)
            for part in (self.q, self.k, self.v)
        )
        y = self.spelling(q, k, v, keep[:, None])
        return y.transpose(1, 2).reshape(BATCH, TOKENS, WIDTH)


def inputs() -> dict[str, Any]:
    """Queries that see some keys, all, one, or none."""
    rng = np.random.default_rng(4)
    keep = rng.integers(0, 2, (BATCH, TOKENS, TOKENS)).astype(bool)
    keep[0, 1] = keep[1] = keep[2, 5] = False
    keep[0, 0], keep[2, 0], keep[2, 0, 3] = True, False, True
    return {"x": rng.standard_normal((BATCH, TOKENS, WIDTH)).astype(np.float32), "keep": keep}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_at_every_level(spelling: str, tmp_path: Path):
    """Captured, raised, and the program: 0, the mean of the values, or NaN, as PyTorch has it."""
    model, given = Model(spelling).eval(), inputs()
    with torch.no_grad():
        expected = model(**{name: torch.tensor(value) for name, value in given.items()}).numpy()
    captured = capture_module(model, {name: torch.tensor(value) for name, value in given.items()})
    module, weights = captured.module, captured.weights
    found = {"captured": execute(module, given, weights)}
    run_passes(make_context(weights), module, build("canonicalize,raise-attention,dce"))
    assert any(op.name == "attn.sdpa" for op in module.walk())
    found["raised"] = execute(module, given, weights)
    above, _, _ = pipeline_text(Options(Numpy())).partition("pack-tokens")
    rest = pipeline_text(Options(Numpy())).removeprefix(above)
    run_passes(make_context(weights), module, build(rest))
    found["program"] = run_numpy(module, weights, tmp_path)(given)
    for level, outputs in found.items():
        (value,) = outputs.values()
        np.testing.assert_allclose(value, expected, atol=2e-5, err_msg=level)


def test_the_spellings_differ():
    """The test above tells 0, the mean and NaN from each other."""
    given = {name: torch.tensor(value) for name, value in inputs().items()}
    with torch.no_grad():
        rows = {name: Model(name)(**given)[1] for name in SPELLINGS}
    assert rows["bool"].abs().max() == 0
    assert rows["additive -inf"].abs().max() == 0
    assert rows["filled -inf"].isnan().all()
    means = rows["filled lowest"]
    torch.testing.assert_close(means, means[:1].expand_as(means))
    assert not torch.allclose(rows["added -1e4"], means)
