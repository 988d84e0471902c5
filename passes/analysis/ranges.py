"""
The least and the greatest of what a host op can give, by interval arithmetic.

A range has one interval for each channel of the last axis, or one for all of them. Infinite ends say
that nothing bounds a value. Every rule is sound: it takes ranges of the operands and nothing else, but
for quotients, which `passes/analysis/quotients.py` reads as means and unit vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerType, i1
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.functions import FUNCTIONS
from heatc.passes.analysis.bounds import GELU_DIP

Vector = NDArray[np.float64]

EXACT = 2.0**53
"""Integers of float64 are exact below this."""


@dataclass(frozen=True)
class Range:
    """The ends of intervals: (d,) each, or (1,) where all channels have the same."""

    low: Vector
    high: Vector

    @classmethod
    def of(cls, low: float, high: float) -> Range:
        """The same interval for all channels."""
        return cls(np.array([low], np.float64), np.array([high], np.float64))

    @property
    def whole(self) -> tuple[float, float]:
        """One interval that holds all channels."""
        return float(self.low.min()), float(self.high.max())

    @property
    def hull(self) -> Range:
        """The same, as a range."""
        return Range.of(*self.whole)

    def joined(self, other: Range) -> Range:
        """What either holds."""
        return Range(np.minimum(self.low, other.low), np.maximum(self.high, other.high))

    def over(self, channels: int) -> Range:
        """Of rows of another width, of the same values in the same order."""
        own = len(self.low)
        if own in (1, channels):
            return self
        if channels % own == 0:
            times = channels // own
            return Range(np.tile(self.low, times), np.tile(self.high, times))
        if own % channels == 0:
            low, high = (v.reshape(-1, channels) for v in (self.low, self.high))
            return Range(low.min(axis=0), high.max(axis=0))
        return self.hull


ANYTHING = Range.of(-math.inf, math.inf)
TRUTH = Range.of(0.0, 1.0)


def of_type(element: Any) -> Range:
    """What an element type holds: truth values, integers of a width, or anything."""
    if element == i1:
        return TRUTH
    unsigned = nn.is_unsigned(element)
    if isinstance(element, IntegerType):
        width = element.bitwidth
        if unsigned:
            return Range.of(0.0, 2.0**width - 1)
        return Range.of(-(2.0 ** (width - 1)), 2.0 ** (width - 1) - 1)
    return ANYTHING


def _corners(a: Range, b: Range, function: Callable[[Vector, Vector], Vector]) -> Range:
    """The ends of a function that is monotone in each of two operands; 0 times anything is 0."""
    with np.errstate(all="ignore"):
        found = [function(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    found = [np.where(np.isnan(f), 0.0, f) for f in found]
    return Range(np.minimum.reduce(found), np.maximum.reduce(found))


def _times(a: Range, b: Range) -> Range:
    return _corners(a, b, np.multiply)


def _mul(op: nn.MulOp, a: Range, b: Range) -> Range:
    return _square(a) if op.lhs is op.rhs else _times(a, b)


def _square(a: Range) -> Range:
    most = np.maximum(a.low * a.low, a.high * a.high)
    least = np.where((a.low <= 0.0) & (a.high >= 0.0), 0.0, np.minimum(a.low**2, a.high**2))
    return Range(least, most)


def inverse(a: Range) -> Range:
    """`1 / a`: anything where 0 is among it."""
    through = (a.low <= 0.0) & (a.high >= 0.0)
    with np.errstate(all="ignore"):
        low, high = 1.0 / a.high, 1.0 / a.low
    return Range(np.where(through, -math.inf, low), np.where(through, math.inf, high))


def _div(op: nn.DivOp, a: Range, b: Range) -> Range:
    return _times(a, inverse(b))


def _pow(op: nn.PowOp, a: Range, b: Range) -> Range:
    (low, high), (n, m) = a.whole, b.whole
    if n == m == 2.0:
        return _square(a)
    if n == m and n > 0 and n == int(n):
        ends = (_power(low, n), _power(high, n))
        if n % 2:
            return Range.of(*ends)
        return Range.of(0.0 if low <= 0.0 <= high else min(ends), max(ends))
    if low >= 0.0 and n >= 0.0 and math.isfinite(high) and math.isfinite(m):
        corners = [_power(x, y) for x in (low, high) for y in (n, m)]
        return Range.of(min(corners), max(corners))
    return Range.of(0.0, math.inf) if low > 0.0 else ANYTHING


def _power(x: float, n: float) -> float:
    try:
        return float(x**n)
    except OverflowError:
        return math.inf if x > 0.0 or n % 2 == 0 else -math.inf


def _floor_div(op: nn.FloorDivOp, a: Range, b: Range) -> Range:
    found = _times(a, inverse(b))
    return Range(np.floor(found.low), np.floor(found.high))


def _remainder(op: nn.RemainderOp, a: Range, b: Range) -> Range:
    low, high = b.whole
    return Range.of(min(low, 0.0), max(high, 0.0))


def _logic(op: Operation, a: Range, b: Range) -> Range:
    return of_type(nn.element_of(op.results[0]))


BINARY: Mapping[type[Operation], Callable[[Any, Range, Range], Range]] = {
    nn.AddOp: lambda op, a, b: Range(a.low + b.low, a.high + b.high),
    nn.SubOp: lambda op, a, b: Range(a.low - b.high, a.high - b.low),
    nn.MulOp: _mul,
    nn.DivOp: _div,
    nn.MaximumOp: lambda op, a, b: Range(np.maximum(a.low, b.low), np.maximum(a.high, b.high)),
    nn.MinimumOp: lambda op, a, b: Range(np.minimum(a.low, b.low), np.minimum(a.high, b.high)),
    nn.PowOp: _pow,
    nn.FloorDivOp: _floor_div,
    nn.RemainderOp: _remainder,
    nn.AndOp: _logic,
    nn.OrOp: _logic,
    nn.CompareOp: _logic,
}


def _extents(value: SSAValue) -> tuple[int, ...]:
    return nn.shape_of(value)


def _map(op: nn.MapOp, x: Range) -> Range:
    reach = FUNCTIONS[op.function.data].reach
    if len(x.low) == 1 or np.ptp(x.low) == 0.0 == np.ptp(x.high):
        return Range.of(*_reached(reach, *x.whole))
    ends = [_reached(reach, float(a), float(b)) for a, b in zip(x.low, x.high)]
    low, high = np.array(ends, np.float64).T
    return Range(low, high)


def _reached(
    reach: Callable[[float, float], tuple[float, float]], low: float, high: float
) -> tuple[float, float]:
    found = reach(low, high)
    return (-math.inf, math.inf) if any(math.isnan(end) for end in found) else found


def _gelu(op: nn.GeluOp, x: Range) -> Range:
    return Range(np.maximum(np.minimum(x.low, 0.0), -GELU_DIP), np.maximum(x.high, 0.0))


def _reduce(op: nn.ReduceOp, x: Range) -> Range:
    kind, shape = op.kind.data, _extents(op.x)
    if kind in ("any", "all"):
        return TRUTH
    last = len(shape) - 1
    count = math.prod(shape[axis] for axis in op.reduced)
    if nn.TOKENS in (shape[axis] for axis in op.reduced):
        return ANYTHING
    if kind == "sum" and last in op.reduced and len(x.low) > 1:
        others = count // shape[last]
        return Range.of(float(x.low.sum()) * others, float(x.high.sum()) * others)
    kept = x.hull if last in op.reduced else x
    if kind == "sum":
        return Range(kept.low * count, kept.high * count)
    if kind == "prod":
        within = max(map(abs, kept.whole)) <= 1.0
        return Range.of(-1.0 if kept.whole[0] < 0.0 else 0.0, 1.0) if within else ANYTHING
    return kept


def _cumsum(op: nn.CumsumOp, x: Range) -> Range:
    count = _extents(op.x)[op.axis.value.data]
    low, high = x.whole
    return Range.of(min(low, low * count), max(high, high * count))


def _softmax(op: nn.SoftmaxOp, x: Range) -> Range:
    return TRUTH


def _cast(op: nn.CastOp, x: Range) -> Range:
    element = nn.element_of(op.result)
    if not isinstance(element, IntegerType):
        return x
    held = of_type(element)
    low, high = x.whole
    inside = (
        held.whole[0] <= math.trunc(low) and math.trunc(high) <= held.whole[1]
        if (math.isfinite(low) and math.isfinite(high))
        else False
    )
    if element == i1 or not inside:
        return held
    return Range(np.trunc(x.low), np.trunc(x.high))


def _reshape(op: nn.ReshapeOp, x: Range) -> Range:
    shape = _extents(op.result)
    return x.over(shape[-1]) if shape else x.hull


def _transpose(op: nn.TransposeOp, x: Range) -> Range:
    order = [int(axis) for axis in op.permutation.get_values()]
    return x if not order or order[-1] == len(order) - 1 else x.hull


def _slice(op: nn.SliceOp, x: Range) -> Range:
    if len(x.low) == 1:
        return x
    start, step = (int(list(a.get_values())[-1]) for a in (op.starts, op.steps))
    size = _extents(op.result)[-1]
    part = slice(start, start + (size - 1) * step + 1, step)
    return Range(x.low[part], x.high[part])


def _index(op: nn.IndexOp, x: Range) -> Range:
    return x if len(op.indices) < len(_extents(op.x)) else x.hull


def _argmax(op: nn.ArgmaxOp, x: Range) -> Range:
    return Range.of(0.0, _extents(op.x)[op.axis.value.data] - 1.0)


def _not(op: nn.NotOp, x: Range) -> Range:
    return of_type(nn.element_of(op.result))


UNARY: Mapping[type[Operation], Callable[[Any, Range], Range]] = {
    nn.MapOp: _map,
    nn.GeluOp: _gelu,
    nn.TanhOp: lambda op, x: Range(np.tanh(x.low), np.tanh(x.high)),
    nn.ReluOp: lambda op, x: Range(np.maximum(x.low, 0.0), np.maximum(x.high, 0.0)),
    nn.NotOp: _not,
    nn.CastOp: _cast,
    nn.ReduceOp: _reduce,
    nn.CumsumOp: _cumsum,
    nn.ArgmaxOp: _argmax,
    nn.SoftmaxOp: _softmax,
    nn.ReshapeOp: _reshape,
    nn.TransposeOp: _transpose,
    nn.ExpandOp: lambda op, x: x,
    nn.SliceOp: _slice,
    nn.IndexOp: _index,
    nn.EmbeddingOp: lambda op, x: x,
    attn.UnpackOp: lambda op, x: x.joined(Range.of(0.0, 0.0)),
    attn.TokenOp: lambda op, x: x.joined(Range.of(0.0, 0.0)),
    attn.PackOp: lambda op, x: x,
}
"""By op; of the first operand's range."""


def _where(op: nn.WhereOp, ranges: Sequence[Range]) -> Range:
    return _chosen(op, ranges[1]).joined(ranges[2])


def _chosen(op: nn.WhereOp, x: Range) -> Range:
    """What is left of a value that is chosen where it is above, or below, a number."""
    compare = op.condition.owner
    if not isinstance(compare, nn.CompareOp) or compare.lhs is not op.lhs:
        return x
    if not isinstance(compare.rhs.owner, nn.FullOp):
        return x
    limit = float(compare.rhs.owner.value.value.data)
    if compare.predicate.data in ("gt", "ge"):
        low = np.maximum(x.low, limit)
        return Range(low, np.maximum(x.high, low))
    if compare.predicate.data in ("lt", "le"):
        high = np.minimum(x.high, limit)
        return Range(np.minimum(x.low, high), high)
    return x


def _concat(op: nn.ConcatOp, ranges: Sequence[Range]) -> Range:
    if op.dim.value.data < len(_extents(op.result)) - 1:
        found = ranges[0]
        for other in ranges[1:]:
            found = found.joined(other)
        return found
    widths = [_extents(v)[-1] for v in op.inputs]
    ends = [[np.broadcast_to(e, (w,)) for e in (r.low, r.high)] for r, w in zip(ranges, widths)]
    low, high = (np.concatenate([pair[i] for pair in ends]) for i in (0, 1))
    return Range(low, high)


def _contract(op: ContractOp, ranges: Sequence[Range]) -> Range:
    terms, result = parse_equation(op.equation.data)
    extents = {c: n for t, v in zip(terms, op.inputs) for c, n in zip(t, _extents(v))}
    depth = math.prod(n for c, n in extents.items() if c not in result)
    if depth < 0:
        return ANYTHING
    found = ranges[0].hull
    for other in ranges[1:]:
        found = _times(found, other.hull)
    return Range(found.low * depth, found.high * depth)


def _iota(op: nn.IotaOp, ranges: Sequence[Range]) -> Range:
    start, step = op.start.value.data, op.step.value.data
    ends = (start, start + step * (_extents(op.result)[0] - 1))
    return Range.of(float(min(ends)), float(max(ends)))


MANY: Mapping[type[Operation], Callable[[Any, Sequence[Range]], Range]] = {
    nn.WhereOp: _where,
    nn.ConcatOp: _concat,
    ContractOp: _contract,
    nn.IotaOp: _iota,
    nn.FullOp: lambda op, ranges: Range.of(op.value.value.data, op.value.value.data),
    attn.RealOp: lambda op, ranges: TRUTH,
}
"""By op; of all operands' ranges."""


def range_of(op: Operation, ranges: Sequence[Range]) -> Range:
    """The range of an op's result by those of its operands; `ANYTHING` where no rule says it."""
    kind = type(op)
    if kind in BINARY:
        found = BINARY[kind](op, ranges[0], ranges[1])
    elif kind in UNARY:
        found = UNARY[kind](op, ranges[0])
    elif kind in MANY:
        found = MANY[kind](op, ranges)
    else:
        return of_type(nn.element_of(op.results[0]))
    return _contained(op, found)


def _contained(op: Operation, found: Range) -> Range:
    """Anything that its type holds, where an integer may wrap around, or where nothing is known."""
    if bool(np.isnan(found.low).any() or np.isnan(found.high).any()):
        found = ANYTHING
    element = nn.element_of(op.results[0])
    if not isinstance(element, IntegerType):
        return found
    held = of_type(element)
    inside = found.whole[0] >= held.whole[0] and found.whole[1] <= held.whole[1]
    return found if inside else held
