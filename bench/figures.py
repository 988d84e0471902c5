"""
Prints every measured figure as one table: `python bench/figures.py [FILE.json ...]`.

`python bench/figures.py --update` writes the tables into the pages that show them: a table of
bench/results/NAME.json stands between `<!-- figures: NAME -->` and `<!-- end of figures -->`. Behind
the name there may be beginnings of rows, `<!-- figures: NAME | HEAT: | HDP: -->`: those rows alone.

Reads bench/results/*.json, written by the bench commands. Each has `rows` of {what, measured,
unit, goal, sense, holds}; `holds` is worked out again here, so that a file can't claim what
its own numbers deny. Ends with 1 if a file is malformed; a figure that misses its goal is
printed as such and is no error.
"""

from __future__ import annotations

import json
import operator
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "figures.md")
_BLOCK = re.compile(
    r"(<!-- figures: (\w+)((?: \| [^|\n]+)*) -->\n).*?(<!-- end of figures -->)", re.DOTALL
)
SENSES: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
HEADER = ("bench", "what", "measured", "goal", "unit", "holds")


class Row(NamedTuple):
    """One figure with a numeric goal."""

    bench: str
    what: str
    measured: float
    goal: float
    sense: str
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the measured figure reaches the goal."""
        return SENSES[self.sense](self.measured, self.goal)

    def cells(self) -> tuple[str, ...]:
        """The row as it is printed."""
        goal = f"{self.sense} {_number(self.goal)}"
        holds = "yes" if self.holds else "NO"
        return (self.bench, self.what, _number(self.measured), goal, self.unit, holds)


class MalformedError(Exception):
    """A result file that is not of the agreed form."""


def main(arguments: Sequence[str]) -> int:
    """Prints the table of the given files, or of all of them."""
    if list(arguments) == ["--update"]:
        for page in PAGES:
            page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    paths = [Path(a) for a in arguments] or sorted(RESULTS.glob("*.json"))
    if not paths:
        print(f"no results yet in {RESULTS}")
        return 0
    try:
        rows = [row for path in paths for row in read(path)]
    except MalformedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table([HEADER, *(row.cells() for row in rows)]))
    print(f"{sum(row.holds for row in rows)} of {len(rows)} figures hold")
    return 0


def updated(text: str) -> str:
    """A page with its tables made anew from the results."""

    def block(match: re.Match[str]) -> str:
        beginnings = tuple(part.strip() for part in match[3].split("|")[1:]) or ("",)
        rows = [
            row for row in read(RESULTS / f"{match[2]}.json") if row.what.startswith(beginnings)
        ]
        cells = [row.cells()[1:] for row in rows]
        return f"{match[1]}{table([HEADER[1:], *cells])}\n{match[4]}"

    return _BLOCK.sub(block, text)


def read(path: Path) -> list[Row]:
    """The rows of one result file, checked."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        entries = content["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MalformedError(f"{path}: not a result file: {error!r}") from error
    return [_row(path, index, entry) for index, entry in enumerate(entries)]


def _row(path: Path, index: int, entry: dict[str, str | float | bool]) -> Row:
    place = f"{path}: row {index}"
    try:
        row = Row(
            path.stem,
            str(entry["what"]),
            float(entry["measured"]),
            float(entry["goal"]),
            str(entry["sense"]),
            str(entry["unit"]),
        )
        claimed = entry["holds"]
    except (KeyError, TypeError, ValueError) as error:
        raise MalformedError(f"{place}: {error!r}") from error
    if row.sense not in SENSES:
        raise MalformedError(f"{place}: sense is {row.sense!r}, expected '<=' or '>='")
    if row.holds != claimed:
        raise MalformedError(f"{place}: holds is {claimed}, its own numbers say {row.holds}")
    return row


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; the first row is the header."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4g}" if value != int(value) or abs(value) >= 1e6 else str(int(value))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
