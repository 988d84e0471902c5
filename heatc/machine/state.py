"""
The architectural state of the machine.

A tile's contents are an array (P, m, n): P is 1 when all cores hold the same (shared tiles,
broadcast loads), else the number of active cores at the time of writing; active cores are always
the first ones. Integers have their own dtype, `acc` is float64: it holds every 48-bit integer
exactly. What a pruned core holds is unspecified, and nothing can observe it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError, InfeasibleError
from heatc.fixed_point import Codes, Reals
from heatc.isa.table import (
    ACC_BITS,
    BLOCK,
    DESCRIPTORS,
    DTYPES,
    HEADS,
    HOST_REGISTERS,
    PARAMETERS,
    REGISTERS,
    TILES,
)
from heatc.isa.units import Mask
from heatc.machine.clocks import Times
from heatc.machine.memory import NUMPY_DTYPES, Array, Memory

A = TypeVar("A", bound=NDArray[Any])

Extent = NDArray[np.int64]
"""Rows or columns that each core really holds, (P,)."""

ACC_LIMIT = float(1 << (ACC_BITS - 1))
"""Magnitudes of accumulators stay below this."""


class Trap(Exception):
    """A precondition that does not hold; the machine adds pc and instruction."""

    def __init__(self, message: str, *notes: str, error: type[HeatcError] = HeatcError):
        super().__init__(message)
        self.message = message
        self.notes = notes
        self.error = error


def expect(holds: bool, message: str) -> None:
    """Trap unless a precondition holds."""
    if not holds:
        raise Trap(message)


class Contents:
    """
    What a tile holds, see the module's docstring.

    Attributes:
        rows_of, columns_of: the true sizes by core where the cores differ; the array is zero
            beyond.
        filled: how far a tile that is written by parts has been written.
        peak: a bound of the magnitude of accumulators.
        taken: (live, rows), how many scores of each row have a part in the softmax; None for all.
        merging: whether this is a tile of integer scores whose first `filled` columns are merged.
        block: the size of the blocks of a mask, or of the blocks that have the importances.
        counted: which of these blocks are ranked, (P, m, n); None for all.
    """

    __slots__ = (
        "_reals",
        "array",
        "block",
        "columns_of",
        "counted",
        "expanded",
        "filled",
        "is_mask",
        "merging",
        "peak",
        "rows_of",
        "taken",
        "written",
    )

    def __init__(
        self,
        array: Array,
        *,
        peak: float = 0.0,
        filled: int | None = None,
        rows_of: Extent | None = None,
        columns_of: Extent | None = None,
        is_mask: bool = False,
        block: tuple[int, int] | None = None,
    ):
        self.array = array
        self.block = block
        self.peak = peak
        self.filled = array.shape[2] if filled is None else filled
        self.rows_of = rows_of
        self.columns_of = columns_of
        self.is_mask = is_mask
        self.taken: Extent | None = None
        self.merging = False
        self.counted: Mask | None = None
        self.written: Mask | None = None
        self.expanded: Mask | None = None
        self._reals: Reals | None = None

    @property
    def rows(self) -> int:
        """Rows of the array."""
        return self.array.shape[1]

    @property
    def columns(self) -> int:
        """Columns of the array."""
        return self.array.shape[2]

    @property
    def uniform(self) -> bool:
        """Whether all cores hold parts of the same size."""
        return self.rows_of is None and self.columns_of is None

    @property
    def complete(self) -> bool:
        """Whether all parts are written."""
        return self.filled == self.array.shape[1 if self.is_mask else 2]

    def reals(self) -> Reals:
        """The array as float64, converted once."""
        if self.array.dtype == np.float64:
            return cast(Reals, self.array)
        if self._reals is None:
            self._reals = self.array.astype(np.float64, order="K")
        return self._reals


@dataclass(eq=False)
class Tile:
    """A place in a buffer; for its times see `heatc.isa.clocks.Placed`."""

    name: str
    space: str
    dtype: str
    address: int
    capacity: int
    overlaps: list[Tile] = field(default_factory=list["Tile"])
    contents: Contents | None = None
    lost: str = ""
    ready: Times = 0
    busy: Times = 0
    taken: Times = 0

    @property
    def end(self) -> int:
        """The byte after the tile."""
        return self.address + self.capacity

    def meets(self, low: int, high: int) -> bool:
        """Whether the tile shares a byte with [low, high)."""
        return self.address < high and low < self.end

    def read(self) -> Contents:
        """The contents; a tile without any is a trap."""
        if self.contents is None:
            raise Trap(f"{self.name} {self.lost or 'is read before it is written'}")
        return self.contents

    def put(self, contents: Contents) -> None:
        """Replace the contents, which must fit, and lose those of overlapping tiles."""
        demand = content_bytes(self.dtype, contents)
        if demand > self.capacity:
            rows, columns = contents.rows, contents.columns
            raise Trap(
                f"{rows}x{columns} {self.dtype} need {demand} bytes, {self.name} has {self.capacity}",
                "give the tile more bytes, or tile the operation smaller",
                error=InfeasibleError,
            )
        self.contents = contents
        for other in self.overlaps:
            if other.contents is not None:
                other.contents = None
                other.lost = f"was overwritten through {self.name}, which shares its bytes"


def content_bytes(dtype: str, contents: Contents) -> int:
    """Bytes of contents in a buffer; a mask has a bit for each block, rows padded to bytes."""
    if contents.is_mask:
        return contents.rows * -(-contents.columns // 8)
    return contents.rows * contents.columns * DTYPES[dtype]


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor descriptor: `data` is its (rows, columns) view, `base` its first byte."""

    space: str
    dtype: str
    base: int
    data: Array
    writable: bool

    @property
    def rows(self) -> int:
        """Number of rows."""
        return self.data.shape[0]

    @property
    def columns(self) -> int:
        """Number of columns."""
        return self.data.shape[1]

    @property
    def pitch(self) -> int:
        """Bytes of a row."""
        return self.data.shape[1] * DTYPES[self.dtype]

    @property
    def is_integer(self) -> bool:
        """Whether the elements are integers."""
        return NUMPY_DTYPES[self.dtype].kind == "i"


class MachineState:
    """
    Registers, descriptors, tiles, and the activity of the cores.

    Attributes:
        active: how many cores take part, which are the first ones.
        kept: which of these have not been pruned, None for all of them.
        zeroed: the same on a machine whose pruned cores work on (`early_head_exit` off).
        theta_head: (cores,), the importance of each core's head.
        seen_head: (cores,), over how many visible scores it is, see `weigh`.
        parts: cores that share an item. Core c is part c mod parts of item c / parts.
        part_rows: rows of a part; part i has the rows from i * `part_rows` on.
        block: rows and columns of a block of scores.
        parameters: thresholds of every head.
        shared: the shared buffer, as far as tensors lie there.
        round: the head of item 0, and how many heads on the next item's is; None outside of a
            round.
        listed: the heads in the order of `cascade`, None where places of heads are heads.
        sequences: first row and number of each sequence's keys, then of its rows that are no keys.
        extra: the rows that are no keys are worked on.
    """

    def __init__(self, cores: int, shared: Memory):
        self.cores = cores
        self.shared = shared
        self.registers = [0] * REGISTERS
        self.tensors: list[Tensor | None] = [None] * DESCRIPTORS
        self.tiles: list[Tile | None] = [None] * TILES
        self.host: list[Reals | None] = [None] * HOST_REGISTERS
        self.sequences: list[tuple[int, int, int]] = []
        self.extra = False
        self.theta_head: Codes = np.zeros(cores, np.int64)
        self.seen_head: Codes = np.zeros(cores, np.int64)
        self.parameters: Reals = np.zeros((len(PARAMETERS), HEADS))
        self.round: tuple[int, int] | None = None
        self.listed: Codes | None = None
        self.active = cores
        self.parts, self.part_rows = 1, 0
        self.block: tuple[int, int] = BLOCK
        self.kept: Mask | None = None
        self.zeroed: Mask | None = None
        self.live: Mask | None = None
        self.select: slice | NDArray[np.int64] = slice(0, cores)

    def activate(self, active: int, first: tuple[int, int] | None = None) -> None:
        """The first `active` cores are active and kept; `first` is the round of heads."""
        self.active, self.round = active, first
        self.kept = self.zeroed = None
        self.select = slice(0, active)
        self.live = None if active == self.cores else np.arange(self.cores) < active

    def keep(self, kept: Mask, *, leave: bool = True) -> None:
        """
        Keep those of the active cores for which `kept` (active,) holds.

        The others leave, or else (no early exit) work on and only their stores are zeros.
        """
        if kept.all():
            return
        if not leave:
            self.zeroed = kept
            return
        self.kept = kept
        self.select = np.flatnonzero(kept)
        self.live = np.zeros(self.cores, np.bool_)
        self.live[: self.active] = kept

    def turn(self, *, leave: bool) -> None:
        """
        The pruned of the active cores work, and the kept ones do not.

        With no early exit all go on, and only the stores of the pruned ones count.
        """
        before = self.kept if self.zeroed is None else self.zeroed
        pruned = np.zeros(self.active, np.bool_) if before is None else ~before
        if not leave:
            self.zeroed = pruned
            return
        self.kept = pruned
        self.select = np.flatnonzero(pruned)
        self.live = np.zeros(self.cores, np.bool_)
        self.live[: self.active] = pruned

    def parameter(self, which: str) -> Reals:
        """A parameter of the active cores' heads, (active,)."""
        if self.round is None:
            raise Trap("no round of heads has begun, whose parameter is it?")
        head, stride = self.round
        heads = self.heads_at(head + stride * self.core_items)
        if heads.size and not (heads.min() >= 0 and heads.max() < HEADS):
            raise Trap("a head has no parameters")
        return self.parameters[PARAMETERS.index(which), heads]

    def heads_at(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The heads at some places of the list, where heads are listed, else the places."""
        if self.listed is None:
            return places
        count = len(self.listed)
        if places.size and not (places.min() >= 0 and places.max() < count):
            raise Trap(f"place {places.max()} is outside of a list of {count} heads")
        return self.listed[places]

    @property
    def core_parts(self) -> Extent:
        """Which part of its item each active core is, (active,)."""
        return np.arange(self.active) % self.parts

    @property
    def core_items(self) -> Extent:
        """The item of each active core, (active,): its own number unless cores work in groups."""
        return np.arange(self.active) // self.parts

    def of_group(self, values: NDArray[Any]) -> NDArray[Any]:
        """(active, ...) values as (items, parts, ...)."""
        return values.reshape(-1, self.parts, *values.shape[1:])

    @property
    def live_count(self) -> int:
        """Number of cores that are active and kept."""
        return self.active if self.kept is None else len(cast(NDArray[np.int64], self.select))

    def tile(self, index: int) -> Tile:
        """A declared tile."""
        found = self.tiles[index]
        if found is None:
            raise Trap(f"t{index} is not declared")
        return found

    def tensor(self, index: int) -> Tensor:
        """A described tensor."""
        found = self.tensors[index]
        if found is None:
            raise Trap(f"d{index} is not described")
        return found

    def host_register(self, index: int) -> Reals:
        """A written host register."""
        found = self.host[index]
        if found is None:
            raise Trap(f"h{index} is read before it is written")
        return found

    def read(self, tile: Tile) -> Contents:
        """A tile's contents, written on every live core."""
        contents = tile.read()
        written = contents.written
        if written is None or written is self.live:
            return contents
        if self.live is None or bool((self.live & ~written).any()):
            raise Trap(f"{tile.name} is not written on every active core")
        return contents

    def whole(self, tile: Tile) -> Contents:
        """A tile's contents, of one size on all live cores."""
        contents = self.wide(tile)
        self._expect_whole(tile, contents.rows_of, contents.rows)
        return contents

    def wide(self, tile: Tile) -> Contents:
        """A tile's contents, of as many columns on all live cores; rows may be fewer on some."""
        contents = self.read(tile)
        self._expect_whole(tile, contents.columns_of, contents.columns)
        return contents

    def _expect_whole(self, tile: Tile, extent: Extent | None, size: int) -> None:
        if extent is not None and bool((self.take(extent) != size).any()):
            raise Trap(f"{tile.name} is clipped on some cores")

    def take(self, array: A) -> A:
        """The live cores' part of an array (P, ...)."""
        if array.shape[0] == 1 and self.cores > 1:
            return array
        return cast(A, array[self.select])

    def spread(self, array: Array) -> Array:
        """Results of the live cores as an array of the active ones."""
        if self.kept is None or (array.shape[0] == 1 and self.cores > 1):
            return array
        full = np.zeros((self.active, *array.shape[1:]), array.dtype)
        full[self.select] = array
        return full

    def put(self, tile: Tile, contents: Contents) -> None:
        """Write a tile on the live cores."""
        contents.written = None if tile.space == "shared" else self.live
        tile.put(contents)
