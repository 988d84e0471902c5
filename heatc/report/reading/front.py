"""front.json of `heatc-tune search`, and the plans of its points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from heatc.errors import HeatcError
from heatc.plan import read_plan
from heatc.readers.json_text import read_json
from heatc.report.material import FrontPoint, FrontRun
from heatc.report.numbers import Number
from heatc.report.reading.source import LARGEST_JSON, Part, expect_schema, source_file

FIGURES = ("proxy", "edp", "seconds", "joules", "cycles", "parameters", "macs")
"""What every point has."""

DENSE = "dense"


def read_front(path: Path, name: str) -> FrontRun:
    """The front, with the formats of each point's plan where that file lies beside it."""
    front = Part(read_json(path, "front.json", LARGEST_JSON), str(path))
    expect_schema(front, 1)
    listed = front.get("points").list()
    if front.has("chosen") and front.get("chosen").has("file"):
        listed.append(front.get("chosen"))
    count = len(front.get("layers").list())
    machine, folder = front.get("hw").text(), path.parent
    return FrontRun(
        name=name,
        path=path,
        tokens=front.get("tokens").integer(),
        hardware=machine,
        dense=_figures(front.get("dense")),
        uniform=[_figures(part) for part in front.get("uniform").list()],
        points=[_point(part, folder, machine, count) for part in listed],
        files=[source_file(path)],
    )


def _figures(part: Part) -> Mapping[str, Number]:
    return {name: part.get(name).number() for name in FIGURES}


def _point(part: Part, folder: Path, machine: str, count: int) -> FrontPoint:
    file = part.get("file").text()
    if Path(file).name != file:
        raise part.error(f"expected a file beside front.json, found {file[:60]!r}")
    link = folder / file
    return FrontPoint(
        name=file,
        figures=_figures(part),
        formats=_formats(link, count),
        link=link if link.is_file() else None,
        hardware=part.get("hw").text() if part.has("hw") else machine,
        goal=part.get("goal").text() if part.has("goal") else "",
    )


def _formats(path: Path, count: int) -> Mapping[str, int]:
    """How many of the layers each format has; empty where the plan is not there, or is none."""
    if not path.is_file():
        return {}
    try:
        plan = read_plan(path)
    except HeatcError:
        return {}
    counts = Counter(heat.format for heat in plan.heat.values())
    dense = count - counts.total()
    return {**dict(sorted(counts.items())), **({DENSE: dense} if dense > 0 else {})}
