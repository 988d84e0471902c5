"""The registry: every entry loads, is named as its key says, and has its FileCheck test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from xdsl.passes import ModulePass

from heatc.universe import HEATC_UNIVERSE

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", HEATC_UNIVERSE.all_dialects)
def test_dialect(name: str):
    dialect = HEATC_UNIVERSE.all_dialects[name]()
    assert dialect.name == name
    assert (ROOT / "dialects" / f"{name}.py").is_file()
    assert (ROOT / "test" / "dialects" / f"{name}.mlir").is_file()
    for member in (*dialect.operations, *dialect.attributes):
        assert member.name.startswith(f"{name}.")
        assert member.__doc__, f"{member.name} has no docstring"


@pytest.mark.parametrize("name", HEATC_UNIVERSE.all_dialects)
def test_every_op_has_a_round_trip_test(name: str):
    """The round-trip files of a dialect and its families name every op, after a CHECK."""
    files = (ROOT / "test" / "dialects").glob(f"{name}*.mlir")
    text = "\n".join(file.read_text() for file in files if "%roundtrip" in file.read_text())
    assert not _unchecked({op.name for op in HEATC_UNIVERSE.all_dialects[name]().operations}, text)


def _unchecked(names: set[str], text: str) -> set[str]:
    """The names that no CHECK line has as a whole word: `hdp.ld` is no part of `hdp.ldm`."""
    checked = "\n".join(line for line in text.splitlines() if "CHECK" in line)
    return names - set(re.findall(r"[a-z]+\.\w+", checked))


def test_a_name_within_another_is_not_checked():
    text = "// CHECK: %0 = nn.adder %x, %y\n%1 = nn.sub %x, %y\n// CHECK: nn.mul"
    assert _unchecked({"nn.add", "nn.adder", "nn.sub", "nn.mul"}, text) == {"nn.add", "nn.sub"}


@pytest.mark.parametrize("name", HEATC_UNIVERSE.all_passes)
def test_pass(name: str):
    pass_type = HEATC_UNIVERSE.all_passes[name]()
    assert issubclass(pass_type, ModulePass)
    assert pass_type.name == name
    assert pass_type.__doc__, f"{name} has no docstring"
    snake = name.replace("-", "_")
    assert (ROOT / "passes" / f"{snake}.py").is_file()
    assert (ROOT / "test" / "passes" / f"{snake}.mlir").is_file()


def test_every_file_is_registered():
    """A dialect or pass that nobody can reach is a file that nobody tests."""
    # Beside dialects and passes stand modules that several of them share.
    files = [p for p in (ROOT / "dialects").glob("*.py") if "irdl_" in p.read_text()]
    dialects = {p.stem for p in files if "_definition\nclass" in p.read_text()}
    passes = {p.stem for p in (ROOT / "passes").glob("*.py") if "(ModulePass)" in p.read_text()}
    registered = {name.replace("-", "_") for name in HEATC_UNIVERSE.all_passes}
    registered_dialects = set(HEATC_UNIVERSE.all_dialects)
    # A family of ops of a dialect may have a file of its own, whose name begins with the dialect's.
    families = {name for name in dialects if name.rpartition("_")[0] in registered_dialects}
    assert dialects - families == registered_dialects
    assert passes == registered


def test_start_imports_no_dialect_and_no_pass():
    code = (
        "import sys, heatc.universe\n"
        "parts = ('heatc.dialects.', 'heatc.passes.', 'heatc.backends.')\n"
        "print(*(m for m in sys.modules if m.startswith(parts)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == ""
