"""
Slices that are columns of what they come from, through any chain of reshapes and transposes.

`qkv.view(B, S, 3, W)[:, :, i]` and `qkv.view(B, S, 3, H, D).permute(2, 0, 3, 1, 4)[i]` take columns
of qkv. Said so, they are an op of each token.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.passes.analysis.axes import runs

Range = tuple[int, int]
"""The first position of an axis and how many follow."""

Step = nn.ReshapeOp | nn.TransposeOp


class Columns(NamedTuple):
    """
    Columns `start` to `start + width` of `root`.

    `steps` lead from them to the slice: the permutation of a transpose, or the shape of a reshape.
    """

    root: SSAValue
    start: int
    width: int
    steps: tuple[tuple[Step, tuple[int, ...]], ...]


def columns_of(op: nn.SliceOp) -> Columns | None:
    """The columns that a slice takes; None if it takes anything else, or takes them directly."""
    starts, steps = (tuple(int(n) for n in a.get_values()) for a in (op.starts, op.steps))
    if set(steps) != {1}:
        return None
    ranges: list[Range] = list(zip(starts, nn.shape_of(op.result)))
    passed: list[tuple[Step, tuple[int, ...]]] = []
    value = op.x
    while isinstance(step := value.owner, Step):
        sizes = tuple(size for _, size in ranges)
        if isinstance(step, nn.TransposeOp):
            order = tuple(int(p) for p in step.permutation.get_values())
            passed.append((step, order))
            ranges = [ranges[order.index(axis)] for axis in range(len(order))]
        else:
            passed.append((step, sizes))
            before = _before(step, ranges)
            if before is None:
                return None
            ranges = before
        value = step.x
    shape = nn.shape_of(value)
    whole = all(r == (0, n) for r, n in zip(ranges[:-1], shape[:-1]))
    if not passed or not whole or ranges[-1] == (0, shape[-1]):
        return None
    return Columns(value, *ranges[-1], tuple(passed[::-1]))


def _before(step: nn.ReshapeOp, ranges: Sequence[Range]) -> list[Range] | None:
    """The ranges of a reshape's operand that hold ranges of its result; None where it has none."""
    own, new = nn.shape_of(step.x), nn.shape_of(step.result)
    if nn.TOKENS in own:
        return None
    found = [(0, n) for n in own]
    for old, result in runs(own, new):
        if all(ranges[axis] == (0, new[axis]) for axis in result):
            continue
        merged = _merged([ranges[a] for a in result], [new[a] for a in result])
        if len(old) > 1 or merged is None:
            return None
        found[old[0]] = merged
    return found


def _merged(ranges: Sequence[Range], extents: Sequence[int]) -> Range | None:
    """Ranges of neighbouring axes as one of the axis that they are together, if it has no gaps."""
    start, count = 0, 1
    for axis, ((first, size), extent) in enumerate(zip(ranges, extents)):
        if size < extent and count > 1:
            return None
        start += first * math.prod(extents[axis + 1 :])
        count *= size
    return start, count
