"""Words, text and table agree."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatc.errors import HeatcError
from heatc.isa.table import BY_OPCODE, ISA, Field, FieldKind
from heatc.isa.words import (
    Inst,
    Operand,
    decode,
    decode_program,
    encode,
    encode_program,
    from_text,
    inst,
    to_text,
)


def _values(field: Field) -> st.SearchStrategy[Operand]:
    if field.kind is FieldKind.F64:
        return st.floats(allow_nan=False)
    return st.integers(field.low, field.high)


@st.composite
def instructions(draw: st.DrawFn) -> Inst:
    """Any encodable instruction."""
    entry = ISA[draw(st.sampled_from(sorted(ISA)))]
    return Inst(entry.mnemonic, tuple(draw(_values(field)) for field in entry.fields))


@given(instructions())
def test_round_trip(instruction: Inst):
    word = encode(instruction)
    assert len(word) == 16
    assert decode(word) == instruction
    assert encode(from_text(to_text(instruction))) == word


@given(st.binary(min_size=16, max_size=16))
def test_any_bytes_decode_or_are_refused(data: bytes):
    data = bytes([sorted(BY_OPCODE)[data[0] % len(BY_OPCODE)]]) + data[1:]
    try:
        instruction = decode(data, 7)
    except HeatcError as error:
        refused = error.message
    else:
        refused = "" if encode(instruction) == data else "decoded to another word"
    assert not refused or refused.startswith("pc 7: illegal")


def test_programs():
    program = [inst("li", rd=5, imm=-3), inst("halt")]
    assert decode_program(encode_program(program)) == program
    with pytest.raises(HeatcError, match="16-byte words"):
        decode_program(b"\x01" * 17)


def test_text():
    text = "mm t4, t0, t1, first=1, b_transposed=1"
    assert to_text(from_text(text)) == text
    assert from_text("add t1, t2, t3, t4, t5, r6, r7, neginf, 9, 10, 11, t1, 0, 0")["pruned"] == 1
    assert to_text(inst("add", pruned="mean")).count("pruned=mean") == 1
    assert to_text(inst("halt")) == "halt"


@pytest.mark.parametrize(
    "line",
    ["nop", "halt r1", "li r64, imm=0", "li t1, imm=0", "li r1, im=0", "li r1, imm=x", "gate nan"],
)
def test_bad_text(line: str):
    with pytest.raises(HeatcError):
        from_text(line)


def test_illegal_words():
    halt = encode(inst("halt"))
    with pytest.raises(HeatcError, match="pc 3: illegal"):
        decode(b"\xff" + halt[1:], 3)
    with pytest.raises(HeatcError, match="illegal"):
        decode(halt[:15] + b"\x80")
    with pytest.raises(HeatcError, match="does not fit"):
        encode(Inst("li", (64, 0)))
