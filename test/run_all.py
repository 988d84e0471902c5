"""
Runs the linters, the FileCheck tests and pytest, and closes with one line that counts them.

    python test/run_all.py            everything
    python test/run_all.py --lint     the linters alone
    python test/run_all.py --no-lint  the tests alone

A linter that complains counts as one failed test; a runner that dies does too.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
BIN = Path(sys.executable).parent

LINTERS: dict[str, list[str]] = {
    "ruff check": ["ruff", "check", "--quiet", "."],
    "ruff format": ["ruff", "format", "--quiet", "--diff", "."],
    "types": ["basedpyright", "--level", "error"],
    "layers": ["lint-imports", "--no-cache"],
}


class Counts(NamedTuple):
    """What a run of tests came to."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: object) -> Counts:
        assert isinstance(other, Counts)
        return Counts(*(a + b for a, b in zip(self, other)))

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def main() -> int:
    """Runs what was asked for; 0 if all of it holds."""
    parser = argparse.ArgumentParser(description="runs the linters and the tests")
    parser.add_argument("--lint", action="store_true", help="the linters alone")
    parser.add_argument("--no-lint", action="store_true", help="the tests alone")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Two test processes share two cores: more threads than that only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    BUILD.mkdir(exist_ok=True)
    # The slowest linter keeps one core busy; the FileCheck tests have the other meanwhile.
    parts = [] if arguments.no_lint else [run_linters]
    parts += [] if arguments.lint else [run_lit]
    with ThreadPoolExecutor() as pool:
        total = sum(pool.map(lambda part: part(), parts), Counts())
    if not arguments.lint:
        total += run_pytest()
    print(total)
    return int(total.failed > 0)


def run_linters() -> Counts:
    """Each linter once; only complaints count, as failures."""
    failed = 0
    for name, command in LINTERS.items():
        result = _run(command, capture=True)
        print(f"{name}: {'ok' if result.returncode == 0 else 'FAILED'}", flush=True)
        if result.returncode != 0:
            failed += 1
            print(result.stdout + result.stderr, flush=True)
    return Counts(failed=failed)


def run_lit() -> Counts:
    """The FileCheck tests of test/."""
    report = BUILD / "lit.xml"
    command = ["lit", "--quiet", "-v", "-j2", "--xunit-xml-output", str(report), "test"]
    return _count("lit", command, report)


def run_pytest() -> Counts:
    """The Python tests of test/."""
    report = BUILD / "pytest.xml"
    # In the order of their folders: files of few long tests would else come last, on one core.
    spread = ["-n2", "--dist=loadfile", "--no-loadscope-reorder"]
    command = ["pytest", "-q", *spread, f"--junit-xml={report}", "test"]
    return _count("pytest", command, report)


def _count(name: str, command: list[str], report: Path) -> Counts:
    report.unlink(missing_ok=True)
    code = _run(command).returncode
    counts = _read(report) if report.exists() else Counts()
    if code != 0 and counts.failed == 0:
        print(f"{name}: ended with exit code {code} without naming a failed test")
        counts += Counts(failed=1)
    print(f"{name}: {counts}", flush=True)
    return counts


def _read(report: Path) -> Counts:
    """The sum over the test suites of a JUnit report."""
    counts = Counts()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        tests, failures, errors, skipped = (
            int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
        )
        failed = failures + errors
        counts += Counts(tests - failed - skipped, failed, skipped)
    return counts


def _run(command: list[str], capture: bool = False) -> subprocess.CompletedProcess[str]:
    tool, *arguments = command
    return subprocess.run(
        [str(BIN / tool), *arguments], cwd=ROOT, check=False, text=True, capture_output=capture
    )


if __name__ == "__main__":
    sys.exit(main())
