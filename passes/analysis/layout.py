"""
Where the elements of a value come from, through any chain of reshapes and transposes.

Patterns match what a chain does, never how it is written. A chain is followed on *digits*: the
elements of its root are numbered row by row, and a value's elements, row by row, count through
digits of given extents, each of which adds its stride to that number. A reshape regroups digits
and a transpose permutes groups, so that nothing is ever as large as the value itself.
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


def layout_of(value: SSAValue) -> Layout:
    """
    Follow reshapes, transposes and constant factors up to the value they start from.

    The chain ends early, at an op whose axes cut through the digits of what it rearranges.
    """
    chain: list[nn.ReshapeOp | nn.TransposeOp | float] = []
    root = value
    while True:
        owner = root.owner
        if isinstance(owner, nn.ReshapeOp | nn.TransposeOp):
            chain.append(owner)
            root = owner.x
            continue
        scaled = scaled_operand(owner)
        if scaled is None:
            return _followed(root, chain[::-1])
        root, factor = scaled
        chain.append(factor)


def _followed(root: SSAValue, chain: Sequence[nn.ReshapeOp | nn.TransposeOp | float]) -> Layout:
    shape, scale = nn.shape_of(root), 1.0
    digits = _counted(shape)
    for step in chain:
        if isinstance(step, float | int):
            scale *= step
            continue
        if isinstance(step, nn.TransposeOp):
            groups = grouped(digits, shape)
            if groups is None:
                # From here on elements can only be followed from this op's operand.
                root, scale = step.x, 1.0
                groups = grouped(_counted(shape), shape)
                assert groups is not None
            order = (int(p) for p in step.permutation.get_values())
            digits = joined([digit for axis in order for digit in groups[axis]])
        shape = nn.shape_of(step.result)
    return Layout(root, shape, digits, scale)


def _counted(shape: Sequence[int]) -> tuple[Digit, ...]:
    """The digits of a value's own elements."""
    return joined([(math.prod(shape), 1)])


def is_same_order(layout: Layout) -> bool:
    """Whether the chain only renames axes: the elements keep their row-major order."""
    return layout.digits == _counted(layout.shape)


def head_digits(
    batch: int, length: int, heads: int, dim: int, *, flipped: bool = False
) -> tuple[Digit, ...]:
    """
    The digits of (B, heads, L, dim) in a row-major (B, L, heads * dim).

    `flipped`: those of (B, heads, dim, L).
    """
    width = heads * dim
    last = [(length, width), (dim, 1)]
    outer = [(batch, length * width), (heads, dim)]
    return joined([*outer, *(last[::-1] if flipped else last)])
