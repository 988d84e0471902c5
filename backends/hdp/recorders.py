"""Recorders of a run that are told when a pass ends, and several of them as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heatc.isa.table import Engine
from heatc.isa.units import Mask
from heatc.machine.scoreboard import Recorder
from heatc.machine.state import Tile, Times


class PassRecorder(Recorder, Protocol):
    """A recorder of passes that follow each other."""

    def end_pass(self, cycles: int) -> None:
        """The pass has ended after so many cycles."""
        ...


class Recorders:
    """Tells several recorders the same."""

    def __init__(self, recorders: Sequence[PassRecorder]):
        self._recorders = recorders

    def core(self, pc: int, engine: Engine, start: Times, end: Times, live: Mask | None) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        for recorder in self._recorders:
            recorder.core(pc, engine, start, end, live)

    def transfer(self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        for recorder in self._recorders:
            recorder.transfer(pc, space, loads, start, end, nbytes)

    def host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        for recorder in self._recorders:
            recorder.host(pc, engine, start, end)

    def written(self, tile: Tile, start: int) -> None:
        """See `heatc.machine.scoreboard.Recorder`."""
        for recorder in self._recorders:
            recorder.written(tile, start)

    def end_pass(self, cycles: int) -> None:
        """See `PassRecorder`."""
        for recorder in self._recorders:
            recorder.end_pass(cycles)


def as_one(recorders: Sequence[PassRecorder]) -> PassRecorder | None:
    """The recorder itself where there is one, None where there is none."""
    if len(recorders) < 2:
        return next(iter(recorders), None)
    return Recorders(recorders)
