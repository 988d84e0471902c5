"""
Packed rows times a packed mask come back as rows times the mask.

`pack-tokens` packs what is multiplied with packed rows. Where the product only comes back, the rows come
back alone, and are multiplied there: `unpack(x * pack(m))` is `unpack(x) * m`, both 0 where there is no row.
The mask then is not packed, and a mean over tokens stays one task.
"""

from __future__ import annotations

from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from heatc.dialects import attn, nn
from heatc.passes.rewriting import erase_dead, insert_before, replace_value


def unpack_factors(function: FuncOp) -> bool:
    """Rewrite every such product of a function; whether there was one."""
    found = [_rewrite(op) for op in list(function.body.block.ops) if isinstance(op, nn.MulOp)]
    if any(found):
        erase_dead(function)
    return any(found)


def _rewrite(op: nn.MulOp) -> bool:
    for x, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        if isinstance(other.owner, attn.PackOp) and not isinstance(x.owner, attn.PackOp):
            return _comes_back(op, x, other.owner)
    return False


def _comes_back(op: nn.MulOp, x: SSAValue, pack: attn.PackOp) -> bool:
    readers = [use.operation for use in op.result.uses]
    backs = [r for r in readers if isinstance(r, attn.UnpackOp) and r.packing is pack.packing]
    if not backs or len(backs) != len(readers) or nn.shape_of(x) != nn.shape_of(op.result):
        return False
    for back in backs:
        rows = attn.UnpackOp(x, back.packing, read=back.read is not None)
        product = nn.MulOp(rows.result, pack.x, back.result.type)
        insert_before(back, rows, product)
        replace_value(back.result, product.result)
    return True
