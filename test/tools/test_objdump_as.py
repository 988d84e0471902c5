"""`hdp-objdump` and `hdp-as`: the shape of the text, and back to the same words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from heatc.backends.hdp.container import Manifest, Port, Weight, program_bytes, write_program
from heatc.hardware import load_hardware
from heatc.isa.table import ISA, FieldKind
from heatc.isa.words import Inst, inst
from heatc.tools import assemble, objdump

DEBUG = {
    "locations": [
        {"pc": 0, "path": "", "source": ""},
        {"pc": 1, "path": "encoder.layer.0", "source": "bert.py:12"},
        {"pc": 3, "path": "pooler\nx", "source": None},
    ]
}


def random_program(seed: int, rounds: int = 3) -> list[Inst]:
    """Each instruction of the table a few times, with random operands."""
    seeded = random.Random(seed)

    def operand(kind: FieldKind, low: int, high: int) -> int | float:
        if kind is FieldKind.F64:
            return seeded.choice([0.0, -0.0, 1e-12, -0.5, float("inf"), seeded.uniform(-1e9, 1e9)])
        return seeded.choice([low, high, seeded.randint(low, high)])

    return [
        Inst(entry.mnemonic, tuple(operand(f.kind, f.low, f.high) for f in entry.fields))
        for _ in range(rounds)
        for entry in ISA.values()
    ]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    manifest = Manifest(
        load_hardware("hdp-edge"),
        (Port("ids", "int64", (1, 4), 64),),
        (Port("out", "float32", (1, 4), 96),),
        4096,
        points={"w": 11},
    )
    path = tmp_path / "p.hdp"
    with open(path, "wb") as stream:
        weights = [Weight("w", "I16", (2, 3), [np.zeros((2, 3), np.int16)])]
        write_program(stream, random_program(0), manifest, weights, DEBUG)
    return path


def dump(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert objdump.main([str(a) for a in arguments]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("form", [["-d"], ["-d", "--no-show-raw-insn"], ["-S"]])
def test_disassembly_assembles_back(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], form: list[str]
):
    text = tmp_path / "p.s"
    text.write_text(dump(capsys, *form, program))
    assert assemble.main([str(text), "-o", str(tmp_path / "p.bin")]) == 0
    assert (tmp_path / "p.bin").read_bytes() == program_bytes(random_program(0))
    again = dump(capsys, *form, tmp_path / "p.bin").splitlines()
    assert [line.partition("#")[0].strip() for line in again if ":\t" in line] == [
        line.partition("#")[0].strip() for line in text.read_text().splitlines() if ":\t" in line
    ]


def test_shape_of_the_disassembly(program: Path, capsys: pytest.CaptureFixture[str]):
    lines = dump(capsys, "-d", program).splitlines()
    assert lines[:4] == [
        f"{program}:     format hdp 2",
        "",
        "Disassembly of section program.bin:",
        "",
    ]
    assert lines[4] == "     0:\t00000000000000000000000000000001\thalt"
    assert lines[5].endswith("  # encoder.layer.0")
    assert lines[7].endswith("  # pooler x")


def test_source(program: Path, capsys: pytest.CaptureFixture[str]):
    lines = dump(capsys, "-S", program).splitlines()
    assert lines[5] == "; encoder.layer.0 (bert.py:12)"
    assert "; pooler x" in lines


def test_address_range(program: Path, capsys: pytest.CaptureFixture[str]):
    text = dump(capsys, "-d", "--start-address=2", "--stop-address=4", program)
    assert [line.split(":")[0].strip() for line in text.splitlines() if ":\t" in line] == ["2", "3"]


def test_headers(program: Path, capsys: pytest.CaptureFixture[str]):
    text = dump(capsys, "-h", "-t", program)
    count = len(random_program(0))
    assert f"program.bin          {16 + 16 * count}" in text
    assert f"{count} instructions, 12 bytes of weights, 4096 bytes of DRAM" in text
    assert "0x0000000000  int16               2x3  w  point 11" in text
    manifest = dump(capsys, "-x", program).partition("Manifest:\n")[2]
    assert json.loads(manifest)["hardware"]["name"] == "hdp-edge"


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["p.bin"], 2, "nothing to show"),
        (["-h", "p.bin"], 2, "need a .hdp"),
        (["-d", "none.hdp"], 1, "cannot open: no such file"),
        (["-d", "text"], 1, "not an HDP program"),
        (["-d", "bad.bin"], 1, "the header announces"),
        (["--disasemble", "p.bin"], 2, "did you mean '--disassemble'"),
        (["-d", "."], 1, "is a directory"),
    ],
)
def test_objdump_errors(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    expected: str,
):
    monkeypatch.chdir(tmp_path)
    words = program_bytes([inst("halt")])
    Path("p.bin").write_bytes(words)
    Path("bad.bin").write_bytes(words[:-1])
    Path("text").write_text("hello")
    assert objdump.main(arguments) == code
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "Traceback" not in captured.err


def test_help_lists_h_as_sections(capsys: pytest.CaptureFixture[str]):
    assert objdump.main(["--help"]) == 0
    assert "-h, --section-headers" in capsys.readouterr().out


def test_a_program_goes_to_standard_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
):
    monkeypatch.chdir(tmp_path)
    Path("x.s").write_text("halt\n")
    assert assemble.main(["x.s", "-o", "-"]) == 0
    assert assemble.main(["x.s", "-o", "x.bin"]) == 0
    assert capfdbinary.readouterr().out == Path("x.bin").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.bin", "x.s"]


def test_hand_written_text():
    program = assemble.assemble(
        "# a comment\n\n  li r1, 0x10   # sixteen\n; path (file.py:1)\n12: halt\n"
    )
    assert program == [inst("li", rd=1, imm=16), inst("halt")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("halt\nhlat\n", "a.s:2: no instruction named 'hlat'"),
        ("li r1\n", "a.s:1: li takes 2 operands"),
        ("li r64, imm=1\n", "a.s:1: li: rd = 64 does not fit"),
        ("li x1, 5\n", "a.s:1: expected rd as r<number>"),
        ("gate tau=nan, own=0, positive=0, visible=0\n", "a.s:1: gate: tau is not a number"),
        ("\n\nx\ny\nz\n", "note: 3 errors in all"),
        ("li r1, 99999999999999999999\n", "does not fit its field"),
        ("li r1, " + "9" * 5000, "a.s:1: expected imm"),
    ],
)
def test_wrong_text(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str):
    source = tmp_path / "a.s"
    source.write_text(text)
    assert assemble.main([str(source), "-o", str(tmp_path / "a.bin")]) == 1
    captured = capsys.readouterr()
    assert expected in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "a.bin").exists()


def test_as_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.s").write_bytes(b"halt\n\xff\xfe")
    assert assemble.main([str(tmp_path / "a.s"), "-o", str(tmp_path / "a.bin")]) == 1
    assert "a.s:2: not UTF-8 text" in capsys.readouterr().err
    (tmp_path / "a.s").write_bytes(b"halt\n")
    assert assemble.main([str(tmp_path / "a.s"), "-o", str(tmp_path / "none/a.bin")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert assemble.main([str(tmp_path / "none.s"), "-o", str(tmp_path / "a.bin")]) == 1
    assert "cannot open" in capsys.readouterr().err
    assert assemble.main([str(tmp_path / "a.s")]) == 2
