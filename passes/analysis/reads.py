"""
Which masked positions of a token tensor something depends on.

A packed value has rows of real tokens. What is not packed reads padded values, and with them
masked positions: one (the first token of a pooler), or all (a mean, a mixer). Ops that only move
elements are followed to what reads them. An output that has the token axis reads none, since it
is 0 there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import IntegerType, TensorType
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.passes.analysis.axes import Axes, Axis
from heatc.passes.analysis.layout import Digit, grouped, joined, layout_of
from heatc.passes.analysis.padding import (
    POINTWISE,
    KeyPadding,
    MaskTracker,
    merged,
    values_at,
    vanishes,
)

_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.ExpandOp, nn.SliceOp)
_ELEMENTWISE = (*POINTWISE, nn.GeluOp, nn.ReluOp, nn.TanhOp)


class TokenAxes:
    """The batch axis and the token axis of one stream of tokens: those of `keys` (B, S, width)."""

    def __init__(self, axes: Axes, keys: SSAValue):
        self.axes = axes
        self.keys = keys
        self.batch, self.length = nn.shape_of(keys)[:2]

    def is_stream(self, value: SSAValue) -> bool:
        """Whether a value is (B, S, width) or (B * S, width) of this stream, or is turned."""
        if len(nn.shape_of(value)) == 2:
            return self._is_flat(value, (0, 1)) or self._is_turned_flat(value)
        return self._leads(value, (0, 1), 3) or self._is_turned_whole(value, 3)

    def is_numbers(self, value: SSAValue) -> bool:
        """Whether a value is a number a token: (B, S) or (B * S,) of this stream, or is turned."""
        rank = len(nn.shape_of(value))
        if rank == 1:
            return self._is_flat(value, (0, 1)) or self._is_turned_flat(value)
        if rank != 2 or self.is_stream(value):
            return False
        return self._leads(value, (0, 1), 2) or self._is_turned_whole(value, 2)

    def is_turned(self, value: SSAValue) -> bool:
        """Whether a value of this stream has its tokens first: (S, B, ...) or (S * B, ...)."""
        if self._is_flat(value, (0, 1)):
            return False
        whole = any(self._is_turned_whole(value, rank) for rank in (2, 3))
        return whole or self._is_turned_flat(value)

    def _is_turned_flat(self, value: SSAValue) -> bool:
        """Whether a value is (S * B, width) or (S * B,) of this stream."""
        return self.batch > 1 and self._is_flat(value, (1, 0))

    def _is_turned_whole(self, value: SSAValue, rank: int) -> bool:
        """Whether a value of a rank is (S, B, ...) of this stream."""
        if self.length == 1:
            return False
        alone = 1 in (self.batch, self.length)
        if alone and nn.shape_of(value)[:2] == (self.batch, self.length):
            return False
        return self._leads(value, (1, 0), rank)

    def _leads(self, value: SSAValue, order: tuple[int, int], rank: int) -> bool:
        """Whether a value of a rank begins with sequences (0) and tokens (1) in an order."""
        shape, own = nn.shape_of(value), nn.shape_of(self.keys)
        if len(shape) != rank or shape[:2] != tuple(own[which] for which in order):
            return False
        return all(self._is_axis((value, axis), which) for axis, which in enumerate(order))

    def _is_axis(self, axis: Axis, which: int) -> bool:
        """Whether an axis is that of sequences (0) or tokens (1); one of extent 1 is any axis."""
        return nn.shape_of(self.keys)[which] == 1 or self.axes.same(axis, (self.keys, which))

    def _is_flat(self, value: SSAValue, order: tuple[int, int]) -> bool:
        """Whether the first axis is that of all tokens of the batch, in an order."""
        if self.length == 1 or len(nn.shape_of(value)) not in (1, 2):
            # One token of each sequence, as a pooler has it, is no stream.
            return False
        if self.batch == 1:
            return self._is_axis((value, 0), 1)
        parts = self.axes.parts(value, 0)
        return len(parts) == 2 and all(self._is_axis(p, i) for p, i in zip(parts, order))

    def is_ambiguous(self) -> bool:
        """Whether sequences and tokens are one axis, as in a sum with a transposed value."""
        if 1 in (self.batch, self.length):
            return False
        return self.axes.same((self.keys, 0), (self.keys, 1))

    def token_axes(self, value: SSAValue) -> list[int]:
        """The axes of a value that are the token axis."""
        return self._axes(value, 1)

    def touches(self, value: SSAValue, axis: int) -> bool:
        """Whether an axis is, or is made of, that of sequences or that of tokens."""
        whole = any(
            extent > 1 and self.axes.same((value, axis), (self.keys, which))
            for which, extent in enumerate((self.batch, self.length))
        )
        return whole or any(self.touches(*part) for part in self.axes.parts(value, axis))

    def batch_axes(self, value: SSAValue) -> list[int]:
        """The axes of a value that are the batch axis."""
        return self._axes(value, 0)

    def _axes(self, value: SSAValue, which: int) -> list[int]:
        if not isinstance(value.type, TensorType):
            return []
        extent = nn.shape_of(self.keys)[which]
        axes = (a for a, n in enumerate(nn.shape_of(value)) if n == extent > 1)
        return [a for a in axes if self.axes.same((value, a), (self.keys, which))]

    def has_tokens(self, value: SSAValue) -> bool:
        """Whether a value says something of each token: it has the token axis, and its batch."""
        if self.length == 1:
            return self._has_token(value)
        return bool(self.token_axes(value)) and (self.batch == 1 or bool(self._axes(value, 0)))

    def _has_token(self, value: SSAValue) -> bool:
        """Whether a value is (B, 1, width), the one token of each sequence, or a column of it."""
        owner = value.owner
        if isinstance(owner, nn.ReshapeOp) and owner.dropped_axis == 2:
            value = owner.x
        if isinstance(value.owner, attn.UnpackOp):
            return True
        return isinstance(value.type, TensorType) and self.is_stream(value)

    def digits(self, value: SSAValue) -> list[tuple[Digit, ...]] | None:
        """
        By how much sequences and tokens move in a value's elements, row by row.

        None where it does not have one axis of each, or one of both.
        """
        shape = nn.shape_of(value)
        found: list[tuple[Digit, ...]] = []
        if len(shape) == 2 and self.is_stream(value):
            order = [self.batch, self.length][:: -1 if self.is_turned(value) else 1]
            strides = [order[1] * shape[1], shape[1]]
            found = [joined([digit]) for digit in zip(order, strides)]
            return found[:: -1 if self.is_turned(value) else 1]
        for which, extent in enumerate((self.batch, self.length)):
            axes = self._axes(value, which)
            if extent > 1 and len(axes) != 1:
                return None
            found.append(tuple((extent, math.prod(shape[axis + 1 :])) for axis in axes))
        return found

    def spreads(self, value: SSAValue) -> list[tuple[tuple[int, ...], bool]]:
        """
        For every token axis of a value: the shape in which (B, S) broadcasts to it, or (S, B).

        The second is true for (S, B), where the tokens come before the batch.
        """
        batch = self._axes(value, 0)[:1]
        found: list[tuple[tuple[int, ...], bool]] = []
        for token in self.token_axes(value) or [None]:
            shape = [1] * len(nn.shape_of(value))
            for axis in (*batch, *(() if token is None else (token,))):
                shape[axis] = nn.shape_of(value)[axis]
            turned = token is not None and bool(batch) and token < batch[0]
            found.append((tuple(shape), turned))
        return found


class Reads:
    """
    The masked positions that are read of the values of a function.

    `converted` are ops that are packed themselves: they read rows, not positions. With `compute`
    outputs read every position too. A value that is 0 at the masked positions of `padding` is not
    read there: rows that are put back are 0 where there was none.
    """

    def __init__(
        self,
        tokens: TokenAxes,
        converted: Collection[Operation],
        *,
        compute: bool,
        padding: KeyPadding | None = None,
    ):
        self.tokens = tokens
        self.converted = converted
        self.compute = compute
        self.padding = padding
        self._tracker = MaskTracker()
        self.everything = frozenset(range(tokens.length))
        self.rows: frozenset[int] = frozenset()
        """Masked positions that have rows: masks of attention are read there, once they are known."""
        self.relies_on_zero = False
        """Whether some value is taken not to be read at masked positions because a factor is 0 there."""

    def of(self, value: SSAValue) -> frozenset[int]:
        """The positions of a value that are read."""
        found: frozenset[int] = frozenset()
        if self._is_zero(value):
            return found
        for use in value.uses:
            found |= self.of_use(use.operation, value)
        return found

    def of_use(self, op: Operation, value: SSAValue) -> frozenset[int]:
        """The positions of a value that one op reads, in the end."""
        if isinstance(op, attn.SdpaOp) and value in op.masks:
            is_packed = op.packing is not None or op in self.converted
            return self.rows if is_packed else self.everything
        if op in self.converted or isinstance(op, attn.PackOp):
            if value.owner in self.converted:
                return frozenset()
            return self.rows if self._is_in_place(value) else self.everything
        if isinstance(op, ReturnOp):
            silent = not self.compute and self.tokens.has_tokens(value)
            return frozenset() if silent else self.everything
        if isinstance(op, nn.SliceOp):
            return self._of_slice(op, value)
        if isinstance(op, (*_MOVES, *_ELEMENTWISE)) or self._is_of_each_token(op, value):
            return self.of(op.results[0])
        if isinstance(op, nn.IndexOp) and value is op.x and self._keeps_rows(op):
            return self.of(op.result)
        if isinstance(op, nn.ReduceOp) and self._keeps_reduced(op):
            return self.of(op.result)
        if isinstance(op, nn.ConcatOp) and op.dim.value.data not in self.tokens.token_axes(value):
            return self.of(op.result)
        if isinstance(op, ContractOp) and self._weighs_with_zero(op, value):
            return frozenset()
        if isinstance(op, ContractOp) and self._keeps_tokens(op, value):
            # An element is of two tokens and no others: where either is masked nobody reads it.
            return self.everything if self.of(op.result) else frozenset()
        return self.everything

    def _is_zero(self, value: SSAValue) -> bool:
        """Whether a value has a factor that is 0 at masked positions."""
        if not isinstance(value.owner, nn.MulOp) or self.compute:
            return False
        order = self._order(value)
        if order is None:
            return False
        return any(self._vanishes(factor, order) for factor in value.owner.operands)

    def _weighs_with_zero(self, op: ContractOp, value: SSAValue) -> bool:
        """Whether a sum over tokens has a factor that is 0 at masked positions."""
        order = self._order(value)
        if order is None or self.compute:
            return False
        terms, _ = parse_equation(op.equation.data)
        own = next(term for term, operand in zip(terms, op.inputs) if operand is value)
        letters = [own[axis] if axis is not None else "" for axis in order]
        for term, factor in zip(terms, op.inputs):
            if factor is value or any(a and a not in term for a in letters):
                continue
            places = [term.index(a) - len(term) if a else None for a in letters]
            if self._vanishes(factor, places):
                return True
        return False

    def _order(self, value: SSAValue) -> list[int | None] | None:
        """The axes of sequences and of tokens, counted from behind; None for an extent of 1."""
        shape = nn.shape_of(value)
        found: list[int | None] = []
        for axes, extent in (
            (self.tokens.batch_axes(value), self.tokens.batch),
            (self.tokens.token_axes(value), self.tokens.length),
        ):
            if extent > 1 and len(axes) != 1:
                return None
            found.append(axes[0] - len(shape) if extent > 1 else None)
        return found

    def told(
        self,
        value: SSAValue,
        other: SSAValue,
        real: Callable[[float], bool],
        masked: Callable[[float], bool],
    ) -> KeyPadding | None:
        """
        The padding where a value that meets `other` tells real tokens from masked ones by tests of both.

        Inputs that are real and fail the test of those are not among its real ones. None where an input that
        means padding fails its test, or where none is left.
        """
        order, padding = self._order(other), self.padding
        positions = None if order is None else self._positions(value, order)
        if positions is None or padding is None or padding.mask is None:
            return None
        hidden = values_at(self._tracker, value, padding, positions, padding.masked)
        shown = values_at(self._tracker, value, padding, positions, padding.real)
        if not hidden or shown is None or not all(_all_are(array, masked) for _, array in hidden):
            return None
        gap = 1.0 if isinstance(nn.element_of(padding.mask), IntegerType) else 0.0
        left = merged(sorted(ends for ends, array in shown if _all_are(array, real)), gap)
        was_one, is_one = (any(a <= 1.0 <= b for a, b in sets) for sets in (padding.real, left))
        return replace(padding, real=left) if left and is_one >= was_one else None

    def _vanishes(self, factor: SSAValue, order: Sequence[int | None]) -> bool:
        """Whether a factor with these axes of sequences and tokens is 0 at masked positions."""
        positions = self._positions(factor, order)
        if positions is None or self.padding is None:
            return False
        found = vanishes(self._tracker, factor, self.padding, positions)
        self.relies_on_zero |= found
        return found

    def _positions(self, factor: SSAValue, order: Sequence[int | None]) -> NDArray[np.int64] | None:
        """The number b * S + s of each element of a value with these axes of sequences and tokens."""
        if self.padding is None or self.padding.mask is None:
            return None
        batch, length = self.tokens.batch, self.tokens.length
        rank = len(nn.shape_of(factor))
        if any(axis is not None and -axis > rank for axis in order):
            return None
        positions = np.arange(batch * length).reshape(batch, length)
        long = [axis for axis in order if axis is not None]
        positions = positions.reshape([n for n in (batch, length) if n > 1])
        if len(long) == 2 and long[0] > long[1]:
            positions = positions.T
        shape = [1] * rank
        for axis in long:
            shape[axis] = nn.shape_of(factor)[axis]
        return positions.reshape(shape) if math.prod(shape) == batch * length else None

    def _is_of_each_token(self, op: Operation, value: SSAValue) -> bool:
        """Whether an op is along an axis that has no sequences and no tokens."""
        last = len(nn.shape_of(value)) - 1
        if isinstance(op, nn.LayerNormOp | nn.RmsNormOp):
            axis = last
        elif isinstance(op, nn.SoftmaxOp):
            axis = op.dim.value.data % (last + 1)
        elif isinstance(op, nn.ArgmaxOp | nn.CumsumOp):
            axis = op.axis.value.data
        else:
            return False
        if value is not op.operands[0] or self.tokens.digits(value) is None:
            return False
        return not self.tokens.touches(value, axis)

    def _keeps_reduced(self, op: nn.ReduceOp) -> bool:
        """Whether a reduction is along axes that have no sequences and no tokens."""
        if self.tokens.digits(op.x) is None:
            return False
        return not any(self.tokens.touches(op.x, axis) for axis in op.reduced)

    def _keeps_rows(self, op: nn.IndexOp) -> bool:
        """Whether elements are looked up along one axis without tokens, and the others stay."""
        free = [a for a, index in enumerate(op.indices) if not _counts(index, op.x, a)]
        if len(free) != 1 or len(op.indices) != len(nn.shape_of(op.x)):
            return False
        places = [_place(index) for a, index in enumerate(op.indices) if a != free[0]]
        return len(set(places)) == len(places) and not self.tokens.touches(op.x, free[0])

    def _is_in_place(self, value: SSAValue) -> bool:
        """
        Whether a value that is about to be packed has its tokens where a stream has them.

        What moved them elsewhere makes a row of a position of several tokens.
        """
        if not isinstance(value.owner, _MOVES):
            return len(self.tokens.token_axes(value)) <= 1
        layout = layout_of(value, scaled=False)
        root, shape = layout.root, nn.shape_of(value)
        if isinstance(root.owner, nn.SliceOp) and root.owner not in self.converted:
            return False
        extents = [self.tokens.batch, self.tokens.length]
        step = -1 if self.tokens.is_turned(value) else 1
        width = math.prod(shape) // math.prod(extents)
        groups = grouped(layout.digits, [*extents[::step], width])
        if groups is None:
            return False
        return [joined(group) for group in groups[:2]][::step] == self.tokens.digits(root)

    def _keeps_tokens(self, op: ContractOp, value: SSAValue) -> bool:
        """Whether no sequences and no tokens of a value are summed over."""
        terms, result = parse_equation(op.equation.data)
        return not any(
            self.tokens.touches(value, axis)
            for indices, operand in zip(terms, op.inputs)
            if operand is value
            for axis, letter in enumerate(indices)
            if letter not in result
        )

    def _of_slice(self, op: nn.SliceOp, value: SSAValue) -> frozenset[int]:
        """Those that a slice picks of the token axis; a slice of other axes is a move."""
        for axis in self.tokens.token_axes(value):
            size = nn.shape_of(op.result)[axis]
            if size < self.tokens.length:
                start, step = (int(a.get_values()[axis]) for a in (op.starts, op.steps))
                return frozenset(range(start, start + size * step, step))
        return self.of(op.result)


def _all_are(array: NDArray[Any], test: Callable[[float], bool]) -> bool:
    return all(test(number) for number in np.unique(array).tolist())


def is_summed(value: SSAValue, tokens: TokenAxes) -> bool:
    """Whether a value is read element by element until it is reduced over tokens, and by nothing else."""
    for use in value.uses:
        op = use.operation
        if isinstance(op, _ELEMENTWISE):
            if not is_summed(op.results[0], tokens):
                return False
        elif isinstance(op, nn.ReduceOp):
            if not set(op.reduced) & set(tokens.token_axes(value)):
                return False
        else:
            return False
    return True


def is_zero_where_masked(value: SSAValue) -> bool:
    """Whether a padded value came back from packed rows with zeros, and was only moved since."""
    while isinstance(value.owner, _MOVES):
        value = value.owner.operands[0]
    return isinstance(value.owner, attn.UnpackOp) and value.owner.read is None


def _counts(index: SSAValue, x: SSAValue, axis: int) -> bool:
    """Whether an index counts through an axis of what is indexed, in one axis of its own."""
    while isinstance(index.owner, nn.ReshapeOp):
        index = index.owner.x
    iota = index.owner
    if not isinstance(iota, nn.IotaOp):
        return False
    whole = nn.shape_of(iota.result) == (nn.shape_of(x)[axis],)
    return whole and (iota.start.value.data, iota.step.value.data) == (0, 1)


def _place(index: SSAValue) -> int:
    """The axis that an index of one axis varies along, counted from behind."""
    shape = nn.shape_of(index)
    return next((axis - len(shape) for axis, n in enumerate(shape) if n > 1), 0)
