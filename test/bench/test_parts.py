"""Parts of a bench command merge into one file, each with where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

from bench.support import parts
from bench.support.parts import Part
from bench.support.report import Row

ORDER = ("first", "second")


def a_part(name: str, value: float) -> Part:
    return Part([Row(f"{name} row", value, "s", 2, "<=")], {f"{name}: table": {"x": value}})


def test_a_part_replaces_itself_and_keeps_the_others(tmp_path: Path):
    """The second command measures one part: the other stays, with its own origin."""
    path = tmp_path / "found.json"
    parts.merge(path, {n: a_part(n, 1) for n in reversed(ORDER)}, ORDER, {"date": "then"})
    parts.merge(path, {"second": a_part("second", 3)}, ORDER, {"date": "now"})
    content = json.loads(path.read_text())
    assert [(row["what"], row["measured"], row["holds"]) for row in content["rows"]] == [
        ("first row", 1, True),
        ("second row", 3, False),
    ]
    assert content["tables"] == {"first: table": {"x": 1}, "second: table": {"x": 3}}
    origins = content["provenance"]["parts"]
    assert [(name, origins[name]["date"]) for name in ORDER] == [
        ("first", "then"),
        ("second", "now"),
    ]


def test_parts_run_in_order():
    ran: list[str] = []

    def part(name: str) -> Part:
        ran.append(name)
        return a_part(name, 1)

    found = parts.run({name: lambda name=name: part(name) for name in ORDER})
    assert ran == list(ORDER) == list(found)
