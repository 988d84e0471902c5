"""
Where the elements of a value come from, through any chain of reshapes, transposes and expansions.

Patterns match what a chain does, never how it is written. A chain is followed on *digits*: the
elements of its root are numbered row by row, and a value's elements, row by row, count through
digits of given extents, each of which adds its stride to that number. A reshape regroups digits
and a transpose permutes groups, so that nothing is ever as large as the value itself. An axis that is
expanded counts with a stride of 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import f32, f64
from xdsl.ir import SSAValue

from heatc.dialects import nn

Digit = tuple[int, int]
"""An extent, and by how much a step along it moves in the root."""


def constant_scalar(value: SSAValue) -> float | None:
    """The value of an `nn.full` (seen through shape changes and casts to floats), else None."""
    owner = value.owner
    while isinstance(owner, nn.ReshapeOp | nn.ExpandOp | nn.CastOp | nn.TransposeOp):
        if isinstance(owner, nn.CastOp) and nn.element_of(owner.result) not in (f32, f64):
            return None
        owner = owner.x.owner
    return owner.value.value.data if isinstance(owner, nn.FullOp) else None


def scaled_operand(op: object) -> tuple[SSAValue, float] | None:
    """`(x, c)` for an op that computes `x * c` or `x / c` with a constant c, else None."""
    if isinstance(op, nn.DivOp):
        divisor = constant_scalar(op.rhs)
        return (op.lhs, 1.0 / divisor) if divisor and op.lhs.type == op.result.type else None
    if not isinstance(op, nn.MulOp):
        return None
    for value, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        factor = constant_scalar(other)
        if factor is not None and value.type == op.result.type:
            return value, factor
    return None


@dataclass(frozen=True)
class Layout:
    """
    A value of `shape` as a rearrangement of `root`, times `scale`.

    `digits` are in their only form: no extent of 1, and no two that are one longer digit.
    """

    root: SSAValue
    shape: tuple[int, ...]
    digits: tuple[Digit, ...]
    scale: float


def joined(digits: Sequence[Digit]) -> tuple[Digit, ...]:
    """Digits without those of extent 1; neighbours that count on as one are one."""
    found: list[Digit] = []
    for extent, stride in digits:
        if extent == 1:
            continue
        if found and found[-1][1] == extent * stride:
            found[-1] = (found[-1][0] * extent, stride)
        else:
            found.append((extent, stride))
    return tuple(found)


def grouped(digits: Sequence[Digit], shape: Sequence[int]) -> list[list[Digit]] | None:
    """The digits of each axis of a shape; None where an axis ends inside of one."""
    rest = list(digits)[::-1]
    groups: list[list[Digit]] = []
    for left in shape:
        group: list[Digit] = []
        while left > 1:
            extent, stride = rest.pop()
            if extent > left:
                if extent % left:
                    return None
                rest.append((extent // left, stride))
                extent, stride = left, stride * (extent // left)
            if left % extent:
                return None
            group.append((extent, stride))
            left //= extent
        groups.append(group)
    return groups


Move = nn.ReshapeOp | nn.TransposeOp | nn.ExpandOp


def layout_of(value: SSAValue, *, scaled: bool = True) -> Layout:
    """
    Follow moves, and constant factors if `scaled`, up to the value they start from.

    The chain ends early, at an op whose axes cut through the digits of what it rearranges.
    """
    chain: list[Move | float] = []
    root = value
    while True:
        owner = root.owner
        if isinstance(owner, Move):
            chain.append(owner)
            root = owner.x
            continue
        found = scaled_operand(owner) if scaled else None
        if found is None:
            return _followed(root, chain[::-1])
        root, factor = found
        chain.append(factor)


def _followed(root: SSAValue, chain: Sequence[Move | float]) -> Layout:
    shape, scale = nn.shape_of(root), 1.0
    digits = counted(shape)
    for step in chain:
        if isinstance(step, float | int):
            scale *= step
            continue
        moved = moved_digits(step, digits)
        if moved is None:
            # From here on elements can only be followed from this op's operand.
            root, scale = step.x, 1.0
            moved = moved_digits(step, counted(shape))
            assert moved is not None
        digits, shape = moved, nn.shape_of(step.result)
    return Layout(root, shape, digits, scale)


def moved_digits(step: Move, digits: Sequence[Digit]) -> tuple[Digit, ...] | None:
    """The digits of a move's result by those of its operand; None where an axis cuts through one."""
    if isinstance(step, nn.ReshapeOp):
        return tuple(digits)
    own = nn.shape_of(step.x)
    groups = grouped(digits, own)
    if groups is None:
        return None
    if isinstance(step, nn.TransposeOp):
        order = (int(p) for p in step.permutation.get_values())
        return joined([digit for axis in order for digit in groups[axis]])
    shape = nn.shape_of(step.result)
    missing = len(shape) - len(own)
    spread: list[Digit] = [(n, 0) for n in shape[:missing]]
    for extent, size, group in zip(own, shape[missing:], groups):
        spread += group if extent == size else [(size, 0)]
    return joined(spread)


def counted(shape: Sequence[int]) -> tuple[Digit, ...]:
    """The digits of a value's own elements."""
    return joined([(math.prod(shape), 1)])
