"""docs/heat_figures.md: what factorised layers cost, made from bench/results/heat_costs.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from bench import figures
from bench.support import report

PAGE = report.ROOT / "docs" / "heat_figures.md"
LONGEST = 30
"""Tables of more rows are left to the result file."""

HEAD = """# Factorised layers: figures

Made by `python bench/heat_costs.py`, kept in bench/results/heat_costs.json; `--page` writes this page
from it. [docs/design/heat.md](design/heat.md) says what was built and why. Cycles, joules and bytes of
the HDP machine are modelled: the cost model times the instructions that the compiler emits, the
simulator runs them. Multiply-accumulates are counted, seconds measured on the named CPU.
"""


def page(content: Mapping[str, Any]) -> str:
    """The page of a result file's content."""
    lines = [HEAD, "## Rows with a goal", "", *rows_table(content["rows"]), ""]
    for name, table in content["tables"].items():
        if isinstance(table, list) and 0 < len(cast("list[Any]", table)) <= LONGEST:
            title = f"## {name[:1].upper()}{name[1:]}"
            lines += [title, "", *tables(cast("list[Any]", table))]
    lines += ["## Provenance", "", *origins(content["provenance"]["parts"])]
    return "\n".join(lines) + "\n"


def rows_table(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    cells = [
        (
            str(row["what"]),
            _cell(row["measured"]),
            f"{row['sense']} {_cell(row['goal'])}",
            str(row["unit"]),
            "yes" if row["holds"] else "NO",
        )
        for row in rows
    ]
    yield figures.table([("what", "measured", "goal", "unit", "holds"), *cells])


def tables(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Entries of equal keys, one after the other, are a table each."""
    start = 0
    while start < len(entries):
        keys = tuple(entries[start])
        stop = start
        while stop < len(entries) and tuple(entries[stop]) == keys:
            stop += 1
        yield figures.table(
            [keys, *(tuple(_cell(entry[k]) for k in keys) for entry in entries[start:stop])]
        )
        yield ""
        start = stop


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return report.number(value)
    return str(value).replace("|", "\\|")


def origins(parts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, origin in parts.items():
        yield (
            f"- {name}: `{origin['command']}`, commit {origin['commit']}, {origin['date']}, "
            f"{origin['cpu']}"
        )
