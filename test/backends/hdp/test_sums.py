"""Sums of what broadcasts, done by the host: equal shapes or one row, all else is refused."""

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

Shape = tuple[int, ...]


class Sum(torch.nn.Module):
    """x + y."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y


def inputs(x: Shape, y: Shape) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    return {"x": rng.standard_normal(x).astype("f4"), "y": rng.standard_normal(y).astype("f4")}


def compiled(given: dict[str, Any], folder: Path) -> Path:
    example = {name: torch.tensor(value) for name, value in given.items()}
    return heatc.compile(Sum().eval(), example, output=folder / "x.hdp", verify=False)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((4, 5), (4, 5)),
        ((4, 5), (5,)),
        ((4, 5), (1, 5)),
        ((2, 3, 5), (5,)),
        ((1, 1, 5), (3, 5)),
        ((1, 4, 5), (4, 5)),
        ((1,), (1,)),
        ((), ()),
        ((10, 1, 5), (10, 5)),
        ((5, 1), (5,)),
        ((5,), ()),
        ((4, 5), (4, 1)),
        ((2, 3, 5), (3, 5)),
        ((2, 3, 5), (2, 1, 5)),
    ],
)
def test_a_sum_spreads_as_pytorch_does(x: Shape, y: Shape, turned: bool, tmp_path: Path):
    given = inputs(*((y, x) if turned else (x, y)))
    found: Any
    (found,) = simulate(open_program(compiled(given, tmp_path)), given).outputs.values()
    np.testing.assert_allclose(found, given["x"] + given["y"], atol=1e-5)


class TanhOfSum(torch.nn.Module):
    """tanh(x + y + x)."""

    def forward(self, x: Any, y: Any) -> Any:
        return torch.tanh(x + y + x)


def test_a_host_rounds_once(tmp_path: Path):
    """Values stay in float64 until they are stored, in the program and in its level."""
    given = inputs((20, 20), (20, 20))
    example = {name: torch.tensor(value) for name, value in given.items()}
    heatc.compile(TanhOfSum().eval(), example, output=tmp_path / "x.hdp")
    found: Any
    (found,) = simulate(open_program(tmp_path / "x.hdp"), given).outputs.values()
    x, y = (given[name].astype("f8") for name in "xy")
    assert (found == np.tanh(x + y + x).astype("f4")).all()
