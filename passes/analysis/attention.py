"""
Attention found by dataflow: two products with a softmax between them, in any spelling.

A product is a sum over axes: `nn.matmul`, or an equation. The elements of the scores (the result of
the first product) are numbered row by row, and every axis of what follows counts through digits of
these numbers (`passes/analysis/layout.py`). So the axis of a softmax, the axis that the second
product sums over, and the axes of a mask are known by what they are, never by place or extent.

It is attention where the softmax is over the axes that the keys alone have, and the second product
sums over these and no others. Everything else that two products and a softmax may be stays.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from xdsl.dialects.builtin import i1
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.analysis.layout import (
    Digit,
    Move,
    constant_scalar,
    counted,
    grouped,
    joined,
    moved_digits,
    scaled_operand,
)

_DEEPEST = 64
"""Ops between a softmax and its scores that are followed."""

Group = tuple[Digit, ...]
Axis = Group | str
"""An axis as digits of the scores, or the name of one that the scores do not have."""


class NotAttention(Exception):
    """Two products and a softmax are no attention: the op that breaks the pattern, and why."""

    def __init__(self, op: Operation, text: str):
        super().__init__(text)
        self.op = op
        self.text = text


@dataclass(frozen=True)
class Product:
    """
    A sum of products of two operands over the axes that the result does not have.

    `left`, `right` and `out` name the axes; one of extent 1 that is spread has no name.
    """

    op: Operation
    lhs: SSAValue
    rhs: SSAValue
    left: tuple[str, ...]
    right: tuple[str, ...]
    out: tuple[str, ...]

    @property
    def result(self) -> SSAValue:
        """What the product gives."""
        return self.op.results[0]


def product_of(op: object) -> Product | None:
    """An op as a product of two operands, None where it is none."""
    if isinstance(op, nn.MatmulOp):
        return _matmul(op)
    if not isinstance(op, ContractOp) or len(op.inputs) != 2:
        return None
    (left, right), out = parse_equation(op.equation.data)
    alone = set(left) ^ set(right)
    if len(set(left)) < len(left) or len(set(right)) < len(right) or alone - set(out):
        return None
    lhs, rhs = op.inputs
    return Product(op, lhs, rhs, tuple(left), tuple(right), tuple(out))


def _matmul(op: nn.MatmulOp) -> Product:
    whole = nn.shape_of(op.result)[:-2]

    def lead(value: SSAValue) -> tuple[str, ...]:
        own = nn.shape_of(value)[:-2]
        first = len(whole) - len(own)
        return tuple("" if n < whole[first + i] else f"b{first + i}" for i, n in enumerate(own))

    out = (*(f"b{i}" for i in range(len(whole))), "m", "n")
    return Product(op, op.lhs, op.rhs, (*lead(op.lhs), "m", "c"), (*lead(op.rhs), "c", "n"), out)


@dataclass(frozen=True)
class Operand:
    """A value of an attention; its axes as digits of the scores, or by names of their own."""

    value: SSAValue
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Mask:
    """
    What is applied to scores that were rearranged to `shape`, whose axes are `axes`.

    Numbers are `added`, times `factor`. Truth values, inverted if `factor` is negative, leave
    `fill` where they are false.
    """

    value: SSAValue
    shape: tuple[int, ...]
    axes: tuple[Group, ...]
    added: bool
    fill: float = -math.inf
    factor: float = 1.0

    def scaled(self, factor: float) -> Mask:
        """This mask of scores that are multiplied with a factor afterwards."""
        if self.added:
            return replace(self, factor=self.factor * factor)
        return replace(self, fill=self.fill * factor)


@dataclass
class Found:
    """
    An attention: its last op, operands, scale, and masks in order.

    `scores` is the shape of the scores and `keys` are the digits of their keys. `result_axes` are
    those of the last op's result. `keyless` is what a query without a key gives, see `attn.sdpa`.
    """

    last: Operation
    q: Operand
    k: Operand
    v: Operand
    scores: tuple[int, ...]
    keys: Group
    result_axes: tuple[Axis, ...]
    scale: float
    masks: list[Mask] = field(default_factory=list[Mask])
    causal: bool = False
    keyless: str = "zero"

    @property
    def result(self) -> SSAValue:
        """What the attention gives."""
        return self.last.results[0]


def match_sdpa(op: nn.SdpaOp) -> Found:
    """PyTorch's fused op."""
    shape = (*nn.shape_of(op.q)[:-1], nn.shape_of(op.k)[-2])
    axes = _own_axes(shape)
    outer, queries, keys = axes[:-2], axes[-2], axes[-1]
    masks: list[Mask] = []
    if op.mask is not None:
        masks.append(Mask(op.mask, shape, axes, nn.element_of(op.mask) != i1))
    return Found(
        op,
        Operand(op.q, (*outer, queries, "c")),
        Operand(op.k, (*outer, keys, "c")),
        Operand(op.v, (*outer, keys, "e")),
        shape,
        keys,
        (*outer, queries, "e"),
        op.scale.value.data,
        masks,
        bool(op.is_causal.value.data),
    )


def match_products(op: Operation) -> Found | None:
    """
    A product of a softmax of scores with values; None for an op that is no such product.

    Raises `NotAttention` for one that is, and is no attention.
    """
    product = product_of(op)
    if product is None:
        return None
    sides = (
        (product.lhs, product.left, product.rhs, product.right),
        (product.rhs, product.right, product.lhs, product.left),
    )
    for weights, names, values, value_names in sides:
        chain = _from_softmax(weights)
        if chain is not None:
            return _match(product, chain, names, Operand(values, value_names))
    return None


@dataclass(frozen=True)
class _Chain:
    """A softmax, and the moves from it to where its result is multiplied."""

    softmax: nn.SoftmaxOp
    moves: tuple[Move, ...]
    safe: bool


def _from_softmax(value: SSAValue) -> _Chain | None:
    """The chain that ends in a value, None where there is none."""
    moves: list[Move] = []
    while True:
        owner = value.owner
        if isinstance(owner, nn.SoftmaxOp):
            return _Chain(owner, tuple(moves[::-1]), owner.safe is not None)
        if isinstance(owner, nn.ReshapeOp | nn.TransposeOp):
            moves.append(owner)
            value = owner.x
        elif isinstance(owner, nn.CastOp) and owner.x.type == owner.result.type:
            value = owner.x
        elif isinstance(owner, nn.WhereOp) and (own := _safe(owner)) is not None:
            return _Chain(own, tuple(moves[::-1]), safe=True)
        else:
            return None


def _safe(op: nn.WhereOp) -> nn.SoftmaxOp | None:
    """The softmax that an op puts 0 for where all scores are -inf, as PyTorch takes its own apart."""
    for value, other, hidden in ((op.rhs, op.lhs, True), (op.lhs, op.rhs, False)):
        softmax = value.owner
        if constant_scalar(other) == 0.0 and isinstance(softmax, nn.SoftmaxOp):
            return softmax if _is_keyless(op.condition, softmax, hidden) else None
    return None


def _is_keyless(value: SSAValue, softmax: nn.SoftmaxOp, true: bool) -> bool:
    """Whether truth values say, or deny, that all of a softmax's scores along its axis are -inf."""
    shape = list(nn.shape_of(softmax.x))
    axis = softmax.dim.value.data % len(shape)
    shape[axis] = 1
    if nn.shape_of(value) != tuple(shape):
        return False
    owner = value.owner
    if isinstance(owner, nn.NotOp):
        owner, true = owner.x.owner, not true
    if not isinstance(owner, nn.ReshapeOp) or not isinstance(owner.x.owner, nn.ReduceOp):
        return False
    reduce = owner.x.owner
    if reduce.reduced != (axis,):
        return False
    # All of them are -inf, or there is none that is not.
    if reduce.kind.data != ("all" if true else "any"):
        return False
    compare, equal = reduce.x.owner, true
    if isinstance(compare, nn.NotOp):
        compare, equal = compare.x.owner, not equal
    return (
        isinstance(compare, nn.CompareOp)
        and compare.lhs is softmax.x
        and constant_scalar(compare.rhs) == -math.inf
        and compare.predicate.data == ("eq" if equal else "ne")
    )


@dataclass(frozen=True)
class _Masking:
    """A step between scores and softmax: a mask before it is known what its axes are."""

    value: SSAValue
    added: bool
    fill: float = -math.inf
    factor: float = 1.0


_Step = Move | float | _Masking


def _match(product: Product, chain: _Chain, names: tuple[str, ...], values: Operand) -> Found:
    """The first way to read the chain as attention that holds; else why the last did not."""
    failure: NotAttention | None = None
    ways = _walk(chain.softmax.x, 0)
    while True:
        try:
            scores, steps = next(ways)
            return _Reading(product, chain, scores, steps).found(names, values)
        except NotAttention as error:
            failure = failure or error
        except StopIteration:
            break
    raise failure or NotAttention(chain.softmax, "its scores have no end")


def _walk(value: SSAValue, depth: int = 0) -> Iterator[tuple[Product, list[_Step]]]:
    """
    Every product that a value may be the scores of, with the steps from there.

    Raises `NotAttention` at the end where there is none.
    """
    owner = value.owner
    if not isinstance(owner, Operation):
        return
    product = product_of(owner)
    if product is not None:
        yield product, []
        return
    failure, found = NotAttention(owner, f"its scores come from {owner.name}, no product"), False
    for below, step in _steps(owner) if depth < _DEEPEST else ():
        try:
            for product, steps in _walk(below, depth + 1):
                found = True
                yield product, [*steps, step]
        except NotAttention as error:
            failure = error
    if not found:
        raise failure


def _steps(op: Operation) -> Iterator[tuple[SSAValue, _Step]]:
    """The operands of an op that may be its scores, each with what the op does to them."""
    if isinstance(op, nn.ReshapeOp | nn.TransposeOp):
        yield op.x, op
        return
    if isinstance(op, nn.CastOp) and op.x.type == op.result.type:
        yield op.x, 1.0
        return
    scaled = scaled_operand(op)
    if scaled is not None:
        yield scaled
        return
    shape = nn.shape_of(op.results[0]) if op.results else ()
    if isinstance(op, nn.AddOp):
        for scores, mask in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
            if nn.shape_of(scores) == shape:
                yield scores, _Masking(mask, added=True)
    elif isinstance(op, nn.SubOp) and nn.shape_of(op.lhs) == shape:
        yield op.lhs, _Masking(op.rhs, added=True, factor=-1.0)
    elif isinstance(op, nn.WhereOp) and nn.element_of(op.condition) == i1:
        yield from _filled(op, shape)


def _filled(op: nn.WhereOp, shape: tuple[int, ...]) -> Iterator[tuple[SSAValue, _Step]]:
    """Scores and mask of `where(mask, scores, constant)`; a factor of -1 inverts the mask."""
    for scores, other, sign in ((op.lhs, op.rhs, 1.0), (op.rhs, op.lhs, -1.0)):
        fill = constant_scalar(other)
        if fill is not None and nn.shape_of(scores) == shape:
            yield scores, _Masking(op.condition, False, fill, sign)


class _Reading:
    """One way to read two products and a softmax as attention."""

    def __init__(self, product: Product, chain: _Chain, scores: Product, steps: Sequence[_Step]):
        self.product, self.chain, self.scores = product, chain, scores
        self.masks: list[Mask] = []
        self.scale = 1.0
        shape = nn.shape_of(scores.result)
        self.shape, self.digits = shape, counted(shape)
        for step in steps:
            self._apply(step)

    def _apply(self, step: _Step) -> None:
        if isinstance(step, Move):
            self._move(step)
        elif isinstance(step, _Masking):
            axes = self._axes(self.chain.softmax)
            self.masks.append(
                Mask(step.value, self.shape, axes, step.added, step.fill, step.factor)
            )
        else:
            self.scale *= step
            # What scales masked scores scales their masks.
            self.masks = [mask.scaled(step) for mask in self.masks]

    def _move(self, step: Move) -> None:
        digits = moved_digits(step, self.digits)
        if digits is None:
            raise NotAttention(step, "it rearranges parts of an axis of the scores")
        self.digits, self.shape = digits, nn.shape_of(step.result)

    def _axes(self, op: Operation) -> tuple[Group, ...]:
        groups = grouped(self.digits, self.shape)
        if groups is None:
            raise NotAttention(op, "an axis is made of parts of two others")
        return tuple(tuple(group) for group in groups)

    def found(self, names: tuple[str, ...], values: Operand) -> Found:
        """The attention; raises `NotAttention` where it is none."""
        softmax = self.chain.softmax
        along = joined(self._axes(softmax)[softmax.dim.value.data])
        q, k, keys = self._sides(along)
        for move in self.chain.moves:
            self._move(move)
        summed, named = self._value_axes(names, values)
        if summed != keys:
            raise NotAttention(
                self.product.op, "operand v: it is not summed over the axis of the softmax"
            )
        v = Operand(values.value, tuple(named.get(str(a), str(a)) for a in values.axes))
        out = tuple(named.get(a, a) for a in self.product.out)
        keyless = "zero" if self.chain.safe else "nan"
        shape = nn.shape_of(self.scores.result)
        found = Found(self.product.op, q, k, v, shape, keys, out, self.scale, self.masks)
        found.keyless = keyless
        return found

    def _sides(self, along: Group) -> tuple[Operand, Operand, Group]:
        """Queries, keys, and the digits of the keys: the side whose own axes are the softmax's."""
        scores = self.scores
        axes = _own_axes(nn.shape_of(scores.result))
        digits = dict(zip(scores.out, axes))

        def own(names: Sequence[str], others: Sequence[str]) -> Group:
            return joined(
                [d for a in scores.out if a in names and a not in others for d in digits[a]]
            )

        sides = (
            (scores.lhs, scores.left, scores.rhs, scores.right),
            (scores.rhs, scores.right, scores.lhs, scores.left),
        )
        for query, query_names, key, key_names in sides:
            keys = own(key_names, query_names)
            if keys == along:
                q = Operand(query, tuple(_axis(a, digits) for a in query_names))
                k = Operand(key, tuple(_axis(a, digits) for a in key_names))
                return q, k, keys
        raise NotAttention(
            self.chain.softmax, "it is not over the axis of the keys of the scores' product"
        )

    def _value_axes(self, names: tuple[str, ...], values: Operand) -> tuple[Group, dict[str, Axis]]:
        """The digits that the second product sums over, and those of each of its axes."""
        groups = self._axes(self.product.op)
        named: dict[str, Axis] = {"": ()}
        for name, group in zip(names, groups):
            if name:
                named[name] = group
            elif group:
                raise NotAttention(self.product.op, "the weights are spread over more of them")
        summed = [a for a in values.axes if a in names and a not in self.product.out]
        return joined([d for a in summed for d in _digits(named[str(a)])]), named


def _digits(axis: Axis) -> Group:
    return () if isinstance(axis, str) else axis


def _axis(name: str, digits: dict[str, Group]) -> Axis:
    if not name:
        return ()
    return digits.get(name, name)


def _own_axes(shape: Sequence[int]) -> tuple[Group, ...]:
    groups = grouped(counted(shape), shape)
    assert groups is not None
    return tuple(tuple(group) for group in groups)
