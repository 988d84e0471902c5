"""
What is computed of weights alone becomes a weight.

Needs the weights. A chain of contractions, moves, sums, products, quotients, functions and
reductions whose operands are weights, or numbers beside them, is computed once, here, in float64,
rounded to float32, and added to the weights: a program for the machine fetches the result and
computes nothing of it again at every run. What norms scale and shift by becomes a weight, too.
Exact up to that rounding. The new weight is named by what it is made of, `<key>*<key>`; a changed shape is part of
the name. Leaves weights that nothing is done to.

Example (test/passes/fold_weights.mlir): `nn.reshape` of `einsum.weight ["d.1"]` to 8 x 3 becomes
`einsum.weight ["d.1:8x3"]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import Float32Type, ModuleOp, TensorType
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from heatc.context import weights_of
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.nn import (
    AddOp,
    ConcatOp,
    DivOp,
    ExpandOp,
    FullOp,
    LayerNormOp,
    MapOp,
    MulOp,
    NnOp,
    ReduceOp,
    ReshapeOp,
    RmsNormOp,
    SliceOp,
    SubOp,
    TransposeOp,
    element_of,
    shape_of,
)
from heatc.passes.analysis.constants import evaluate, ops_behind
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, insert_before, replace_value
from heatc.weights import WeightStore

_FOLDED = (
    ContractOp,
    ReshapeOp,
    SliceOp,
    TransposeOp,
    ExpandOp,
    ConcatOp,
    AddOp,
    SubOp,
    MulOp,
    DivOp,
    MapOp,
    ReduceOp,
)


def _folded(module: ModuleOp) -> dict[Operation, None]:
    """The ops that only read weights, or what such ops make, in order."""
    found: dict[Operation, None] = {}
    for op in module.walk():
        if not isinstance(op, _FOLDED) or not isinstance(element_of(op.results[0]), Float32Type):
            continue
        makers = [v.owner for v in op.operands]
        weighs = [
            isinstance(m, WeightOp) or (isinstance(m, _FOLDED) and m in found) for m in makers
        ]
        given = zip(weighs, makers)
        if any(weighs) and all(is_one or isinstance(m, FullOp) for is_one, m in given):
            found[op] = None
    return found


class _Folder:
    """Computes values and names them; `names` are those given so far, by what they stand for."""

    def __init__(self, weights: WeightStore):
        self.weights = weights

    def fold(self, op: Operation) -> None:
        """Put a new weight in the place of an op."""
        value = op.results[0]
        made_of = ops_behind(value, lambda op: isinstance(op, WeightOp))
        keys = sorted({key for op in made_of if isinstance(op, WeightOp) for key in op.keys})
        shape = "x".join(str(n) for n in shape_of(value))
        name, number = f"{'*'.join(keys) or 'constant'}:{shape}", 1
        while name in self.weights:
            name, number = f"{'*'.join(keys)}:{shape}.{number}", number + 1
        array = np.ascontiguousarray(evaluate(value, self.weights, wide=True), np.float32)
        self.weights.add(name, array)
        weight = WeightOp([name], TensorType(element_of(value), shape_of(value)))
        insert_before(op, weight)
        replace_value(value, weight.result)


def _fold_norms(ctx: Context, module: ModuleOp) -> None:
    """What norms scale and shift by, which the machine reads from memory, are weights."""
    for op in list(module.walk()):
        if not isinstance(op, LayerNormOp | RmsNormOp):
            continue
        for value in list(op.operands)[1:]:
            maker = value.owner
            if isinstance(maker, WeightOp) or not isinstance(maker, Operation):
                continue
            behind = ops_behind(value, lambda op: isinstance(op, WeightOp))
            if all(isinstance(b, WeightOp | NnOp) and _is_given(b) for b in behind):
                _Folder(weights_of(ctx)).fold(maker)
    erase_dead(module)


def _is_given(op: Operation) -> bool:
    """Whether an op reads results of ops alone, and no argument."""
    return all(isinstance(v.owner, Operation) for v in op.operands)


@dataclass(frozen=True)
class FoldWeightsPass(ModulePass):
    """Constants of the program are computed when it is compiled; exact but for one rounding."""

    name = "fold-weights"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place; `HeatcError` without weights where there is work."""
        _fold_norms(ctx, op)
        found = _folded(op)
        last = [
            inner
            for inner in found
            if not all(use.operation in found for use in inner.results[0].uses)
        ]
        if not last:
            return
        folder = _Folder(weights_of(ctx))
        for inner in last:
            folder.fold(inner)
        erase_dead(op)
