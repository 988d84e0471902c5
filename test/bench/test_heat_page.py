"""The page of factorised layers says what the result file says."""

from __future__ import annotations

import json

from bench.support import report
from bench.support.heat import page as heat_page


def test_the_page_is_that_of_the_results():
    content = json.loads((report.RESULTS / "heat_costs.json").read_text(encoding="utf-8"))
    written = heat_page.PAGE.read_text(encoding="utf-8")
    assert written == heat_page.page(content), "run python bench/heat_costs.py --page"


def test_entries_of_other_keys_begin_a_table():
    row = {"what": "a", "measured": 1.5, "unit": "s", "goal": 1, "sense": "<=", "holds": False}
    origin = {"command": "c", "commit": "x", "date": "d", "cpu": "p"}
    tables = {
        "part: some rows": [
            {"x": 1, "fused": True},
            {"x": 2.25, "fused": False},
            {"layers": "8|8"},
        ],
        "part: too long": [{"x": 0}] * (heat_page.LONGEST + 1),
    }
    content = {"rows": [row], "tables": tables, "provenance": {"parts": {"part": origin}}}
    text = heat_page.page(content)
    assert "| a    | 1.5      | <= 1 | s    | NO    |" in text
    assert "## Part: some rows\n\n| x    | fused |" in text
    assert "| 2.25 | no    |\n\n| layers |" in text
    assert "| 8\\|8   |" in text
    assert "too long" not in text.lower()
