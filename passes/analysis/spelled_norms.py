"""
Norms that are spelled out: a value over the root of its mean square along the last axis.

    x / sqrt(mean(x x) + e) w                        RMS norm
    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + e) w + b        layer norm

The quotient may be a product with `rsqrt`, the mean a sum over the number of elements, and the weight may
stand before the quotient.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import WeightOp


@dataclass(frozen=True)
class Norm:
    """`x` is normed, less its mean where `is_centred`; without weight or offset they are 1 and 0."""

    x: SSAValue
    eps: float
    is_centred: bool
    weight: SSAValue | None = None
    offset: SSAValue | None = None


def find_norm(op: Operation) -> Norm | None:
    """The norm that an op ends, None where it ends none."""
    if isinstance(op, nn.AddOp):
        for inner, offset in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            found = _scaled(inner) if _is_row(offset, inner) else None
            if found is not None and found.is_centred:
                return replace(found, offset=offset)
        return None
    return _scaled(op.results[0])


def _scaled(value: SSAValue) -> Norm | None:
    """A norm, times a weight or not."""
    op = value.owner
    if isinstance(op, nn.MulOp):
        for inner, weight in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            if _is_row(weight, inner):
                found = _plain(inner)
                if found is not None and found.weight is None:
                    return replace(found, weight=weight)
    return _plain(value)


def _is_row(value: SSAValue, other: SSAValue) -> bool:
    """Whether a value is a weight of the width of another one."""
    return isinstance(value.owner, WeightOp) and nn.shape_of(value) == nn.shape_of(other)[-1:]


def _plain(value: SSAValue) -> Norm | None:
    """A quotient by a root of a mean square, or a product with its inverse."""
    op = value.owner
    if isinstance(op, nn.DivOp):
        return _over(op.lhs, _root(op.rhs, "sqrt"))
    if isinstance(op, nn.MulOp):
        for above, below in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            found = _over(above, _root(below, "rsqrt"))
            if found is not None:
                return found
    return None


def _root(value: SSAValue, function: str) -> tuple[SSAValue, float] | None:
    """The mean square that a root is of, and what is added to it."""
    op = value.owner
    if not isinstance(op, nn.MapOp) or op.function.data != function:
        return None
    total = op.x.owner
    if isinstance(total, nn.AddOp):
        for mean, eps in ((total.lhs, total.rhs), (total.rhs, total.lhs)):
            if isinstance(eps.owner, nn.FullOp):
                return mean, eps.owner.value.value.data
    return op.x, 0.0


def _over(above: SSAValue, root: tuple[SSAValue, float] | None) -> Norm | None:
    if root is None:
        return None
    mean, eps = root
    square = _mean(mean)
    if square is None or not isinstance(square.owner, nn.MulOp):
        return None
    x = square.owner.lhs
    if square.owner.rhs is not x:
        return None
    weight: SSAValue | None = None
    if above is not x and isinstance(above.owner, nn.MulOp):
        for inner, row in (
            (above.owner.lhs, above.owner.rhs),
            (above.owner.rhs, above.owner.lhs),
        ):
            if inner is x and _is_row(row, inner):
                above, weight = inner, row
                break
    if above is not x:
        return None
    centred = _centred(x)
    return Norm(x if centred is None else centred, eps, centred is not None, weight)


def _centred(value: SSAValue) -> SSAValue | None:
    """What a value is less its mean."""
    op = value.owner
    if not isinstance(op, nn.SubOp):
        return None
    return op.lhs if _mean(op.rhs) is op.lhs else None


def _mean(value: SSAValue) -> SSAValue | None:
    """What a value is the mean of along the last axis, which it has with extent 1."""
    op, count = value.owner, 0.0
    if isinstance(op, nn.DivOp) and isinstance(op.rhs.owner, nn.FullOp):
        count = op.rhs.owner.value.value.data
        op = op.lhs.owner
    if not isinstance(op, nn.ReshapeOp) or not isinstance(op.x.owner, nn.ReduceOp):
        return None
    reduce = op.x.owner
    shape = nn.shape_of(reduce.x)
    if reduce.reduced != (len(shape) - 1,) or nn.shape_of(op.result) != (*shape[:-1], 1):
        return None
    wanted = ("sum", float(shape[-1])) if count else ("mean", 0.0)
    return reduce.x if (reduce.kind.data, count) == wanted else None
