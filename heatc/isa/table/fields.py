"""Fields of instruction words, and what they may hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Literal, TypeAlias, get_args

ISA_VERSION = 3
WORD_BYTES = 16
WORD_BITS = 8 * WORD_BYTES
OPCODE_BITS = 8

BLOCK = (2, 2)
"""(query rows, key columns) of a block of scores, unless `blocks` says another one."""

REGISTERS = 64
TILES = 64
DESCRIPTORS = 1024
HOST_REGISTERS = 8

R_ZERO = 0
"""Reads as 0, writes are ignored."""
R_TOKENS = 63
"""Number of packed tokens, set by `hpack`."""
R_BATCH = 62
"""Number of sequences, set by `hpack`."""
R_START = 61
"""First packed row of the current sequence, set by `seq`."""
R_LENGTH = 60
"""Length of the current sequence in tokens, its keys, set by `seq`."""
R_EXTRA_START = 59
"""First packed row of the current sequence that is no key, set by `seq`."""
R_EXTRA = 58
"""How many rows of the current sequence are no keys, set by `seq`."""


def split_dtypes(point: int) -> tuple[str, str]:
    """
    The narrowest dtypes that hold integer and fraction part of any int16 code at `point`, >= 0.

    |I| <= 2^(15 - point), reached by the least code only: [-2^7, 2^7) from point 8 on.
    |F| < 2^point: at most 2^7 - 1 up to point 7.
    """
    return "i8" if point >= 8 else "i16", "i8" if point <= 7 else "i16"


def sorting_compares(count: int) -> int:
    """
    Compare-exchanges that sort `count` keys in a bitonic network, >= 0.

    K. E. Batcher, Sorting networks and their applications, AFIPS 1968: with N = 2^p keys p (p + 1) / 2
    stages of N / 2.
    """
    depth = max(count - 1, 0).bit_length()
    return (1 << depth) // 2 * (depth * (depth + 1) // 2)


SPACES = ("dram", "shared", "local")
PrunedScore: TypeAlias = Literal["zero", "neginf", "int", "mean"]
PRUNED_SCORES: tuple[str, ...] = get_args(PrunedScore)
"""What becomes of a pruned score."""
MASK_AXES = ("key", "query")
KEYLESS_ROWS = ("zero", "refuse", "all", "mean")
"""
What a row gives that sees no key: zeros, an error at run time, attention to all keys as if none were
hidden, or the mean of the values.
"""
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
PARAMETERS = ("rho", "tau")
"""Thresholds that every head can have of its own."""
HEADS = 1 << 12
"""Heads that the sequencer keeps parameters of."""


class FieldKind(StrEnum):
    """What a field holds."""

    REG = "reg"
    TILE = "tile"
    DESC = "desc"
    HOST = "host"
    INT = "int"
    UINT = "uint"
    F64 = "f64"
    ENUM = "enum"
    FLAG = "flag"


INDEX_KINDS: Mapping[FieldKind, str] = MappingProxyType(
    {FieldKind.REG: "r", FieldKind.TILE: "t", FieldKind.DESC: "d", FieldKind.HOST: "h"}
)
"""Kinds that name a piece of state, with the letter of their text form."""


@dataclass(frozen=True)
class Field:
    """One field of an instruction word; `choices` names the values of an `enum`."""

    name: str
    kind: FieldKind
    bits: int
    choices: tuple[str, ...] = ()

    @cached_property
    def signed(self) -> bool:
        """Whether the field is a two's complement integer."""
        return self.kind is FieldKind.INT

    @cached_property
    def low(self) -> int:
        """The least legal value of an integer field."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @cached_property
    def high(self) -> int:
        """The greatest legal value of an integer field."""
        if self.kind is FieldKind.ENUM:
            return len(self.choices) - 1
        return (1 << (self.bits - self.signed)) - 1


def reg(name: str) -> Field:
    """A scalar register r0..r63."""
    return Field(name, FieldKind.REG, 6)


def tile(name: str) -> Field:
    """A tile t0..t63."""
    return Field(name, FieldKind.TILE, 6)


def desc(name: str) -> Field:
    """A tensor descriptor d0..d1023."""
    return Field(name, FieldKind.DESC, 10)


def host(name: str) -> Field:
    """A host register h0..h7."""
    return Field(name, FieldKind.HOST, 3)


def sint(name: str, bits: int) -> Field:
    """A two's complement immediate."""
    return Field(name, FieldKind.INT, bits)


def uint(name: str, bits: int) -> Field:
    """An unsigned immediate."""
    return Field(name, FieldKind.UINT, bits)


def f64(name: str) -> Field:
    """A float64 immediate; a NaN is an illegal word."""
    return Field(name, FieldKind.F64, 64)


def enum(name: str, choices: tuple[str, ...]) -> Field:
    """One of `choices`, encoded as its index."""
    return Field(name, FieldKind.ENUM, max(1, (len(choices) - 1).bit_length()), choices)


def flag(name: str) -> Field:
    """0 or 1."""
    return Field(name, FieldKind.FLAG, 1)
