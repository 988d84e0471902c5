"""
The proof that an attention mask is key padding, and for which values of the model's input.

The ops of a mask are run for a few values, each time as if every element of the input had that
value. Each element of the mask carries the number of the one input element that it depends on. The
mask is key padding if element (b, h, q, k) depends on input element (b, k) alone. It is so for
every value at which it attends everywhere or hides everything. Other values are left to a check at
run time. Nothing is assumed between the values that were tried, with one exception: where the mask
only compares its input with constants, the answer changes at these constants alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import AnyFloat, IntegerType, ModuleOp, i1
from xdsl.interpreter import Interpreter
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects import nn
from heatc.dialects.einsum import WeightOp
from heatc.interpreter.einsum import EinsumFunctions
from heatc.interpreter.nn import NnFunctions
from heatc.interpreter.nn_math import NnMathFunctions
from heatc.interpreter.values import dtype_of
from heatc.intervals import Interval
from heatc.passes.analysis.layout import constant_scalar
from heatc.weights import WeightStore

_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.ExpandOp, nn.SliceOp)
POINTWISE = (
    nn.AddOp,
    nn.SubOp,
    nn.MulOp,
    nn.DivOp,
    nn.MaximumOp,
    nn.MinimumOp,
    nn.PowOp,
    nn.FloorDivOp,
    nn.RemainderOp,
    nn.MapOp,
    nn.AndOp,
    nn.OrOp,
    nn.CompareOp,
    nn.NotOp,
    nn.CastOp,
    nn.WhereOp,
)
"""Ops that masks are made of, and that compute each element by itself."""

BLOCKED = -1e4
"""A score at or below this has no part in a softmax with others: exp(-1e4) is 0 in float64."""

DOUBTED = -1e6
"""Above this, scores of a few thousand are in doubt: docs/design/padding.md says what is assumed."""

_STRONGEST = -1e5
"""A mask that hides by no less than this may weigh: codes of 32 bits are fine enough for what it adds."""

_EXACT = float(1 << 24)
"""Integers below this are numbers of float32."""

Array = NDArray[Any]


_DEEPEST = 100
"""Ops between an input and a mask that are followed."""


class _Unprovable(Exception):
    """An element depends on more than one input element, or on something unknown."""


def _compact(array: Array) -> Array:
    """One element along every axis along which an array repeats itself."""
    repeats = (stride == 0 and n > 1 for stride, n in zip(array.strides, array.shape))
    return array[tuple(slice(0, 1) if r else slice(None) for r in repeats)]


@dataclass
class Traced:
    """
    A value as a function of one input, element by element.

    Attributes:
        ops: what computes the value, in order.
        source: of each element the number of the input element that it depends on, -1 for none.
        input: the input; None for a value that is the same in every run.
        plain: whether the value is the input's own, moved, or cast without a change of order.
        cut: whether it depends on the input by comparisons with constants alone.
        constants: the constants of these ops.
    """

    ops: tuple[Operation, ...]
    source: NDArray[np.int64]
    input: BlockArgument | None = None
    plain: bool = False
    cut: bool = True
    constants: frozenset[float] = frozenset()


class MaskTracker:
    """
    Traces and runs masks' ops; one tracker serves a whole function.

    Without `weights` a weight is not traced: its numbers are not known.
    """

    def __init__(self, weights: WeightStore | None = None) -> None:
        self._interpreter = Interpreter(ModuleOp([]))
        self._interpreter.register_implementations(NnFunctions())
        self._interpreter.register_implementations(NnMathFunctions())
        if weights is not None:
            self._interpreter.register_implementations(EinsumFunctions(weights))
        self._knows_weights = weights is not None
        self._known: dict[SSAValue, Traced | None] = {}
        self._depth = 0

    def trace(self, value: SSAValue) -> Traced | None:
        """The traced form of a value, or None where it cannot be had."""
        if value not in self._known:
            self._depth += 1
            try:
                self._known[value] = self._compute(value) if self._depth < _DEEPEST else None
            except (_Unprovable, InterpretationError):
                self._known[value] = None
            finally:
                self._depth -= 1
        return self._known[value]

    def depends(self, value: SSAValue) -> bool:
        """Whether a traced value depends on an input."""
        traced = self.trace(value)
        return traced is not None and traced.input is not None

    def run(self, value: SSAValue, number: float) -> Array:
        """What a traced value is where every element of its input is one number."""
        traced = self.trace(value)
        assert traced is not None
        found: dict[SSAValue, Array] = {}
        if traced.input is not None:
            dtype = dtype_of(nn.element_of(traced.input))
            shape = nn.shape_of(traced.input)
            found[traced.input] = np.broadcast_to(np.asarray(number).astype(dtype), shape)
        with np.errstate(all="ignore"):
            for op in traced.ops:
                found[op.results[0]] = self._step(op, [found[v] for v in op.operands])
        return found[value]

    def _step(self, op: Operation, args: Sequence[Array]) -> Array:
        """One op; what repeats itself along an axis is computed once."""
        if isinstance(op, POINTWISE):
            args = [_compact(a) for a in args]
        result: Array = self._interpreter.run_op(op, tuple(args))[0]
        return np.broadcast_to(result, nn.shape_of(op.results[0]))

    def _operand(self, value: SSAValue) -> Traced:
        traced = self.trace(value)
        if traced is None:
            raise _Unprovable
        return traced

    def _compute(self, value: SSAValue) -> Traced:
        shape, owner = nn.shape_of(value), value.owner
        if isinstance(value, BlockArgument):
            source = np.arange(math.prod(shape), dtype=np.int64).reshape(shape)
            return Traced((), source, value, plain=True, cut=False)
        nowhere = np.broadcast_to(np.int64(-1), shape)
        if isinstance(owner, nn.FullOp):
            return Traced((owner,), nowhere, constants=frozenset([owner.value.value.data]))
        if isinstance(owner, nn.IotaOp) or (isinstance(owner, WeightOp) and self._knows_weights):
            return Traced((owner,), nowhere)
        if isinstance(owner, _MOVES):
            x = self._operand(owner.operands[0])
            return self._of(owner, [x], self._step(owner, [x.source]), x.plain, x.cut)
        if isinstance(owner, nn.IndexOp):
            return self._index(owner)
        if isinstance(owner, POINTWISE):
            return self._pointwise(owner)
        raise _Unprovable

    def _of(
        self,
        op: Operation,
        operands: Sequence[Traced],
        source: NDArray[np.int64],
        plain: bool,
        cut: bool,
    ) -> Traced:
        inputs = {t.input for t in operands if t.input is not None}
        if len(inputs) > 1:
            raise _Unprovable
        ops = dict.fromkeys(o for t in operands for o in t.ops)
        return Traced(
            (*ops, op),
            source,
            inputs.pop() if inputs else None,
            plain,
            cut,
            frozenset[float]().union(*(t.constants for t in operands)),
        )

    def _index(self, op: nn.IndexOp) -> Traced:
        x, indices = self._operand(op.x), [self._operand(i) for i in op.indices]
        if any(i.input is not None for i in indices):
            raise _Unprovable
        at = [self.run(i, 0.0) for i in op.indices]
        source = self._step(op, [x.source, *at])
        return self._of(op, [x, *indices], source, x.plain, x.cut)

    def _pointwise(self, op: Operation) -> Traced:
        operands = [self._operand(v) for v in op.operands]
        sources = [_compact(t.source) for t in operands]
        shape = np.broadcast_shapes(*(s.shape for s in sources))
        source = np.full(shape, -1, np.int64)
        for own in sources:
            if np.any((own >= 0) & (source >= 0) & (own != source)):
                raise _Unprovable
            source = np.where(own >= 0, own, source)
        whole = np.broadcast_to(source, nn.shape_of(op.results[0]))
        dependent = [t for t in operands if t.input is not None]
        plain = isinstance(op, nn.CastOp) and operands[0].plain and _keeps_order(op)
        cut = not plain and (all(t.cut for t in dependent) or self._cuts(op, operands))
        return self._of(op, operands, whole, plain, cut)

    def _cuts(self, op: Operation, operands: Sequence[Traced]) -> bool:
        """Whether an op compares the input with a constant, or with 0 by becoming a truth value."""
        if isinstance(op, nn.CastOp):
            return operands[0].plain and nn.element_of(op.result) == i1
        if not isinstance(op, nn.CompareOp):
            return False
        for own, other in ((0, 1), (1, 0)):
            constant = constant_scalar(op.operands[other])
            if operands[own].plain and constant is not None:
                return abs(constant) < _EXACT
        return False


def _keeps_order(op: nn.CastOp) -> bool:
    """Whether a cast gives every number that a mask may hold a number in the same order."""
    source, target = nn.element_of(op.x), nn.element_of(op.result)
    from_unsigned, to_unsigned = nn.is_unsigned(source), nn.is_unsigned(target)
    if target == i1:
        return source == i1
    if not isinstance(target, IntegerType):
        return True
    if not isinstance(source, IntegerType):
        return False
    if source == i1:
        return True
    if to_unsigned:
        return from_unsigned and target.bitwidth >= source.bitwidth
    return target.bitwidth >= source.bitwidth + from_unsigned


def _attends(values: Array) -> bool:
    return bool((values if values.dtype == np.bool_ else values == 0).all())


def _hides(values: Array, fill: float) -> bool:
    if values.dtype == np.bool_:
        return fill <= BLOCKED and not values.any()
    return bool((values <= BLOCKED).all())


@dataclass(frozen=True)
class KeyPadding:
    """
    What a mask was proven to be: key padding of `mask`, an input of B * S elements in order.

    A token is real where the input's value is in `real`, masked where it is in `masked`. Without
    an input the mask hides nothing. `weakest` is the greatest score that a hidden key is left.
    """

    mask: BlockArgument | None
    real: tuple[Interval, ...] = ()
    masked: tuple[Interval, ...] = ()
    weakest: float = field(default=-math.inf, compare=False)


def prove_key_padding(
    tracker: MaskTracker, mask: SSAValue, fill: float, batch: int, heads: int, length: int
) -> KeyPadding | None:
    """
    Prove that `mask`, broadcast to (B, heads, S, S), is key padding; None where it is not.

    `fill` is the score that a mask of truth values leaves where it is false.
    """
    traced = tracker.trace(mask)
    if traced is None:
        return None
    if traced.input is None or bool((_compact(traced.source) < 0).all()):
        return KeyPadding(None) if _attends(tracker.run(mask, 0.0)) else None
    source = _of_keys(traced, batch, heads, length)
    if source is None or bool((source < 0).any()):
        return None
    return _padding(tracker, mask, fill, _attends, lambda values: _hides(values, fill))


def prove_masking(
    tracker: MaskTracker, mask: SSAValue, fill: float, batch: int, heads: int, length: int
) -> KeyPadding | None:
    """
    Prove that a masked key is hidden from every other token, and each real token sees itself.

    What real tokens see beside themselves is not asked. The arguments are those of
    `prove_key_padding`.
    """
    traced = tracker.trace(mask)
    if traced is None or traced.input is None or _of_keys(traced, batch, heads, length) is None:
        return None

    def sees_itself(values: Array) -> bool:
        return not hidden(values, fill, length).diagonal(axis1=-2, axis2=-1).any()

    def is_hidden(values: Array) -> bool:
        own = np.eye(length, dtype=np.bool_) & (length > 1)
        return bool((hidden(values, fill, length) | own).all())

    return _padding(tracker, mask, fill, sees_itself, is_hidden)


def prove_query_padding(
    tracker: MaskTracker, mask: SSAValue, fill: float, batch: int, heads: int, length: int
) -> KeyPadding | None:
    """
    Prove that a mask hides all keys from masked queries, and none from others.

    The result says which tokens are masked. The arguments are those of `prove_key_padding`.
    """
    traced = tracker.trace(mask)
    if traced is None or traced.input is None:
        return None
    if math.prod(nn.shape_of(traced.input)) != batch * length:
        return None
    queries = np.arange(batch * length).reshape(batch, 1, length, 1)
    try:
        source = np.broadcast_to(traced.source, (batch, heads, length, length))
    except ValueError:
        return None
    if not (source == queries).all():
        return None
    return _padding(tracker, mask, fill, _attends, lambda values: _hides(values, fill))


def softened(tracker: MaskTracker, mask: SSAValue, padding: KeyPadding) -> KeyPadding | None:
    """
    The padding of a mask that weighs keys: what it adds to the scores of real tokens is -5000 at least.

    So is one that is added and a linear function of its input, such as (1 - m) * -10000, where floats
    from 1/2 to 1 are real. As much at least lies between a real token and a masked one. None for any
    other mask, for one that hides keys by different numbers, and for one that hides by more than
    `_STRONGEST`: numbers between hide as well.
    """
    traced = tracker.trace(mask)
    if traced is None or traced.cut or padding.mask is None or padding.weakest < _STRONGEST:
        return None
    if not isinstance(nn.element_of(padding.mask), AnyFloat) or not _is_linear(tracker, traced):
        return None
    (real, _), *more = padding.real
    (masked, _), *others = padding.masked
    if more or others or np.ptp(tracker.run(mask, masked)):
        return None
    softest = real + (masked - real) * min(0.5, BLOCKED / 2 / padding.weakest)
    return replace(padding, real=((min(real, softest), max(real, softest)),))


def _is_linear(tracker: MaskTracker, traced: Traced) -> bool:
    """Whether a value is a constant times its input, plus a constant."""
    for op in traced.ops:
        depends = [tracker.depends(v) for v in op.operands]
        if not any(depends) or isinstance(op, _MOVES):
            continue
        if isinstance(op, nn.CastOp) and isinstance(nn.element_of(op.result), AnyFloat):
            continue
        if isinstance(op, nn.AddOp | nn.SubOp | nn.MulOp) and not all(depends):
            continue
        return False
    return True


def hidden(values: Array, fill: float, length: int) -> NDArray[np.bool_]:
    """Which keys a mask hides from which query, (..., S, S)."""
    values = _compact(np.atleast_2d(values))
    found = ~values & (fill <= BLOCKED) if values.dtype == np.bool_ else values <= BLOCKED
    return np.broadcast_to(found, (*values.shape[:-2], length, length))


def _of_keys(traced: Traced, batch: int, heads: int, length: int) -> NDArray[np.int64] | None:
    """The sources of a mask's elements, if each depends on its own key of its sequence at most."""
    assert traced.input is not None
    if math.prod(nn.shape_of(traced.input)) != batch * length:
        return None
    try:
        source = np.broadcast_to(traced.source, (batch, heads, length, length))
    except ValueError:
        return None
    keys = np.arange(batch * length).reshape(batch, 1, 1, length)
    return source if bool(((source == keys) | (source < 0)).all()) else None


def _padding(
    tracker: MaskTracker,
    mask: SSAValue,
    fill: float,
    is_real: Callable[[Array], bool],
    is_masked: Callable[[Array], bool],
) -> KeyPadding | None:
    """The key padding of a mask by what it is for each value of its input."""
    traced = tracker.trace(mask)
    assert traced is not None
    assert traced.input is not None
    real: list[Interval] = []
    masked: list[Interval] = []
    weakest = -math.inf
    for low, high, tried in _pieces(traced):
        values = tracker.run(mask, tried)
        if is_masked(values):
            masked.append((low, high))
            least = fill if values.dtype == np.bool_ else float(values[values <= BLOCKED].max())
            weakest = max(weakest, least)
        elif is_real(values):
            real.append((low, high))
        elif traced.cut or tried in (0.0, 1.0):
            # A weak bias, such as (1 - mask) * -1000: values that masks usually have do neither.
            return None
    if traced.cut and not masked:
        # It compares with what no value of the input is beyond.
        return KeyPadding(None)
    if not real or not masked:
        return None
    gap = 1.0 if isinstance(nn.element_of(traced.input), IntegerType) else 0.0
    return KeyPadding(traced.input, merged(real, gap), merged(masked, gap), weakest)


def vanishes(
    tracker: MaskTracker, value: SSAValue, padding: KeyPadding, positions: NDArray[np.int64]
) -> bool:
    """Whether a value is 0 at masked positions, see `values_at`."""
    found = values_at(tracker, value, padding, positions, padding.masked)
    return found is not None and not any(array.any() for _, array in found)


def values_at(
    tracker: MaskTracker,
    value: SSAValue,
    padding: KeyPadding,
    positions: NDArray[np.int64],
    sets: Sequence[Interval],
) -> list[tuple[Interval, Array]] | None:
    """
    A value for every input of some sets: intervals of inputs, and what it is with one of each everywhere.

    `positions`, which broadcasts to the value, has the number b * S + s that each element is of. None
    where an element is made of more than the mask at its own position, or where values between the ends
    of a set may give others.
    """
    traced = tracker.trace(value)
    if traced is None or traced.input is None or traced.input is not padding.mask:
        return None
    try:
        wanted = np.broadcast_to(positions, traced.source.shape)
    except ValueError:
        return None
    if not (traced.source == wanted).all():
        return None
    if traced.cut:
        tried = [
            (max(low, first), min(high, last), number)
            for low, high, number in _pieces(traced)
            for first, last in sets
            if first <= high and low <= last
        ]
    elif all(low == high for low, high in sets):
        tried = [(low, low, low) for low, _ in sets]
    else:
        return None
    return [((low, high), tracker.run(value, number)) for low, high, number in tried]


def _pieces(traced: Traced) -> Iterable[tuple[float, float, float]]:
    """Ascending sets of input values that the mask cannot tell apart, each with one of them."""
    assert traced.input is not None
    element = nn.element_of(traced.input)
    if element == i1:
        return [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]
    whole = isinstance(element, IntegerType)
    finite = {c for c in traced.constants if math.isfinite(c) and abs(c) < _EXACT}
    if not traced.cut:
        near = {math.floor(c) + d for c in finite for d in (-1, 0, 1)} | {-100, -1, 0, 1, 2, 3}
        points = {float(c) for c in near} if whole else {0.0, 1.0}
        least, most = _range(traced.input) if whole else (0.0, 1.0)
        return [(p, p, p) for p in sorted(points) if least <= p <= most]
    ends = sorted(finite | {0.0})
    pieces: list[tuple[float, float, float]] = []
    below = -math.inf
    for end in ends:
        low, high = (math.ceil(end), math.floor(end)) if whole else (end, end)
        before = low - 1.0 if whole else _next(end, -math.inf)
        pieces.append((below, before, before))
        if low <= high:
            pieces.append((float(low), float(high), float(low)))
        below = high + 1.0 if whole else _next(end, math.inf)
    pieces.append((below, math.inf, below))
    if not whole:
        return [p for p in pieces if p[0] <= p[1]]
    least, most = _range(traced.input)
    inside = ((max(low, least), min(high, most), low, high) for low, high, _ in pieces)
    return [(low, high, first) for first, last, low, high in inside if first <= last]


def _next(number: float, toward: float) -> float:
    return float(np.nextafter(np.float32(number), np.float32(toward)))


def _range(value: SSAValue) -> Interval:
    """The least and the greatest number that a tensor of integers holds."""
    element = nn.element_of(value)
    width = cast(IntegerType, element).bitwidth
    if nn.is_unsigned(element):
        return 0.0, float((1 << width) - 1)
    half = 1 << (width - 1)
    return -float(half), float(half - 1)


def merged(intervals: Sequence[Interval], gap: float) -> tuple[Interval, ...]:
    """Neighbours with no number between them as one."""
    found: list[Interval] = []
    for low, high in intervals:
        if found and (low <= found[-1][1] + gap or _next(found[-1][1], math.inf) == low):
            found[-1] = (found[-1][0], high)
        else:
            found.append((low, high))
    return tuple(found)
