"""
Each task computes the numbers that hide for itself.

A mask of -1e9 and 0, with a bias in it, has no good codes: what fits 32 bits beside -1e9 is coarse. Where
one task would read such a mask from another, through memory, it gets a copy of the ops that make it.
They read inputs, weights and numbers alone, and compute elements by themselves.
"""

from __future__ import annotations

from xdsl.dialects.builtin import AnyFloat, TensorType
from xdsl.ir import Block, Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import WeightOp
from heatc.passes.analysis.host_work import HostWork, reads_memory
from heatc.passes.analysis.padding import BLOCKED, POINTWISE
from heatc.passes.rewriting import insert_before

_MOVES = (nn.ReshapeOp, nn.ExpandOp, nn.SliceOp, nn.TransposeOp)
_MOST = 32
"""Ops that are done again for one task."""


def repeat_fills(work: HostWork) -> bool:
    """Copy what makes masks into the tasks that read them; whether there was any."""
    tasks = {op: number for number, ops in enumerate(work.tasks) for op in ops}
    copies: dict[tuple[int, SSAValue], SSAValue] = {}
    for op in work.ops:
        if reads_memory(op):
            continue
        for index, value in enumerate(op.operands):
            if isinstance(value.owner, Block | nn.FullOp):
                continue
            if tasks.get(value.owner) == tasks[op]:
                continue
            made_by = _made_by(value)
            if not any(_is_fill(maker) for maker in made_by):
                continue
            key = (tasks[op], value)
            if key not in copies:
                copies[key] = _copied(value, made_by, op)
            op.operands[index] = copies[key]
    return bool(copies)


def _made_by(value: SSAValue) -> list[Operation]:
    """The ops that make a float value of inputs, weights and numbers, in order; none if others do."""
    if not isinstance(value.type, TensorType) or not isinstance(nn.element_of(value), AnyFloat):
        return []
    found: dict[Operation, None] = {}
    pending = [(value, False)]
    while pending:
        current, done = pending.pop()
        op = current.owner
        if isinstance(op, Block | WeightOp) or op in found:
            continue
        if not isinstance(op, (*POINTWISE, *_MOVES, nn.FullOp, nn.IotaOp)):
            return []
        if done or not op.operands:
            found[op] = None
            continue
        pending += [(current, True), *((operand, False) for operand in op.operands)]
    return list(found) if len(found) <= _MOST else []


def _is_fill(op: Operation) -> bool:
    return isinstance(op, nn.FullOp) and abs(op.value.value.data) >= -BLOCKED


def _copied(value: SSAValue, made_by: list[Operation], reader: Operation) -> SSAValue:
    copies: dict[SSAValue, SSAValue] = {}
    for op in made_by:
        if isinstance(op, nn.FullOp):
            continue
        copy = op.clone()
        copy.operands = [copies.get(operand, operand) for operand in op.operands]
        copy.location = op.location
        copy.results[0].name_hint = op.results[0].name_hint
        insert_before(reader, copy)
        copies[op.results[0]] = copy.results[0]
    return copies[value]
