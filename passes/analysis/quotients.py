"""
Quotients that are bounded by what they are made of: means by weights, and vectors over their norm.

Interval arithmetic divides the greatest numerator by the least denominator. Two kinds of quotients
never come near that:

    sum(x m) / max(sum(m), e)         with m >= 0: a mean of x (`passes/analysis/means.py`)
    x / max(sqrt(sum(x x)), e)        no longer than 1, so within -1 and 1
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.means import mean_range
from heatc.passes.analysis.ranges import Range

RangeOf = Callable[[SSAValue], Range]

UNIT = Range.of(-1.0, 1.0)


def quotient_range(
    op: Operation, range_of: RangeOf, inputs: Mapping[SSAValue, SSAValue]
) -> Range | None:
    """The range of a quotient or a mean of one of the kinds, None for any other op."""
    if isinstance(op, nn.DivOp) and _is_norm_of(_at_least(op.rhs), op.lhs):
        return UNIT
    return mean_range(op, range_of, inputs)


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
