"""
One run of a program: state, scoreboard and counters, and the registry of instruction functions.

An instruction's function takes the execution and the operands in field order; it checks the
precondition, changes the state and charges the time. It returns the next pc where that is not
the following one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from heatc.isa.table import ISA
from heatc.machine.budget import Budget
from heatc.machine.memory import Array, Memory
from heatc.machine.scoreboard import HardwareModel, Recorder, Scoreboard
from heatc.machine.state import MachineState
from heatc.machine.values import Values
from heatc.machine.work import Work

Function = Callable[..., "int | None"]
F = TypeVar("F", bound=Callable[..., Any])

EXECUTES: dict[str, Function] = {}
"""The function of each instruction."""


def executes(mnemonic: str) -> Callable[[F], F]:
    """Register the function of an instruction."""
    assert mnemonic in ISA
    assert mnemonic not in EXECUTES

    def register(function: F) -> F:
        EXECUTES[mnemonic] = function
        return function

    return register


class Execution:
    """What the instructions of a run share; `pc` is the instruction being executed."""

    def __init__(
        self,
        hardware: HardwareModel,
        memory: Memory,
        program: int,
        values: Values | None = None,
        recorder: Recorder | None = None,
        budget: Budget | None = None,
    ):
        self.hardware = hardware
        self.values = values or Values()
        self.memory = memory
        shared = Memory(np.zeros(0, np.uint8), hardware.shared_buffer_bytes)
        self.state = MachineState(hardware.cores, shared)
        self.board = Scoreboard(hardware, self.state, memory.size, program)
        self.board.recorder = recorder
        self.pc = 0
        self.budget = budget
        self.works = Work()
        self.loops: list[tuple[int, int, int]] = []
        self.counts = [0] * program
        self.saturations: dict[int, int] = {}
        self.host_codes: dict[int, tuple[Array, int]] = {}
        """The int16 codes and point that a host register holds unchanged, for tables."""
        self.pc_macs = [0] * program
        self.pc_blocks = [0] * program
        self.pc_blocks_kept = [0] * program
        self.pc_heads = [0] * program
        self.pc_heads_pruned = [0] * program

    def work(self, **variables: int) -> None:
        """Count a piece of work of the current instruction, see `heatc.isa.actions`."""
        self.works.add(self.pc, variables)

    def saturated(self, count: int) -> None:
        """Count saturations at the current instruction."""
        if count:
            self.saturations[self.pc] = self.saturations.get(self.pc, 0) + count
