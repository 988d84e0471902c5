"""
One number everywhere stays one number, whatever moves it.

`nn.full` is written into each task that reads it and lies nowhere in memory. A move of it is another
`nn.full`; where packed rows of it meet rows element by element, a single element does.
"""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from heatc.dialects import attn, nn
from heatc.passes.rewriting import insert_before, replace_value

_MOVES = (nn.ReshapeOp, nn.ExpandOp, nn.SliceOp, nn.TransposeOp)


def move_numbers(function: FuncOp) -> None:
    """Replace moves of numbers in a function."""
    for op in list(function.body.block.ops):
        if not isinstance(op, (*_MOVES, attn.PackOp)) or not isinstance(op.x.owner, nn.FullOp):
            continue
        type_ = op.result.type
        if isinstance(op, attn.PackOp):
            if not all(_repeats(use.operation, use.index) for use in op.result.uses):
                continue
            type_ = TensorType(nn.element_of(op.result), ())
        number = nn.FullOp(op.x.owner.value.value.data, type_)
        insert_before(op, number)
        replace_value(op.result, number.result)


def _repeats(op: Operation, index: int) -> bool:
    """Whether an op has its result's shape without an operand."""
    if not isinstance(op, nn.BinaryOp | nn.WhereOp):
        return False
    others = [nn.shape_of(v) for i, v in enumerate(op.operands) if i != index]
    return nn.broadcast_shapes(*others) == nn.shape_of(op.result)
