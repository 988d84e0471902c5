"""Tiles and their first-fit placement; planners and allocator share it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

PLANNED_TOKENS = 128
"""Tiles are planned for a multiple of this many tokens."""

PAGE = 4096
"""Activations begin at multiples of a page: the machine orders accesses by page."""

TILE_ALIGNMENT = 64
"""Tiles begin at multiples of this many bytes."""


class Range(NamedTuple):
    """`size` bytes that are needed from `start` to `end`, both included."""

    size: int
    start: int
    end: int


class Placement(NamedTuple):
    """The address of each range, in order, and the bytes in use at the worst moment."""

    addresses: list[int]
    peak: int


def up(x: int, y: int) -> int:
    """`x / y` rounded up."""
    return -(-x // y)


def align(value: int, alignment: int) -> int:
    """`value` rounded up to a multiple of `alignment`."""
    return -(-value // alignment) * alignment


class _Union:
    """A set of addresses, as intervals that neither meet nor overlap."""

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []

    def add(self, low: int, high: int) -> None:
        """Take in `low` to `high - 1`."""
        first, last = bisect_left(self._highs, low), bisect_right(self._lows, high)
        if first < last:
            low, high = min(low, self._lows[first]), max(high, self._highs[last - 1])
        self._lows[first:last] = [low]
        self._highs[first:last] = [high]

    def end_of(self, low: int, size: int) -> int:
        """Where an interval ends that `size` addresses from `low` on meet; 0 for none."""
        place = bisect_right(self._highs, low)
        is_met = place < len(self._lows) and self._lows[place] < low + size
        return self._highs[place] if is_met else 0


class Packer:
    """
    Which addresses are in use when.

    A tree over time: a node stands for a span of it, and knows the addresses in use for the whole
    span and those in use somewhere in it. What lies side by side is one interval, so that finding a
    place takes a few steps however much is placed.
    """

    def __init__(self, ranges: Iterable[Range], alignment: int):
        self._alignment = alignment
        times = sorted({time for r in ranges for time in (r.start, r.end)})
        self._index = {time: i for i, time in enumerate(times)}
        self._leaves = 1 << max(0, len(times) - 1).bit_length()
        self._throughout: dict[int, _Union] = defaultdict(_Union)
        self._somewhere: dict[int, _Union] = defaultdict(_Union)

    def take(self, new: Range, address: int) -> None:
        """Put a range at an address."""
        if new.size == 0:
            return
        interval = address, align(address + new.size, self._alignment)
        spans = self._spans(new)
        for node in spans:
            self._throughout[node].add(*interval)
        for node in {*spans, *self._above(new)}:
            self._somewhere[node].add(*interval)

    def lowest(self, new: Range) -> int:
        """The lowest address where nothing lies while a range is needed."""
        unions = [u for node in self._spans(new) if (u := self._somewhere.get(node))]
        unions += [u for node in self._above(new) if (u := self._throughout.get(node))]
        address = 0
        while end := max((u.end_of(address, new.size) for u in unions), default=0):
            address = end
        return address

    def _spans(self, new: Range) -> list[int]:
        """The fewest nodes that together stand for the time of a range."""
        low, high = self._index[new.start] + self._leaves, self._index[new.end] + self._leaves + 1
        found: list[int] = []
        while low < high:
            if low % 2:
                found.append(low)
                low += 1
            if high % 2:
                high -= 1
                found.append(high)
            low, high = low // 2, high // 2
        return found

    def _above(self, new: Range) -> set[int]:
        """The nodes that the first or the last moment of a range is in."""
        found: set[int] = set()
        for time in (new.start, new.end):
            node = self._index[time] + self._leaves
            while node and node not in found:
                found.add(node)
                node //= 2
        return found


def first_fit(
    ranges: Sequence[Range], alignment: int, taken: Sequence[tuple[Range, int]] = ()
) -> Placement:
    """
    Each range at the lowest address where nothing that is live at the same time lies.

    `taken` are ranges that have an address already. Largest first, ties in the given order.
    """
    packer = Packer((*ranges, *(r for r, _ in taken)), alignment)
    for old, address in taken:
        packer.take(old, address)
    addresses = [0] * len(ranges)
    for index in sorted(range(len(ranges)), key=lambda i: (-ranges[i].size, i)):
        addresses[index] = packer.lowest(ranges[index])
        packer.take(ranges[index], addresses[index])
    placed = [*taken, *zip(ranges, addresses)]
    return Placement(addresses, max((address + r.size for r, address in placed), default=0))


@dataclass(frozen=True)
class TileSpec:
    """
    A tile to declare: `start` and `end` are the first and last step that need it.

    `over`: the tile in whose place it is computed, or "".
    """

    name: str
    dtype: str
    nbytes: int
    start: int = 0
    end: int = 0
    over: str = ""
