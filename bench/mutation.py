"""
Do the tests notice? Small faults in numerics, packing, tiling and the machine, one at a time.

    pip install cosmic-ray==8.7.0 coverage==7.17.5
    python bench/mutation.py --state build/mutation.json     writes bench/results/mutation.json
    python bench/mutation.py --sample 8 --parts numerics     a few of one part; writes nothing

A mutant is one change that cosmic-ray makes to a line: another operator, another number, a condition
turned round. A sample of them, as many of each part, is drawn by --seed. Each is made in a copy of
the repository, where the tests of its part run until one fails; that mutant is *killed*. The fastest
tests that run its line come first, and files without such a test are left out: `mutation_lines`.
Types and messages are not mutated: nothing is computed by them. A run that was stopped goes on at its --state.
Mutants that survived and change nothing that can be seen are explained in docs/design/mutation.md.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench import mutation_lines, report
from bench.mutation_lines import MODULES, Lines, file_of, joined
from bench.mutation_state import State
from bench.report import Json, Row

SAMPLE = 416
GOAL = 85.0
UNSEEN = (
    "core/NoOp",
    "core/ReplaceComparisonOperator_Eq_Is",
    "core/ReplaceComparisonOperator_NotEq_IsNot",
)
"""Changes that nobody sees: small integers and names that are equal are the same object."""

GROUPS = 8
"""Of tests whose lines are recorded, one after the other in each copy."""

FAST = 30.0
"""Seconds of the tests that a mutant meets first, as they were recorded."""

TIMEOUT = 60.0
"""
Seconds beyond those of the tests, after which tests that still run have noticed: the mutant never
ends. Recording the lines of tests made them two to five times slower than they are now.
"""

PAGE = report.ROOT / "docs" / "design" / "mutation.md"


PARTS: Mapping[str, tuple[str, ...]] = {
    "numerics": (
        "heatc/fixed_point.py",
        "heatc/isa/units.py",
        "backends/hdp/datapath.py",
        "heatc/interpreter/*.py",
    ),
    "packing": (
        "passes/pack_tokens.py",
        "passes/analysis/axes.py",
        "passes/analysis/padding.py",
        "passes/analysis/reads.py",
    ),
    "tiling": ("passes/tile_for_hdp.py", "passes/tiling/*.py"),
    "machine": (
        "backends/hdp/execute_*.py",
        "backends/hdp/machine.py",
        "backends/hdp/memory.py",
        "backends/hdp/state.py",
        "backends/hdp/timing.py",
        "heatc/isa/clocks.py",
        "heatc/isa/words.py",
    ),
}
"""What is mutated, by globs"""

TESTS = (
    "test/test_api.py",
    "test/test_execute_each.py",
    "test/test_fixed_point.py",
    "test/test_softmax_unit.py",
    "test/test_units.py",
    "test/interpreter/test_*.py",
    "test/isa/test_*.py",
    "test/passes/test_*.py",
    "test/capture/test_*.py",
    "test/backends/*/test_*.py",
    "test/verify/test_*.py",
    "test/end_to_end/test_*.py",
    "test/bench/test_differential.py",
)
"""Tests of what is mutated: those of tools, tuning, readers, signals start from it."""

FILE_CHECKS = {
    "packing": ("test/passes/pack_tokens*.mlir",),
    "tiling": ("test/passes/tile_for_hdp*.mlir",),
}
"""FileCheck tests of parts"""


@dataclass(frozen=True)
class Mutant:
    """One change: the `occurrence`-th place of an operator of cosmic-ray in a module."""

    part: str
    module: str
    operator: str
    occurrence: int
    line: int
    column: int = 0
    arguments: str = "{}"

    @property
    def key(self) -> str:
        """What it is called in the state and in the result."""
        name = self.operator.removeprefix("core/")
        return f"{self.module}:{self.line}: {name} {self.occurrence}"


# --- Which -------------------------------------------------------------------------------------


def modules_of(part: str) -> list[Path]:
    """The modules of a part, from the root of the repository."""
    return [p for p in _files(PARTS[part]) if p.name != "__init__.py"]


def tests() -> list[Path]:
    """The files of tests that pytest runs, from the root of the repository."""
    return _files(TESTS)


def _files(patterns: Iterable[str]) -> list[Path]:
    found = [p for pattern in patterns for p in sorted(report.ROOT.glob(pattern))]
    return [p.relative_to(report.ROOT) for p in found]


def mutants(name: str) -> Iterator[Mutant]:
    """Every mutant of a part that could be seen."""
    init: Any = importlib.import_module("cosmic_ray.commands.init")
    for module in modules_of(name):
        silent = _silent_lines(ast.parse((report.ROOT / module).read_text()))
        for item in init._all_work_items([report.ROOT / module], {}):
            (spec,) = item.mutations
            line, column = spec.start_pos
            if spec.operator_name not in UNSEEN and not _is_in(silent, line, column):
                arguments = json.dumps(spec.operator_args)
                names = (name, str(module), spec.operator_name)
                yield Mutant(*names, spec.occurrence, line, column, arguments)


Span = tuple[tuple[int, int], tuple[int, int]]


def _silent_lines(tree: ast.Module) -> list[Span]:
    """Where nothing is computed: annotations, aliases of types, what is raised, decorators."""
    found: list[ast.AST | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            found += [node.returns, *node.decorator_list]
        elif isinstance(node, ast.ClassDef):
            found += node.decorator_list
        elif isinstance(node, ast.arg | ast.AnnAssign):
            found.append(node.annotation)
        elif isinstance(node, ast.Raise) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            found.append(node)
    return [_span(node) for node in found if node is not None]


def _span(node: Any) -> Span:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)


def _is_in(spans: Sequence[Span], line: int, column: int) -> bool:
    return any(start <= (line, column) < stop for start, stop in spans)


def drawn(parts: Sequence[str], count: int, seed: int) -> list[Mutant]:
    """
    As many mutants of each part, in an order that a stopped run has some of each of.

    A few that are drawn are none, and left out: `_is_no_change`.
    """
    columns: list[list[Mutant]] = []
    for name in parts:
        chosen = random.Random(f"{seed} {name}")
        columns.append(chosen.sample(list(mutants(name)), -(-count // len(parts))))
    return [mutant for row in zip(*columns) for mutant in row if not _is_no_change(mutant)]


def _is_no_change(mutant: Mutant) -> bool:
    """Whether a mutant changes the `*` or `/` between arguments, or what a refusal says."""
    spans = _idle_spans(ast.parse((report.ROOT / mutant.module).read_text()))
    return _is_in(spans, mutant.line, mutant.column)


def _idle_spans(tree: ast.Module) -> list[Span]:
    """The signatures of functions without their defaults, and the messages of `expect` functions."""
    found: list[Span] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = [x for x in (*node.args.defaults, *node.args.kw_defaults) if x is not None]
            defaults = sorted(_span(default) for default in given)
            starts = [(node.lineno, node.col_offset), *(end for _, end in defaults)]
            ends = [*(start for start, _ in defaults), _span(node.body[0])[0]]
            found += zip(starts, ends)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("expect"):
            found += [
                _span(argument) for argument in node.args if isinstance(argument, ast.JoinedStr)
            ]
    return found


# --- Running -----------------------------------------------------------------------------------


class Copy:
    """A copy of the repository as it is committed, in which one mutant is made at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        archive = subprocess.run(
            ["git", "archive", "HEAD"], cwd=report.ROOT, check=True, capture_output=True
        )
        subprocess.run(["tar", "x"], cwd=folder, input=archive.stdout, check=True)

    def lines(self, files: Sequence[Path]) -> Lines:
        """
        What some tests run, as long as nothing is mutated.

        Raises `RuntimeError` where they fail.
        """
        target = self.folder.parent / f"{self.folder.name}.lines"
        modules = ":".join(str(self.folder / m) for part in PARTS for m in modules_of(part))
        done = subprocess.run(
            shlex.split(command_of(map(str, files))),
            cwd=self.folder,
            env=self._environment() | {mutation_lines.LINES_TO: str(target), MODULES: modules},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"tests fail without a mutant: {done.stdout[-2000:]}")
        return Lines(**json.loads(target.read_text()))

    def _environment(self) -> dict[str, str]:
        return os.environ | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def outcome(self, mutant: Mutant, lines: Lines, thorough: bool) -> dict[str, str]:
        """
        What becomes of a mutant: `outcome`, and the `diff` of one that survived.

        The fastest tests of its line run first. Where they do not notice and the search is
        `thorough`, all tests of the files do that have a test of the line.
        """
        source = (self.folder / mutant.module).read_text()
        names = lines.of(mutant.module, source, mutant.line)
        files = list(dict.fromkeys(map(file_of, names)))
        fast = lines.within(names, FAST)
        found = self._tested(mutant, list(dict.fromkeys(map(file_of, fast))), fast, FAST)
        if found["outcome"] == "survived" and thorough and len(fast) < len(names):
            found = self._tested(mutant, files, None, lines.duration(files))
        return found

    def _tested(
        self, mutant: Mutant, files: Sequence[str], alone: Sequence[str] | None, seconds: float
    ) -> dict[str, str]:
        """The same for the tests of some files, or for a few of those tests alone."""
        environment = self._environment()
        if alone is not None:
            listed = self.folder.parent / f"{self.folder.name}.alone"
            listed.write_text(json.dumps(alone))
            environment[mutation_lines.ALONE] = str(listed)
        task = {
            "mutant": vars(mutant),
            "command": command_of(files, map(str, _files(FILE_CHECKS.get(mutant.part, ())))),
            "seconds": TIMEOUT + seconds,
        }
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), "--one", json.dumps(task)],
            cwd=self.folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        return json.loads(done.stdout.splitlines()[-1])


def one(mutant: Mutant, command: str, seconds: float) -> dict[str, str]:
    """Make a mutant in the current folder, run its tests for so long, and take it back."""
    mutating: Any = importlib.import_module("cosmic_ray.mutating")
    item: Any = importlib.import_module("cosmic_ray.work_item")
    spec = item.MutationSpec(
        mutant.module,
        mutant.operator,
        mutant.occurrence,
        (mutant.line, 0),
        (mutant.line, 1),
        json.loads(mutant.arguments),
    )
    result = mutating.mutate_and_test([spec], command, seconds)
    outcome: str = (result.test_outcome or result.worker_outcome).value
    if outcome == "killed" and result.output == "timeout":
        outcome = "timeout"
    if outcome == "survived":
        return {"outcome": outcome, "diff": result.diff}
    return (
        {"outcome": outcome}
        if outcome in ("killed", "timeout")
        else {"outcome": outcome, "output": str(result.output)}
    )


def command_of(files: Iterable[str], checks: Iterable[str] = ()) -> str:
    """Tests up to the first that fails, then FileCheck ones."""
    python = shlex.quote(sys.executable)
    lit_main = shlex.quote(str(Path(sys.executable).with_name("lit")))
    options = "-x -q -n0 -p no:cacheprovider -p bench.mutation_lines"
    given, lit = " ".join(files), " ".join(checks)
    runs = [f"{python} -m pytest {options} {given}"] if given else []
    runs += [f"{lit_main} -q {lit}"] if lit else []
    return f"sh -c {shlex.quote(' && '.join(runs) or 'true')}"


def run(chosen: Sequence[Mutant], state: State, jobs: int, console: Console) -> None:
    """Try all that the state does not have; one that is explained is known to survive."""
    explained = set(re.findall(r"`([^`]+)`", PAGE.read_text()))
    left = [mutant for mutant in chosen if mutant.key not in state.found]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        copies = [Copy(_made(Path(folder) / str(number))) for number in range(jobs)]

        def record(files: Sequence[Path]) -> Lines:
            copy = copies.pop()
            try:
                return copy.lines(files)
            finally:
                copies.append(copy)

        if files := state.unrecorded():
            groups = [files[at::GROUPS] for at in range(min(GROUPS, len(files)))]
            for lines in pool.map(record, groups):
                state.lines = joined([state.lines, lines])
                state.write()
                console.print(f"{len(state.lines.names)} tests hold without a mutant")

        def attempt(mutant: Mutant) -> None:
            copy = copies.pop()
            try:
                thorough = state.thorough and mutant.key not in explained
                outcome = copy.outcome(mutant, state.lines, thorough)
                state.add(mutant.key, {"part": mutant.part, "module": mutant.module, **outcome})
            finally:
                copies.append(copy)
            console.print(
                f"{len(state.found)}/{len(chosen)} {outcome['outcome']} {mutant.key}",
                soft_wrap=True,
            )

        list(pool.map(attempt, left))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# --- Result ------------------------------------------------------------------------------------


def tables(found: Mapping[str, Mapping[str, str]]) -> dict[str, Json]:
    """Outcomes by part, and every survivor with its change and whether it is explained."""
    counts = {
        name: Counter(f["outcome"] for f in found.values() if f["part"] == name) for name in PARTS
    }
    page = PAGE.read_text() if PAGE.exists() else ""
    survivors = [
        {"mutant": key, "change": _change(f["diff"]), "explained": f"`{key}`" in page}
        for key, f in sorted(found.items())
        if f["outcome"] == "survived"
    ]
    return {"outcomes": {k: dict(v) for k, v in counts.items() if v}, "survivors": survivors}


def _change(diff: str) -> str:
    """The lines that differ, without the frame of a diff."""
    lines = [x for x in diff.splitlines() if x[:1] in "+-" and x[:3] not in ("+++", "---")]
    return " / ".join(line.replace("    ", "") for line in lines)


def rows(found: Mapping[str, Mapping[str, str]]) -> list[Row]:
    """The score: killed or never ending, of all that could be run."""
    outcomes = Counter(f["outcome"] for f in found.values())
    tried = outcomes["killed"] + outcomes["timeout"] + outcomes["survived"]
    score = 100 * (tried - outcomes["survived"]) / max(1, tried)
    return [
        Row(
            "mutants of numerics, packing, tiling and machine that were tried", tried, "", 400, ">="
        ),
        Row("mutants that tests kill", score, "%", GOAL, ">="),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if the score is reached."""
    parser = argparse.ArgumentParser(description="mutants of the code against its tests")
    add = parser.add_argument
    add("--sample", type=int, default=SAMPLE, metavar="N", help=f"mutants in all ({SAMPLE})")
    add("--parts", default=",".join(PARTS), help="parts, with commas between")
    add("--seed", type=int, default=0, help="of the draw")
    add("--jobs", type=int, default=2, help="copies of the repository")
    add("--state", type=Path, help="where outcomes are kept; a run goes on there")
    add("--fast", action="store_true", help="only the fastest tests of a line; writes nothing")
    add("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.one:
        task = json.loads(arguments.one)
        mutant = Mutant(**task["mutant"])
        print(json.dumps(one(mutant, task["command"], task["seconds"])))
        return 0
    console = Console()
    parts = arguments.parts.split(",")
    chosen = drawn(parts, arguments.sample, arguments.seed)
    modules = [module for part in PARTS for module in modules_of(part)]
    state = State(arguments.state, modules, tests(), not arguments.fast)
    run(chosen, state, arguments.jobs, console)
    found = {m.key: state.found[m.key] for m in chosen}
    report.show(rows(found), console)
    if not arguments.fast and arguments.sample >= SAMPLE and parts == list(PARTS):
        origin = report.provenance("python bench/mutation.py", arguments.seed)
        report.write(report.RESULTS / "mutation.json", rows(found), tables(found), origin)
    return 0 if all(row.holds for row in rows(found)) else 1


if __name__ == "__main__":
    sys.exit(main())
