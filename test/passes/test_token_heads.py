"""
What is done with each token and with all of them, on both targets beside PyTorch, on inputs that hurt.

One token, as many sequences as tokens, one sequence; extents that are equal on other axes; padding at
either end, holes, and a sequence that is all padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.support.differential.build import Compiled, load_hdp, load_numpy
from bench.support.families.entry import VOCABULARY, fill
from bench.support.families.heads import ATTENDED, MIXED, OF_TOKENS, POOLED, Head, Headed
from heatc.api import compile as compile_model
from heatc.errors import HeatcError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

SHAPES = ((3, 1), (1, 6), (6, 6))
"""Sequences and tokens; there are as many labels as tokens"""
COSINE = 0.999
LOADERS = {"numpy": load_numpy, "hdp-edge": load_hdp}
ERRORS = {"numpy": 1e-4, "hdp-edge": 6e-2}
"""Largest absolute difference from PyTorch"""


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


class Case:
    """A model with a head, and its programs."""

    def __init__(self, head: Head, batch: int, tokens: int, folder: Path):
        self.model = Headed(head, tokens, max(tokens, 2)).eval().requires_grad_(False)
        fill(self.model)
        self.ids = np.random.default_rng(1).integers(1, VOCABULARY, (batch, tokens))
        self.folder = folder

    def programs(self) -> Iterator[tuple[str, Compiled]]:
        """A program a target, by the target's name."""
        ones = torch.ones(self.ids.shape, dtype=torch.long)
        example = {"input_ids": torch.tensor(self.ids), "attention_mask": ones}
        exported = torch.export.export(self.model, (), example, strict=False)
        for target, load in LOADERS.items():
            path = self.folder / f"program.{'py' if target == 'numpy' else 'hdp'}"
            yield target, load(compile_model(exported, target=target, output=path))

    def wanted(self, mask: NDArray[Any]) -> NDArray[Any]:
        """What PyTorch gives."""
        return self.model(torch.tensor(self.ids), torch.tensor(mask)).numpy()

    def found(self, program: Compiled, mask: NDArray[Any]) -> NDArray[Any]:
        """What a program gives."""
        return program.run({"input_ids": self.ids, "attention_mask": mask})["output"]


@pytest.mark.parametrize(("batch", "tokens"), SHAPES)
@pytest.mark.parametrize("name", OF_TOKENS)
def test_each_token(name: str, batch: int, tokens: int, tmp_path: Path):
    case = Case(OF_TOKENS[name], batch, tokens, tmp_path)
    for target, program in case.programs():
        for mask in masks(batch, tokens):
            wanted = case.wanted(mask)
            if program.paddings["output"] == "computed":
                # One number of a sequence of one token: nobody can tell it from one of the sequence.
                assert (tokens, wanted.ndim) == (1, 2)
                if not mask.all():
                    with pytest.raises((HeatcError, ValueError), match="no real token"):
                        case.found(program, mask)
                    continue
            compare(case.found(program, mask), wanted, mask, name, ERRORS[target])


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


@pytest.mark.parametrize(("batch", "tokens"), SHAPES[1:])
@pytest.mark.parametrize("name", [*POOLED, *MIXED, *ATTENDED])
def test_all_tokens(name: str, batch: int, tokens: int, tmp_path: Path):
    """A sequence that is all padding is refused, or what PyTorch gives."""
    case = Case({**POOLED, **MIXED, **ATTENDED}[name], batch, tokens, tmp_path)
    for target, program in case.programs():
        for mask in masks(batch, tokens):
            wanted = case.wanted(mask)
            try:
                found = case.found(program, mask)
            except (HeatcError, ValueError):
                assert not mask.any(1).all()
                continue
            if program.paddings["output"] == "zero":
                assert not found[mask == 0].any()
                found, wanted = found[mask != 0], wanted[mask != 0]
            np.testing.assert_allclose(found, wanted, atol=ERRORS[target])
