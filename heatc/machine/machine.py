"""
The HDP machine: runs a decoded program, and counts its time.

Values and cycles come from the same execution, so the masks of the run decide both. Values are
exact (docs/design/numerics.md); cycles, bytes and busy times are modelled
(docs/design/machine.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError, InfeasibleError
from heatc.isa.table import ISA, Engine
from heatc.isa.words import Inst, encode, to_text

# The functions of the instructions register themselves.
from heatc.machine import execute_array as _array
from heatc.machine import execute_cascade as _cascade
from heatc.machine import execute_control as _control
from heatc.machine import execute_dma as _dma
from heatc.machine import execute_drain as _drain
from heatc.machine import execute_host as _host
from heatc.machine import execute_host_math as _host_math
from heatc.machine import execute_host_moves as _host_moves
from heatc.machine import execute_host_reduce as _host_reduce
from heatc.machine import execute_masked as _masked
from heatc.machine import execute_prediction as _prediction
from heatc.machine import execute_score_masks as _score_masks
from heatc.machine import execute_units as _units
from heatc.machine.budget import MAX_SECONDS, Budget
from heatc.machine.execution import EXECUTES, Execution
from heatc.machine.memory import Memory
from heatc.machine.scoreboard import HardwareModel, Recorder
from heatc.machine.state import MachineState, Trap
from heatc.machine.values import Values
from heatc.machine.work import Work

__all__ = ["Machine", "MachineState", "Memory", "RunResult", "check_program"]

OnRetire = Callable[[int, Inst, MachineState], None]

_MODULES = (
    _array,
    _cascade,
    _control,
    _dma,
    _drain,
    _host,
    _host_math,
    _host_moves,
    _host_reduce,
    _masked,
    _prediction,
    _score_masks,
    _units,
)
assert EXECUTES.keys() == ISA.keys(), EXECUTES.keys() ^ ISA.keys()


@dataclass(frozen=True)
class RunResult:
    """
    What a run cost and how often it pruned and saturated; all of it is modelled or counted.

    `busy` gives the busy cycles of an engine, (cores,) for core engines and (1,) else. Lists with
    `pc` in their name have an entry for each instruction of the program; `pc_cycles` sums over
    cores and engines, `pc_busy` over the cores of each engine. `heads_*` and `blocks_*` count heads that entered a round, and blocks that were ranked.
    `work` is what `heatc.machine.energy` charges.
    """

    cycles: int
    busy: dict[str, NDArray[np.int64]]
    dram_bytes_read: int
    dram_bytes_written: int
    steps: int
    counts: dict[str, int]
    macs: int
    blocks_kept: int
    blocks_total: int
    heads_kept: int
    heads_total: int
    saturations: dict[int, int]
    pc_counts: list[int] = field(repr=False)
    pc_cycles: list[int] = field(repr=False)
    pc_busy: dict[str, list[int]] = field(repr=False)
    pc_bytes_read: list[int] = field(repr=False)
    pc_bytes_written: list[int] = field(repr=False)
    pc_macs: list[int] = field(repr=False)
    pc_blocks: list[int] = field(repr=False)
    pc_blocks_kept: list[int] = field(repr=False)
    pc_heads: list[int] = field(repr=False)
    pc_heads_pruned: list[int] = field(repr=False)
    work: Work = field(repr=False)


def check_program(program: Sequence[Inst]) -> None:
    """
    Check what can be seen without running: operands fit their fields, loops match.

    Raises:
        HeatcError: names the pc and the instruction.
    """
    loops: list[int] = []
    for pc, instruction in enumerate(program):
        try:
            _expect_encodable(instruction)
        except HeatcError as error:
            raise HeatcError(f"pc {pc}: {error.message}", notes=error.notes) from None
        if instruction.mnemonic == "loop":
            _check_loop(program, pc)
            loops.append(pc)
        elif instruction.mnemonic == "end":
            if not loops or pc - int(instruction["back"]) != loops.pop():
                raise _error(pc, instruction, "back does not lead to the open loop")
            if int(program[pc - int(instruction["back"])]["skip"]) != int(instruction["back"]) + 1:
                raise _error(pc, instruction, "the loop does not skip to behind this end")
    if loops:
        raise _error(loops[-1], program[loops[-1]], "the loop has no end")


@lru_cache(maxsize=1 << 16)
def _expect_encodable(instruction: Inst) -> None:
    """Passes for most instructions of a program's second run without a look."""
    encode(instruction)


def _check_loop(program: Sequence[Inst], pc: int) -> None:
    instruction = program[pc]
    if instruction["r"] == 0:
        raise _error(pc, instruction, "the loop register is r0")
    if instruction["step"] == 0:
        raise _error(pc, instruction, "the step is 0")


def _error(
    pc: int,
    instruction: Inst,
    message: str,
    notes: Sequence[str] = (),
    kind: type[HeatcError] = HeatcError,
) -> HeatcError:
    return kind(f"pc {pc}: `{to_text(instruction)}`: {message}", notes=notes)


class Machine:
    """A machine of some hardware with its DRAM; each `run` starts from a fresh state."""

    def __init__(self, hardware: HardwareModel, memory: Memory):
        self.hardware = hardware
        self.memory = memory

    def run(
        self,
        program: Sequence[Inst],
        on_retire: OnRetire | None = None,
        *,
        max_seconds: float = MAX_SECONDS,
        values: Values | None = None,
        recorder: Recorder | None = None,
    ) -> RunResult:
        """
        Execute a program until `halt`; DRAM keeps what it wrote.

        `on_retire(pc, instruction, state)` is called after each instruction. `values` is how data
        is computed: `Shapes` counts the cost alone. `recorder` watches the engines.

        Raises:
            HeatcError: an illegal program or a precondition that does not hold, with its pc; one that
                takes more than `max_seconds`, or that does no work.
            InfeasibleError: a tile does not fit its buffer, or contents their tile.
        """
        check_program(program)
        budget = Budget(program, max_seconds)
        run = self._execution(program, values, recorder, budget)
        run.values.begin(run.state)
        try:
            with np.errstate(all="ignore"):
                steps = self._loop(run, program, on_retire, budget)
        except Trap as trap:
            at = program[run.pc]
            raise _error(run.pc, at, trap.message, trap.notes, trap.error) from None
        except MemoryError:
            message = "this computer has not enough memory for the result"
            raise _error(run.pc, program[run.pc], message, kind=InfeasibleError) from None
        return _result(run, program, steps)

    def _execution(
        self,
        program: Sequence[Inst],
        values: Values | None,
        recorder: Recorder | None,
        budget: Budget,
    ) -> Execution:
        try:
            return Execution(self.hardware, self.memory, program, values, recorder, budget)
        except MemoryError:
            raise InfeasibleError(
                "this computer has not enough memory for the machine's buffers",
                notes=["describe a machine with smaller buffers"],
            ) from None

    def _loop(
        self, run: Execution, program: Sequence[Inst], on_retire: OnRetire | None, budget: Budget
    ) -> int:
        code = [(EXECUTES[i.mnemonic], i.operands) for i in program]
        counts, board, size = run.counts, run.board, len(code)
        pc = steps = checkpoint = 0
        while True:
            if pc >= size:
                raise HeatcError("the program runs beyond its end", notes=["halt is missing"])
            if steps >= checkpoint:
                checkpoint = budget.check(pc, steps, counts)
            run.pc = pc
            function, operands = code[pc]
            target = function(run, *operands)
            counts[pc] += 1
            steps += 1
            board.clock += 1
            if on_retire is not None:
                on_retire(pc, program[pc], run.state)
            pc = pc + 1 if target is None else target
            if pc < 0:
                return steps


def _result(run: Execution, program: Sequence[Inst], steps: int) -> RunResult:
    board = run.board
    run.works.mnemonics = [instruction.mnemonic for instruction in program]
    counts: dict[str, int] = {}
    for instruction, count in zip(program, run.counts):
        if count:
            counts[instruction.mnemonic] = counts.get(instruction.mnemonic, 0) + count
    return RunResult(
        cycles=board.total(),
        busy={e.value: board.busy(e) for e in Engine if e is not Engine.CONTROL},
        dram_bytes_read=sum(board.pc_read),
        dram_bytes_written=sum(board.pc_written),
        steps=steps,
        counts=counts,
        macs=sum(run.pc_macs),
        blocks_kept=sum(run.pc_blocks_kept),
        blocks_total=sum(run.pc_blocks),
        heads_kept=sum(run.pc_heads) - sum(run.pc_heads_pruned),
        heads_total=sum(run.pc_heads),
        saturations=dict(run.saturations),
        pc_counts=run.counts,
        pc_cycles=[sum(cycles) for cycles in zip(*board.pc_busy.values())],
        pc_busy={e.value: cycles for e, cycles in board.pc_busy.items()},
        pc_bytes_read=board.pc_read,
        pc_bytes_written=board.pc_written,
        pc_macs=run.pc_macs,
        pc_blocks=run.pc_blocks,
        pc_blocks_kept=run.pc_blocks_kept,
        pc_heads=run.pc_heads,
        pc_heads_pruned=run.pc_heads_pruned,
        work=run.works,
    )
