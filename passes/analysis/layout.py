"""
Where the elements of a value come from, through any chain of reshapes and transposes.

Patterns match what a chain does, never how it is written: the chain is run on the element
numbers of its root, and the numbers are compared with those that a head split would give.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import f32, f64
from xdsl.ir import SSAValue

from heatc.dialects import nn


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


@dataclass
class Layout:
    """
    A value as a rearrangement of `root`, times `scale`.

    `elements` has the value's shape and holds, for each element, its number in `root` (row-major).
    """

    root: SSAValue
    elements: NDArray[np.int64]
    scale: float


def layout_of(value: SSAValue) -> Layout:
    """Follow reshapes, transposes and constant factors up to the value they start from."""
    chain: list[nn.ReshapeOp | nn.TransposeOp] = []
    scale = 1.0
    root = value
    while True:
        owner = root.owner
        if isinstance(owner, nn.ReshapeOp | nn.TransposeOp):
            chain.append(owner)
            root = owner.x
            continue
        scaled = scaled_operand(owner)
        if scaled is None:
            break
        root, factor = scaled
        scale *= factor
    shape = nn.shape_of(root)
    elements = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    for op in reversed(chain):
        if isinstance(op, nn.TransposeOp):
            elements = elements.transpose([int(p) for p in op.permutation.get_values()])
        else:
            elements = elements.reshape(nn.shape_of(op.result))
    return Layout(root, elements, scale)


def is_same_order(layout: Layout) -> bool:
    """Whether the chain only renames axes: the elements keep their row-major order."""
    return bool(np.array_equal(layout.elements.ravel(), np.arange(layout.elements.size)))


def head_elements(batch: int, length: int, heads: int, dim: int) -> NDArray[np.int64]:
    """Element numbers of (B, heads, L, dim) in a row-major (B, L, heads * dim)."""
    count = batch * length * heads * dim
    return np.arange(count).reshape(batch, length, heads, dim).transpose(0, 2, 1, 3)
