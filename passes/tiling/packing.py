"""Tiles and their first-fit placement; planners and allocator share it."""

from __future__ import annotations

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


def first_fit(
    ranges: Sequence[Range], alignment: int, taken: Iterable[tuple[Range, int]] = ()
) -> Placement:
    """
    Each range at the lowest address where nothing that is live at the same time lies.

    `taken` are ranges that have an address already. Largest first, ties in the given order.
    """
    placed = list(taken)
    addresses = [0] * len(ranges)
    for index in sorted(range(len(ranges)), key=lambda i: (-ranges[i].size, i)):
        new = ranges[index]
        busy = sorted(
            (address, align(address + old.size, alignment))
            for old, address in placed
            if old.start <= new.end and new.start <= old.end
        )
        address = 0
        for low, high in busy:
            if address + new.size <= low:
                break
            address = max(address, high)
        addresses[index] = address
        placed.append((new, address))
    peak = max((address + r.size for r, address in placed), default=0)
    return Placement(addresses, peak)


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
