"""The semantics of `heat-decompose`: the module as it was, with the weights that factors stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, DecompositionAttr, WeightOp
from heatc.heat.formats import Spec, parse_format, parse_shape, rebuild
from heatc.passes.factorising.targets import Target, find_targets
from heatc.weights import WeightStore


def reference_weights(before: ModuleOp, after: ModuleOp, weights: WeightStore) -> WeightStore:
    """
    A store for the module before the pass (after `fuse-projections`, where layers were joined).

    Every factorised layer's weight is the matrix of its factors there, and its bias the one that
    makes up for the means; all else is the same.
    """
    arrays = {name: weights[name] for name in weights if name not in weights.added}
    specs = _specs(after)
    for tables in (False, True):
        for target in find_targets(before, "*", tables=tables):
            spec = specs.get(target.path)
            if spec is not None:
                _substitute(target, spec, weights, arrays)
    return WeightStore(arrays)


def _specs(module: ModuleOp) -> dict[str, Spec]:
    """The spec of every factorised layer, by its path."""
    found: dict[str, Spec] = {}
    for op in module.walk():
        if not isinstance(op, ContractOp) or op.decomposition is None:
            continue
        path = _factor_name(op.inputs[-1]).rpartition(".")[0]
        found[path] = spec_of(op.decomposition)
    return found


def _factor_name(value: SSAValue) -> str:
    """The name of a factor, or of the factor that rows are taken from."""
    owner = value.owner
    while isinstance(owner, nn.ReshapeOp | nn.EmbeddingOp):
        owner = (owner.x if isinstance(owner, nn.ReshapeOp) else owner.table).owner
    assert isinstance(owner, WeightOp)
    return owner.keys[0]


def spec_of(decomposition: DecompositionAttr) -> Spec:
    """The spec that a contraction's provenance names."""
    format_, shape, ranks, _ = decomposition.data
    return Spec(parse_format(format_), *parse_shape(shape), ranks)


def _substitute(
    target: Target,
    spec: Spec,
    weights: WeightStore,
    arrays: dict[str, NDArray[np.generic]],
) -> None:
    """Put what factors stand for under the names of the layer's own weight and bias."""
    count = len(spec.terms)
    factors = [
        _factor(target, spec, k, np.asarray(weights[f"{target.path}.{k}"], np.float64))
        for k in range(count)
    ]
    matrix = rebuild(spec, factors)[:, : target.inputs]
    stored = matrix.T if target.is_table or target.swapped else matrix
    if target.weight.permutation is not None:
        order = [int(axis) for axis in target.weight.permutation.get_values()]
        stored = stored.transpose(np.argsort(order))
    _split(target.weight, stored, weights, arrays)
    name = f"{target.path}.{count}"
    if name in weights and target.bias is not None:
        _split(target.bias[1], weights[name], weights, arrays)


def _factor(
    target: Target, spec: Spec, number: int, array: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A factor with its axes as its format has them: a table's are stored by row."""
    term = spec.terms[number]
    mode = next((c for c in term if c in spec.input_letters), "") if target.is_table else ""
    if not mode:
        return array
    shape = [spec.extents[c] for c in mode + term.replace(mode, "")]
    return np.moveaxis(array.reshape(shape), 0, term.index(mode))


def _split(
    op: WeightOp,
    stored: NDArray[np.generic],
    weights: WeightStore,
    arrays: dict[str, NDArray[np.generic]],
) -> None:
    start = 0
    for key in op.keys:
        rows = len(weights[key])
        arrays[key] = np.ascontiguousarray(stored[start : start + rows], weights[key].dtype)
        start += rows
