"""The semantics of `heat-decompose`: the module as it was, with the weights that factors stand for."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, DecompositionAttr, WeightOp
from heatc.heat.formats import Spec, parse_format, parse_shape, rebuild
from heatc.passes.factorising.targets import Target, find_targets
from heatc.passes.rewriting import insert_before
from heatc.weights import WeightStore


def reference_weights(before: ModuleOp, after: ModuleOp, weights: WeightStore) -> WeightStore:
    """
    A store for the module before the pass (after `fuse-projections`, where layers were joined).

    There every factorised layer reads a weight of its own from then on, the matrix of its factors,
    and the bias that makes up for the means; whatever else reads its old weight keeps it.
    """
    arrays = {name: weights[name] for name in weights if name not in weights.added}
    specs = _specs(after)
    for tables in (False, True):
        for target in find_targets(before, "*", tables=tables):
            spec = specs.get(target.path)
            if spec is None:
                continue
            weight = _read(target, "(dense)", _matrix(target, spec, weights), arrays)
            target.op.operands[0 if target.is_table else 1] = weight
            name = f"{target.path}.{len(spec.terms)}"
            if name in weights:
                _take_bias(target, _read(target, "(bias)", weights[name], arrays))
    return WeightStore(arrays)


def _read(
    target: Target,
    name: str,
    array: NDArray[np.generic],
    arrays: dict[str, NDArray[np.generic]],
) -> SSAValue:
    """A weight of a layer's own, which its op can read."""
    arrays[f"{target.path}.{name}"] = array
    op = WeightOp(f"{target.path}.{name}", TensorType(f32, array.shape))
    insert_before(target.op, op)
    return op.result


def _take_bias(target: Target, bias: SSAValue) -> None:
    """Add a bias in the place of a layer's own, or where it has none."""
    if target.bias is not None:
        add, old = target.bias
        add.operands[list(add.operands).index(old.result)] = bias
        return
    result = target.op.results[0]
    add = nn.AddOp(result, bias, result.type)
    Rewriter.insert_op(add, InsertPoint.after(target.op))
    result.replace_uses_with_if(add.result, lambda use: use.operation is not add)


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


def _matrix(target: Target, spec: Spec, weights: WeightStore) -> NDArray[np.float32]:
    """What the factors of a layer stand for, as its op reads it."""
    factors = [
        _factor(target, spec, k, np.asarray(weights[f"{target.path}.{k}"], np.float64))
        for k in range(len(spec.terms))
    ]
    matrix = rebuild(spec, factors)[:, : target.inputs]
    read = matrix.T if target.is_table or target.swapped else matrix
    return np.ascontiguousarray(read, np.float32)


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
