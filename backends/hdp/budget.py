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

MAX_SECONDS = 600.0
"""Of one pass; BERT-Base on 128 tokens takes two."""

MAX_STEPS = 1 << 24
"""Instructions of one pass; BERT-Base on 128 tokens takes twelve thousand."""

MOST_IDLE = 1 << 19
MOST_IDLE_EACH = 64
"""Instructions of the sequencer: so many, and so many more for each one of an engine."""

_PERIOD = 256


class Budget:
    """Counts what is left of the steps, the seconds and the patience with a program."""

    def __init__(self, program: Sequence[Inst], max_steps: int, max_seconds: float):
        self.max_steps = max_steps
        self._max_seconds = max_seconds
        self._deadline = time.monotonic() + max_seconds
        self._works = [ISA[i.mnemonic].engine is not Engine.CONTROL for i in program]
        self._next_look = MOST_IDLE

    def check(self, pc: int, steps: int, counts: Sequence[int]) -> int:
        """
        The number of steps to check at again, `steps` being those so far, `counts` those of each pc.

        Raises `HeatcError` where the program has to stop.
        """
        if steps >= self.max_steps:
            raise _stopped(pc, f"{steps} instructions", "a program of so many is not simulated")
        if time.monotonic() > self._deadline:
            note = "give more by --max-seconds (hdp-run), max_seconds (heatc.backends.hdp.simulate)"
            raise _stopped(pc, f"{self._max_seconds:g} seconds, {steps} instructions", note)
        if steps >= self._next_look:
            self._next_look += MOST_IDLE // 4
            working = sum(count for count, works in zip(counts, self._works) if works)
            if steps - working > MOST_IDLE + MOST_IDLE_EACH * working:
                what = f"{steps} instructions, of which {working} did any work"
                raise _stopped(pc, what, "does a loop of the program end?")
        return min(steps + _PERIOD, self.max_steps)

    def check_loop(self, iterations: int, body: int) -> str:
        """What is wrong with a loop that is about to begin, or nothing."""
        if iterations * body <= self.max_steps:
            return ""
        return (
            f"{iterations} iterations of {body} instructions, "
            f"a program of at most {self.max_steps} is simulated"
        )


def _stopped(pc: int, after: str, note: str) -> HeatcError:
    return HeatcError(f"pc {pc}: stopped after {after}", notes=[note])
