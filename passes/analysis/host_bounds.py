"""What is known of the values of a `host.task`, from what its operands are known to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import AnyFloat
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.interpreter.einsum import weight_array
from heatc.passes.analysis import bounds
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.finite import check_finite, possible_rows
from heatc.passes.rewriting import at
from heatc.weights import WeightStore

MUST_BE_FINITE = (
    "fixed point has no code for it",
    ("use --target numpy, whose program computes with it as PyTorch does",),
)
"""Why a weight of a fixed-point program is refused, and what to do."""


@dataclass
class HostBounds:
    """
    The bounds of one task's values.

    Attributes:
        weights: the model's.
        inputs: the task's operands, by the block's arguments.
        known: of values that have a bound already; those that `of` finds are added, None where
            nothing bounds them.
    """

    weights: WeightStore
    inputs: Mapping[SSAValue, SSAValue]
    known: dict[SSAValue, Bound | None] = field(default_factory=dict[SSAValue, "Bound | None"])

    def of(self, value: SSAValue) -> Bound | None:
        """
        The bound of a value, None where nothing bounds it.

        Raises `HeatcError` where what leads to it reads a weight that is not finite.
        """
        for op in self._leading_to(value):
            self.known[op.results[0]] = self._bound(op)
        return self.known.get(value)

    def _leading_to(self, value: SSAValue) -> Sequence[Operation]:
        """The ops of the task that a value depends on and that have no bound yet, in order."""
        order: dict[Operation, None] = {}
        pending: list[tuple[SSAValue, bool]] = [(value, False)]
        while pending:
            current, done = pending.pop()
            op = current.owner
            if isinstance(op, Block) or current in self.known or op in order:
                continue
            if done:
                order[op] = None
                continue
            pending.append((current, True))
            pending += [(v, False) for v in op.operands]
        return list(order)

    def _bound(self, op: Operation) -> Bound | None:
        weights = {v: self._weight(op, v) for v in op.operands if self._is_weight(v)}
        if isinstance(op, nn.LayerNormOp):
            gamma, beta = (self._given(op, weights, v) for v in (op.weight, op.bias))
            return bounds.of_layer_norm(gamma.astype(np.float64), beta.astype(np.float64))
        if isinstance(op, nn.EmbeddingOp):
            return _of_rows(self._given(op, weights, op.table))
        of = {v: _of_rows(a) for v, a in weights.items() if a.ndim}
        found = [of[v] if v in of else self.known.get(v) for v in op.operands]
        known = [b for b in found if b is not None]
        if isinstance(op, nn.AddOp) and len(known) == 2:
            return bounds.of_sum(*known)
        if not known:
            return None
        match op:
            case nn.GeluOp():
                return bounds.of_gelu(known[0])
            case nn.TanhOp():
                return bounds.of_tanh(known[0])
            case nn.ReluOp():
                return bounds.of_relu(known[0])
            case attn.UnpackOp() | attn.TokenOp():
                return known[0].with_zeros()
            case _:
                return None

    def _is_weight(self, value: SSAValue) -> bool:
        source = self.inputs.get(value)
        if source is None or not isinstance(source.owner, WeightOp):
            return False
        return isinstance(nn.element_of(value), AnyFloat)

    def _weight(self, op: Operation, value: SSAValue) -> NDArray[np.generic]:
        """The values of a weight that an op may read, all of them finite."""
        source = self.inputs[value].owner
        assert isinstance(source, WeightOp)
        array = weight_array(source, self.weights)
        if isinstance(op, nn.EmbeddingOp) and op.table is value and op.ids in self.inputs:
            rows = possible_rows(self.inputs[op.ids], self.weights)
            if rows is not None:
                array = array[rows[(rows >= 0) & (rows < len(array))]]
        check_finite(source, array, op, *MUST_BE_FINITE)
        return array

    def _given(
        self, op: Operation, weights: Mapping[SSAValue, NDArray[np.generic]], value: SSAValue
    ) -> NDArray[np.generic]:
        if value not in weights:
            raise PassFailedException(f"{at(op)}{op.name} of a computed weight")
        return weights[value]


def _of_rows(array: NDArray[np.generic]) -> Bound:
    """The bound of every row of an array."""
    rows = array.reshape(-1, array.shape[-1])
    peak = np.maximum(rows.max(axis=0, initial=0), -rows.min(axis=0, initial=0))
    return Bound(peak.astype(np.float64))
