"""A `host.task` as host instructions: float64 in host registers, rounded where it leaves."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.isa.table import HOST_REGISTERS
from heatc.passes.rewriting import at, describe_location
from heatc.passes.tiling.emitter import Emitter

TensorOf = Callable[[SSAValue], SSAValue]
IndexOf = Callable[[Operation], SSAValue]
Extents = Callable[[SSAValue], tuple[int, int]]


@dataclass(frozen=True)
class Source:
    """Rows of a tensor that are not read yet: all, or those that an index tensor names."""

    tensor: SSAValue
    point: int
    rows: int
    index: SSAValue | None = None


class HostTask:
    """
    Emits one task.

    `tensor_of` gives the tensor of a task's operand or result, `index_of` the index tensor of an
    `attn.unpack` or `attn.token`, `extents` the rows and columns of a value at most.
    """

    def __init__(self, emitter: Emitter, tensor_of: TensorOf, index_of: IndexOf, extents: Extents):
        self.e = emitter
        self.tensor_of = tensor_of
        self.index_of = index_of
        self.extents = extents
        self.sources: dict[SSAValue, Source] = {}
        self.registers: dict[SSAValue, int] = {}
        self.free: list[int] = []
        self.outer: dict[SSAValue, SSAValue] = {}

    def emit(self, task: TaskOp) -> None:
        """Append the task's instructions; `PassFailedException` for an op without one."""
        block = task.body.block
        self.task = task
        self.outer = dict(zip(block.args, task.inputs))
        self.free = list(range(HOST_REGISTERS))
        for op in block.ops:
            # What is written back belongs to the layer whose result it is.
            self.e.source = task if isinstance(op, YieldOp) else op
            if isinstance(op, YieldOp):
                for value, result in zip(op.arguments, task.outputs):
                    self._put(value, result)
            else:
                self._compute(op)

    def _compute(self, op: Operation) -> None:
        if isinstance(op, DequantizeOp):
            self.sources[op.result] = self._dequantize(op)
        elif isinstance(op, attn.UnpackOp | attn.TokenOp):
            self.sources[op.result] = self._selected(op)
        elif isinstance(op, nn.EmbeddingOp):
            self._embedding(op)
        elif isinstance(op, nn.AddOp):
            self._add(op)
        elif isinstance(op, nn.LayerNormOp):
            gamma, beta = (self.tensor_of(self._outside(v)) for v in (op.weight, op.bias))
            eps: FloatAttr = op.eps
            h = self._take(op.x)
            self.e.do("hln", h=h, gamma=gamma, beta=beta, eps=eps.value.data)
            self.registers[op.result] = h
        elif isinstance(op, nn.GeluOp | nn.TanhOp | nn.ReluOp):
            self._activation(op)
        elif isinstance(op, QuantizeOp | nn.CastOp):
            self._alias(op.x, op.results[0])
        else:
            self._refuse(op, "has no host instruction")

    def _refuse(self, op: Operation, why: str) -> None:
        raise PassFailedException(f"{at(op)}{op.name} {why}")

    def _outside(self, value: SSAValue) -> SSAValue:
        """The task's operand that a block argument stands for."""
        if value not in self.outer:
            raise PassFailedException(
                f"{describe_location(value.owner) if isinstance(value.owner, Operation) else ''}: "
                "a host instruction reads this operand from memory, not from a host register"
            )
        return self.outer[value]

    def _dequantize(self, op: DequantizeOp) -> Source:
        outside = self._outside(op.x)
        element = nn.element_of(outside)
        assert isinstance(element, QType)
        rows, _ = self.extents(outside)
        return Source(self.tensor_of(outside), element.point.data, rows)

    def _selected(self, op: attn.UnpackOp | attn.TokenOp) -> Source:
        source = self.sources.get(op.x)
        if source is None or source.index is not None:
            self._refuse(op, "of a computed value has no host instruction")
            raise AssertionError
        rows, _ = self.extents(op.result)
        return Source(source.tensor, source.point, rows, self.index_of(op))

    def _embedding(self, op: nn.EmbeddingOp) -> None:
        table, ids = (self._outside(v) for v in (op.table, op.ids))
        h = self._new(op)
        rows, _ = self.extents(op.result)
        self.e.do(
            "hgeti",
            h=h,
            d=self.tensor_of(table),
            idx=self.tensor_of(ids),
            row_reg=self.e.constant(0),
            rows=rows,
        )
        self.registers[op.result] = h

    def _add(self, op: nn.AddOp) -> None:
        x, y = self._whole_and_other(op)
        h, g = self._take(x), self._read(y)
        self.e.do("hadd", h=h, g=g)
        self._release(y, g)
        self.registers[op.result] = h

    def _whole_and_other(self, op: nn.AddOp) -> tuple[SSAValue, SSAValue]:
        """The operand that the sum replaces, and the one that is left as it is: all of it, or a row."""
        shape = _without_ones(op.result)
        pairs = [(op.lhs, op.rhs), (op.rhs, op.lhs)]
        fitting = [(x, y) for x, y in pairs if _without_ones(x) == shape and _fits(y, shape)]
        if not fitting:
            lhs, rhs = nn.shape_of(op.lhs), nn.shape_of(op.rhs)
            self._refuse(
                op, f"of {lhs} and {rhs} has no host instruction: it adds equals or one row"
            )
        for x, y in fitting:
            if x not in self.outer and (x not in self.registers or x.has_one_use()):
                return x, y
        return fitting[0]

    def _activation(self, op: nn.GeluOp | nn.TanhOp | nn.ReluOp) -> None:
        if isinstance(op, nn.GeluOp) and op.approximate.data != "none":
            self._refuse(op, f"of approximation {op.approximate.data!r} has no host instruction")
        h = self._take(op.x)
        self.e.do(f"h{op.name.removeprefix('nn.')}", h=h)
        self.registers[op.results[0]] = h

    def _alias(self, old: SSAValue, new: SSAValue) -> None:
        if old in self.sources:
            self.sources[new] = self.sources[old]
        else:
            self.registers[new] = self.registers[old]

    # -- registers -------------------------------------------------------------------------

    def _new(self, op: Operation) -> int:
        if not self.free:
            self._refuse(op, f"needs more than {HOST_REGISTERS} host registers")
        return self.free.pop(0)

    def _read(self, value: SSAValue) -> int:
        """A register that holds a value."""
        if value in self.registers:
            return self.registers[value]
        source = self.sources[value] if value in self.sources else self._constant(value)
        zero, owner = self.e.constant(0), value.owner
        h = self._new(owner if isinstance(owner, Operation) else self.task)
        common = {"d": source.tensor, "row_reg": zero, "rows": source.rows, "point": source.point}
        if source.index is None:
            self.e.do("hget", h=h, **common)
        else:
            self.e.do("hgeti", h=h, idx=source.index, **common)
        return h

    def _constant(self, value: SSAValue) -> Source:
        """A weight, which is float32 already."""
        outside = self._outside(value)
        rows, _ = self.extents(outside)
        return Source(self.tensor_of(outside), 0, rows)

    def _take(self, value: SSAValue) -> int:
        """A register that holds a value and may be overwritten."""
        if value in self.registers and not value.has_one_use():
            owner = value.owner
            assert isinstance(owner, Operation)
            self._refuse(owner, "is read twice, which host registers cannot do")
        return self._read(value)

    def _release(self, value: SSAValue, register: int) -> None:
        if value not in self.registers or value.has_one_use():
            self.free.insert(0, register)

    def _put(self, value: SSAValue, result: SSAValue) -> None:
        element = nn.element_of(result)
        point = element.point.data if isinstance(element, QType) else 0
        h = self._read(value)
        self.e.do("hput", d=self.tensor_of(result), h=h, row_reg=self.e.constant(0), point=point)
        self._release(value, h)


def _without_ones(value: SSAValue) -> tuple[int, ...]:
    """The shape of a value from its first axis on that has more than one element."""
    shape = nn.shape_of(value)
    return tuple(itertools.dropwhile(lambda n: n == 1, shape))


def _fits(value: SSAValue, shape: tuple[int, ...]) -> bool:
    """Whether a value is all of a sum of this shape, or the same row of it again and again."""
    own = _without_ones(value)
    return own == shape or (own == shape[-1:] and nn.TOKENS not in own)
