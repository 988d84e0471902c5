"""Programs of the host alone: registers are loaded from integers, and seen as float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from machine_kit import Kit, Tiny
from numpy.typing import NDArray

from heatc.isa.words import Inst
from heatc.machine.machine import MachineState, RunResult

Reals = NDArray[np.float64]


def matrix(seed: int, rows: int, columns: int) -> Reals:
    """Random numbers, none of them 0."""
    numbers = np.random.default_rng(seed).normal(size=(rows, columns)) * 2
    return np.where(numbers == 0, 1.0, numbers)


class HostKit:
    """A kit whose registers can be given and seen."""

    def __init__(self, hardware: Tiny | None = None):
        self.kit = Kit(hardware or Tiny(cores=1))
        self._given: dict[int, tuple[int, Reals]] = {}
        self.result: RunResult | None = None

    def copy(self) -> HostKit:
        """Another kit with the same program so far."""
        return copy.deepcopy(self)

    def emit(self, mnemonic: str, **operands: float | str) -> int:
        """Append an instruction; returns its pc."""
        return self.kit.emit(mnemonic, **operands)

    def load(self, h: int, array: Any) -> None:
        """Give a register a value from here on, whatever tensors can hold."""
        values = np.asarray(array, np.float64)
        pc = self.emit("hnum", h=h, rows=values.shape[0], columns=values.shape[1], value=0.0)
        self._given[pc] = (h, values)

    def run(self) -> tuple[Reals | None, ...]:
        """The registers at the end."""
        seen: list[tuple[Reals | None, ...]] = []

        def retire(pc: int, inst: Inst, state: MachineState) -> None:
            given = self._given.get(pc - self.kit.head)
            if given is not None:
                state.host[given[0]] = given[1]
            seen[:] = [tuple(state.host)]

        self.result = self.kit.run(retire)
        return seen[0]

    def register(self, h: int) -> Reals:
        """A register at the end."""
        found = self.run()[h]
        assert found is not None
        return found
