"""Processes that run cases, watched: those over a limit of time or memory are ended and noted."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from bench.support.fuzz import worker
from bench.support.fuzz.case import KINDS
from bench.support.fuzz.judge import CRASH, HANG, MEMORY, Fault, ended_badly
from bench.support.fuzz.state import State
from bench.support.fuzz.worker import Setting

TICK = 0.05
"""Seconds between two looks at the memory of workers."""

SPAN = 2.0
"""Seconds of work that are handed out at once."""

PATIENCE = 10.0
"""Seconds that a worker gets to leave its stack, before it is ended without one."""

GROWN = 1 << 30
"""Bytes by which a worker may grow over many cases before it is replaced."""

OnFault = Callable[[str, int, Fault], None]


@dataclass
class _Slot:
    """A place for a worker, the worker in it, and what that is doing."""

    folder: Path
    torch: bool
    process: SpawnProcess | None = None
    pipe: Any = None
    ready: bool = False
    first: int = 0
    """Resident bytes when the worker was ready."""
    base: int = 0
    """The same when it was last given something."""
    kind: str = ""
    next: int = 0
    stop: int = 0
    heard: float = 0.0
    told: float | None = None
    """When it was told to end."""
    over_memory: bool = False
    suspect: tuple[str, int] | None = None

    @property
    def busy(self) -> bool:
        return self.next < self.stop

    def resident(self) -> int:
        """Bytes of memory of the worker."""
        return worker.resident_of(self.process.pid or 0) if self.process is not None else 0


@dataclass
class Pool:
    """
    Runs `goals` (cases by kind) and takes what comes out into `state`.

    Attributes:
        goals: how many cases of each kind there are to be.
        state: what was done and found; it is brought up to date.
        setting: of the workers, which differ in folder and torch.
        processes: how many workers.
        on_fault: told of the first case of each fault.
        deadline: `time.monotonic()` after which nothing more is handed out.
        every: called now and then, to write the state or show how far it is.
        restarts: workers that had to be replaced.
    """

    goals: Mapping[str, int]
    state: State
    setting: Setting
    processes: int
    on_fault: OnFault
    deadline: float = float("inf")
    every: Callable[[], None] = lambda: None
    restarts: int = 0
    slots: list[_Slot] = field(default_factory=list[_Slot])

    def run(self) -> None:
        """Until all is done or time is up."""
        wants_torch = any(KINDS[name].torch for name in self.goals)
        for number in range(self.processes):
            folder = self.setting.folder / str(number)
            self.slots.append(_Slot(folder, torch=wants_torch and number == 0))
        try:
            while self._step():
                self.every()
        finally:
            for slot in self.slots:
                self._give_back(slot)
                _end(slot)

    # ---- one step ------------------------------------------------------------------------------

    def _step(self) -> bool:
        """Hands out, listens, watches; False once there is nothing left."""
        for slot in self.slots:
            if not slot.busy:
                self._hand_out(slot)
        live = [slot for slot in self.slots if slot.busy]
        if not live:
            return False
        pipes = [slot.pipe for slot in live if slot.pipe is not None]
        heard = wait(pipes, TICK)
        for slot in live:
            if slot.pipe in heard:
                self._listen(slot)
            self._watch(slot)
        return True

    def _hand_out(self, slot: _Slot) -> None:
        if time.monotonic() >= self.deadline:
            return
        name = self._choose(slot)
        if name is None and not slot.torch and self._choose(replace(slot, torch=True)):
            _end(slot)
            slot.torch = True
            name = self._choose(slot)
        if name is None:
            _end(slot)
            return
        slot.kind, slot.next, slot.stop = name, *self._span(name)
        if slot.process is None:
            self._start(slot)
        elif slot.resident() > slot.first + GROWN and slot.ready:
            self._replace(slot)
        elif slot.ready:
            self._send(slot)

    def _choose(self, slot: _Slot) -> str | None:
        """The kind that is farthest behind, of those that the worker can run."""
        left = [name for name in self.goals if self._left(name)]
        if not slot.torch:
            left = [name for name in left if not KINDS[name].torch]
        elif any(not s.torch for s in self.slots):
            left = [name for name in left if KINDS[name].torch] or left
        tallies = {name: self.state.tally(name) for name in left}
        return min(left, key=lambda n: tallies[n].next / self.goals[n], default=None)

    def _left(self, name: str) -> bool:
        tally = self.state.tally(name)
        return bool(tally.open) or tally.next < self.goals[name]

    def _span(self, name: str) -> tuple[int, int]:
        """Cases for some seconds, those first that an earlier run left."""
        tally = self.state.tally(name)
        if tally.open:
            return tally.open.pop()
        each = tally.seconds / tally.done if tally.done else SPAN / 20
        count = max(1, min(500, int(SPAN / max(each, 1e-4))))
        start = tally.next
        tally.next = min(start + count, self.goals[name])
        return start, tally.next

    def _give_back(self, slot: _Slot) -> None:
        if slot.busy:
            self.state.tally(slot.kind).open.append((slot.next, slot.stop))
            slot.next = slot.stop

    def open_spans(self) -> dict[str, list[tuple[int, int]]]:
        """What workers have in hand, by kind."""
        found: dict[str, list[tuple[int, int]]] = {}
        for slot in self.slots:
            if slot.busy:
                found.setdefault(slot.kind, []).append((slot.next, slot.stop))
        return found

    # ---- workers -------------------------------------------------------------------------------

    def _start(self, slot: _Slot) -> None:
        context = multiprocessing.get_context("spawn")
        slot.pipe, other = context.Pipe()
        setting = replace(self.setting, folder=slot.folder, torch=slot.torch)
        process = context.Process(target=worker.serve, args=(setting, other), daemon=True)
        process.start()
        other.close()
        slot.process, slot.ready, slot.over_memory, slot.told = process, False, False, None
        slot.heard = time.monotonic()

    def _replace(self, slot: _Slot) -> None:
        _end(slot)
        self.restarts += 1
        self._start(slot)

    def _send(self, slot: _Slot) -> None:
        slot.base = slot.resident()
        slot.pipe.send((slot.kind, slot.next, slot.stop))
        slot.heard = time.monotonic()

    def _listen(self, slot: _Slot) -> None:
        try:
            message = slot.pipe.recv()
        except (EOFError, OSError):
            self._died(slot)
            return
        slot.heard = time.monotonic()
        if message[0] == "ready":
            slot.first, slot.ready = message[1], True
            if slot.busy:
                self._send(slot)
        elif message[0] == "failed":
            raise RuntimeError(f"the harness failed at {slot.kind} {slot.next}: {message[1]}")
        elif message[0] == "case":
            self._take(slot, *message[1:])

    def _take(
        self,
        slot: _Slot,
        index: int,
        code: int | None,
        times: tuple[float, float],
        faults: list[dict[str, str]],
    ) -> None:
        tally = self.state.tally(slot.kind)
        tally.codes[str(code)] += 1
        tally.seconds += times[0]
        tally.cpu += times[1]
        tally.slowest = max(tally.slowest, times[0])
        slot.next = index + 1
        for entry in faults:
            self._note(slot.kind, index, Fault(**entry))

    def _note(self, kind: str, index: int, fault: Fault) -> None:
        if self.state.note(kind, index, fault):
            self.on_fault(kind, index, fault)

    def _watch(self, slot: _Slot) -> None:
        process = slot.process
        if process is None or process.pid is None or not slot.ready:
            return
        now = time.monotonic()
        if slot.told is not None:
            if now - slot.told > PATIENCE:
                process.kill()
            return
        over = slot.resident() > slot.base + self.setting.bound
        if over or now - slot.heard > self.setting.limit:
            slot.over_memory, slot.told = over, now
            # faulthandler leaves the stack before the process dies.
            os.kill(process.pid, signal.SIGABRT)

    def _died(self, slot: _Slot) -> None:
        """The case that a worker died of is noted; one over the time limit is tried once more."""
        process = slot.process
        assert process is not None
        process.join(10)
        if not slot.ready:
            raise RuntimeError("a worker cannot start: see its output above")
        dump = (slot.folder / "stack.txt").read_text(errors="replace")
        what = CRASH
        if slot.over_memory:
            what = MEMORY
        elif slot.told is not None:
            what = HANG
        case = (slot.kind, slot.next)
        if what == HANG and slot.suspect != case:
            # Another process may have had the machine.
            slot.suspect = case
        else:
            tally = self.state.tally(slot.kind)
            tally.codes[what] += 1
            self._note(*case, ended_badly(what, dump))
            slot.next += 1
        self._replace(slot)


def _end(slot: _Slot) -> None:
    process = slot.process
    slot.process = None
    if process is None:
        return
    if slot.pipe is not None:
        slot.pipe.close()
    process.kill()
    process.join()
