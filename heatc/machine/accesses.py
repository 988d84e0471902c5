"""Which tiles an instruction reads and writes, as its row of the table says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType
from typing import Any

from heatc.isa.table import FieldKind
from heatc.isa.words import Inst


@dataclass(frozen=True)
class Accesses:
    """
    Numbers of the tiles that an instruction reads and writes.

    `perhaps` are tiles that it reads where a condition holds over registers, which are known when it
    is executed: the tile, the condition, and the registers by their fields.
    """

    reads: tuple[int, ...]
    writes: tuple[int, ...]
    perhaps: tuple[tuple[int, CodeType, tuple[tuple[str, int], ...]], ...] = ()

    def read(self, registers: Sequence[int]) -> tuple[int, ...]:
        """All tiles that are read."""
        found = self.reads
        for number, condition, fields in self.perhaps:
            if _holds(condition, {name: registers[register] for name, register in fields}):
                found = (*found, number)
        return found


@lru_cache(maxsize=1 << 14)
def accesses(inst: Inst) -> Accesses:
    """The tiles of an instruction."""
    entry, operands = inst.instruction, _named(inst)
    reads: list[int] = []
    perhaps: list[tuple[int, CodeType, tuple[tuple[str, int], ...]]] = []
    for access in entry.accesses:
        if entry.field(access.field).kind is not FieldKind.TILE:
            continue
        number = int(operands[access.field])
        condition = _condition(access.condition or "True")
        names = [name for name in condition.co_names if entry.field(name).kind is FieldKind.REG]
        if names:
            perhaps.append((number, condition, tuple((n, int(operands[n])) for n in names)))
        elif _holds(condition, operands):
            reads.append(number)
    tiles = [n for n in entry.writes if entry.field(n).kind is FieldKind.TILE]
    return Accesses(tuple(reads), tuple(int(operands[n]) for n in tiles), tuple(perhaps))


def _named(inst: Inst) -> dict[str, Any]:
    """The operands by field, enumerations by name."""
    pairs = zip(inst.instruction.fields, inst.operands)
    return {f.name: f.choices[int(value)] if f.choices else value for f, value in pairs}


@lru_cache(maxsize=64)
def _condition(text: str) -> CodeType:
    return compile(text, "<condition>", "eval")


def _holds(condition: CodeType, names: dict[str, Any]) -> bool:
    return bool(eval(condition, {"__builtins__": {}}, names))
