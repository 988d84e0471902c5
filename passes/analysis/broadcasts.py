"""
How operands of other shapes lie in the host's registers beside the result.

A register has rows and columns, and an operation repeats a side of one row, or of one column. So an
operand fits where there is a number of first axes that are rows for all of them: every operand has
all of these axes or one element there, and likewise of the rest, which are columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from heatc.dialects.nn import TOKENS

Shape = Sequence[int]


def padded(shape: Shape, rank: int) -> tuple[int, ...]:
    """A shape with axes of 1 in front."""
    return (1,) * (rank - len(shape)) + tuple(shape)


def fits(shape: Shape, result: Shape, rows: int) -> bool:
    """Whether an operand has all or one of the rows and columns of a result."""
    own = padded(shape, len(result))
    parts = ((own[:rows], result[:rows]), (own[rows:], result[rows:]))
    return all(tuple(a) == tuple(b) or math.prod(a) == 1 for a, b in parts)


def candidates(result: Shape) -> list[int]:
    """The numbers of first axes that can be rows, the usual one first: all but the last axis."""
    rank, least = len(result), 1 if TOKENS in result else 0
    usual = max(rank - 1, 0)
    return [n for n in (usual, *range(usual - 1, -1, -1), rank) if n >= least]


def rows_of(shapes: Sequence[Shape], result: Shape) -> int | None:
    """How many axes are rows for all operands; None where no number does."""
    found = (n for n in candidates(result) if all(fits(s, result, n) for s in shapes))
    return next(found, None)
