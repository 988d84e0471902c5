"""What is known of the values of a `host.task`, from what its operands are known to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import AnyFloat, TensorType
from xdsl.ir import Block, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.interpreter.einsum import weight_array
from heatc.passes.analysis import bounds
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.finite import check_finite, possible_rows
from heatc.passes.analysis.quotients import quotient_range
from heatc.passes.analysis.ranges import Range, of_type, range_of
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
        ranges: the ranges of arguments that have no bound: integers, and floats that an input gives.
        known: of values that have a bound already; those that `of` finds are added, None where
            nothing bounds them.
    """

    weights: WeightStore
    inputs: Mapping[SSAValue, SSAValue]
    ranges: dict[SSAValue, Range] = field(default_factory=dict[SSAValue, Range])
    known: dict[SSAValue, Bound | None] = field(default_factory=dict[SSAValue, "Bound | None"])

    def of(self, value: SSAValue) -> Bound | None:
        """
        The bound of a value, None where nothing bounds it.

        Raises `HeatcError` where what leads to it reads a weight that is not finite.
        """
        for op in self._leading_to(value):
            self.known[op.results[0]] = self._bound(op)
        return self.known.get(value)

    def range(self, value: SSAValue) -> Range:
        """The range of a value of the task: its own, or by its bound."""
        self.of(value)
        return self._range(value)

    def _range(self, value: SSAValue) -> Range:
        if value in self.ranges:
            return self.ranges[value]
        bound = self.known.get(value)
        if bound is None:
            return of_type(nn.element_of(value))
        peak = bound.over(_width(value)).peak
        return Range(-peak, peak)

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
        if isinstance(op, nn.RmsNormOp):
            gamma = self._given(op, weights, op.weight)
            return bounds.of_rms_norm(gamma.astype(np.float64))
        of = {v: _of_rows(a) for v, a in weights.items() if a.ndim}
        found = [of[v] if v in of else self.known.get(v) for v in op.operands]
        own = _of_known(op, found)
        if own is not None and not any(v in self.ranges for v in op.operands):
            return own
        for value, array in weights.items():
            self.ranges[value] = _channels(array)
        range_ = quotient_range(op, self._range, self.inputs)
        if range_ is None:
            range_ = range_of(op, [self._range(v) for v in op.operands if _is_tensor(v)])
        self.ranges[op.results[0]] = range_
        return _of_range(range_, op.results[0]) if own is None else own

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


def _is_tensor(value: SSAValue) -> bool:
    return isinstance(value.type, TensorType)


def _of_known(op: Operation, found: Sequence[Bound | None]) -> Bound | None:
    """The bound of an op by those of its operands, where it keeps more than magnitudes."""
    first = found[0] if found else None
    match op:
        case nn.AddOp():
            other = found[1]
            return None if first is None or other is None else bounds.of_sum(first, other)
        case nn.EmbeddingOp():
            return first
        case nn.GeluOp() if first is not None:
            return bounds.of_gelu(first)
        case nn.TanhOp() if first is not None:
            return bounds.of_tanh(first)
        case nn.ReluOp() if first is not None:
            return bounds.of_relu(first)
        case attn.UnpackOp() | attn.TokenOp() if first is not None:
            return first.with_zeros()
        case _:
            return None


def _of_range(found: Range, value: SSAValue) -> Bound | None:
    """Magnitudes of every channel, None where one has no end."""
    peak = np.maximum(np.abs(found.low), np.abs(found.high))
    if not np.isfinite(peak).all():
        return None
    return Bound(np.broadcast_to(peak, (_width(value),)).copy())


def _width(value: SSAValue) -> int:
    """How many channels a value has: its last axis, unless that is the tokens'."""
    shape = nn.shape_of(value)
    return shape[-1] if shape and shape[-1] != nn.TOKENS else 1


def _channels(array: NDArray[np.generic]) -> Range:
    """The range of a weight's channels."""
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    return Range(rows.min(axis=0).astype(np.float64), rows.max(axis=0).astype(np.float64))


def _of_rows(array: NDArray[np.generic]) -> Bound:
    """The bound of every row of an array."""
    rows = array.reshape(-1, array.shape[-1])
    peak = np.maximum(rows.max(axis=0, initial=0), -rows.min(axis=0, initial=0))
    return Bound(peak.astype(np.float64))
