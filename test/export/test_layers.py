"""The layers of an exported modeling.py against the matrix that their factors stand for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from export_kit import FORMATS

from heatc.export.factors import factor_names
from heatc.export.runtime.layers import EinsumLinear, LowRankLinear, make_layer
from heatc.heat.formats import Spec, parse_shape, rebuild

pytestmark = pytest.mark.torch


def spec_of(name: str) -> Spec:
    heat = FORMATS[name]
    shape = parse_shape(heat.get("shape", "32|32"))
    return Spec(heat["format"], *shape, tuple(heat["ranks"]))


def described(spec: Spec, path: list[list[int]], kind: str = "linear") -> dict[str, Any]:
    terms = zip(factor_names(spec), spec.terms, spec.factor_shapes)
    return {
        "kind": kind,
        "format": spec.format,
        "inputs": list(spec.inputs),
        "outputs": list(spec.outputs),
        "factors": {n: {"indices": t, "shape": list(s)} for n, t, s in terms},
        "path": path,
        "rows": math.prod(spec.inputs),
    }


def chain(operands: int) -> list[list[int]]:
    """Each operand in turn with the result of those before."""
    first = [[0, 1]]
    return first + [[operands + k, k + 2] for k in range(operands - 2)]


def weights_first(operands: int) -> list[list[int]]:
    """The factors meet each other, and their product meets the input last."""
    path = [[1, 2]] if operands > 2 else []
    path += [[operands + k, k + 3] for k in range(operands - 3)]
    return [*path, [0, 2 * operands - 3 if operands > 2 else 1]]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("path", [chain, weights_first])
def test_a_linear_is_its_matrix(name: str, path: Any):
    spec = spec_of(name)
    bias = torch.nn.Parameter(torch.linspace(-1, 1, 32))
    layer = make_layer(described(spec, path(len(spec.terms) + 1)), bias)
    is_chain = path is chain
    assert isinstance(layer, LowRankLinear if name == "low-rank" and is_chain else EinsumLinear)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in spec.factor_shapes]
    for factor, array in zip(layer.factors(), arrays):
        factor.data = torch.tensor(array, dtype=torch.float64)
    layer.double()
    matrix = rebuild(spec, arrays)
    x = rng.standard_normal((2, 3, 32))
    found = layer(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, x @ matrix.T + np.linspace(-1, 1, 32), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(layer.weight.detach().numpy(), matrix, rtol=1e-12, atol=1e-12)


def test_a_table_gives_its_rows():
    """Ids of several digits: a train of cores, two of which hold a mode of the rows."""
    spec = Spec("tt", (5, 12), (8, 4), (4, 6, 4))
    description = described(spec, [[0, 1], [4, 2], [5, 3]], "embedding")
    for number, term in enumerate(spec.terms):
        mode = next((c for c in term if c in spec.input_letters), "")
        indices = mode + term.replace(mode, "")
        shape = [spec.extents[c] for c in indices]
        description["factors"][f"core_{number}"] = {"indices": indices, "shape": shape}
    description["rows"] = 57
    layer = make_layer(description, None)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in spec.factor_shapes]
    for factor, array, term in zip(layer.factors(), arrays, spec.terms):
        mode = next((c for c in term if c in spec.input_letters), "")
        moved = np.moveaxis(array, term.index(mode), 0)
        factor.data = torch.tensor(moved.copy(), dtype=torch.float64)
    table = rebuild(spec, arrays).T
    ids = np.array([[0, 1, 56], [11, 12, 13]])
    found = layer(torch.tensor(ids)).detach().numpy()
    np.testing.assert_allclose(found, table[ids], atol=1e-12)
    np.testing.assert_allclose(layer.weight.detach().numpy(), table[:57], atol=1e-12)
