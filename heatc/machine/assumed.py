"""Masks that nobody has computed yet: what a program with pruning is timed on at compile time."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from heatc.errors import HeatcError
from heatc.isa.units import Mask
from heatc.machine.state import Extent, MachineState


class NoMasks:
    """
    Decisions of a program that makes none.

    Raises `HeatcError` where the program decides after all: without masks it has no time.
    """

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        raise _undecided(pc)

    def gate(self, pc: int, state: MachineState) -> Mask:
        raise _undecided(pc)

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        raise _undecided(pc)


def _undecided(pc: int) -> HeatcError:
    return HeatcError(
        f"pc {pc}: what is kept depends on values, and no masks are given",
        notes=["time the program on assumed masks"],
    )


@dataclass
class AssumedMasks:
    """
    Random masks: each block is kept with probability `blocks`, each head with `heads`.

    At least one block of a row is kept. Blocks are drawn in the order in which the program decides,
    for all cores, so that one seed gives one run the same masks on any number of active cores.
    """

    blocks: float
    heads: float = 1.0
    seed: int = 0
    _draw: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._draw = np.random.default_rng(self.seed)

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        """See `heatc.machine.values.Decisions`."""
        chances = self._draw.random((state.cores, rows, columns))[: state.active]
        least = chances == chances.min(axis=2, keepdims=True, initial=1.0)
        return (chances < self.blocks) | least

    def gate(self, pc: int, state: MachineState) -> Mask:
        """See `heatc.machine.values.Decisions`."""
        return (self._draw.random(state.cores) < self.heads)[: state.active]

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        """See `heatc.machine.values.Decisions`."""
        return self._draw.permutation(heads) < keep
