"""
The proof that an attention mask is the key-padding input.

The mask's own subgraph is executed twice, once as if every element of its input were 0 and once
as if every element were 1, while each element also carries the number of the one input element
it depends on. If element (b, h, q, k) depends on input element (b, k) alone, attends at 1 and
does not at 0, the mask is key padding, whatever ops computed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects import nn
from heatc.interpreter.nn import NnFunctions

_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.ExpandOp, nn.SliceOp)
_POINTWISE = (
    nn.AddOp,
    nn.SubOp,
    nn.MulOp,
    nn.DivOp,
    nn.AndOp,
    nn.OrOp,
    nn.CompareOp,
    nn.NotOp,
    nn.CastOp,
    nn.WhereOp,
)
BLOCKED = -1e4
"""An additive mask at or below this removes a key: exp(-1e4) is 0 even in float64."""


class _Unprovable(Exception):
    """An element depends on more than one input element, or on something unknown."""


@dataclass
class Tracked:
    """
    A mask value: what it is when its input element is 0 (`low`) and 1 (`high`).

    `source` holds the number of the input element each element depends on, -1 for none.
    """

    low: NDArray[Any]
    high: NDArray[Any]
    source: NDArray[np.int64]
    input: BlockArgument | None


class MaskTracker:
    """Executes mask subgraphs on tracked values; one tracker serves a whole function."""

    def __init__(self) -> None:
        self._interpreter = Interpreter(ModuleOp([]))
        self._interpreter.register_implementations(NnFunctions())
        self._known: dict[SSAValue, Tracked | None] = {}

    def track(self, value: SSAValue) -> Tracked | None:
        """The tracked form of a value, or None where it cannot be had."""
        if value not in self._known:
            try:
                self._known[value] = self._compute(value)
            except (_Unprovable, InterpretationError):
                self._known[value] = None
        return self._known[value]

    def _operand(self, value: SSAValue) -> Tracked:
        tracked = self.track(value)
        if tracked is None:
            raise _Unprovable
        return tracked

    def _run(self, op: Operation, args: list[Any]) -> Any:
        return self._interpreter.run_op(op, tuple(args))[0]

    def _compute(self, value: SSAValue) -> Tracked:
        owner = value.owner
        if isinstance(value, BlockArgument) or isinstance(owner, Block):
            assert isinstance(value, BlockArgument)
            shape = nn.shape_of(value)
            source = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
            zeros = np.zeros(shape, np.int64)
            return Tracked(zeros, zeros + 1, source, value)
        if isinstance(owner, nn.IotaOp | nn.FullOp):
            constant: NDArray[Any] = self._run(owner, [])
            nowhere: NDArray[np.int64] = np.full(constant.shape, -1, np.int64)
            return Tracked(constant, constant, nowhere, None)
        if isinstance(owner, _MOVES):
            return self._move(owner)
        if isinstance(owner, nn.IndexOp):
            return self._index(owner)
        if isinstance(owner, _POINTWISE):
            return self._pointwise(owner)
        raise _Unprovable

    def _move(self, op: Operation) -> Tracked:
        x = self._operand(op.operands[0])
        low, high, source = (self._run(op, [a]) for a in (x.low, x.high, x.source))
        return Tracked(low, high, source, x.input)

    def _index(self, op: nn.IndexOp) -> Tracked:
        x, indices = self._operand(op.x), [self._operand(i) for i in op.indices]
        if any(i.input is not None for i in indices):
            raise _Unprovable
        at = [i.low for i in indices]
        low, high, source = (self._run(op, [a, *at]) for a in (x.low, x.high, x.source))
        return Tracked(low, high, source, x.input)

    def _pointwise(self, op: Operation) -> Tracked:
        operands = [self._operand(v) for v in op.operands]
        inputs = {t.input for t in operands if t.input is not None}
        if len(inputs) > 1:
            raise _Unprovable
        with np.errstate(all="ignore"):
            low = self._run(op, [t.low for t in operands])
            high = self._run(op, [t.high for t in operands])
        source = np.full(np.shape(low), -1, np.int64)
        for tracked in operands:
            own = np.broadcast_to(tracked.source, source.shape)
            if np.any((own >= 0) & (source >= 0) & (own != source)):
                raise _Unprovable
            source = np.where(own >= 0, own, source)
        return Tracked(low, high, source, inputs.pop() if inputs else None)


def _attends(values: NDArray[Any]) -> NDArray[np.bool_]:
    return values if values.dtype == np.bool_ else values == 0


def _blocks(values: NDArray[Any]) -> NDArray[np.bool_]:
    return ~values if values.dtype == np.bool_ else values <= BLOCKED


@dataclass
class KeyPadding:
    """What a mask was proven to be: key padding from `mask` (B, S), or no mask at all (None)."""

    mask: SSAValue | None


def prove_key_padding(
    tracker: MaskTracker, mask: SSAValue, batch: int, heads: int, length: int
) -> KeyPadding | None:
    """Prove that `mask`, broadcast to (B, heads, S, S), is key padding; None where it is not."""
    tracked = tracker.track(mask)
    if tracked is None:
        return None
    full = (batch, heads, length, length)
    try:
        low, high, source = (
            np.broadcast_to(x, full) for x in (tracked.low, tracked.high, tracked.source)
        )
    except ValueError:
        return None
    if not _attends(high).all():
        return None
    if tracked.input is None or bool((source < 0).all()):
        return KeyPadding(None) if _attends(low).all() else None
    if nn.shape_of(tracked.input) != (batch, length):
        return None
    keys = np.arange(batch * length).reshape(batch, 1, 1, length)
    if not ((source == keys) & _blocks(low)).all():
        return None
    return KeyPadding(tracked.input)
