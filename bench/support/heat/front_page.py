"""docs/heat_front.md and its pictures, made from bench/results/heat_front.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bench.support import report
from bench.support.accuracy.page import Line, svg
from bench.support.heat.page import origins, rows_table, tables
from bench.support.heat.runs import ALL

PAGE = report.ROOT / "docs" / "heat_front.md"
IMAGES = report.ROOT / "docs" / "images"
PICTURES = {
    "test": "heat_front.svg",
    "out of domain": "heat_front_ood.svg",
    ALL: "heat_front_all.svg",
}
"""The file of each set's front."""
FRONTS = ("front", "heuristic", "uniform")
"""The parts that have points of families."""
LONGEST = 80
"""Tables of more rows are left to the result file."""

HEAD = """# HEAT end to end: figures

Made by `python bench/heat_front.py`, kept in bench/results/heat_front.json; `--page` writes this page from
it. The model is MiniLM, fine-tuned on the VADER movie-review snippets, binary. Accuracy is that of
compiled programs on all 1,500 test and 3,000 out-of-domain sentences (imdb, yelp, amazon), paired with
the dense program's; docs/design/end_to_end.md says how points were chosen. Energy and latency are modelled, of the whole model: linears,
attention, element-wise work, embeddings. The dense program is the same compiler's, int16, with the
same fusion, on the same machine. [docs/design/search.md](design/search.md) and
[docs/design/distillation.md](design/distillation.md) say how points are found and trained.

`hdp-edge` and `hdp-server` are the frozen presets, on which a host does all element-wise work;
`-vector` are the same machines with vector units.
"""


def write(results: Path) -> None:
    """Writes the page and its pictures."""
    content = cast("dict[str, Any]", json.loads(results.read_text(encoding="utf-8")))
    for name, text in pictures(content):
        IMAGES.mkdir(parents=True, exist_ok=True)
        (IMAGES / name).write_text(text, encoding="utf-8")
    PAGE.write_text(page(content), encoding="utf-8")


def page(content: Mapping[str, Any]) -> str:
    """The page of a result file's content."""
    lines = [HEAD, "## Rows with a goal", "", *rows_table(content["rows"]), ""]
    for name, _ in pictures(content):
        lines += [f"![{name}](images/{name})", ""]
    for name, table in content["tables"].items():
        if isinstance(table, list) and 0 < len(cast("list[Any]", table)) <= LONGEST:
            lines += [f"## {name[:1].upper()}{name[1:]}", "", *_table(cast("list[Any]", table))]
    lines += ["## Provenance", "", *origins(content["provenance"]["parts"])]
    return "\n".join(lines) + "\n"


def _table(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Nested values are left to the result file."""
    plain = [
        {k: v for k, v in entry.items() if isinstance(v, str | int | float | bool)}
        for entry in entries
    ]
    yield from tables([entry for entry in plain if entry])


def pictures(content: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The front of each set on which it was measured."""
    parts = (content["tables"].get(f"{part}: points", []) for part in FRONTS)
    table = cast("list[dict[str, Any]]", [entry for part in parts for entry in part])
    if not table:
        return []
    gain = next(k for k in table[0] if k.endswith("EDP, times less"))
    found: list[tuple[str, str]] = []
    for name, file in PICTURES.items():
        key = f"{name}: points lost"
        if key not in table[0]:
            continue
        lines = [
            Line(family, [(e[gain], e[key]) for e in table if e["family"] == family])
            for family in dict.fromkeys(e["family"] for e in table)
        ]
        found.append((file, svg(lines, gain, f"points lost, {name}")))
    return found
