"""
When each instruction starts and ends: the clocks of the machine's engines.

Each engine works on its instructions in program order; an instruction starts when its engine is
free, what it reads is written, and what it overwrites is no longer read. Times are integers where
all cores agree, else (cores,) vectors. The cycles come from the instruction table. The simulator
and the compiler's timer (`heatc.passes.tiling.timing`) keep time with these clocks and no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import CodeType
from typing import Any, Generic, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from heatc.hardware.costs import Sizes
from heatc.isa.table import (
    CORE_ENGINES,
    CYCLE_CONSTANTS,
    HOST_REGISTERS,
    ISA,
    ElementCost,
    Engine,
)
from heatc.isa.units import Mask

Times = int | NDArray[np.int64]
"""A point in time in cycles: the same on all cores, or one for each core."""

PAGE_BITS = 12
"""Dependencies through memory are kept for pages of 4 KiB."""


Bytes = tuple[str, int, int]
"""Bytes of a buffer: space, begin, end."""


class HardwareModel(Sizes, Protocol):
    """What the machine needs of a hardware description (`heatc.hardware.Hardware`)."""

    @property
    def name(self) -> str: ...
    @property
    def fold_overlap(self) -> bool: ...
    @property
    def clock_hz(self) -> int: ...
    @property
    def shared_bytes_per_cycle(self) -> int: ...
    @property
    def dram_bytes_per_second(self) -> int: ...
    @property
    def dram_latency_cycles(self) -> int: ...
    @property
    def blocks(self) -> tuple[tuple[int, int], ...]: ...
    @property
    def host_ops_per_second(self) -> int: ...
    @property
    def host_bytes_per_second(self) -> int: ...
    @property
    def host_call_cycles(self) -> int: ...
    @property
    def fetch_upon_mask(self) -> bool: ...
    @property
    def early_head_exit(self) -> bool: ...
    @property
    def stage_overlap(self) -> bool: ...
    @property
    def local_a_stationary(self) -> bool: ...
    @property
    def block_importance_in_array(self) -> bool: ...


def later(a: Times, b: Times) -> Times:
    """The later of two times, by core; neither is changed, the result may be one of them."""
    if type(a) is int:
        if type(b) is int:
            return a if a >= b else b
        return np.maximum(a, b) if a else b
    if a is b or (type(b) is int and not b):
        return a
    return np.maximum(a, b)


def latest(time: Times) -> int:
    """The time at which all cores are done."""
    return time if isinstance(time, int) else int(time.max())


def up(x: Any, y: Any) -> Any:
    """`x / y` rounded up; integers or arrays of them."""
    return -(-x // y)


def _one(folds: Any) -> Any:
    if isinstance(folds, np.ndarray):
        return np.minimum(cast("NDArray[np.int64]", folds), 1)
    return min(folds, 1)


def _same(folds: Any) -> Any:
    return folds


def _none(cycles: Any) -> Any:
    return 0 * cycles


def cycle_constants(hardware: HardwareModel) -> dict[str, Any]:
    """The names that `cycles` expressions may use, see `heatc.isa.table.CYCLE_CONSTANTS`."""
    clock = hardware.clock_hz
    return {
        "up": up,
        "rows": hardware.pe_rows,
        "columns": hardware.pe_columns,
        "fills": _one if hardware.fold_overlap else _same,
        "leaves": _same if hardware.fold_overlap else _none,
        "se_lanes": hardware.se_lanes,
        "adder_lanes": hardware.adder_lanes,
        "softmax_lanes": hardware.softmax_lanes,
        "vector_lanes": hardware.cores * hardware.vector_lanes,
        "call": hardware.host_call_cycles,
        "host_ops": hardware.host_ops_per_second / clock,
        "host_width": hardware.host_bytes_per_second / clock,
    }


def compile_cycles(expression: str, constants: Mapping[str, Any]) -> Callable[..., Any]:
    """A `cycles` expression of the table as a function of its own variables, by keyword."""
    return cast(Callable[..., Any], eval(_code(expression, frozenset(constants)), {**constants}))


@cache
def _code(expression: str, constants: frozenset[str]) -> CodeType:
    """The code of the function, which every machine has from its own constants."""
    names = compile(expression, "<cycles>", "eval").co_names
    variables = sorted(set(names) - constants)
    return compile(f"lambda {', '.join(variables)}: {expression}", "<cycles>", "eval")


def _widths(hardware: HardwareModel) -> dict[str, float]:
    """Bytes a cycle between the DMA engine and each memory."""
    return {
        "dram": hardware.dram_bytes_per_second / hardware.clock_hz,
        "shared": float(hardware.shared_bytes_per_cycle),
    }


def _latencies(hardware: HardwareModel) -> dict[str, int]:
    return {"dram": hardware.dram_latency_cycles, "shared": 0}


class HostWork:
    """How long the host's instructions take: on the host, or on the vector units."""

    def __init__(self, hardware: HardwareModel):
        constants = cycle_constants(hardware)
        lanes = hardware.vector_lanes
        self._widths, self._latencies = _widths(hardware), _latencies(hardware)
        entries = [entry for entry in ISA.values() if entry.engine is Engine.HOST]
        self._vector = {
            entry.mnemonic: compile_cycles(entry.vector, constants)
            for entry in entries
            if entry.vector and lanes
        }
        self._host = {entry.mnemonic: compile_cycles(entry.cycles, constants) for entry in entries}

    def engine(self, mnemonic: str) -> Engine:
        """Who does it."""
        return Engine.VECTOR if mnemonic in self._vector else Engine.HOST

    def moved(self, nbytes: int, space: str) -> int:
        """The cycles that bytes of the vector units take at the DMA engine."""
        return math.ceil(nbytes / self._widths[space])

    def cycles(
        self,
        mnemonic: str,
        elements: int,
        nbytes: int,
        space: str,
        *,
        reads: bool,
        each: ElementCost | None = None,
    ) -> int:
        """
        The cycles of some elements, whose bytes lie in `space`; `reads`: they come from there.

        `each` is what an element costs, where the table's row leaves it open.
        """
        if mnemonic not in self._vector:
            chosen = {} if each is None else {"operations": each.operations}
            return math.ceil(self._host[mnemonic](elements=elements, nbytes=nbytes, **chosen))
        chosen = {} if each is None else {"steps": each.steps, "functions": each.functions}
        work = max(self._vector[mnemonic](elements=elements, **chosen), self.moved(nbytes, space))
        return work + (self._latencies[space] if reads else 0)


class Hazards:
    """Ready and busy times of one memory space, by page."""

    def __init__(self, size: int):
        pages = (size >> PAGE_BITS) + 2
        self.ready = np.zeros(pages, np.int64)
        self.busy = np.zeros(pages, np.int64)

    def pages(self, tensor: Described, row: int, rows: int) -> slice:
        """The pages of some rows of a tensor."""
        low = tensor.base + row * tensor.pitch
        return slice(low >> PAGE_BITS, ((low + max(rows * tensor.pitch, 1) - 1) >> PAGE_BITS) + 1)


class Cores(Protocol):
    """The cores as far as clocks see them: how many, and which ones work (None: all)."""

    @property
    def cores(self) -> int: ...
    @property
    def live(self) -> Mask | None: ...


class Described(Protocol):
    """A tensor descriptor: space, first byte, rows of `pitch` bytes, whether it may be written."""

    @property
    def space(self) -> str: ...
    @property
    def base(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def pitch(self) -> int: ...
    @property
    def writable(self) -> bool: ...


class Placed(Protocol):
    """
    A tile: bytes of a buffer that are written at `ready` and no longer read at `busy`.

    `taken` is when former tiles of these bytes are no longer written or read.
    """

    ready: Times
    busy: Times
    taken: Times

    @property
    def space(self) -> str: ...
    @property
    def address(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def overlaps(self) -> Sequence[Placed]: ...
    def meets(self, low: int, high: int) -> bool: ...


T = TypeVar("T", bound=Placed)


class Rows:
    """
    Some rows of a tensor, as an instruction reads or writes them.

    `moved` is how many of them it moves: a gather may read any row of a table, and reads few.
    `nbytes` is what it moves of them: all their bytes, or those of some columns.
    """

    __slots__ = ("count", "nbytes", "row", "tensor")

    def __init__(
        self,
        tensor: Described,
        row: int = 0,
        count: int | None = None,
        moved: int | None = None,
        nbytes: int | None = None,
    ):
        self.tensor = tensor
        self.row = row
        self.count = tensor.rows if count is None else count
        whole = (self.count if moved is None else moved) * tensor.pitch
        self.nbytes = whole if nbytes is None else nbytes


class Clocks(Generic[T]):
    """
    Clocks of the engines and what they did; see the module's docstring.

    `size` is that of DRAM in bytes, `program` the number of instructions that are counted apart.
    The methods `_saw_...` tell a subclass what happens and when.
    """

    def __init__(self, hardware: HardwareModel, state: Cores, size: int, program: int):
        self.hardware = hardware
        self.state = state
        self.clock = 0
        self.kept_at: Times = 0
        self.load_free = self.store_free = 0
        self.free: dict[Engine, Times] = dict.fromkeys(Engine, 0)
        # Without overlap the engines of a core share one clock.
        self._clock_of = {e: e if hardware.stage_overlap else Engine.PE for e in CORE_ENGINES}
        self.hazards = {"dram": Hazards(size), "shared": Hazards(hardware.shared_buffer_bytes)}
        self.widths, self.latencies = _widths(hardware), _latencies(hardware)
        constants = cycle_constants(hardware)
        assert constants.keys() | {"width"} == CYCLE_CONSTANTS.keys()
        self.cycles = {
            entry.mnemonic: compile_cycles(entry.cycles, constants) for entry in ISA.values()
        }
        self.host_work = HostWork(hardware)
        self._register_free = [0] * HOST_REGISTERS
        self.busy_vector = {e: np.zeros(hardware.cores, np.int64) for e in CORE_ENGINES}
        self.busy_all: dict[Engine, int] = dict.fromkeys(Engine, 0)
        self.pc_busy = {e: [0] * program for e in Engine if e is not Engine.CONTROL}
        self.pc_read = [0] * program
        self.pc_written = [0] * program
        self.end = 0
        self._retired: dict[Bytes, Times] = {}
        self._meeting: dict[Bytes, list[Bytes]] = {}

    def core(
        self,
        pc: int,
        engine: Engine,
        cycles: Times,
        reads: Sequence[T],
        writes: Sequence[T],
        after: int = 0,
    ) -> Times:
        """
        An instruction of a core engine, on the live cores, not before `after`.

        Returns when it ends.
        """
        turn = self._clock_of[engine]
        start = later(later(self.clock, self.free[turn]), self.kept_at)
        if after:
            start = later(start, after)
        for tile in reads:
            start = later(start, tile.ready)
        for tile in writes:
            start = later(start, self.overwritable(tile))
        end: Times = start + cycles
        live = self.state.live
        self._saw_core(pc, engine, start, end, writes)
        if live is not None:
            end = np.where(live, end, 0)
        self._count(pc, engine, cycles)
        self.free[turn] = later(self.free[turn], end)
        for tile in reads:
            tile.busy = later(tile.busy, end)
        for tile in writes:
            tile.ready = later(tile.ready, end)
        return end

    def _saw_core(
        self, pc: int, engine: Engine, start: Times, end: Times, writes: Sequence[T]
    ) -> None:
        """Work of a core engine on the live cores."""

    def _saw_transfer(
        self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int, tile: T | None
    ) -> None:
        """Bytes that the DMA engine moved between a tile (None: dropped data) and `space`."""

    def _saw_host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """Work of the host or the vector units."""

    def _count(self, pc: int, engine: Engine, cycles: Times) -> None:
        live = self.state.live
        if live is None and isinstance(cycles, int):
            self.busy_all[engine] += cycles
            self.pc_busy[engine][pc] += cycles * self.state.cores
            return
        vector = np.where(True if live is None else live, cycles, 0)
        self.busy_vector[engine] += vector
        self.pc_busy[engine][pc] += int(vector.sum())

    def overwritable(self, tile: T) -> Times:
        """When nothing reads or writes a tile's bytes any more."""
        time = later(tile.taken, later(tile.ready, tile.busy))
        for other in tile.overlaps:
            time = later(time, later(other.ready, other.busy))
        return time

    def transfer(
        self,
        pc: int,
        mnemonic: str,
        nbytes: int,
        source: T | Rows,
        target: T | Rows,
        also: T | None = None,
    ) -> None:
        """
        A transfer of the DMA engine between a tile and rows of a tensor; `also` is a mask it reads.

        Loads and stores wait in queues of their own, each in program order, so that a store of a
        result does not hold up the loads behind it. A queue is occupied while bytes move; the
        latency of DRAM delays only who waits for them.
        """
        rows = source if isinstance(source, Rows) else cast(Rows, target)
        tile = cast(T, target if isinstance(source, Rows) else source)
        space, loads = rows.tensor.space, rows is source
        queue = self.load_free if loads else self.store_free
        start = max(self.clock, queue, latest(self.kept_at))
        start = max(start, self._memory(rows, writes=not loads))
        start = max(start, latest(self.overwritable(tile) if loads else self._live(tile.ready)))
        if also is not None:
            start = max(start, latest(self._live(also.ready)))
        cycles = math.ceil(self.cycles[mnemonic](nbytes=nbytes, width=self.widths[space]))
        moved = start + cycles
        done = moved + self.latencies[space]
        self.busy_all[Engine.DMA] += cycles
        self.pc_busy[Engine.DMA][pc] += cycles
        self.end = max(self.end, done)
        if also is not None:
            also.busy = later(also.busy, moved)
        self._saw_transfer(pc, space, loads, start, moved, nbytes, tile)
        if loads:
            self.load_free = moved
            tile.ready = done
            self._touch(rows, busy=moved)
        else:
            self.store_free = moved
            tile.busy = later(tile.busy, moved)
            self._touch(rows, ready=done)
        if space == "dram":
            (self.pc_read if loads else self.pc_written)[pc] += nbytes

    def refetch(self, pc: int, nbytes: int) -> int:
        """
        Fetch `nbytes` from DRAM that a core has dropped; returns when they are there.

        They queue with the loads. Only without local A-stationary tiling.
        """
        cycles = math.ceil(nbytes / self.widths["dram"])
        moved = max(self.clock, self.load_free, latest(self.kept_at)) + cycles
        self.load_free = moved
        self.busy_all[Engine.DMA] += cycles
        self.pc_busy[Engine.DMA][pc] += cycles
        self.pc_read[pc] += nbytes
        self._saw_transfer(pc, "dram", True, moved - cycles, moved, nbytes, None)
        done = moved + self.latencies["dram"]
        self.end = max(self.end, done)
        return done

    def host(
        self,
        pc: int,
        mnemonic: str,
        elements: int,
        nbytes: int,
        reads: Sequence[Rows] = (),
        writes: Sequence[Rows] = (),
        registers: Sequence[int] = (),
        each: ElementCost | None = None,
        spilled: int = 0,
    ) -> int:
        """
        An operation of the host, or of the vector units where they do it; returns when it ends.

        `nbytes` is what it moves, `registers` are those of the host that it reads or writes, `each`
        what an element costs where the row leaves that open. `spilled` bytes of registers are written
        to DRAM and read from there: the vector units have them, and the host does the work.
        """
        engine = self.host_work.engine(mnemonic)
        start = max(self.clock, cast(int, self.free[engine]))
        # Work on one register may change hands between the host and the vector units.
        start = max(start, *(self._register_free[register] for register in registers), 0)
        for rows in reads:
            start = max(start, self._memory(rows, writes=False))
        for rows in writes:
            start = max(start, self._memory(rows, writes=True))
        space = (*reads, *writes)[0].tensor.space if reads or writes else "dram"
        cycles = self.host_work.cycles(
            mnemonic, elements, nbytes, space, reads=bool(reads), each=each
        )
        if engine is Engine.VECTOR:
            self._stream(pc, nbytes, space, writes=bool(writes))
        end = start + cycles
        self.free[engine] = end
        for register in registers:
            self._register_free[register] = end
        self.busy_all[engine] += cycles
        self.pc_busy[engine][pc] += cycles
        self.end = max(self.end, end)
        self._saw_host(pc, engine, start, end)
        self.pc_read[pc] += spilled
        self.pc_written[pc] += spilled
        for rows in reads:
            self._touch(rows, busy=end)
            if rows.tensor.space == "dram":
                self.pc_read[pc] += rows.nbytes
        for rows in writes:
            self._touch(rows, ready=end)
            if rows.tensor.space == "dram":
                self.pc_written[pc] += rows.nbytes
        return end

    def _stream(self, pc: int, nbytes: int, space: str, *, writes: bool) -> None:
        """
        Bytes of the vector units pass the DMA engine.

        They delay the transfers that wait in its queue and take no place in it: what the vector
        units wait for must not hold up the loads of others.
        """
        moved = self.host_work.moved(nbytes, space)
        self.busy_all[Engine.DMA] += moved
        self.pc_busy[Engine.DMA][pc] += moved
        if writes:
            self.store_free = max(self.store_free, self.clock) + moved
        else:
            self.load_free = max(self.load_free, self.clock) + moved

    def declare(self, tile: T, old: T | None) -> None:
        """
        A tile takes its place: it waits for whoever still uses these bytes.

        `old` is the tile that had its number. Tiles that share bytes with `old` wait for it too: they
        may be written before anything else is, and no longer know it.
        """
        retired = self._retired
        if old is not None:
            key, time = (old.space, old.address, old.end), later(old.ready, old.busy)
            if key not in retired:
                self._meeting.clear()
            retired[key] = later(retired.get(key, 0), time)
            for other in old.overlaps:
                other.taken = later(other.taken, time)
        place = (tile.space, tile.address, tile.end)
        meeting = self._meeting.get(place)
        if meeting is None:
            meeting = [key for key in retired if key[0] == tile.space and tile.meets(*key[1:])]
            self._meeting[place] = meeting
        for key in meeting:
            tile.taken = later(tile.taken, retired[key])

    def total(self) -> int:
        """The last clock, and at least the time to move all bytes one after the other."""
        last = max(self.end, self.clock, *(latest(time) for time in self.free.values()))
        return max(last, self.busy_all[Engine.DMA])

    def busy(self, engine: Engine) -> NDArray[np.int64]:
        """Busy cycles of an engine, by core for core engines, else (1,)."""
        if engine in self.busy_vector:
            return self.busy_vector[engine] + self.busy_all[engine]
        return np.array([self.busy_all[engine]], np.int64)

    def _live(self, time: Times) -> Times:
        live = self.state.live
        if isinstance(time, int) or live is None:
            return time
        return np.where(live, time, 0)

    def _memory(self, rows: Rows, *, writes: bool) -> int:
        if not rows.tensor.writable:
            return 0
        hazards = self.hazards[rows.tensor.space]
        pages = hazards.pages(rows.tensor, rows.row, rows.count)
        time = int(hazards.ready[pages].max())
        return max(time, int(hazards.busy[pages].max())) if writes else time

    def _touch(self, rows: Rows, *, ready: int = 0, busy: int = 0) -> None:
        if not rows.tensor.writable:
            return
        hazards = self.hazards[rows.tensor.space]
        pages = hazards.pages(rows.tensor, rows.row, rows.count)
        if ready:
            np.maximum(hazards.ready[pages], ready, out=hazards.ready[pages])
        if busy:
            np.maximum(hazards.busy[pages], busy, out=hazards.busy[pages])


def nonempty(cycles: Any, *extents: Times) -> Times:
    """Cycles of a piece of work, 0 on cores where it has no extent."""
    if isinstance(cycles, int) and all(isinstance(extent, int) for extent in extents):
        return cycles if all(cast(int, e) > 0 for e in extents) else 0
    work = np.ones(1, np.bool_)
    for extent in extents:
        work = work & (np.asarray(extent) > 0)
    return np.where(work, cycles, 0)
