"""
Quotients that are bounded by what they are made of: means by weights, and vectors over their norm.

Interval arithmetic divides the greatest numerator by the least denominator. Two kinds of quotients
never come near that:

    sum(x m) / max(sum(m), e)         with m >= 0: a mean of x, so within the ends of x and 0
    x / max(sqrt(sum(x x)), e)        no longer than 1, so within -1 and 1
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.ranges import Range

RangeOf = Callable[[SSAValue], Range]

UNIT = Range.of(-1.0, 1.0)


def quotient_range(op: Operation, range_of: RangeOf) -> Range | None:
    """The range of a quotient of one of the kinds, None for any other op."""
    if not isinstance(op, nn.DivOp):
        return None
    below = _at_least(op.rhs)
    if _is_norm_of(below, op.lhs):
        return UNIT
    return _mean(op.lhs, below, range_of)


def _at_least(value: SSAValue) -> SSAValue:
    """What a denominator is at least: below clamps and repetitions."""
    while True:
        owner = value.owner
        if isinstance(owner, nn.ExpandOp):
            value = owner.x
        elif isinstance(owner, nn.MaximumOp) and _is_number(owner.rhs):
            value = owner.lhs
        elif isinstance(owner, nn.MaximumOp) and _is_number(owner.lhs):
            value = owner.rhs
        else:
            return value


def _is_number(value: SSAValue) -> bool:
    return isinstance(value.owner, nn.FullOp)


def _kept_axes(value: SSAValue) -> nn.ReduceOp | None:
    """The sum that a value is, its axes left with extent 1 or dropped."""
    owner = value.owner
    if isinstance(owner, nn.ReshapeOp):
        inner = owner.x.owner
        if not isinstance(inner, nn.ReduceOp):
            return None
        kept = [1 if i in inner.reduced else n for i, n in enumerate(nn.shape_of(inner.x))]
        return inner if tuple(kept) == nn.shape_of(owner.result) else None
    return owner if isinstance(owner, nn.ReduceOp) else None


def _is_norm_of(value: SSAValue, x: SSAValue) -> bool:
    """Whether a value is the Euclidean norm of `x` along axes, which it has with extent 1."""
    root = value.owner
    if isinstance(root, nn.ReshapeOp) and isinstance(root.x.owner, nn.MapOp):
        return _is_reshaped_norm(root, x)
    if not isinstance(root, nn.MapOp) or root.function.data != "sqrt":
        return False
    return isinstance(root.x.owner, nn.ReshapeOp) and _squares(_kept_axes(root.x), x)


def _is_reshaped_norm(reshape: nn.ReshapeOp, x: SSAValue) -> bool:
    root = reshape.x.owner
    if not isinstance(root, nn.MapOp) or root.function.data != "sqrt":
        return False
    total = root.x.owner
    if not isinstance(total, nn.ReduceOp) or not _squares(total, x):
        return False
    kept = [1 if i in total.reduced else n for i, n in enumerate(nn.shape_of(x))]
    return tuple(kept) == nn.shape_of(reshape.result)


def _squares(total: nn.ReduceOp | None, x: SSAValue) -> bool:
    """Whether a reduction sums the squares of `x`."""
    if total is None or total.kind.data != "sum":
        return False
    square = total.x.owner
    if isinstance(square, nn.MulOp):
        return square.lhs is x and square.rhs is x
    if not isinstance(square, nn.PowOp) or square.lhs is not x:
        return False
    exponent = square.rhs.owner
    return isinstance(exponent, nn.FullOp) and exponent.value.value.data == 2.0


def _mean(total: SSAValue, below: SSAValue, range_of: RangeOf) -> Range | None:
    above, weights = _kept_axes(total), _kept_axes(below)
    if above is None or weights is None or above.kind.data != "sum" or weights.kind.data != "sum":
        return None
    product, m = above.x.owner, weights.x
    if above.reduced != weights.reduced or not isinstance(product, nn.MulOp):
        return None
    if len(nn.shape_of(m)) != len(nn.shape_of(above.x)):
        return None
    if len(nn.shape_of(total)) != len(nn.shape_of(below)):
        return None
    if m not in (product.lhs, product.rhs):
        return None
    if any(nn.shape_of(m)[axis] != nn.shape_of(above.x)[axis] for axis in above.reduced):
        return None
    x = product.rhs if product.lhs is m else product.lhs
    if range_of(m).whole[0] < 0.0:
        return None
    found = range_of(x)
    return Range(np.minimum(found.low, 0.0), np.maximum(found.high, 0.0))
