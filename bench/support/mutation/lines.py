"""
Which tests run which line of a module, and a pytest plugin that finds it out and makes use of it.

    LINES_TO=lines.json pytest -p bench.support.mutation.lines test/...    writes what each test runs
    ALONE=tests.json pytest -p bench.support.mutation.lines test/...       runs the tests of that list alone

Lines are found by coverage.py, in the process of the tests: what a test starts as a command is not
seen. A line that runs when its module is imported belongs to no test.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import json
import os
import time
from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

LINES_TO = "HEATC_LINES_TO"
MODULES = "HEATC_LINES_OF"
ALONE = "HEATC_TESTS_ALONE"


@dataclass(frozen=True)
class Lines:
    """
    What tests run.

    `tests` is, by module and line, what runs the line: numbers into `names`, -1 for the import of the
    module. `seconds` is what each test took.
    """

    names: list[str]
    seconds: list[float]
    tests: dict[str, dict[str, list[int]]]

    def of(self, module: str, source: str, line: int) -> list[str]:
        """The tests that run a line, the fastest first; all where the import does."""
        by_line = self.tests.get(module, {})
        found = {t for number in statement(source, line) for t in by_line.get(str(number), ())}
        if -1 in found:
            found = set(range(len(self.names)))
        return [self.names[t] for t in sorted(found, key=lambda t: self.seconds[t])]

    def only(self, files: Collection[str]) -> Lines:
        """What the tests of some files run, and the import."""
        kept = [t for t, name in enumerate(self.names) if file_of(name) in files]
        places = {-1: -1} | {test: place for place, test in enumerate(kept)}
        tests = {
            module: {line: [places[t] for t in some if t in places] for line, some in lines.items()}
            for module, lines in self.tests.items()
        }
        return Lines([self.names[t] for t in kept], [self.seconds[t] for t in kept], tests)

    def within(self, names: Sequence[str], seconds: float) -> list[str]:
        """The first of some tests, as many as took no longer together; one at least."""
        took = dict(zip(self.names, self.seconds))
        ends = itertools.accumulate(took[name] for name in names)
        return [
            name
            for place, (name, end) in enumerate(zip(names, ends))
            if end <= seconds or not place
        ]

    def duration(self, files: Collection[str]) -> float:
        """Seconds of all tests of some files."""
        took = zip(self.names, self.seconds)
        return sum(seconds for name, seconds in took if file_of(name) in files)


def joined(parts: Iterable[Lines]) -> Lines:
    """What the tests of all parts run, no test being in two."""
    whole = Lines([], [], {})
    for part in parts:
        first = len(whole.names)
        whole.names.extend(part.names)
        whole.seconds.extend(part.seconds)
        for module, lines in part.tests.items():
            known = whole.tests.setdefault(module, {})
            for line, tests in lines.items():
                known.setdefault(line, []).extend(t if t < 0 else t + first for t in tests)
    return whole


def file_of(name: str) -> str:
    """The file of a test."""
    return name.partition("::")[0]


def statement(source: str, line: int) -> range:
    """The lines of the statement that a line is in; of one that holds others, those before them."""
    best = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.stmt) or node.end_lineno is None:
            continue
        body: list[ast.stmt] = getattr(node, "body", [])
        end = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno
        if node.lineno <= line <= end:
            best = range(node.lineno, end + 1)
    return best


# --- The plugin --------------------------------------------------------------------------------


@dataclass
class _Recorder:
    """Has coverage.py note which test is running, and writes `Lines` at the end."""

    target: Path
    modules: Sequence[str]
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    def __post_init__(self) -> None:
        coverage: Any = importlib.import_module("coverage")
        self.coverage = coverage.Coverage(data_file=None, include=list(self.modules))
        self.coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, Any, Any]:
        """Lines that run now are this test's."""
        self.coverage.switch_context(item.nodeid)
        started = time.perf_counter()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.perf_counter() - started
            self.coverage.switch_context("")

    def pytest_sessionfinish(self) -> None:
        """Write what was seen."""
        self.coverage.stop()
        data: Any = self.coverage.get_data()
        names = list(self.seconds)
        numbers = {name: number for number, name in enumerate(names)} | {"": -1}
        tests: dict[str, dict[str, list[int]]] = {}
        for file in data.measured_files():
            by_line: dict[int, list[str]] = data.contexts_by_lineno(file)
            tests[str(Path(file).relative_to(Path.cwd()))] = {
                str(line): sorted(numbers[c] for c in contexts)
                for line, contexts in by_line.items()
            }
        found = {"names": names, "seconds": list(self.seconds.values()), "tests": tests}
        self.target.write_text(json.dumps(found))


def pytest_configure(config: pytest.Config) -> None:
    """Record where that is asked for: before any module of the tests is imported."""
    if LINES_TO in os.environ:
        modules = os.environ[MODULES].split(":")
        config.pluginmanager.register(_Recorder(Path(os.environ[LINES_TO]), modules))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of all tests those of the list, in its order; where there are none, that is no failure."""
    if ALONE not in os.environ:
        return
    names: list[str] = json.loads(Path(os.environ[ALONE]).read_text())
    places = {name: place for place, name in enumerate(names)}
    items[:] = sorted((i for i in items if i.nodeid in places), key=lambda i: places[i.nodeid])
    if not items:
        pytest.exit("none of the listed tests is there", returncode=0)
