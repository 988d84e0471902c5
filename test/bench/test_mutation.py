"""Which tests a mutant of a line runs, and which lines are no code."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import mutation
from bench.support import report
from bench.support.mutation.lines import ALONE, Lines, joined, statement
from bench.support.mutation.state import State
from bench.support.report import ROOT

SOURCE = """
LIMIT = 3

def clamp(x):
    if (
        x > LIMIT
    ):
        return LIMIT
    return max(
        x,
        -LIMIT,
    )
"""


@pytest.mark.parametrize(
    ("line", "lines"), [(2, [2]), (4, [4]), (6, [5, 6, 7]), (8, [8]), (11, [9, 10, 11, 12])]
)
def test_the_statement_of_a_line(line: int, lines: list[int]):
    assert list(statement(SOURCE, line)) == lines


def test_the_tests_of_a_line():
    tests = {"m.py": {"2": [-1], "5": [0, 1, 2], "8": [1], "9": [0, 2]}}
    lines = Lines(["a::slow", "b::fast", "a::middle"], [3.0, 1.0, 2.0], tests)
    assert lines.of("m.py", SOURCE, 6) == ["b::fast", "a::middle", "a::slow"]
    assert lines.of("m.py", SOURCE, 11) == ["a::middle", "a::slow"]
    # An import belongs to all tests, a line that nothing runs to none.
    assert lines.of("m.py", SOURCE, 2) == ["b::fast", "a::middle", "a::slow"]
    assert lines.of("other.py", SOURCE, 8) == []
    assert lines.within(["b::fast", "a::middle", "a::slow"], 3.0) == ["b::fast", "a::middle"]
    assert lines.within(["a::slow", "b::fast"], 1.0) == ["a::slow"]
    assert lines.duration(["a"]) == 5.0


@pytest.mark.parametrize("listed", [["first", "second"], ["gone"]])
def test_listed_tests_run_alone(listed: list[str], tmp_path: Path):
    names = ["third", "first", "second"]
    (tmp_path / "test_order.py").write_text(
        "".join(f"def test_{name}(): print('ran {name}')\n" for name in names)
    )
    ids = [f"test_order.py::test_{name}" for name in listed]
    (tmp_path / "listed.json").write_text(json.dumps(ids))
    options = "-s -q -n0 -p no:cacheprovider -p bench.support.mutation.lines"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "test_order.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), ALONE: str(tmp_path / "listed.json")},
        capture_output=True,
        text=True,
    )
    said = [word for word in done.stdout.split() if word in names]
    assert said == [name for name in listed if name in names], done.stdout + done.stderr
    # A failure would count as a mutant that is noticed.
    assert done.returncode == 0


SIGNATURE = "def f(a=1 - 2, /, *, b=3 * 4, c): return a + b"


@pytest.mark.parametrize(
    ("text", "is_idle"),
    [("- 2", False), ("/,", True), ("*, b", True), ("* 4", False), ("c)", True), ("+ b", False)],
)
def test_signatures_are_no_mutants(text: str, is_idle: bool):
    spans = mutation._idle_spans(ast.parse(SIGNATURE))
    assert mutation._is_in(spans, 1, SIGNATURE.index(text)) == is_idle


@pytest.mark.parametrize(("text", "is_idle"), [("> 1", False), ("+ 2", True)])
def test_messages_of_refusals_are_no_mutants(text: str, is_idle: bool):
    source = "expect(a > 1, f'{a + 2} is too small')"
    spans = mutation._idle_spans(ast.parse(source))
    assert mutation._is_in(spans, 1, source.index(text)) == is_idle


def test_what_parts_of_the_tests_run():
    first = Lines(["a"], [1.0], {"m.py": {"1": [-1], "2": [0]}})
    second = Lines(["b", "c"], [2.0, 3.0], {"m.py": {"1": [-1], "2": [1]}, "n.py": {"5": [0, 1]}})
    tests = {"m.py": {"1": [-1, -1], "2": [0, 2]}, "n.py": {"5": [1, 2]}}
    assert joined([first, second]) == Lines(["a", "b", "c"], [1.0, 2.0, 3.0], tests)


def test_what_some_files_run():
    tests = {"m.py": {"1": [-1], "2": [0, 1, 2], "3": [1]}}
    lines = Lines(["a::x", "b::y", "a::z"], [1.0, 2.0, 3.0], tests)
    expected = {"m.py": {"1": [-1], "2": [0, 1], "3": []}}
    assert lines.only({"a"}) == Lines(["a::x", "a::z"], [1.0, 3.0], expected)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], list[Path]]:
    """Two modules and two files of tests."""
    monkeypatch.setattr(report, "ROOT", tmp_path)
    names = [Path(name) for name in ("m.py", "n.py", "test_a.py", "test_b.py")]
    for name in names:
        (tmp_path / name).write_text(str(name))
    return names[:2], names[2:]


def kept(files: tuple[list[Path], list[Path]], *, thorough: bool = True) -> State:
    """A state that goes on where the last one ended."""
    return State(report.ROOT / "state.json", *files, thorough)


def test_what_a_changed_repository_leaves_of_a_state(files: tuple[list[Path], list[Path]]):
    state = kept(files)
    assert state.unrecorded() == files[1]
    state.lines = Lines(["test_a.py::x", "test_b.py::y"], [1.0, 1.0], {"m.py": {"1": [0, 1]}})
    for module in ("m.py", "n.py"):
        for outcome in ("killed", "survived", "timeout"):
            state.add(f"{module} {outcome}", {"module": module, "outcome": outcome})
    assert kept(files).found == state.found
    assert kept(files).unrecorded() == []

    # Another test: survivors are tried again, and its lines are recorded.
    (report.ROOT / "test_b.py").write_text("more")
    again = kept(files)
    assert {key.split()[1] for key in again.found} == {"killed", "timeout"}
    assert again.lines.tests == {"m.py": {"1": [0]}}
    assert again.unrecorded() == [Path("test_b.py")]

    # Another module: nothing of it is known, and no line.
    (report.ROOT / "m.py").write_text("more")
    again = kept(files)
    assert set(again.found) == {"n.py killed", "n.py timeout"}
    assert again.unrecorded() == files[1]


def test_survivors_of_the_fastest_tests_meet_all(files: tuple[list[Path], list[Path]]):
    state = kept(files, thorough=False)
    for outcome in ("killed", "survived"):
        state.add(outcome, {"module": "m.py", "outcome": outcome})
    assert set(kept(files, thorough=False).found) == {"killed", "survived"}
    assert set(kept(files).found) == {"killed"}


def test_parts_name_what_there_is():
    for name, patterns in mutation.PARTS.items():
        assert mutation.modules_of(name)
        assert all(list(ROOT.glob(pattern)) for pattern in patterns), name
    assert all(list(ROOT.glob(pattern)) for pattern in mutation.TESTS)
    assert all(mutation._files(patterns) for patterns in mutation.FILE_CHECKS.values())
