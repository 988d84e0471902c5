"""
How long a simulated program may run.

Instructions of the engines do work; those of the sequencer, loops and registers, only arrange it. A
program that arranges and never works is stopped within a second, a loop that cannot end in time
before it begins, and whatever else takes too long by the clock.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from heatc.errors import HeatcError
from heatc.isa.table import ISA, Engine
from heatc.isa.words import Inst
from heatc.machine.state import Trap

MAX_SECONDS = 300.0
"""Of one pass; BERT-Base on 128 tokens takes two."""

STEPS_A_SECOND = 1 << 15
"""Instructions that are simulated in a second at best: BERT-Base has twelve thousand in two."""

MOST_IDLE = 1 << 19
MOST_IDLE_EACH = 64
"""Instructions of the sequencer: so many, and so many more for each one of an engine."""

_PERIOD = 256

_MORE = "give more by --max-seconds (hdp-run) or max_seconds (heatc.backends.hdp.simulate)"


class Budget:
    """Counts what is left of the steps, the seconds and the patience with a program."""

    def __init__(self, program: Sequence[Inst], max_seconds: float):
        self._max_steps = int(max_seconds * STEPS_A_SECOND)
        self._max_seconds = max_seconds
        self._deadline = time.monotonic() + max_seconds
        self._works = [ISA[i.mnemonic].engine is not Engine.CONTROL for i in program]
        self._next_look = MOST_IDLE

    def check(self, pc: int, steps: int, counts: Sequence[int]) -> int:
        """
        The number of steps to check at again, `steps` being those so far, `counts` those of each pc.

        Raises `HeatcError` where the program has to stop.
        """
        if steps >= self._max_steps or time.monotonic() > self._deadline:
            raise _stopped(pc, f"{steps} instructions", self._bound, _MORE)
        if steps >= self._next_look:
            self._next_look += MOST_IDLE // 4
            working = sum(count for count, works in zip(counts, self._works) if works)
            if steps - working > MOST_IDLE + MOST_IDLE_EACH * working:
                what = f"{steps} instructions, of which {working} did any work"
                raise _stopped(pc, what, "does a loop of the program end?")
        return min(steps + _PERIOD, self._max_steps)

    def check_clock(self, pc: int) -> None:
        """Raise `HeatcError` where the time is up, before an instruction that takes long by itself."""
        if time.monotonic() > self._deadline:
            raise _stopped(pc, f"{self._max_seconds:g} seconds", self._bound, _MORE)

    @property
    def _bound(self) -> str:
        return (
            f"a pass takes {self._max_seconds:g} seconds and {self._max_steps} instructions at most"
        )

    def check_loop(self, iterations: int, body: int) -> None:
        """Raise a `Trap` where a loop that is about to begin cannot end in time."""
        if iterations * body > self._max_steps:
            what = f"{iterations} iterations of {body} instructions"
            raise Trap(what, self._bound, _MORE)


def _stopped(pc: int, after: str, *notes: str) -> HeatcError:
    return HeatcError(f"pc {pc}: stopped after {after}", notes=notes)
