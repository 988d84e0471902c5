"""Which tests a mutant of a line runs, and which lines are no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import mutation
from bench.mutation_lines import ALONE, Lines, joined, statement
from bench.report import ROOT

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
    options = "-s -q -n0 -p no:cacheprovider -p bench.mutation_lines"
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


def test_what_parts_of_the_tests_run():
    first = Lines(["a"], [1.0], {"m.py": {"1": [-1], "2": [0]}})
    second = Lines(["b", "c"], [2.0, 3.0], {"m.py": {"1": [-1], "2": [1]}, "n.py": {"5": [0, 1]}})
    tests = {"m.py": {"1": [-1, -1], "2": [0, 2]}, "n.py": {"5": [1, 2]}}
    assert joined([first, second]) == Lines(["a", "b", "c"], [1.0, 2.0, 3.0], tests)


def test_parts_name_what_there_is():
    for name, patterns in mutation.PARTS.items():
        assert mutation.modules_of(name)
        assert all(list(ROOT.glob(pattern)) for pattern in patterns), name
    assert all(list(ROOT.glob(pattern)) for pattern in mutation.TESTS)
    assert all((ROOT / test).exists() for some in mutation.FILE_CHECKS.values() for test in some)
