"""
One run of a program: state, scoreboard and counters, and the registry of instruction functions.

An instruction's function takes the execution and the operands in field order; it checks the
precondition, changes the state and charges the time. It returns the next pc where that is not
the following one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from heatc.isa.shapes import RULES, Shape, ShapeRule, WrongShapeError
from heatc.isa.table import INDEX_KINDS, ISA, R_LENGTH
from heatc.isa.words import Inst
from heatc.machine.accesses import accesses
from heatc.machine.budget import Budget
from heatc.machine.clocks import up
from heatc.machine.memory import Array, Memory
from heatc.machine.scoreboard import HardwareModel, Recorder, Scoreboard
from heatc.machine.state import MachineState, Times, Trap
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


class Sizes:
    """The sizes of an instruction's operands by the names of its shape rule, and its results' shapes."""

    __slots__ = ("_named", "_rule", "_shapes")

    def __init__(self, rule: ShapeRule, named: dict[str, Any]):
        self._rule, self._named = rule, named
        self._shapes: dict[str, Shape] = {}

    def __getitem__(self, name: str) -> int:
        return self._named[name]

    def of(self, field: str) -> Shape:
        """The rows and columns of an operand when the instruction is done."""
        found = self._shapes.get(field)
        if found is None:
            found = self._shapes[field] = self._rule.result(field, self._named)
        return found


class Execution:
    """What the instructions of a run share; `pc` is the instruction being executed."""

    def __init__(
        self,
        hardware: HardwareModel,
        memory: Memory,
        program: Sequence[Inst],
        values: Values | None = None,
        recorder: Recorder | None = None,
        budget: Budget | None = None,
    ):
        self.hardware = hardware
        self.values = values or Values()
        self.memory = memory
        shared = Memory(np.zeros(0, np.uint8), hardware.shared_buffer_bytes)
        self.state = MachineState(hardware.cores, shared)
        self.program = program
        count = len(program)
        self.board = Scoreboard(hardware, self.state, memory.size, count)
        self.board.recorder = recorder
        self.pc = 0
        self.budget = budget
        self.works = Work()
        self._sizes: dict[tuple[object, ...], Sizes] = {}
        self.loops: list[tuple[int, int, int]] = []
        self.counts = [0] * count
        self.saturations: dict[int, int] = {}
        self.host_codes: dict[int, tuple[Array, int]] = {}
        """The int16 codes and point that a host register holds unchanged, for tables."""
        self.pc_macs = [0] * count
        self.pc_blocks = [0] * count
        self.pc_blocks_kept = [0] * count
        self.pc_heads = [0] * count
        self.pc_heads_pruned = [0] * count

    def core(self, cycles: Times, after: int = 0) -> Times:
        """
        Occupy the engine of the current instruction, not before `after`; returns when it ends.

        It waits for the tiles that its row of the table reads and writes.
        """
        inst = self.program[self.pc]
        entry, found = inst.instruction, accesses(inst)
        reads = [self.state.tile(number) for number in found.read(self.state.registers)]
        writes = [self.state.tile(number) for number in found.writes]
        return self.board.core(
            self.pc, entry.engine, cycles, reads, writes, after, in_place=entry.in_place
        )

    def sizes(self, shapes: dict[str, Shape], **known: int) -> Sizes:
        """
        What the current instruction's shape rule says of operands of these `shapes`.

        `known` stands for operands that are not used as the instruction has them. A trap where an
        operand has another shape than the rule says.
        """
        inst, state = self.program[self.pc], self.state
        rule, registers = RULES[inst.mnemonic], state.registers
        values = rule.values(inst.operands, registers)
        around = (registers[R_LENGTH], state.parts, *state.block)
        key = (inst.mnemonic, values, *shapes.items(), *known.values(), *around)
        found = self._sizes.get(key)
        if found is None:
            named = dict(zip(rule.operands, values)) | known | dict(zip(_AROUND, around))
            found = self._sized(rule, named, shapes)
            if len(self._sizes) >= _MOST_SIZES:
                self._sizes.clear()
            self._sizes[key] = found
        return found

    def _sized(self, rule: ShapeRule, named: dict[str, Any], shapes: dict[str, Shape]) -> Sizes:
        try:
            return Sizes(rule, rule.sizes(_FUNCTIONS | named, shapes))
        except WrongShapeError as error:
            name = _name_of(self.program[self.pc], error.field)
            raise Trap(f"shape of {name} is {error.got}, expected {error.expected}") from None

    def work(self, **variables: int) -> None:
        """Count a piece of work of the current instruction, see `WORK_VARIABLES`."""
        self.works.add(self.pc, variables)

    def saturated(self, count: int) -> None:
        """Count saturations at the current instruction."""
        if count:
            self.saturations[self.pc] = self.saturations.get(self.pc, 0) + count


def wider(x: int, y: int) -> int:
    """The size of a side of x and y, one of which is repeated if it is 1."""
    return y if x == 1 else x


_FUNCTIONS: dict[str, Any] = {"up": up, "min": min, "wider": wider}
_AROUND = ("r60", "parts", "block_rows", "block_columns")
"""The state that shapes are over."""
_MOST_SIZES = 1 << 12
"""Sizes that a run keeps: programs come to the same shapes again and again."""


def _name_of(inst: Inst, field: str) -> str:
    """A tile, tensor or host register as text has it."""
    row = inst.instruction
    return f"{INDEX_KINDS[row.field(field).kind]}{inst.operands[row.field_index(field)]}"
