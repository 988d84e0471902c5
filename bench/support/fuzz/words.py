"""Hostile programs: legal instructions with operands that no compiler gives them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from random import Random
from typing import Any

from bench.support.fuzz import octets
from heatc.backends.hdp.container import program_bytes
from heatc.isa.table import ISA, ISA_VERSION, Field, FieldKind
from heatc.isa.words import Inst, decode_program

Program = list[Inst]

HEADER = 16
"""Bytes in front of the words."""

REALS = (0.0, -0.0, 1.0, -1.0, 0.25, 1e-320, 1e308, -1e308, math.inf, -math.inf)
IMMEDIATES = (0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 255, 256, 1023, 4096, 65535, 1 << 19, 1 << 40)


def parse(file: bytes) -> Program:
    """The instructions of a good program.bin."""
    return decode_program(file[HEADER:])


def operand(rng: Random, field: Field, beside: Sequence[Any] = ()) -> Any:
    """A legal value of a field: a limit, a small one, one that others have, or any."""
    if field.kind is FieldKind.F64:
        return rng.choice(REALS) if rng.random() < 0.7 else rng.uniform(-2, 2)
    if beside and rng.random() < 0.4:
        return rng.choice(beside)
    value = rng.choice(
        (
            field.low,
            field.high,
            rng.choice(IMMEDIATES),
            rng.randint(0, 8),
            rng.randint(field.low, field.high),
        )
    )
    return min(max(value, field.low), field.high)


def instruction(rng: Random) -> Inst:
    """Any instruction with any operands."""
    entry = rng.choice(_ENTRIES)
    return Inst(entry.mnemonic, tuple(operand(rng, field) for field in entry.fields))


_ENTRIES = tuple(ISA.values())


def change(rng: Random, program: Program, most: int = 4) -> Program:
    """A program of legal instructions with some of them changed, added, moved or left out."""
    new = list(program)
    for _ in range(min(most, 1 + int(rng.expovariate(1.0)))):
        _edit(rng, new)
    return repaired(new) if rng.random() < 0.8 else new


def _edit(rng: Random, program: Program) -> None:
    at = rng.randrange(max(len(program), 1))
    edit = rng.randrange(10)
    if not program or edit == 0:
        program.insert(at, instruction(rng))
    elif edit == 1:
        del program[at]
    elif edit == 2:
        program.insert(rng.randint(0, len(program)), program[at])
    elif edit == 3:
        other = rng.randrange(len(program))
        program[at], program[other] = program[other], program[at]
    elif edit == 4:
        program[at] = instruction(rng)
    else:
        program[at] = _other_operand(rng, program[at], program)


def _other_operand(rng: Random, inst: Inst, program: Program) -> Inst:
    fields = inst.instruction.fields
    if not fields:
        return instruction(rng)
    at = rng.randrange(len(fields))
    beside = [i.operands[at] for i in program if i.mnemonic == inst.mnemonic]
    value = operand(rng, fields[at], beside)
    if isinstance(inst.operands[at], int) and rng.random() < 0.3:
        value = min(max(inst.operands[at] + rng.choice((-1, 1)), fields[at].low), fields[at].high)
    return Inst(inst.mnemonic, (*inst.operands[:at], value, *inst.operands[at + 1 :]))


def repaired(program: Program) -> Program:
    """The program with loops that lead to their ends, as far as they have some."""
    new, starts = list(program), list[int]()
    for at, one in enumerate(new):
        if one.mnemonic == "loop":
            starts.append(at)
        elif one.mnemonic == "end" and starts:
            start = starts.pop()
            new[start] = Inst("loop", (*new[start].operands[:3], at - start + 1))
            new[at] = Inst("end", (at - start,))
    return new


def invent(rng: Random, program: Program) -> Program:
    """
    The begin of a good program, which describes tensors and tiles, and then what no one wrote.
    """
    depth, ends = 0, [0]
    for at, one in enumerate(program):
        depth += (one.mnemonic == "loop") - (one.mnemonic == "end")
        if not depth:
            ends.append(at)
    body = program[: rng.choice(ends)]
    body += [_describe(rng) for _ in range(rng.randint(0, 4))]
    tail = [_plausible(rng, program) for _ in range(rng.randint(1, 12))]
    if rng.random() < 0.5:
        bound = rng.choice((1, 60, 62, 63))
        limit = rng.choice((1, 3, 1000, 1 << 20, (1 << 63) - 1))
        loop = Inst("loop", (rng.randint(1, 59), bound, rng.choice((1, 1, 4, 64)), 0))
        tail = [Inst("li", (bound, limit)), loop, *tail, Inst("end", (0,))]
    return repaired([*body, *tail, Inst("halt", ())])


def _describe(rng: Random) -> Inst:
    """A tensor or a tile that may lie anywhere, over others too."""
    mnemonic = rng.choice(("tensor", "tile"))
    values: list[Any] = []
    for field in ISA[mnemonic].fields:
        if field.name == "space":
            wanted = ("dram", "shared") if mnemonic == "tensor" else ("local", "shared")
            values.append(field.choices.index(rng.choice(wanted)))
        elif field.name == "dtype":
            names = ("i8", "i16", "i32", "i64", "f32") if mnemonic == "tensor" else field.choices
            values.append(field.choices.index(rng.choice(names)))
        elif field.name in ("base", "address"):
            values.append(8 * rng.randrange(1024))
        elif field.kind is FieldKind.UINT:
            values.append(min(rng.choice((1, 2, 4, 8, 16, 64, 256, 4096)), field.high))
        elif field.kind is FieldKind.REG:
            values.append(rng.choice((0, 0, 60, 63, rng.randrange(64))))
        else:
            values.append(rng.randrange(6))
    return Inst(mnemonic, tuple(values))


def _plausible(rng: Random, program: Program) -> Inst:
    """An instruction of a program, a changed one, or any with operands that are often legal."""
    chance = rng.random()
    candidates = [one for one in program if one.mnemonic not in ("loop", "end", "halt")]
    if chance < 0.3 and candidates:
        return rng.choice(candidates)
    if chance < 0.7 and candidates:
        return _other_operand(rng, rng.choice(candidates), program)
    entry = rng.choice([e for e in _ENTRIES if e.mnemonic not in ("loop", "end", "halt")])
    values: list[Any] = []
    for field in entry.fields:
        if field.kind in (FieldKind.TILE, FieldKind.DESC, FieldKind.HOST):
            values.append(rng.randrange(6))
        elif field.kind is FieldKind.REG:
            values.append(rng.choice((0, 1, 2, 60, 61, 62, 63)))
        elif field.kind in (FieldKind.UINT, FieldKind.INT):
            small = rng.choice((0, 1, 2, 4, 6, 8, 12, 16))
            values.append(min(small, field.high) if rng.random() < 0.9 else operand(rng, field))
        else:
            values.append(operand(rng, field))
    return Inst(entry.mnemonic, tuple(values))


def section(rng: Random, program: Program) -> bytes:
    """A program.bin, now and then with damaged words or a wrong header."""
    data = program_bytes(program)
    way = rng.randrange(20)
    if way == 0:
        return octets.damage(rng, data)
    if way == 1:
        count = rng.choice((0, len(program) - 1, len(program) + 1, 1 << 31, (1 << 32) - 1))
        version = rng.choice((0, ISA_VERSION - 1, ISA_VERSION, ISA_VERSION + 1, 1 << 31))
        return struct.pack("<8sII", data[:8], version, max(count, 0)) + data[HEADER:]
    if way == 2 and program:
        word = HEADER + 16 * rng.randrange(len(program))
        return data[:word] + rng.randbytes(16) + data[word + 16 :]
    return data
