"""
What meets packed masks element by element, and only comes back, meets them where it is back.

`pack-tokens` packs what is combined with packed rows. Where the result only comes back, the rows come
back alone, and the op is done there:

- `unpack(x * pack(m))` is `unpack(x) * m`, both 0 where there is no row;
- where every position has a row, any op of elements may change places with `unpack`.

The mask then is not packed, a mean or a maximum over tokens stays one task, and a fill of -1e9 is no code.
"""

from __future__ import annotations

from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.passes.rewriting import erase_dead, insert_before, replace_value

_ELEMENTWISE = (nn.BinaryOp, nn.WhereOp, nn.NotOp)
_DEEP = 4
"""Ops between a mask and what it is combined with, at most."""


def unpack_factors(function: FuncOp) -> bool:
    """Rewrite every such op of a function, last first; whether there was one."""
    ops = reversed(list(function.body.block.ops))
    found = [_rewrite(op) for op in ops if isinstance(op, _ELEMENTWISE)]
    if any(found):
        erase_dead(function)
    return any(found)


def _rewrite(op: Operation) -> bool:
    result = op.results[0]
    readers = [use.operation for use in result.uses]
    backs = [r for r in readers if isinstance(r, attn.UnpackOp)]
    if not backs or len(backs) != len(readers) or not any(_is_packed(v) for v in op.operands):
        return False
    packings = {back.packing for back in backs}
    if len(packings) > 1 or not all(_may_swap(op, back) for back in backs):
        return False
    for back in backs:
        operands = [_back(v, back) for v in op.operands]
        new = op.create(
            operands=operands, result_types=[back.result.type], properties=dict(op.properties)
        )
        insert_before(back, new)
        replace_value(back.result, new.results[0])
    return True


def _is_packed(value: SSAValue, depth: int = _DEEP) -> bool:
    """Whether a value is a packed input or constant, or computed from such alone."""
    op = value.owner
    if isinstance(op, attn.PackOp):
        return True
    if not isinstance(op, _ELEMENTWISE) or not depth:
        return False
    packed = [v for v in op.operands if nn.TOKENS in nn.shape_of(v)]
    return bool(packed) and all(_is_packed(v, depth - 1) for v in packed)


def _may_swap(op: Operation, back: attn.UnpackOp) -> bool:
    """Whether what is 0 without a row is that still when the op is done behind."""
    _, length = attn.packing_of(back.packing).shape
    owner = back.packing.owner
    is_full = isinstance(owner, attn.PackingOp) and owner.mask is None
    reads = attn.packing_of(back.packing).reads
    if is_full or (back.read is not None and len(reads) == length):
        return True
    comes_back = [nn.TOKENS in nn.shape_of(v) and not _is_pack(v) for v in op.operands]
    return isinstance(op, nn.MulOp) and any(comes_back)


def _is_pack(value: SSAValue) -> bool:
    return isinstance(value.owner, attn.PackOp)


def _back(value: SSAValue, back: attn.UnpackOp) -> SSAValue:
    """An operand where rows are back."""
    if nn.TOKENS not in nn.shape_of(value):
        return value
    if isinstance(value.owner, attn.PackOp) and value.owner.packing is back.packing:
        return value.owner.x
    rows = attn.UnpackOp(value, back.packing, read=back.read is not None)
    insert_before(back, rows)
    return rows.result
