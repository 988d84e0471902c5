"""
Vectors over their own size: what is bounded although its denominator may be near 0.

    y / sqrt(sum(y y))     y / sum(|y|)     y / max(|y|)          within -1 and 1
    y / sum(y), y >= 0     (x - min(x)) / (max(x) - min(x))       within 0 and 1

A size may be a root of a mean or of a sum over a number, which makes the bound larger by a root; it may
be clamped from below, scaled, or have a number of at least 0 added, before the root and after it. The
quotient may be a product with `rsqrt` or with one over the size. The axes of a size are those of `y`
that it is taken over, with extent 1. What `y` is twice need not be one value: the same ops of the same
operands will do, as where a standard deviation takes the mean again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.ranges import Range

RangeOf = Callable[[SSAValue], Range]
_DEEPEST = 6
"""Ops that are compared to see whether two values are the same."""


@dataclass(frozen=True)
class _Size:
    """
    What a denominator is at least: `factor` times `inner`, or times the root of `inner`.

    `shape` is that of the denominator before it is repeated.
    """

    inner: SSAValue
    factor: float
    is_root: bool
    shape: tuple[int, ...]


def unit_range(op: Operation, range_of: RangeOf) -> Range | None:
    """The range of a vector over its own size, None for any other op."""
    if isinstance(op, nn.DivOp):
        return _over(op.lhs, _size_of(op.rhs), range_of)
    if not isinstance(op, nn.MulOp):
        return None
    for y, factor in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        found = _over(y, _inverse_of(factor), range_of)
        if found is not None:
            return found
    return None


def is_same(a: SSAValue, b: SSAValue, depth: int = _DEEPEST) -> bool:
    """Whether two values are one, or the same ops of the same operands."""
    if a is b:
        return True
    one, other = a.owner, b.owner
    if not isinstance(one, Operation) or not isinstance(other, Operation) or not depth:
        return False
    alike = type(one) is type(other) and one.properties == other.properties and a.type == b.type
    if not alike or not one.operands or len(one.results) > 1 or one.regions:
        return isinstance(one, nn.FullOp) and alike
    pairs = zip(one.operands, other.operands)
    return len(one.operands) == len(other.operands) and all(
        is_same(x, y, depth - 1) for x, y in pairs
    )


# ---- Denominators --------------------------------------------------------------------------------


def _size_of(value: SSAValue) -> _Size | None:
    """What a denominator is at least."""
    value, shape = _unrepeated(value)
    return _walked(value, 1.0, False, shape)


def _inverse_of(value: SSAValue) -> _Size | None:
    """What one over a factor is at least, where the factor is the inverse of a size."""
    value, shape = _unrepeated(value)
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    op = value.owner
    if isinstance(op, nn.MapOp) and op.function.data in ("rsqrt", "reciprocal"):
        return _walked(op.x, 1.0, op.function.data == "rsqrt", shape)
    if not isinstance(op, nn.DivOp):
        return None
    number = _number(op.lhs)
    if number is None or number <= 0.0:
        return None
    return _walked(op.rhs, 1.0 / number, False, shape)


def _unrepeated(value: SSAValue) -> tuple[SSAValue, tuple[int, ...]]:
    """A value and its shape before it is repeated, in which axes are told apart."""
    while isinstance(value.owner, nn.ExpandOp):
        value = value.owner.x
    return value, nn.shape_of(value)


def _walked(value: SSAValue, factor: float, is_root: bool, shape: tuple[int, ...]) -> _Size | None:
    """Below the roots, clamps, numbers and reshapes of a size."""
    while True:
        op = value.owner
        step = _by_number(op)
        if isinstance(op, nn.ReshapeOp):
            value = op.x
        elif isinstance(op, nn.ExpandOp) and nn.shape_of(value) == shape:
            value, shape = op.x, nn.shape_of(op.x)
        elif isinstance(op, nn.MapOp) and op.function.data == "sqrt" and not is_root:
            value, is_root = op.x, True
        elif step is not None and nn.shape_of(step[0]) == nn.shape_of(value):
            value = step[0]
            factor *= math.sqrt(step[1]) if is_root else step[1]
        elif isinstance(op, nn.ReduceOp | nn.SubOp):
            return _Size(value, factor, is_root, shape)
        else:
            return None


def _by_number(op: object) -> tuple[SSAValue, float] | None:
    """What a value is at least, and times what: below a clamp, a sum or a scale by a number."""
    if not isinstance(op, nn.MaximumOp | nn.AddOp | nn.MulOp | nn.DivOp):
        return None
    sides = [(op.lhs, op.rhs)]
    if not isinstance(op, nn.DivOp):
        sides.append((op.rhs, op.lhs))
    for x, other in sides:
        number = _number(other)
        if number is None:
            continue
        if isinstance(op, nn.MaximumOp) or (isinstance(op, nn.AddOp) and number >= 0.0):
            return x, 1.0
        if isinstance(op, nn.MulOp | nn.DivOp) and number > 0.0:
            return x, number if isinstance(op, nn.MulOp) else 1.0 / number
    return None


def _number(value: SSAValue) -> float | None:
    """The number that a value is everywhere, None for any other."""
    op = value.owner
    return op.value.value.data if isinstance(op, nn.FullOp) else None


# ---- Numerators ----------------------------------------------------------------------------------


def _over(y: SSAValue, size: _Size | None, range_of: RangeOf) -> Range | None:
    """The range of `y` over a size that is its own, None over any other."""
    if size is None:
        return None
    op = size.inner.owner
    if isinstance(op, nn.SubOp):
        return None if size.is_root else _scaled(_over_span(y, op, size), size.factor)
    assert isinstance(op, nn.ReduceOp)
    if nn.shape_of(op.x) != nn.shape_of(y) or size.shape != _kept_shape(op):
        return None
    factor = size.factor
    if op.kind.data == "mean":
        # A mean is a sum over how many there are.
        count = math.prod(nn.shape_of(op.x)[axis] for axis in op.reduced)
        if count <= 0:
            return None
        factor /= math.sqrt(count) if size.is_root else count
    elif op.kind.data != "sum" and (op.kind.data != "max" or size.is_root):
        return None
    if size.is_root:
        return _scaled((-1.0, 1.0) if _is_square(op.x, y) else None, factor)
    inner = op.x.owner
    if isinstance(inner, nn.MapOp) and inner.function.data == "abs" and is_same(inner.x, y):
        return _scaled((-1.0, 1.0), factor)
    is_own = is_same(op.x, y) and range_of(y).whole[0] >= 0.0
    return _scaled((0.0, 1.0) if is_own else None, factor)


def _scaled(ends: tuple[float, float] | None, factor: float) -> Range | None:
    return None if ends is None else Range.of(ends[0] / factor, ends[1] / factor)


def _kept_shape(op: nn.ReduceOp) -> tuple[int, ...]:
    """The shape of what is reduced, the axes of the reduction with extent 1."""
    return tuple(1 if i in op.reduced else n for i, n in enumerate(nn.shape_of(op.x)))


def _is_square(value: SSAValue, y: SSAValue) -> bool:
    op = value.owner
    if isinstance(op, nn.MulOp):
        return is_same(op.lhs, y) and is_same(op.rhs, y)
    return isinstance(op, nn.PowOp) and _number(op.rhs) == 2.0 and is_same(op.lhs, y)


_SPANS = {"min": (0.0, 1.0), "max": (-1.0, 0.0), "mean": (-1.0, 1.0)}
"""The ends of `x - m` over `max(x) - min(x)`, by what `m` is of `x`"""


def _over_span(y: SSAValue, span: nn.SubOp, size: _Size) -> tuple[float, float] | None:
    """The ends of `y` over `max(x) - min(x)`, where `y` is `x` less one of `_SPANS`."""
    if not isinstance(y.owner, nn.SubOp):
        return None
    x, taken = y.owner.lhs, [_reduction(v) for v in (span.lhs, span.rhs, y.owner.rhs)]
    for op in taken:
        if op is None or not is_same(op.x, x) or nn.shape_of(x) != nn.shape_of(y):
            return None
        if size.shape != _kept_shape(op):
            return None
    most, least, middle = (op.kind.data for op in taken if op is not None)
    return _SPANS.get(middle) if (most, least) == ("max", "min") else None


def _reduction(value: SSAValue) -> nn.ReduceOp | None:
    """The reduction that a value is, its axes left with extent 1."""
    value, shape = _unrepeated(value)
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    op = value.owner
    is_kept = isinstance(op, nn.ReduceOp) and shape == _kept_shape(op)
    return op if isinstance(op, nn.ReduceOp) and is_kept else None
