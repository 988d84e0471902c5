"""docs/families.md: what compiles, made from bench/results/families.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.support import report
from bench.support.heat.page import origins, rows_table, tables

PAGE = report.ROOT / "docs" / "families.md"

HEAD = """# Families: what compiles

Made by `python bench/families.py`, kept in bench/results/families.json; `--page` writes this page
from it. Models are tiny and their weights random, of the magnitudes of trained ones. Each is
captured from a torch.export archive and from a folder, with eager and SDPA attention where the
family has both, and run as a NumPy program and as an HDP program without pruning, under no padding
(`none`), right and left padding and holes. *Right*: every output is PyTorch's, within 1e-4 in
NumPy and at a cosine of .999 a token on HDP, and 0 at padding where the program says so. *Refused*:
a message and exit code 1. *Wrong*: anything else.
"""
TITLES = {
    "families: summary": "By family",
    "families: heads": "By head",
    "families: wrong": "Wrong, by message",
    "families: refused": "Refused, by message",
    "rules: oracle": "Pruned, beside the oracle",
    "heat: low-rank": "Factorised",
    "first: from nothing": "First run",
    "capture: BERT-Base": "Capture of BERT-Base",
}


def page(content: Mapping[str, Any]) -> str:
    """The page of a result file's content."""
    lines = [HEAD, "## Rows with a goal", "", *rows_table(content["rows"]), ""]
    for name, title in TITLES.items():
        if entries := content["tables"].get(name):
            lines += [f"## {title}", "", *tables(entries)]
    lines += ["## Provenance", "", *_origins(content["provenance"])]
    return "\n".join(lines) + "\n"


def _origins(provenance: Mapping[str, Any]) -> Iterator[str]:
    yield from origins(provenance["parts"])
