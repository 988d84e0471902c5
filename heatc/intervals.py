"""Sets of numbers as intervals with both ends in them, such as the values of a mask."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]


def contained(array: NDArray[Any], intervals: Sequence[Interval]) -> NDArray[np.bool_]:
    """Which elements of an array are in a set; a NaN is in none."""
    found = np.zeros(array.shape, np.bool_)
    for low, high in intervals:
        found |= (array >= low) & (array <= high)
    return found


def typical(intervals: Sequence[Interval]) -> float:
    """A number of a set that is not empty: 1 or 0 where it holds them, else the end nearest to 0."""
    for wanted in (1.0, 0.0):
        if any(low <= wanted <= high for low, high in intervals):
            return wanted
    ends = [end for pair in intervals for end in pair if math.isfinite(end)]
    return min(ends, key=abs)


def described(intervals: Sequence[Interval]) -> str:
    """`at most -1, or at least 1`: a set in a message."""
    return ", or ".join(_described(low, high) for low, high in intervals)


def _described(low: float, high: float) -> str:
    if low == high:
        return number_text(low)
    if math.isinf(low):
        return "anything" if math.isinf(high) else f"at most {number_text(high)}"
    if math.isinf(high):
        return f"at least {number_text(low)}"
    return f"{number_text(low)} to {number_text(high)}"


def number_text(number: float) -> str:
    """A finite number without a fraction that is 0."""
    return str(int(number)) if number == int(number) else repr(number)
