"""How long a program may run: loops, idle instructions, seconds."""

from __future__ import annotations

import time

import numpy as np
import pytest
from machine_kit import Tiny

from heatc.errors import HeatcError
from heatc.isa.words import Inst, inst
from heatc.machine.budget import MOST_IDLE, MOST_IDLE_EACH, STEPS_A_SECOND, Budget
from heatc.machine.machine import Machine, Memory

WORK = [
    inst("tensor", d=0, dtype="i8", base=0, rows_imm=1, cols=8),
    inst("all"),
    inst("tile", t=0, space="local", dtype="i8", address=0, bytes=64),
]
LOAD = inst("ld", t=0, d=0, rows=1, cols=8)
ADD = inst("addi", rd=3, ra=3, imm=1)


def loop(count: int, body: list[Inst], register: int = 1) -> list[Inst]:
    """`count` iterations of a body, on registers of their own."""
    size = len(body) + 2
    return [
        inst("li", rd=register, imm=count),
        inst("loop", r=register + 10, bound=register, step=1, skip=size),
        *body,
        inst("end", back=size - 1),
    ]


def run(body: list[Inst], max_seconds: float = 300) -> int:
    machine = Machine(Tiny(), Memory(np.zeros(0, np.uint8), 64))
    return machine.run([*body, inst("halt")], max_seconds=max_seconds).steps


def refused(body: list[Inst], max_seconds: float = 300) -> HeatcError:
    with pytest.raises(HeatcError) as caught:
        run(body, max_seconds)
    assert caught.value.exit_code == 1
    assert caught.value.notes
    return caught.value


def test_a_loop_that_cannot_end_in_time_does_not_begin():
    error = refused(loop(1 << 60, [ADD]))
    assert error.message.endswith(f"{1 << 60} iterations of 2 instructions")
    assert "give more by --max-seconds" in error.notes[1]
    count = STEPS_A_SECOND // 2
    assert run(loop(count, [ADD]), max_seconds=1.1) == 3 + 2 * count
    assert "iterations" in refused(loop(count, [ADD]), max_seconds=0.9).message


def test_a_program_that_does_no_work_is_stopped():
    # Neither loop is long on its own.
    inner = loop(2000, [ADD], register=2)
    error = refused(loop(2000, inner))
    assert "of which 0 did any work" in error.message
    # A loop whose bound runs away.
    error = refused(loop(1, [inst("addi", rd=1, ra=1, imm=1)]))
    assert "of which 0 did any work" in error.message


def test_idle_instructions_between_work_are_no_fault():
    program = [inst("halt")] * 3 + [LOAD]
    budget = Budget(program, 1e6)
    idle = MOST_IDLE + 1000 * MOST_IDLE_EACH
    assert budget.check(0, idle + 1000, [idle, 0, 0, 1000]) > idle
    budget = Budget(program, 1e6)
    with pytest.raises(HeatcError, match="of which 1000 did any work"):
        budget.check(0, idle + 1001, [idle + 1, 0, 0, 1000])


def test_work_takes_time():
    assert run([*WORK, *loop(100, [LOAD])]) == 3 + 3 + 200 - 1 + 1 - 1 + 1
    error = refused([*WORK, *loop(1000, loop(1000, [LOAD], register=2))], max_seconds=0.5)
    assert "stopped after" in error.message
    assert error.notes[0] == "a pass takes 0.5 seconds and 16384 instructions at most"


def test_work_that_takes_long_by_itself_looks_at_the_clock():
    """A hundred instructions of a few hundred milliseconds each, of which no more than some begin."""
    slow = [
        inst("hnum", h=0, rows=1 << 11, columns=1 << 10, value=0.5),
        inst("hfun", h=0, function="erf"),
    ]
    start = time.monotonic()
    error = refused(slow * 100, max_seconds=0.2)
    assert "stopped after 0.2 seconds" in error.message
    assert time.monotonic() - start < 10
