"""
Rows by an index that inputs decide become embeddings, and an index that no row has becomes -2.

The machine gathers rows of a table by a tensor of indices; -1 stands for a row of zeros, anything
else outside of the table stops the program. `nn.index` by several indices is one gather of the flat
table. A negative index counts from the end, as in PyTorch.
"""

from __future__ import annotations

import math

from xdsl.dialects.builtin import TensorType, i1, i64
from xdsl.ir import Block, BlockArgument, Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.passes.analysis.host_work import HostWork, is_view
from heatc.passes.rewriting import insert_before, replace_value

NOWHERE = -2
"""An index that the machine refuses."""


class _Writer:
    """Inserts ops before an anchor, integers in i64."""

    def __init__(self, anchor: Operation):
        self.anchor = anchor

    def emit(self, op: Operation) -> SSAValue:
        insert_before(self.anchor, op)
        return op.results[0]

    def number(self, value: int) -> SSAValue:
        return self.emit(nn.FullOp(float(value), TensorType(i64, ())))

    def wide(self, value: SSAValue) -> SSAValue:
        if nn.element_of(value) == i64:
            return value
        return self.emit(nn.CastOp(value, TensorType(i64, nn.shape_of(value))))

    def compare(self, value: SSAValue, predicate: str, number: int) -> SSAValue:
        type_ = TensorType(i1, nn.shape_of(value))
        return self.emit(nn.CompareOp(value, self.number(number), predicate, type_))

    def where(self, condition: SSAValue, a: SSAValue, b: SSAValue) -> SSAValue:
        shape = nn.shape_of(condition)
        return self.emit(nn.WhereOp(condition, a, b, TensorType(i64, shape)))


def index_rows(work: HostWork) -> bool:
    """Rewrite the ops of a function that index by what inputs decide; whether there was one."""
    found = False
    for op in list(work.function.body.block.ops):
        if isinstance(op, nn.IndexOp) and any(work.depends_on_inputs(i) for i in op.indices):
            _as_embedding(op)
            found = True
        elif isinstance(op, nn.EmbeddingOp) and not _is_checked(op.ids):
            _check_ids(op)
            found = True
    return found


def _as_embedding(op: nn.IndexOp) -> None:
    write, shape = _Writer(op), nn.shape_of(op.x)
    count = len(op.indices)
    lead, rest = shape[:count], shape[count:]
    flat: SSAValue | None = None
    outside: SSAValue | None = None
    for extent, index in zip(lead, op.indices):
        own = write.wide(index)
        if not _is_within(index):
            negative = write.compare(own, "lt", 0)
            own = write.where(negative, write.emit(nn.AddOp(own, write.number(extent))), own)
            wrong = write.emit(
                nn.OrOp(write.compare(own, "lt", 0), write.compare(own, "ge", extent))
            )
            outside = wrong if outside is None else write.emit(nn.OrOp(outside, wrong))
        if flat is not None:
            flat = write.emit(nn.MulOp(flat, write.number(extent)))
            own = write.emit(nn.AddOp(flat, own))
        flat = own
    assert flat is not None
    if outside is not None:
        places = nn.shape_of(flat)
        if nn.shape_of(outside) != places:
            outside = write.emit(nn.ExpandOp(outside, places))
        flat = write.where(outside, write.number(NOWHERE), flat)
    table = write.emit(nn.ReshapeOp(op.x, (math.prod(lead), math.prod(rest))))
    rows = write.emit(nn.EmbeddingOp(table, flat))
    replace_value(op.result, write.emit(nn.ReshapeOp(rows, nn.shape_of(op.result))))
    op.detach()
    op.erase()


def _is_within(index: SSAValue) -> bool:
    """Whether an index is in range by what makes it."""
    while isinstance(index.owner, nn.ReshapeOp | nn.CastOp | nn.ExpandOp):
        index = index.owner.operands[0]
    return isinstance(index.owner, nn.ArgmaxOp | nn.IotaOp)


def _is_checked(ids: SSAValue) -> bool:
    """Whether ids are an input, which the runtime checks, constants, or checked here already."""
    value = ids
    while isinstance(value.owner, attn.PackOp) or (
        isinstance(value.owner, Operation) and is_view(value.owner)
    ):
        value = value.owner.operands[0]
    if isinstance(value, BlockArgument) or isinstance(value.owner, Block) or _is_within(value):
        return True
    if isinstance(value.owner, nn.WhereOp):
        chosen = value.owner.lhs.owner
        return isinstance(chosen, nn.FullOp) and chosen.value.value.data == NOWHERE
    return not _reads_argument(value)


def _reads_argument(value: SSAValue) -> bool:
    pending, seen = [value], set[SSAValue]()
    while pending:
        current = pending.pop()
        if isinstance(current, BlockArgument):
            return True
        if current not in seen and isinstance(current.owner, Operation):
            seen.add(current)
            pending += current.owner.operands
    return False


def _check_ids(op: nn.EmbeddingOp) -> None:
    """Negative ids are refused: of -1 the machine would read zeros."""
    reader: Operation = op
    ids = op.ids
    index = 1
    while isinstance(ids.owner, attn.PackOp):
        reader, ids, index = ids.owner, ids.owner.x, 0
    write = _Writer(reader)
    wide = write.wide(ids)
    checked = write.where(write.compare(wide, "lt", 0), write.number(NOWHERE), wide)
    reader.operands[index] = checked
