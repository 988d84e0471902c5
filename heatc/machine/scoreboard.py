"""The machine's scoreboard: the clocks of its engines, what traps before they move, and traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from heatc.isa.table import Engine
from heatc.isa.units import Mask
from heatc.machine.clocks import Clocks, HardwareModel, Rows, Times, later, latest, nonempty
from heatc.machine.state import MachineState, Tile, Trap

__all__ = ["HardwareModel", "Recorder", "Rows", "Scoreboard", "later", "latest", "nonempty"]


class Recorder(Protocol):
    """Watches what the engines do, for a trace; times in cycles."""

    def core(self, pc: int, engine: Engine, start: Times, end: Times, live: Mask | None) -> None:
        """Work of a core engine on the live cores (None: on all)."""
        ...

    def transfer(self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int) -> None:
        """Bytes that the DMA engine moved between a tile and `space`."""
        ...

    def host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        """Work of the host or of the vector units."""
        ...

    def written(self, tile: Tile, start: int) -> None:
        """A tile's contents begin to be written."""
        ...


class Scoreboard(Clocks[Tile]):
    """Clocks of the engines; a result that shares bytes with an operand is a trap."""

    def __init__(self, hardware: HardwareModel, state: MachineState, size: int, program: int):
        super().__init__(hardware, state, size, program)
        self.recorder: Recorder | None = None
        self.listed_at = 0
        """When the heads that are listed are known, which rounds and transfers wait for."""

    def core(
        self,
        pc: int,
        engine: Engine,
        cycles: Times,
        reads: Sequence[Tile],
        writes: Sequence[Tile],
        after: int = 0,
        *,
        in_place: bool = False,
    ) -> Times:
        """See `Clocks.core`; what is computed `in_place` may begin where an operand does."""
        for tile in writes:
            _expect_apart(tile, reads, in_place=in_place)
        return super().core(pc, engine, cycles, reads, writes, after)

    def transfer(
        self,
        pc: int,
        mnemonic: str,
        nbytes: int,
        source: Tile | Rows,
        target: Tile | Rows,
        also: Tile | None = None,
    ) -> None:
        """See `Clocks.transfer`."""
        if also is not None and isinstance(target, Tile):
            _expect_apart(target, (also,), in_place=False)
        super().transfer(pc, mnemonic, nbytes, source, target, also)

    def _saw_core(
        self, pc: int, engine: Engine, start: Times, end: Times, writes: Sequence[Tile]
    ) -> None:
        if self.recorder is None:
            return
        self.recorder.core(pc, engine, start, end, self.state.live)
        for tile in writes:
            self.recorder.written(tile, latest(start))

    def _saw_transfer(
        self, pc: int, space: str, loads: bool, start: int, end: int, nbytes: int, tile: Tile | None
    ) -> None:
        if self.recorder is None:
            return
        self.recorder.transfer(pc, space, loads, start, end, nbytes)
        if loads and tile is not None:
            self.recorder.written(tile, start)

    def _saw_host(self, pc: int, engine: Engine, start: int, end: int) -> None:
        if self.recorder is not None:
            self.recorder.host(pc, engine, start, end)


def _expect_apart(tile: Tile, reads: Sequence[Tile], *, in_place: bool) -> None:
    """Bytes that an instruction writes are none that it still has to read."""
    for other in tile.overlaps:
        if other in reads and not (in_place and other.address == tile.address):
            raise Trap(f"{tile.name} shares bytes with {other.name}, which is read")
