"""
Instruction words: encode, decode, text.

A word is 16 bytes, little-endian: the opcode in bits 0..7, then the fields in the order of the
table, each at its declared width, the rest 0.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from heatc.errors import HeatcError
from heatc.isa.table import (
    BY_OPCODE,
    INDEX_KINDS,
    ISA,
    OPCODE_BITS,
    WORD_BYTES,
    Field,
    FieldKind,
    Instruction,
)

Operand = int | float


@dataclass(frozen=True)
class Inst:
    """
    One instruction: a mnemonic and its operands in field order.

    Operands are integers (an `enum` is the index of its choice), and floats for `f64` fields.
    """

    mnemonic: str
    operands: tuple[Operand, ...] = ()

    @property
    def instruction(self) -> Instruction:
        """The table's entry."""
        return ISA[self.mnemonic]

    def __getitem__(self, name: str) -> Operand:
        return self.operands[self.instruction.field_index(name)]


def inst(mnemonic: str, /, **operands: float | str) -> Inst:
    """An instruction from named operands; an `enum` may be given by name, what is left out is 0."""
    instruction = ISA[mnemonic]
    unknown = operands.keys() - {field.name for field in instruction.fields}
    if unknown:
        raise HeatcError(f"{mnemonic} has no field {sorted(unknown)[0]!r}")
    return Inst(mnemonic, tuple(_operand(f, operands.get(f.name, 0)) for f in instruction.fields))


def _operand(field: Field, value: float | str) -> Operand:
    if isinstance(value, str):
        if value not in field.choices:
            raise HeatcError(f"{field.name} must be one of {', '.join(field.choices)}: {value!r}")
        return field.choices.index(value)
    return float(value) if field.kind is FieldKind.F64 else int(value)


def _float_bits(value: float) -> int:
    return int.from_bytes(struct.pack("<d", value), "little")


def _bits_float(bits: int) -> float:
    return float(struct.unpack("<d", bits.to_bytes(8, "little"))[0])


def _encode_field(field: Field, value: Operand, where: str) -> int:
    if field.kind is FieldKind.F64:
        if math.isnan(value):
            raise HeatcError(f"{where}: {field.name} is not a number")
        return _float_bits(float(value))
    if not isinstance(value, int) or not field.low <= value <= field.high:
        raise HeatcError(
            f"{where}: {field.name} = {value} does not fit its field",
            notes=[f"expected an integer from {field.low} to {field.high}"],
        )
    return value & ((1 << field.bits) - 1)


def encode(instruction: Inst) -> bytes:
    """The 16 bytes of an instruction; an operand outside its field is a `HeatcError`."""
    entry = ISA.get(instruction.mnemonic)
    if entry is None:
        raise HeatcError(f"no instruction named {instruction.mnemonic!r}")
    if len(instruction.operands) != len(entry.fields):
        raise HeatcError(
            f"{entry.mnemonic} takes {len(entry.fields)} operands, got {len(instruction.operands)}"
        )
    word, position = entry.opcode, OPCODE_BITS
    for field, value in zip(entry.fields, instruction.operands, strict=True):
        word |= _encode_field(field, value, entry.mnemonic) << position
        position += field.bits
    return word.to_bytes(WORD_BYTES, "little")


def _decode_field(field: Field, bits: int) -> Operand | None:
    """The operand of some bits, None where the field has no such value."""
    if field.kind is FieldKind.F64:
        value = _bits_float(bits)
        return None if math.isnan(value) else value
    if field.signed and bits >> (field.bits - 1):
        return bits - (1 << field.bits)
    return None if bits > field.high else bits


def decode(data: bytes, pc: int = 0) -> Inst:
    """The instruction of 16 bytes; an illegal word is a `HeatcError` that names `pc`."""
    if len(data) != WORD_BYTES:
        raise HeatcError(f"pc {pc}: an instruction word has {WORD_BYTES} bytes, got {len(data)}")
    word = int.from_bytes(data, "little")
    entry = BY_OPCODE.get(word & ((1 << OPCODE_BITS) - 1))
    if entry is None:
        raise _illegal(pc, word, f"no instruction has opcode {word & 0xFF:#04x}")
    word_rest = word >> OPCODE_BITS
    operands: list[Operand] = []
    for field in entry.fields:
        bits = word_rest & ((1 << field.bits) - 1)
        word_rest >>= field.bits
        operand = _decode_field(field, bits)
        if operand is None:
            raise _illegal(pc, word, f"{field.name} of {entry.mnemonic} has no value {bits:#x}")
        operands.append(operand)
    if word_rest:
        raise _illegal(pc, word, f"bits beyond the fields of {entry.mnemonic} are not 0")
    return Inst(entry.mnemonic, tuple(operands))


def _illegal(pc: int, word: int, reason: str) -> HeatcError:
    return HeatcError(f"pc {pc}: illegal instruction word {word:#034x}", notes=[reason])


def encode_program(program: Sequence[Inst]) -> bytes:
    """The words of a program, in order."""
    return b"".join(map(encode, program))


def decode_program(data: bytes) -> list[Inst]:
    """The instructions of a program's words."""
    if len(data) % WORD_BYTES:
        raise HeatcError(
            f"a program is a sequence of {WORD_BYTES}-byte words, got {len(data)} bytes"
        )
    return [
        decode(data[at : at + WORD_BYTES], at // WORD_BYTES)
        for at in range(0, len(data), WORD_BYTES)
    ]


def _text_field(field: Field, value: Operand) -> str:
    if field.kind in INDEX_KINDS:
        return f"{INDEX_KINDS[field.kind]}{value}"
    if field.kind is FieldKind.ENUM:
        return f"{field.name}={field.choices[int(value)]}"
    return f"{field.name}={value!r}"


def to_text(instruction: Inst) -> str:
    """`mm t4, t0, t1, first=1, b_transposed=1`: state by its name, the rest by field."""
    pairs = zip(instruction.instruction.fields, instruction.operands, strict=True)
    operands = ", ".join(_text_field(field, value) for field, value in pairs)
    return f"{instruction.mnemonic} {operands}".rstrip()


def _parse_field(field: Field, text: str, line: str) -> Operand:
    name, equals, value = (part.strip() for part in text.partition("="))
    if equals and name != field.name:
        raise HeatcError(f"expected field {field.name}, got {name!r} in {line!r}")
    value = value if equals else name
    letter = INDEX_KINDS.get(field.kind, "")
    if not value.startswith(letter):
        raise HeatcError(f"expected {field.name} as {letter}<number>, got {value!r} in {line!r}")
    if value in field.choices:
        return field.choices.index(value)
    try:
        if field.kind is FieldKind.F64:
            return float(value)
        return int(value.removeprefix(letter), 0)
    except ValueError:
        raise HeatcError(f"expected {field.name}, got {value!r} in {line!r}") from None


def from_text(line: str) -> Inst:
    """The instruction of a line of text; fields may be given without their names, in order."""
    mnemonic, _, rest = line.strip().partition(" ")
    entry = ISA.get(mnemonic)
    if entry is None:
        raise HeatcError(f"no instruction named {mnemonic!r} in {line!r}")
    parts = [part.strip() for part in rest.split(",")] if rest.strip() else []
    if len(parts) != len(entry.fields):
        raise HeatcError(
            f"{mnemonic} takes {len(entry.fields)} operands, got {len(parts)} in {line!r}",
            notes=["fields: " + ", ".join(field.name for field in entry.fields)],
        )
    pairs = zip(entry.fields, parts, strict=True)
    result = Inst(mnemonic, tuple(_parse_field(field, part, line) for field, part in pairs))
    encode(result)
    return result
