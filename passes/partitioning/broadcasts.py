"""Operands that registers cannot repeat where they are used are repeated before, by `nn.expand`."""

from __future__ import annotations

from collections.abc import Iterable

from xdsl.ir import Operation

from heatc.dialects import nn
from heatc.passes.analysis.broadcasts import candidates, fits, rows_of
from heatc.passes.rewriting import insert_before


def expand_operands(ops: Iterable[Operation]) -> bool:
    """Expand the operands of host ops that need it; whether one did."""
    found = False
    for op in ops:
        if isinstance(op, nn.BinaryOp | nn.WhereOp):
            found |= _expand(op)
    return found


def _expand(op: nn.BinaryOp | nn.WhereOp) -> bool:
    result = nn.shape_of(op.result)
    shapes = [nn.shape_of(v) for v in op.operands]
    if rows_of(shapes, result) is not None:
        return False
    rows = max(candidates(result), key=lambda n: sum(fits(s, result, n) for s in shapes))
    for index, (value, shape) in enumerate(zip(list(op.operands), shapes)):
        if not fits(shape, result, rows):
            wide = nn.ExpandOp(value, result)
            insert_before(op, wide)
            op.operands[index] = wide.result
    return True
