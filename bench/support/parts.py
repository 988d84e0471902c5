"""Parts of a bench command: run one after the other, merged into one result file."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from bench.support import report
from bench.support.report import Json, Row


@dataclass
class Part:
    """The rows and the tables that one part of a bench command gave."""

    rows: list[Row] = field(default_factory=list[Row])
    tables: dict[str, Json] = field(default_factory=dict[str, Json])


def run(parts: Mapping[str, Callable[[], Part]]) -> dict[str, Part]:
    """Runs parts one after the other and says how long each took."""
    console = Console(stderr=True)
    found: dict[str, Part] = {}
    for name, part in parts.items():
        start = time.perf_counter()
        found[name] = part()
        values = ", ".join(report.number(row.measured) for row in found[name].rows)
        console.print(f"{name}: {values or 'tables'} ({time.perf_counter() - start:.0f} s)")
    return found


def merge(
    path: Path, found: Mapping[str, Part], order: Sequence[str], origin: Mapping[str, Json]
) -> None:
    """
    Merges parts into a result file, in some order of their names.

    Rows of a part that was not run stay with the provenance that they have; tables are a part's
    where their name begins with the part's and a colon. `origin` is where the new ones come from.
    """
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    origins = dict(old.get("provenance", {}).get("parts", {}))
    kept = {row["what"]: row for row in old.get("rows", [])}
    rows: list[Row] = []
    tables: dict[str, Json] = {}
    for name in order:
        if name in found:
            part = found[name]
            origins[name] = {**origin, "rows": [row.what for row in part.rows]}
        elif name in origins:
            past = [kept[what] for what in origins[name]["rows"]]
            names = [f.name for f in dataclasses.fields(Row)]
            part = Part([Row(*(entry[key] for key in names)) for entry in past])
            part.tables = {k: v for k, v in old["tables"].items() if k.startswith(f"{name}:")}
        else:
            continue
        rows += part.rows
        tables |= part.tables
    ordered = {name: origins[name] for name in order if name in origins}
    report.write(path, rows, tables, {**origin, "parts": ordered})
