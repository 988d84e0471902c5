"""heatc-opt from Python: exit codes, hostile files, what it imports."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from heatc.errors import HeatcError, InfeasibleError
from heatc.tools import opt
from heatc.universe import HEATC_UNIVERSE

ROOT = Path(__file__).resolve().parents[2]
GOOD = "func.func @f(%a: tensor<4xf32>) {\n  func.return\n}\n"


@pytest.fixture(name="good")
def fixture_good(tmp_path: Path) -> str:
    path = tmp_path / "good.mlir"
    path.write_text(GOOD)
    return str(path)


def messages(text: str) -> list[str]:
    """The error messages in what went to stderr."""
    return [line for line in text.splitlines() if " error: " in line]


def test_ok(good: str, capsys: pytest.CaptureFixture[str]):
    assert opt.main([good]) == 0
    captured = capsys.readouterr()
    assert "func.func @f" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["-p", "no-such-pass"],
        ["-p", "canonicalize{"],
        ["-p", "canonicalize{x=1}"],
        ["-p", "canonicalize;cse"],
        ["--print-ir-after=no-such-pass"],
        ["-t", "no-such-target"],
        ["-t", "{"],
        ["--no-such-option"],
        ["--pass=cse"],
        ["-o"],
        ["extra"],
    ],
)
def test_usage_errors(arguments: list[str], good: str, capsys: pytest.CaptureFixture[str]):
    assert opt.main([good, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(messages(captured.err)) == 1
    assert "Traceback" not in captured.err


def test_usage_is_checked_before_the_input_is_opened(capsys: pytest.CaptureFixture[str]):
    assert opt.main(["no-such-file.mlir", "-p", "no-such-pass"]) == 2
    assert "no-such-file" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the input is empty"),
        (b"\x00\x01\x02", "expected IR in text form, this is binary"),
        (b"PK\x03\x04rest", "this looks like a zip archive"),
        (b"ML\xefR\x00", "this looks like MLIR bytecode"),
        (b"module {}\n// caf\xe9", "not UTF-8 text: byte 0xe9 at offset 16"),
        (b"// only a comment", "could not parse entire input"),
        (b"module {" * 5000, "nested too deeply"),
        (b"func.func @f(", "error:"),
        # xDSL's own lexer needs 2^60 steps for this.
        (b'"' + b"x" * 60, "end of file reached before closing string literal"),
        # xDSL computes 2**width.
        (b'"test.op"() : () -> tensor<2xi4294967296>', "an integer type has 99999 bits at most"),
        (b'"test.op"() : () -> tensor<99999999999999999999999x', "error:"),
        (b'"nn.softmax"() : () -> ()', "error:"),
    ],
)
def test_hostile_input(
    data: bytes, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "bad.mlir"
    path.write_bytes(data)
    assert opt.main([str(path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(messages(error)) == 1
    assert error.startswith(f"heatc-opt: error: {path}")
    assert "Traceback" not in error


@pytest.mark.parametrize("name", ["missing.mlir", "", ".", "nul\0name"])
def test_unreadable_input(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert opt.main([str(tmp_path / name)]) == 1
    assert len(messages(capsys.readouterr().err)) == 1


def test_mutated_input_never_crashes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Bytes flipped, cut out and doubled in real IR: an exit code of 0 or 1, never a bug report."""
    rng = random.Random(0)
    source = b"".join(p.read_bytes() for p in sorted((ROOT / "test/dialects").glob("[a-z]*.mlir")))
    path = tmp_path / "mutant.mlir"
    for _ in range(150):
        start = rng.randrange(len(source) - 400)
        mutant = bytearray(source[start : start + 400])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(mutant))
            match rng.randrange(3):
                case 0:
                    mutant[at] = rng.randrange(1, 128)
                case 1:
                    del mutant[at : at + rng.randrange(1, 9)]
                case _:
                    mutant[at:at] = mutant[at : at + rng.randrange(1, 9)]
        path.write_bytes(mutant)
        assert opt.main([str(path), "--allow-unregistered-dialect"]) in (0, 1), bytes(mutant)
        assert "Traceback" not in capsys.readouterr().err


def test_output_is_not_touched_by_a_failure(tmp_path: Path):
    output = tmp_path / "out.mlir"
    output.write_text("precious")
    bad = tmp_path / "bad.mlir"
    bad.write_text("func.func @f(")
    assert opt.main([str(bad), "-o", str(output)]) == 1
    assert output.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mlir", "out.mlir"]


def test_output_file(good: str, tmp_path: Path):
    output = tmp_path / "out.mlir"
    assert opt.main([good, "-o", str(output)]) == 0
    assert "func.func @f" in output.read_text()


def failing_pass(error: Exception):
    """A pass that raises `error`, as the registry would give it."""
    from dataclasses import dataclass

    from xdsl.context import Context
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

    @dataclass(frozen=True)
    class FailingPass(ModulePass):
        name = "failing"

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            raise error

    return lambda: FailingPass


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (HeatcError("no"), 1, "good.mlir: no"),
        (InfeasibleError("too big", place="layer.0"), 4, "layer.0: too big"),
        (ZeroDivisionError("oops"), 70, "internal error: ZeroDivisionError: oops"),
    ],
)
def test_failing_pass(
    error: Exception,
    code: int,
    message: str,
    good: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setitem(HEATC_UNIVERSE.all_passes, "failing", failing_pass(error))
    assert opt.main([good, "-p", "cse,failing,dce"]) == code
    text = capsys.readouterr().err
    assert message in text
    assert "note: in pass 'failing'" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("target", ["riscv-asm", "x86-asm", "arm-asm"])
def test_what_xdsl_itself_fails_on_is_the_input(
    target: str, good: str, capsys: pytest.CaptureFixture[str]
):
    """Its printers assume what its parser does not check."""
    assert opt.main([good, "-t", target]) == 1
    error = capsys.readouterr().err
    assert "error: xDSL cannot process this IR: AssertionError" in error
    assert len(messages(error)) == 1


def test_what_fails_in_a_verifier_of_xdsl_names_the_op(
    good: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from xdsl.dialects.func import FuncOp

    def absent(self: FuncOp) -> None:
        raise KeyError("function_type")

    monkeypatch.setattr(FuncOp, "verify_", absent)
    assert opt.main([good]) == 1
    error = capsys.readouterr().err
    assert "'function_type'" in error
    assert error.startswith(f"heatc-opt: error: {good}")


def test_invalid_ir_after_a_pass_names_the_pass(
    good: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from dataclasses import dataclass

    from xdsl.context import Context
    from xdsl.dialects.builtin import ModuleOp
    from xdsl.passes import ModulePass

    @dataclass(frozen=True)
    class BreakingPass(ModulePass):
        """Drops the terminators."""

        name = "breaking"

        def apply(self, ctx: Context, op: ModuleOp) -> None:
            for inner in tuple(op.walk()):
                if inner.name == "func.return":
                    inner.detach()

    monkeypatch.setitem(HEATC_UNIVERSE.all_passes, "breaking", lambda: BreakingPass)
    assert opt.main([good, "-p", "breaking"]) == 1
    text = capsys.readouterr().err
    assert len(messages(text)) == 1
    assert "note: after pass 'breaking'" in text


@pytest.mark.parametrize("arguments", [["--version"], ["test/dialects/nn.mlir"]])
def test_imports_neither_torch_nor_scipy(arguments: list[str]):
    code = (
        "import sys; from heatc.tools.opt import main; code = main(sys.argv[1:]);"
        "print(sorted({'torch', 'scipy', 'transformers', 'numpy'} & set(sys.modules)));"
        "sys.exit(code)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert result.stdout.splitlines()[-1] == "[]"
