"""
Means by weights, however they are written: their range is that of what is averaged, and 0.

    sum(x m) / sum(m)         the sum as a product and a reduction, or as a contraction
    sum(where(m, x, 0)) / sum(m)      with m truth values or integers
    sum(x w)                  with w = m / sum(m), or w = softmax(m)
    sum(x m) / sqrt(sum(m))   the mean times the root of the sum

with m >= 0, but for a softmax; truth values are, whatever they were compared of. A denominator may be
clamped from below, or have a number of at least 0 added. Between these ops may stand casts, repetitions,
and reshapes that only add or drop axes of extent 1; axes are followed through them, so that equal extents
do not matter.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from xdsl.dialects.builtin import AnyFloat, IntegerType, TensorType
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.analysis.ranges import Range
from heatc.passes.analysis.sizes import is_same

RangeOf = Callable[[SSAValue], Range]
Axes = tuple[int | None, ...]
"""For each axis of a value the one of its source, None where the source is repeated"""
_ABOVE = ("gt", "ne")
"""Comparisons with 0 that are true where a number of at least 0 is not 0"""


@dataclass(frozen=True)
class _Sum:
    """
    A sum of `x` by weights.

    Attributes:
        source: the weights, below what only moves them.
        axes: for each axis of the sum the one of the source.
        summed: the axis of the source that is summed.
        is_chosen: each weight is 1 where the source is not 0, and 0 elsewhere.
        truth: the truth values that such weights are, as long as they are the comparison's own.
    """

    x: SSAValue
    source: SSAValue
    axes: Axes
    summed: int
    is_chosen: bool = False
    truth: SSAValue | None = None


@dataclass(frozen=True)
class _Total:
    """
    The sum of weights that a denominator is at least, or is at least the root of.

    With `is_truth` it is of the truth values that the weights are, whatever their source holds.
    """

    value: SSAValue
    is_root: bool
    is_truth: bool = False


def mean_range(
    op: Operation, range_of: RangeOf, inputs: Mapping[SSAValue, SSAValue]
) -> Range | None:
    """
    The range of a mean by weights, None for any other op.

    `inputs` has what a task's arguments are outside of it, so that it is seen what made them.
    """
    return _Means(range_of, inputs).of(op)


@dataclass(frozen=True)
class _Means:
    """The means of one task."""

    range_of: RangeOf
    inputs: Mapping[SSAValue, SSAValue]

    def of(self, op: Operation) -> Range | None:
        """The range of a mean by weights, None for any other op."""
        if isinstance(op, nn.DivOp):
            return self._quotient(op)
        if not isinstance(op, nn.ReduceOp | ContractOp):
            return None
        found = self._weighted_sum(op.results[0])
        quotient = None if found is None else found.source.owner
        if found is None or found.is_chosen:
            return None
        if isinstance(quotient, nn.SoftmaxOp):
            rank = len(nn.shape_of(quotient.result))
            along = quotient.dim.value.data % rank == found.summed
            return self._within(op, found.x) if along else None
        if not isinstance(quotient, nn.DivOp):
            return None
        source, axes = self._traced(quotient.lhs)
        if axes != _same_axes(source) or nn.shape_of(source) != nn.shape_of(quotient.result):
            return None
        # What divides the weights has their summed axis repeated.
        rest = tuple(None if axis == found.summed else axis for axis in axes)
        weights = _Sum(found.x, source, rest, found.summed)
        total = self._total(quotient.rhs, weights, len(axes))
        if total is None or total.is_root:
            return None
        return self._averaged(op, weights)

    def _quotient(self, op: nn.DivOp) -> Range | None:
        """The range of a weighted sum over the sum of its weights, or over the root of that."""
        found = self._weighted_sum(op.lhs)
        total = None if found is None else self._total(op.rhs, found, len(nn.shape_of(op.result)))
        mean = None
        if found is not None and total is not None:
            mean = self._within(op, found.x) if total.is_truth else self._averaged(op, found)
        if mean is None or total is None or not total.is_root:
            return mean
        most = math.sqrt(max(self.range_of(total.value).whole[1], 0.0))
        return Range(mean.low * most, mean.high * most)

    def _averaged(self, op: Operation, found: _Sum) -> Range | None:
        tensors = [v for v in self.inputs if isinstance(v.type, TensorType)]
        same = [v for v in tensors if self._traced(v)[0] is found.source] or [found.source]
        if all(self.range_of(v).whole[0] < 0.0 for v in same):
            return None
        return self._within(op, found.x)

    def _within(self, op: Operation, averaged: SSAValue) -> Range:
        """What is averaged, and 0."""
        x = self.range_of(averaged)
        last = nn.shape_of(op.results[0])[-1]
        return Range(np.minimum(x.low, 0.0), np.maximum(x.high, 0.0)).over(last)

    def _traced(self, value: SSAValue) -> tuple[SSAValue, Axes]:
        """What a value is made of by casts, repetitions and reshapes around axes of extent 1."""
        axes = _same_axes(value)
        value = self.inputs.get(value, value)
        while (step := _step(value)) is not None:
            value, below = self.inputs.get(step[0], step[0]), step[1]
            axes = tuple(None if axis is None else below[axis] for axis in axes)
        return value, axes

    def _weighted_sum(self, value: SSAValue) -> _Sum | None:
        total, axes = self._traced(value)
        owner = total.owner
        if isinstance(owner, nn.ReduceOp):
            found = self._reduced(owner)
        elif isinstance(owner, ContractOp):
            found = self._contracted(owner)
        else:
            return None
        if found is None:
            return None
        outer = tuple(None if axis is None else found.axes[axis] for axis in axes)
        return replace(found, axes=outer)

    def _reduced(self, op: nn.ReduceOp) -> _Sum | None:
        if op.kind.data != "sum" or len(op.reduced) != 1:
            return None
        (summed,) = op.reduced
        inner = op.x.owner
        if isinstance(inner, nn.WhereOp):
            return self._chosen(inner, summed)
        if not isinstance(inner, nn.MulOp):
            return None
        for x, weights in ((inner.lhs, inner.rhs), (inner.rhs, inner.lhs)):
            found = self._by(x, weights, nn.shape_of(op.x), summed)
            if found is not None:
                return found
        return None

    def _by(
        self,
        x: SSAValue,
        weights: SSAValue,
        shape: tuple[int, ...],
        summed: int,
        above: Sequence[str] = _ABOVE,
    ) -> _Sum | None:
        """A sum along one axis of `x` by weights that are repeated to `shape`."""
        truth, axes = self._traced(weights)
        source, axes, is_chosen = self._counted(truth, axes, above)
        axes = (None,) * (len(shape) - len(axes)) + axes
        axis = axes[summed]
        if axis is None or summed == len(shape) - 1 or nn.shape_of(x) != shape:
            return None
        is_own = is_chosen and above is _ABOVE
        return _Sum(
            x,
            source,
            axes[:summed] + axes[summed + 1 :],
            axis,
            is_chosen,
            truth if is_own else None,
        )

    def _chosen(self, op: nn.WhereOp, summed: int) -> _Sum | None:
        """`where(m, x, 0)`, or `where(not m, 0, x)`."""
        condition, x, zero = op.operands
        while isinstance(owner := self._traced(condition)[0].owner, nn.NotOp):
            if self._traced(condition)[1] != _same_axes(owner.result):
                return None
            condition, x, zero = owner.x, zero, x
        shape = nn.shape_of(op.result)
        if _is_zero(zero):
            return self._by(x, condition, shape, summed)
        if not _is_zero(x):
            return None
        found = self._by(zero, condition, shape, summed, ("eq",))
        return found if found is not None and found.is_chosen else None

    def _counted(
        self, source: SSAValue, axes: Axes, predicates: Sequence[str] = _ABOVE
    ) -> tuple[SSAValue, Axes, bool]:
        """The integers that truth values compare with 0, where they do so, and their axes."""
        compare = source.owner
        if not isinstance(compare, nn.CompareOp) or compare.predicate.data not in predicates:
            return source, axes, False
        root, inner = self._traced(compare.lhs)
        is_whole = nn.shape_of(compare.lhs) == nn.shape_of(compare.result)
        if (
            not is_whole
            or not _is_zero(compare.rhs)
            or not isinstance(nn.element_of(root), IntegerType)
        ):
            return source, axes, False
        return root, tuple(None if axis is None else inner[axis] for axis in axes), True

    def _contracted(self, op: ContractOp) -> _Sum | None:
        terms, result = parse_equation(op.equation.data)
        if len(terms) != 2:
            return None
        for x, weights in ((0, 1), (1, 0)):
            summed = [c for c in dict.fromkeys("".join(terms)) if c not in result]
            if len(summed) != 1 or any(summed[0] not in term for term in terms):
                continue
            # The last axis of the result is x's own, and so are its channels.
            if not result or terms[x][-1] != result[-1] or result[-1] in terms[weights]:
                continue
            truth, axes = self._traced(op.inputs[weights])
            source, axes, is_chosen = self._counted(truth, axes)
            place = dict(zip(terms[weights], axes))
            axis = place[summed[0]]
            if axis is not None:
                outer = tuple(place.get(c) for c in result)
                own = truth if is_chosen else None
                return _Sum(op.inputs[x], source, outer, axis, is_chosen, own)
        return None

    def _total(self, value: SSAValue, weights: _Sum, rank: int) -> _Total | None:
        """The sum of the weights, each where the weighted sum has them, that a value is at least; or its root."""
        axes, is_root = _same_axes(value), False
        while True:
            value, below = self._traced(value)
            axes = tuple(None if axis is None else below[axis] for axis in axes)
            larger = _below(value)
            root = value.owner
            if larger is None and not is_root and isinstance(root, nn.MapOp):
                if root.function.data != "sqrt":
                    return None
                larger, is_root = root.x, True
            if larger is None:
                break
            value = larger
        total = value.owner
        if (
            not isinstance(total, nn.ReduceOp)
            or total.kind.data != "sum"
            or len(total.reduced) != 1
        ):
            return None
        source, inner = self._traced(total.x)
        is_truth = weights.truth is not None and is_same(source, weights.truth)
        if weights.is_chosen:
            source, inner, _ = self._counted(source, inner)
        if not is_same(source, weights.source) or inner[total.reduced[0]] != weights.summed:
            return None
        kept = [axis for i, axis in enumerate(inner) if i not in total.reduced]
        found = tuple(None if axis is None else kept[axis] for axis in axes)
        extents = nn.shape_of(source)
        own, other = (
            (None,) * (rank - len(axes))
            + tuple(None if axis is None or extents[axis] == 1 else axis for axis in axes)
            for axes in (weights.axes, found)
        )
        return _Total(value, is_root, is_truth) if own == other else None


def _same_axes(value: SSAValue) -> Axes:
    return tuple(range(len(nn.shape_of(value))))


def _step(value: SSAValue) -> tuple[SSAValue, Axes] | None:
    owner = value.owner
    if isinstance(owner, nn.CastOp) and _keeps_values(owner):
        return owner.x, _same_axes(value)
    if isinstance(owner, nn.ExpandOp):
        return owner.x, _repeated(nn.shape_of(owner.x), nn.shape_of(value))
    if isinstance(owner, nn.ReshapeOp):
        axes = _reshaped(nn.shape_of(owner.x), nn.shape_of(value))
        return None if axes is None else (owner.x, axes)
    return None


def _keeps_values(op: nn.CastOp) -> bool:
    """Whether a cast loses nothing that weights may hold: it widens, or makes floats of integers."""
    old, new = nn.element_of(op.x), nn.element_of(op.result)
    if isinstance(new, AnyFloat):
        return True
    if not isinstance(old, IntegerType) or not isinstance(new, IntegerType):
        return False
    return old.bitwidth == 1 or old.bitwidth < new.bitwidth or old == new


def _repeated(old: tuple[int, ...], new: tuple[int, ...]) -> Axes:
    lead = len(new) - len(old)
    return tuple(
        axis - lead if axis >= lead and old[axis - lead] == extent else None
        for axis, extent in enumerate(new)
    )


def _reshaped(old: tuple[int, ...], new: tuple[int, ...]) -> Axes | None:
    """Axes of a reshape that moves axes of extent 1 only, None for any other."""
    kept = [axis for axis, extent in enumerate(old) if extent != 1]
    if [old[axis] for axis in kept] != [extent for extent in new if extent != 1]:
        return None
    order = iter(kept)
    return tuple(None if extent == 1 else next(order) for extent in new)


def _is_zero(value: SSAValue) -> bool:
    owner = value.owner
    return isinstance(owner, nn.FullOp) and owner.value.value.data == 0.0


def _below(value: SSAValue) -> SSAValue | None:
    """What a value is at least: a clamp's operand, or a sum's with a number of at least 0."""
    owner = value.owner
    if not isinstance(owner, nn.MaximumOp | nn.AddOp):
        return None
    for own, number in ((owner.lhs, owner.rhs), (owner.rhs, owner.lhs)):
        if not isinstance(number.owner, nn.FullOp) or nn.shape_of(own) != nn.shape_of(value):
            continue
        if isinstance(owner, nn.MaximumOp) or number.owner.value.value.data >= 0.0:
            return own
    return None
