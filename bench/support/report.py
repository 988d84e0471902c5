"""What every bench command shares: rows with a goal, provenance, the table and the file."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import operator
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from rich.console import Console
from rich.table import Table

Json: TypeAlias = "str | float | bool | Sequence[Json] | Mapping[str, Json] | None"

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
WRITTEN = (":!bench/results", ":!docs")
"""What the benchmarks write, in the words of git"""
PACKAGES = ("numpy", "safetensors", "scipy", "tokenizers", "torch", "transformers", "xdsl")
SENSES: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True)
class Row:
    """One measured figure with its goal."""

    what: str
    measured: float
    unit: str
    goal: float
    sense: Literal["<=", ">="]

    @property
    def holds(self) -> bool:
        """Whether the goal is reached."""
        return SENSES[self.sense](self.measured, self.goal)

    def entry(self) -> dict[str, Json]:
        """The row as the result file has it."""
        return {
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "goal": self.goal,
            "sense": self.sense,
            "holds": self.holds,
        }


def provenance(command: str, seed: int) -> dict[str, Json]:
    """Where figures come from: command, commit, versions, CPU, date, seed."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "command": command,
        "commit": commit(),
        "versions": {"python": platform.python_version(), **versions},
        "cpu": _cpu(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "seed": seed,
    }


def write(
    path: Path, rows: Sequence[Row], tables: Mapping[str, Json], origin: Mapping[str, Json]
) -> None:
    """Writes a result file, whole or not at all."""
    content = {
        "rows": [row.entry() for row in rows],
        "tables": dict(tables),
        "provenance": dict(origin),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """Prints the rows as one table."""
    table = Table("what", "measured", "goal", "unit", "holds")
    for row in rows:
        holds = "[green]yes[/green]" if row.holds else "[red]NO[/red]"
        goal = f"{row.sense} {number(row.goal)}"
        table.add_row(row.what.replace("[", r"\["), number(row.measured), goal, row.unit, holds)
    (console or Console()).print(table)


def number(value: float) -> str:
    """A figure for people: integers whole, the rest with six digits."""
    return f"{value:.6g}" if value != int(value) else str(int(value))


def commit(root: Path = ROOT) -> str:
    """The commit, `-dirty` where what is measured differs from it: results and pages may."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*"]
    changes = ["git", "diff", "--quiet", "HEAD", "--", ".", *WRITTEN]
    try:
        found = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
        changed = subprocess.run(changes, cwd=root, check=False, capture_output=True).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip() + ("-dirty" if changed else "")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or sys.platform
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
