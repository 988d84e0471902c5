"""Inputs of every integer type: the port keeps it, and every value means what it does in PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heatc
from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.simulation import simulate

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Attention(torch.nn.Module):
    """Attention of embedded ids to those that a mask lets through."""

    def __init__(self, attends: Any):
        super().__init__()
        self.attends = attends
        self.table = torch.nn.Embedding(60, 16)
        self.query = torch.nn.Linear(16, 16)

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.table(ids.long())
        keys = self.attends(mask)[:, None, :]
        return torch.nn.functional.scaled_dot_product_attention(self.query(x), x, x, keys)


REAL = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 0, 1]], np.bool_)


@pytest.mark.parametrize(
    ("dtype", "port", "real", "padding", "attends"),
    [
        ("bool", "bool", 1, 0, lambda mask: mask),
        ("int8", "int8", 1, 120, lambda mask: mask <= 100),
        ("int8", "int8", -128, 127, lambda mask: mask < 0),
        ("int8", "int8", 2, 1, lambda mask: mask > 1),
        ("int8", "int8", 1, -1, lambda mask: (mask > 0) & (mask.int() <= 200)),
        ("uint8", "int16", 200, 255, lambda mask: mask <= 250),
        ("int16", "int16", 1, 300, lambda mask: mask < 256),
        ("int32", "int32", -1, 256, lambda mask: mask < 0),
        ("int64", "int64", 0, 256, lambda mask: mask == 0),
    ],
)
def test_masks(dtype: str, port: str, real: int, padding: int, attends: Any, tmp_path: Path):
    torch.manual_seed(0)
    model = Attention(attends).eval()
    rng = np.random.default_rng(3)
    mask = np.where(REAL, real, padding).astype(dtype)
    given = {"ids": rng.integers(0, 60, REAL.shape), "mask": mask}
    example = {name: torch.tensor(array) for name, array in given.items()}
    heatc.compile(model, example, output=tmp_path / "x.hdp")
    program = open_program(tmp_path / "x.hdp")
    assert [p.dtype for p in program.manifest.inputs if p.name == "mask"] == [port]
    found: Any
    (found,) = simulate(program, given).outputs.values()
    with torch.no_grad():
        expected = model(**example).numpy()
    np.testing.assert_allclose(found[REAL], expected[REAL], atol=1e-2)
    assert not found[~REAL].any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "int64"])
def test_ids(dtype: str, tmp_path: Path):
    """An i8 in memory may be an integer or a truth value."""
    torch.manual_seed(0)
    model = Attention(lambda mask: mask > 0).eval()
    ids = np.arange(50, 60).reshape(REAL.shape).astype(dtype)
    given = {"ids": ids, "mask": np.ones(REAL.shape, np.int64)}
    example = {name: torch.tensor(array) for name, array in given.items()}
    heatc.compile(model, example, output=tmp_path / "x.hdp")
    found: Any
    (found,) = simulate(open_program(tmp_path / "x.hdp"), given).outputs.values()
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**example).numpy(), atol=1e-2)
