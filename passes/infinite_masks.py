"""
Weights that hold minus infinity and are added to scores, as truth values that choose it.

A causal mask that a model keeps in a buffer, as `nn.Transformer.generate_square_subsequent_mask` makes
it, becomes what `masked_fill` would have left: `nn.where %hidden, -inf, %rest`. The passes behind
read which keys that hides, and fixed point needs no code for infinity. Values are the same.
"""

from __future__ import annotations

import math

import numpy as np
from xdsl.dialects.builtin import Float32Type, ModuleOp, TensorType, f32, i1
from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import WeightOp
from heatc.interpreter.einsum import weight_array
from heatc.passes.rewriting import insert_before, replace_value
from heatc.weights import WeightStore

_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.ExpandOp)
_HIDDEN, _REST = ":hidden", ":rest"
"""What is added to the name of the weight."""


def added_masks(module: ModuleOp) -> list[WeightOp]:
    """The weights that are added, or given to an attention as its mask, and read by nothing else."""
    found = (op for op in module.walk() if isinstance(op, WeightOp))
    return [
        op
        for op in found
        if isinstance(nn.element_of(op.result), Float32Type) and _is_added(op.result)
    ]


def _is_added(value: SSAValue) -> bool:
    pending, is_added = list(value.uses), False
    while pending:
        use = pending.pop()
        if isinstance(use.operation, _MOVES):
            pending += use.operation.results[0].uses
        elif isinstance(use.operation, nn.AddOp) or (
            isinstance(use.operation, nn.SdpaOp) and use.index > 2
        ):
            is_added = True
        else:
            return False
    return is_added


def choose_infinities(op: WeightOp, weights: WeightStore) -> None:
    """Put `nn.where` in the place of a mask that holds minus infinity, and numbers beside it."""
    values = weight_array(op, weights)
    hidden = values == -math.inf
    if not hidden.any() or not np.isfinite(values[~hidden]).all():
        return
    type_ = op.result.type
    name, shape = op.keys[0], nn.shape_of(op.result)
    chosen = WeightOp([_add(weights, name + _HIDDEN, hidden)], TensorType(i1, shape))
    rest = nn.FullOp(0.0, TensorType(f32, ()))
    if values[~hidden].any():
        finite = np.where(hidden, np.float32(0.0), values)
        rest = WeightOp([_add(weights, name + _REST, finite)], type_)
    infinity = nn.FullOp(-math.inf, TensorType(f32, ()))
    where = nn.WhereOp(chosen.result, infinity.result, rest.result, type_)
    for new in (chosen, infinity, rest, where):
        insert_before(op, new)
        new.location = op.location
    replace_value(op.result, where.result)


def _add(weights: WeightStore, name: str, array: np.ndarray) -> str:
    while name in weights:
        name += "'"
    weights.add(name, array)
    return name
