"""
front.json of `heatc-tune search` and of `heatc-tune compress`, and the plans of its points.

A search judges plans by a proxy, a compression by the accuracy that they lose. What its figures are
a compression says in the file; those of a search are here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from heatc.errors import HeatcError
from heatc.plan import read_plan
from heatc.readers.json_text import read_json
from heatc.report.material import FigureInfo, FrontPoint, FrontRun
from heatc.report.numbers import Number
from heatc.report.reading.source import LARGEST_JSON, Part, expect_schema, source_file

PROXY = FigureInfo(
    "proxy",
    "",
    "estimated",
    "divergence of the outputs that the errors of the layers are likely to cause: nats of a "
    "classifier, else one minus the cosine",
)
SEARCHED = (
    PROXY,
    FigureInfo("edp", "J s", "modelled", "energy times time"),
    FigureInfo("seconds", "s", "modelled", "time"),
    FigureInfo("joules", "J", "modelled", "energy"),
    FigureInfo("cycles", "cycles", "modelled", "cycles of the machine's clock"),
    FigureInfo("parameters", "count", "counted", "parameters of the searched layers"),
    FigureInfo("macs", "count", "counted", "multiply-accumulates of the searched layers"),
)
"""The figures of a search's point."""

LOST = "accuracy_drop"
"""What a compression judges plans by; the ends of its interval have names of their own."""

DENSE = "dense"


def read_front(path: Path, name: str) -> FrontRun:
    """The front, with the formats of each point's plan where that file lies beside it."""
    front = Part(read_json(path, "front.json", LARGEST_JSON), str(path))
    expect_schema(front, 1)
    read = _compressed if front.has("figures") else _searched
    return read(front, path, name)


def _searched(front: Part, path: Path, name: str) -> FrontRun:
    missed = front.get("missed").object() if front.has("missed") else {}
    notes = {missed.get("nearest"): f"nearest to {missed.get('goal')}"} if missed else {}
    listed = [(p, notes.get(p.get("file").text(), "")) for p in front.get("points").list()]
    if front.has("chosen"):
        chosen = front.get("chosen")
        listed.append((chosen, f"chosen for {chosen.get('goal').text()}"))
    tokens = front.get("tokens").integer()
    reader = _Points(path.parent, SEARCHED, front.get("hw").text(), len(front.get("layers").list()))
    return FrontRun(
        name=name,
        conditions=f"Costs are modelled on {reader.hardware} for one sequence of {tokens} tokens.",
        loss=PROXY,
        columns=SEARCHED,
        dense=reader.figures(front.get("dense")),
        uniform=[reader.figures(part) for part in front.get("uniform").list()],
        points=[reader.point(part, note) for part, note in listed],
        files=[source_file(path)],
    )


def _compressed(front: Part, path: Path, name: str) -> FrontRun:
    columns = [_info(key, part) for key, part in front.get("figures").parts().items()]
    loss = next((info for info in columns if info.name == LOST), None)
    if loss is None:
        raise front.error(f"no figure is called {LOST!r}")
    goals = ", ".join(goal.text() for goal in front.get("goals").list())
    notes = {
        file: f"{words} {goals}"
        for key, words in (("chosen", "chosen for"), ("nearest", "nearest to"))
        if (file := front.get(key).value) is not None
    }
    reader = _Points(path.parent, columns, front.get("hw").text(), None)
    points = front.get("points").list()
    return FrontRun(
        name=name,
        conditions=f"Costs are modelled on {reader.hardware}. "
        f"Plans are judged by: {front.get('judged_by').get('meaning').text()}.",
        loss=loss,
        columns=columns,
        dense=reader.figures(front.get("dense")),
        uniform=[],
        points=[reader.point(p, notes.get(p.get("file").text(), "")) for p in points],
        files=[source_file(path)],
    )


def _info(name: str, part: Part) -> FigureInfo:
    unit, kind, meaning = (part.get(key).text() for key in ("unit", "source", "meaning"))
    # Counts have the unit 1 there.
    return FigureInfo(name, "count" if unit == "1" else unit, kind, meaning)


class _Points:
    """Reads points of a front; `layers` is how many there are, None where nobody says it."""

    def __init__(
        self, folder: Path, columns: Sequence[FigureInfo], hardware: str, layers: int | None
    ):
        self._folder = folder
        self._columns = columns
        self._layers = layers
        self.hardware = hardware

    def figures(self, part: Part) -> Mapping[str, Number]:
        """The figures of a point."""
        return {info.name: part.get(info.name).number() for info in self._columns}

    def point(self, part: Part, note: str) -> FrontPoint:
        """A point with its plan."""
        file = part.get("file").text()
        if Path(file).name != file:
            raise part.error(f"expected a file beside front.json, found {file[:60]!r}")
        plan = self._folder / file
        return FrontPoint(
            name=file,
            figures=self.figures(part),
            formats=self._formats(plan),
            link=plan if plan.is_file() else None,
            hardware=part.get("hw").text() if part.has("hw") else self.hardware,
            note=note,
        )

    def _formats(self, path: Path) -> Mapping[str, int]:
        """How many layers each format has; empty where the plan is not there, or is none."""
        if not path.is_file():
            return {}
        try:
            plan = read_plan(path)
        except HeatcError:
            return {}
        counts = Counter(heat.format for heat in plan.heat.values())
        dense = 0 if self._layers is None else self._layers - counts.total()
        return {**dict(sorted(counts.items())), **({DENSE: dense} if dense > 0 else {})}
