"""
Maxima over real tokens: what hides the others is the least of all tokens, and no number.

`max(where(m, x, -inf))` over tokens becomes `max(where(m, x, min(x)))`, where `m` is proven to be true at
real tokens and false at masked ones. Where a sequence has a real token values are the same, and they are
bounded by those of `x`: neither infinity nor the lowest number has a code beside them. A sequence without one
has to be refused by the program, which the packer sees to; so have inputs that attention takes for real and the
maximum does not (-1 in a mask of integers). A fill of -1e6 or less is taken to be below every token. A bias
of 0 and of such a number is taken apart alike; so are minima, whose fills are high.
"""

from __future__ import annotations

from collections.abc import Callable

from xdsl.dialects.builtin import TensorType, i1
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.padding import DOUBTED, KeyPadding
from heatc.passes.analysis.reads import Reads
from heatc.passes.rewriting import insert_before

_OTHER = {"max": "min", "min": "max"}


def bound_maximum(op: Operation, reads: Reads) -> KeyPadding | None:
    """
    Rewrite a maximum or minimum over tokens in place; leave any other op.

    The padding under which the rewritten op is the same, None where nothing was rewritten.
    """
    if not isinstance(op, nn.ReduceOp) or op.kind.data not in _OTHER:
        return None
    if list(op.reduced) != reads.tokens.token_axes(op.x):
        return None
    sign = 1.0 if op.kind.data == "max" else -1.0
    found = _filled(op.x.owner, reads, sign) or _biased(op.x.owner, reads, sign, op)
    if found is None:
        return None
    condition, x, is_true, padding = found
    least = nn.ReduceOp(x, _OTHER[op.kind.data], op.reduced)
    shape = [1 if axis in op.reduced else n for axis, n in enumerate(nn.shape_of(x))]
    kept = nn.ReshapeOp(least.result, shape)
    sides = (x, kept.result) if is_true else (kept.result, x)
    where = nn.WhereOp(condition, *sides, x.type)
    insert_before(op, least, kept, where)
    for new in (least, kept, where):
        new.location = op.location
    op.operands[0] = where.result
    return padding


_Found = tuple[SSAValue, SSAValue, bool, KeyPadding]
"""Truth values, what they choose from, whether they choose it where they are true, and the padding"""


def _filled(op: object, reads: Reads, sign: float) -> _Found | None:
    """`where(m, x, number)` or `where(m, number, x)`."""
    if not isinstance(op, nn.WhereOp) or nn.element_of(op.condition) != i1:
        return None
    for x, other, is_true in ((op.lhs, op.rhs, True), (op.rhs, op.lhs, False)):
        if nn.shape_of(x) != nn.shape_of(op.result):
            continue
        fill = other.owner
        if not isinstance(fill, nn.FullOp) or sign * fill.value.value.data > DOUBTED:
            continue
        padding = reads.told(op.condition, x, *_truth(is_true))
        if padding is not None:
            return op.condition, x, is_true, padding
    return None


def _truth(is_true: bool) -> tuple[Callable[[float], bool], Callable[[float], bool]]:
    """What truth values are at real tokens, and at masked ones."""
    return (lambda v: bool(v) is is_true), (lambda v: bool(v) is not is_true)


def _biased(op: object, reads: Reads, sign: float, anchor: Operation) -> _Found | None:
    """`x + bias`, with a bias that is 0 at real tokens and low at masked ones."""
    if not isinstance(op, nn.AddOp):
        return None
    for x, bias in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        if nn.shape_of(x) != nn.shape_of(op.result):
            continue
        padding = reads.told(bias, x, lambda v: v == 0.0, lambda v: sign * v <= DOUBTED)
        if padding is None:
            continue
        zero = nn.FullOp(0.0, TensorType(nn.element_of(bias), ()))
        is_zero = nn.CompareOp(bias, zero.result, "eq", TensorType(i1, nn.shape_of(bias)))
        insert_before(anchor, zero, is_zero)
        return is_zero.result, x, True, padding
    return None
