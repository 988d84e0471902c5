"""Which rows of scores there are: those of a sequence's keys, and those of masked positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from heatc.interpreter.values import Array, Packing
from heatc.isa import units


class Rows(NamedTuple):
    """Some rows of a sequence: those of its keys, or those of masked positions that are read."""

    sequence: int
    first: int
    number: int
    keys: int

    @property
    def scores(self) -> tuple[slice, slice]:
        """Where their scores lie in (S, S)."""
        return slice(self.first, self.first + self.number), slice(self.keys)

    def blocks(self, block: tuple[int, int]) -> tuple[slice, slice]:
        """Where their blocks lie: rows that are no keys begin a row of blocks behind the keys'."""
        start = units.block_count(self.first, block[0])
        stop = start + units.block_count(self.number, block[0])
        return slice(start, stop), slice(units.block_count(self.keys, block[1]))


def key_rows(packing: Packing) -> list[Rows]:
    """The rows of each sequence's keys, where it has any."""
    return [Rows(b, 0, n, n) for b, n in enumerate(packing.lengths.tolist()) if n]


def all_rows(packing: Packing) -> list[Rows]:
    """The rows of each sequence, those of its keys apart from the others."""
    pairs = list(zip(packing.lengths.tolist(), packing.extras.tolist()))
    extra = [Rows(b, n, count, n) for b, (n, count) in enumerate(pairs) if count]
    return [*key_rows(packing), *extra]


def each(
    packing: Packing, out: Array, block: tuple[int, int], function: Callable[[Rows], Array]
) -> Array:
    """Fill the part of `out` (B, heads, blocks, blocks) that each sequence's rows have."""
    for rows in all_rows(packing):
        high, wide = rows.blocks(block)
        out[rows.sequence, :, high, wide] = function(rows)
    return out
