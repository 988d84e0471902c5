"""Host instructions that read memory: rows by an index, and norms with weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.passes.tiling.host_registers import Held, Registers, Source, refuse

Extents = Callable[[SSAValue], tuple[int, int]]


@dataclass(frozen=True)
class Memory:
    """
    What a task sees of memory.

    Attributes:
        tensor: the tensor of an argument of the task.
        index: the index tensor of an op that reads packed rows.
        extents: the rows and columns of a value at most.
        evaluate: the array of an argument that no input decides.
    """

    tensor: Callable[[SSAValue], SSAValue]
    index: Callable[[Operation], SSAValue]
    extents: Extents
    evaluate: Callable[[SSAValue], Any]


def emit_embedding(regs: Registers, memory: Memory, op: nn.EmbeddingOp) -> None:
    """`hgeti`, at once: a table is read where its rows are."""
    source = _memory_rows(regs, op, op.table)
    held = Held(regs.new(), source.columns)
    rows, _ = memory.extents(op.result)
    regs.e.do(
        "hgeti",
        h=held.register,
        d=source.tensor,
        idx=memory.tensor(op.ids),
        row_reg=regs.e.constant(0),
        rows=rows,
        point=source.point,
    )
    regs.done(op.table)
    regs.done(op.ids)
    regs.set(op.result, held)


def emit_selected(
    regs: Registers, memory: Memory, op: attn.UnpackOp | attn.TokenOp | attn.PackOp
) -> None:
    """Rows that are read where they are used."""
    source = _memory_rows(regs, op, op.x)
    rows, columns = memory.extents(op.result)
    tensor = source.tensor
    if isinstance(op, attn.PackOp):
        rows_in, _ = memory.extents(op.x)
        whole = rows_in * source.columns
        tensor = regs.view(tensor, whole // columns, columns)
    else:
        # Integers lie in one column; rows come back as they are packed.
        rows, columns = rows * columns // source.columns, source.columns
    regs.sources[op.result] = Source(tensor, source.point, rows, columns, memory.index(op))
    regs.done(op.x)


def emit_real(regs: Registers, memory: Memory, op: attn.RealOp) -> None:
    """Whether a position has the row of a real token."""
    rows, _ = memory.extents(op.result)
    regs.sources[op.result] = Source(memory.index(op), 0, rows, 1)
    held = regs.take(op.result)
    regs.reads[op.result] += 1
    del regs.sources[op.result]
    zero = regs.number(0.0)
    regs.e.do("hop", h=held.register, g=zero.register, operation="ge")
    regs.release(zero.register)
    regs.set(op.result, held)


def _memory_rows(regs: Registers, op: Operation, value: SSAValue) -> Source:
    source = regs.source(value)
    if source is None or source.index is not None:
        refuse(op, "of a computed value has no host instruction")
        raise AssertionError
    return source


def emit_norm(regs: Registers, memory: Memory, op: nn.LayerNormOp | nn.RmsNormOp) -> None:
    """`hln`, `hrms`."""
    weights = [op.weight, op.bias] if isinstance(op, nn.LayerNormOp) else [op.weight]
    for value in weights:
        if value not in regs.arguments:
            refuse(op, "by a weight that is computed has no host instruction")
    tensors = [memory.tensor(value) for value in weights]
    held = regs.take(op.x, nn.shape_of(op.x)[-1])
    eps = op.eps.value.data
    if isinstance(op, nn.LayerNormOp):
        regs.e.do("hln", h=held.register, gamma=tensors[0], beta=tensors[1], eps=eps)
    else:
        regs.e.do("hrms", h=held.register, gamma=tensors[0], eps=eps)
    for value in weights:
        regs.done(value)
    regs.set(op.result, held)
