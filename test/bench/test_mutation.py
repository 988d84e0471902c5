"""Which tests a mutant of a line runs, and which lines are no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import mutation
from bench.mutation_lines import FIRST, Lines, statement
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
    lines = Lines(["slow", "fast", "middle"], [3.0, 1.0, 2.0], tests)
    assert lines.of("m.py", SOURCE, 6) == ["fast", "middle", "slow"]
    assert lines.of("m.py", SOURCE, 11) == ["middle", "slow"]
    # An import belongs to all tests, a line that nothing runs to none.
    assert lines.of("m.py", SOURCE, 2) is None
    assert lines.of("other.py", SOURCE, 8) == []
    assert lines.duration(["fa", "middle"]) == 3.0


def test_listed_tests_run_first(tmp_path: Path):
    names = ["third", "first", "second"]
    (tmp_path / "test_order.py").write_text(
        "".join(f"def test_{name}(): print('ran {name}')\n" for name in names)
    )
    first = [f"test_order.py::test_{name}" for name in ("first", "second")]
    (tmp_path / "first.json").write_text(json.dumps(first))
    options = "-s -q -n0 -p no:cacheprovider -p bench.mutation_lines"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options.split(), "test_order.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), FIRST: str(tmp_path / "first.json")},
        capture_output=True,
        text=True,
    )
    said = [word for word in done.stdout.split() if word in names]
    assert said == ["first", "second", "third"], done.stdout + done.stderr


def test_parts_name_what_there_is():
    for name, part in mutation.PARTS.items():
        assert all((ROOT / test).exists() for test in part.tests), name
        assert all(list(ROOT.glob(pattern)) for pattern in part.modules), name
