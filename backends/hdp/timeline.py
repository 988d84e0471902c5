"""
When the engines worked for each module of the model, in a few hundred numbers a module.

A `Timeline` watches the scoreboard. It counts busy cycles in at most `BINS` bins for each module
and track, and it shares the cycles of the run out over the instructions. Everything is modelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from heatc.backends.hdp.debug import Locations
from heatc.isa.table import CORE_ENGINES, Engine
from heatc.isa.units import Mask
from heatc.machine.state import Tile, Times

BINS = 160
"""Of a module's row: as many as a picture shows apart."""

LOADS, STORES = "dma_loads", "dma_stores"

TRACKS = (
    LOADS,
    STORES,
    *(engine.value for engine in Engine if engine in CORE_ENGINES),
    Engine.VECTOR.value,
    Engine.HOST.value,
)
"""The engines; loads and stores of the DMA engine wait in queues of their own."""

TIMELINE_KEYS = {
    "schema": ("text", "-", "version of this file's form"),
    "pass": ("count", "-", "number of the pass that is shown, from 0: the first one"),
    "total_cycles": ("cycles", "modelled", "cycles of this pass"),
    "units": ("count", "-", "units of each engine, whose busy cycles add up"),
    "whole_run": ("object", "-", "the whole pass, as a module is given"),
    "modules": ("object", "-", "by module path: first_cycle, bin_cycles, busy_cycles"),
    "first_cycle": ("cycles", "modelled", "where the first bin of the module begins"),
    "bin_cycles": ("cycles", "modelled", f"width of a bin, of which there are at most {BINS}"),
    "busy_cycles": (
        "cycles",
        "modelled",
        "busy cycles of all units in each bin, by engine; without what vector units stream through "
        "the DMA engine",
    ),
}
"""The keys of timeline.json: unit, kind and meaning."""


class Strip:
    """
    Busy cycles of one module, by track and bin.

    Bins are one cycle wide at first. They become twice as wide whenever there are more than `BINS`,
    so that a strip stays small however long the run is.
    """

    def __init__(self) -> None:
        self.width = 1
        self._low = self._high = -1
        self._busy: dict[str, Counter[int]] = {}

    def add(self, track: str, start: int, end: int, units: int) -> None:
        """`units` units of an engine are busy from `start` to `end`, in cycles."""
        self._low = start if self._low < 0 else min(self._low, start)
        self._high = max(self._high, end)
        while (self._high - 1) // self.width - self._low // self.width >= BINS:
            self._widen()
        busy, width = self._busy.setdefault(track, Counter()), self.width
        for number in range(start // width, (end - 1) // width + 1):
            low, high = max(start, number * width), min(end, (number + 1) * width)
            busy[number] += (high - low) * units

    def _widen(self) -> None:
        self.width *= 2
        for track, busy in self._busy.items():
            wider: Counter[int] = Counter()
            for number, cycles in busy.items():
                wider[number // 2] += cycles
            self._busy[track] = wider

    def to_json(self) -> dict[str, Any]:
        """The first cycle of the first bin, the width of a bin in cycles, busy cycles by track."""
        first = max(self._low, 0) // self.width
        last = max(self._high - 1, 0) // self.width
        rows = {t: self._busy[t] for t in TRACKS if t in self._busy}
        return {
            "first_cycle": first * self.width,
            "bin_cycles": self.width,
            "busy_cycles": {t: [row[n] for n in range(first, last + 1)] for t, row in rows.items()},
        }


class Timeline:
    """
    Records strips of the first pass, and the time of every instruction over all passes.

    Args:
        debug: debug.json, for the module of an instruction.
        size: number of instructions.
        cores: number of cores.

    Attributes:
        pc_time: cycles by which each instruction moved the end of the run on. An instruction that
            ends before another one has ended adds nothing. They sum to the cycles of all passes.
    """

    def __init__(self, debug: Mapping[str, Any], size: int, cores: int):
        locations = Locations(debug)
        self._paths = [locations.at(pc).path for pc in range(size)]
        self._cores = cores
        self._strips: dict[str, Strip] = {}
        self._whole = Strip()
        self._first_cycles = -1
        self._frontier = self._last_pc = 0
        self.pc_time = [0] * size

    # -- what the scoreboard reports ---------------------------------------------------------

    def core(self, pc: int, engine: Engine, start: Times, end: Times, live: Mask | None) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        if live is None and isinstance(start, int) and isinstance(end, int):
            self._add(pc, engine.value, start, end, self._cores)
            return
        starts, ends = (np.broadcast_to(time, self._cores).tolist() for time in (start, end))
        for core in range(self._cores):
            if live is None or live[core]:
                self._add(pc, engine.value, starts[core], ends[core], 1)

    def transfer(self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        self._add(pc, LOADS if loads else STORES, start, end, 1)

    def host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        self._add(pc, engine.value, start, end, 1)

    def written(self, tile: Tile, start: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`; contents take no time of their own."""

    def end_pass(self, cycles: int) -> None:
        """
        The pass has ended.

        The cycles that follow the last work, such as the latency of a transfer, belong to it.
        """
        if self.pc_time:
            self.pc_time[self._last_pc] += cycles - self._frontier
        if self._first_cycles < 0:
            self._first_cycles = cycles
        self._frontier = 0

    def _add(self, pc: int, track: str, start: int, end: int, units: int) -> None:
        if end <= start:
            return
        if end > self._frontier:
            self.pc_time[pc] += end - self._frontier
            self._frontier, self._last_pc = end, pc
        if self._first_cycles >= 0:
            return
        self._strip(self._paths[pc]).add(track, start, end, units)
        self._whole.add(track, start, end, units)

    def _strip(self, path: str) -> Strip:
        if path not in self._strips:
            self._strips[path] = Strip()
        return self._strips[path]

    # -- what was found ----------------------------------------------------------------------

    def to_json(self, no_path: str) -> dict[str, Any]:
        """timeline.json without its mark; `no_path` names the instructions of no module."""
        cores = {engine.value for engine in CORE_ENGINES}
        return {
            "schema": 1,
            "pass": 0,
            "total_cycles": max(self._first_cycles, 0),
            "units": {track: self._cores if track in cores else 1 for track in TRACKS},
            "whole_run": self._whole.to_json(),
            "modules": {path or no_path: s.to_json() for path, s in self._strips.items()},
        }
