"""A `host.task` as host instructions: float64 in host registers, rounded where it leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from xdsl.dialects.builtin import Float32Type
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import nn
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.passes.rewriting import describe_location
from heatc.passes.tiling.emitter import Emitter
from heatc.passes.tiling.host_registers import Indices, Registers, Source, refuse
from heatc.passes.tiling.host_rows import Memory
from heatc.passes.tiling.host_table import EMIT
from heatc.passes.tiling.tensors import Tensors, width_of

TensorOf = Callable[[SSAValue], SSAValue]
IndexOf = Callable[[Operation], SSAValue]


class HostTask:
    """
    Emits one task.

    `tensor_of` gives the tensor of a task's operand or result, `index_of` the index tensor of an op
    that reads packed rows.
    """

    def __init__(self, tensors: Tensors, tensor_of: TensorOf, index_of: IndexOf):
        self.e: Emitter = tensors.e
        self.tensors = tensors
        self.tensor_of = tensor_of
        self.memory = Memory(
            lambda value: self.tensor_of(self._outside(value)),
            index_of,
            tensors.extents,
            lambda value: tensors.evaluate(self._outside(value)),
        )

    def emit(self, task: TaskOp) -> None:
        """Append the task's instructions; `PassFailedException` for an op without one."""
        block = task.body.block
        self.outer: dict[SSAValue, SSAValue] = dict(zip(block.args, task.inputs))
        reads = Counter(value for op in block.ops for value in op.operands)
        self.regs = Registers(self.e, self.outer, reads, self._argument, self._constant, self._view)
        last = block.last_op
        assert isinstance(last, YieldOp)
        results = dict(zip(last.arguments, task.outputs))
        for op in block.ops:
            self.e.source = op
            made = [v for v in op.results if v in results]
            if made and _leaves(op):
                # What is written back belongs to the layer whose result it is.
                self.e.source = task
                self._put(op.operands[0], results[made[0]])
                continue
            if op is not last:
                self._compute(op)
            self.e.source = task
            for value in made:
                self._put(value, results[value])

    def _compute(self, op: Operation) -> None:
        if isinstance(op, DequantizeOp):
            self.regs.sources[op.result] = self._argument(op.x)
            self.regs.done(op.x)
        elif type(op) in EMIT:
            EMIT[type(op)](self.regs, self.memory, op)
            if isinstance(op, nn.EmbeddingOp):
                self.tensors.limit(self.memory.tensor(op.ids), nn.shape_of(op.table)[0])
        else:
            refuse(op, "has no host instruction")

    def _outside(self, value: SSAValue) -> SSAValue:
        """The task's operand that a block argument stands for."""
        if value not in self.outer:
            raise PassFailedException(
                f"{describe_location(value.owner) if isinstance(value.owner, Operation) else ''}: "
                "a host instruction reads this operand from memory, not from a host register"
            )
        return self.outer[value]

    def _argument(self, argument: SSAValue) -> Source:
        """An argument of the task as rows in memory."""
        outside = self._outside(argument)
        element = nn.element_of(outside)
        rows, _ = self.tensors.extents(outside)
        tensor = self.tensor_of(outside)
        point = element.point.data if isinstance(element, QType) else 0
        return Source(tensor, point, rows, width_of(tensor))

    def _put(self, value: SSAValue, result: SSAValue) -> None:
        element = nn.element_of(result)
        point = element.point.data if isinstance(element, QType) else 0
        zero = self.e.constant(0)
        if value in self.regs.held or isinstance(value.owner, Operation):
            self.regs.read(value)
        tensor = self.tensor_of(result)
        h = self.regs.read(value, width_of(tensor))
        self.e.do("hput", d=tensor, h=h, row_reg=zero, point=point)
        self.regs.done(value)

    def _constant(self, indices: Indices) -> SSAValue:
        """The tensor of an index that the compiler knows."""
        return self.tensors.index(indices)

    def _view(self, tensor: SSAValue, rows: int, columns: int) -> SSAValue:
        return self.tensors.view(tensor, rows, columns, None)


def _leaves(op: Operation) -> bool:
    """Whether an op only rounds what leaves the task, which writing does."""
    if isinstance(op, QuantizeOp):
        return True
    return isinstance(op, nn.CastOp) and isinstance(nn.element_of(op.result), Float32Type)
