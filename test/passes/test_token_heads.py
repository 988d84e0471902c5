"""
What is done with each token, on both targets beside PyTorch, on inputs that hurt.

One token, as many sequences as tokens, one sequence; extents that are equal on other axes; padding at
either end, holes, and a sequence that is all padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from padded_models import VOCABULARY, WIDTH, Attention

from bench.support.differential.build import load_hdp, load_numpy
from bench.support.families.heads import OF_TOKENS
from heatc.api import compile as compile_model
from heatc.errors import HeatcError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
nn: Any = torch.nn

SHAPES = ((3, 1), (1, 6), (6, 6))
"""Sequences and tokens; a label a token as well"""
COSINE = 0.999


class Tokens(nn.Module):
    """An attention under a mask, and a head of each of its tokens."""

    def __init__(self, name: str, tokens: int):
        super().__init__()
        torch.manual_seed(3)
        self.words, self.layer = nn.Embedding(VOCABULARY, WIDTH), Attention()
        self.classify, self.inner = nn.Linear(WIDTH, tokens + 1), nn.Linear(WIDTH, WIDTH)
        if tokens > 1:
            self.classify = nn.Linear(WIDTH, tokens)
        self.head = OF_TOKENS[name]

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        keep = attention_mask > 0
        return {"found": self.head(self, self.layer(self.words(input_ids), keep), keep)}


def masks(batch: int, tokens: int) -> NDArray[np.int64]:
    """No padding, right, left, holes, a sequence without a token: so many batches."""
    found = np.ones((5, batch, tokens), np.int64)
    if tokens > 1:
        found[1, -1, tokens // 2 :] = 0
        found[2, -1, : tokens // 2] = 0
        found[3, :, 1::2] = 0
    if batch > 1:
        found[4, -1] = 0
    return found


@pytest.mark.parametrize(("batch", "tokens"), SHAPES)
@pytest.mark.parametrize("name", OF_TOKENS)
def test_each_token(name: str, batch: int, tokens: int, tmp_path: Path):
    model = Tokens(name, tokens).eval()
    ids = np.random.default_rng(1).integers(1, VOCABULARY, (batch, tokens))
    example = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.ones(batch, tokens, dtype=torch.long),
    }
    for target, load, atol in (("numpy", load_numpy, 1e-4), ("hdp-edge", load_hdp, 6e-2)):
        path = tmp_path / f"program.{'py' if target == 'numpy' else 'hdp'}"
        program = load(compile_model(model, example, target=target, output=path))
        for mask in masks(batch, tokens):
            given = {"input_ids": ids, "attention_mask": mask}
            with torch.no_grad():
                wanted = model(torch.tensor(ids), torch.tensor(mask))["found"].numpy()
            if program.paddings["found"] == "computed":
                # One number of a sequence of one token: nobody can tell it from one of the sequence.
                assert (tokens, wanted.ndim) == (1, 2)
                if not mask.all():
                    with pytest.raises((HeatcError, ValueError), match="no real token"):
                        program.run(given)
                    continue
            compare(program.run(given)["found"], wanted, mask, name, atol)


def compare(
    found: NDArray[Any], wanted: NDArray[Any], mask: NDArray[Any], name: str, atol: float
) -> None:
    """Each token's values; 0 where it is masked."""
    assert found.shape == wanted.shape
    assert not found[mask == 0].any()
    found, wanted = (a[mask != 0].astype(np.float64) for a in (found, wanted))
    if name == "similarities":
        # Both tokens have to be real, and those of a sequence are among its row's columns.
        wanted = np.where(found == 0.0, 0.0, wanted)
    np.testing.assert_allclose(found, wanted, atol=atol)
    if wanted.ndim > 1 and wanted.shape[-1] > 1:
        lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
        assert ((found * wanted).sum(-1) >= COSINE * lengths - 1e-9).all()
