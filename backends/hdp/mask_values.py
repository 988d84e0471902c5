"""
What the values of a mask mean: which say that a token is real, and which that it is padding.

A program carries it in its manifest, beside the input that is its mask:

    "mask": {"real": [[1, null]], "masked": [[null, 0]], "reads": true}

Both are lists of intervals with both ends in them; null stands for no end. A value that is in neither
is refused. With `reads` something depends on padding, so that every sequence needs a real token.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.intervals import Interval, contained, described, typical

Array = NDArray[np.generic]
Fail = Callable[[str], NoReturn]

_MOST = 64
"""Intervals that a set of values may have."""


@dataclass(frozen=True)
class MaskValues:
    """The values of a mask, see above."""

    real: tuple[Interval, ...]
    masked: tuple[Interval, ...]
    reads: bool = False

    def check(self, name: str, mask: Array) -> None:
        """Raise `HeatcError` for a value that means nothing, or a sequence without a token that needs one."""
        real = contained(mask, self.real)
        wrong = np.argwhere(~(real | contained(mask, self.masked)))
        if len(wrong):
            at = tuple(wrong[0].tolist())
            raise HeatcError(
                f"{mask[at]} at {list(at)} means neither a real token nor padding",
                place=f"input {name!r}",
                notes=[f"real is {described(self.real)}; padding is {described(self.masked)}"],
            )
        empty = np.flatnonzero(~real.any(axis=tuple(range(1, real.ndim))))
        if self.reads and empty.size:
            raise HeatcError(
                f"row {int(empty[0])} has no real token, and an output depends on it",
                place=f"input {name!r}",
                notes=["give every row at least one token that the mask does not hide"],
            )

    def of_lengths(self, real: NDArray[np.bool_]) -> NDArray[np.float64]:
        """A mask whose tokens are real where `real` is true."""
        return np.where(real, typical(self.real), typical(self.masked))

    def to_json(self) -> dict[str, Any]:
        """The object of the manifest."""
        sets = {"real": self.real, "masked": self.masked}
        value: dict[str, Any] = {
            name: [[None if math.isinf(end) else end for end in pair] for pair in pairs]
            for name, pairs in sets.items()
        }
        return value | ({"reads": True} if self.reads else {})

    @classmethod
    def of_json(cls, data: Mapping[str, Any], fail: Fail) -> MaskValues:
        """What the manifest says; `fail` is told what is wrong with it."""
        reads = data.get("reads", False)
        if not isinstance(reads, bool):
            fail("reads: expected true or false")
        return cls(_intervals(data, "real", fail), _intervals(data, "masked", fail), reads)


def _intervals(data: Mapping[str, Any], name: str, fail: Fail) -> tuple[Interval, ...]:
    value = data.get(name)
    if not isinstance(value, list) or not 0 < len(value := cast("list[object]", value)) <= _MOST:
        fail(f"{name}: expected a list of intervals")
    return tuple(_interval(pair, name, fail) for pair in value)


def _interval(pair: object, name: str, fail: Fail) -> Interval:
    ends = cast("list[object]", pair) if isinstance(pair, list) else []
    if len(ends) != 2 or not all(end is None or type(end) in (int, float) for end in ends):
        fail(f"{name}: expected two numbers, or null, in each interval")
    low, high = cast("list[float | None]", ends)
    interval = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    if not interval[0] <= interval[1]:
        fail(f"{name}: {interval} is no interval")
    return interval
