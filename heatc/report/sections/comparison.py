"""Every figure of two or more runs side by side, with the difference from the first one."""

from __future__ import annotations

from collections.abc import Sequence

from heatc.report.chart import Block
from heatc.report.html import Cell, Html, Title, badge, details, join, table, tag
from heatc.report.material import FigureInfo, Material, SimulatedRun
from heatc.report.numbers import Difference, Scale

GROUPS = (
    ("Energy", ("_joules", "_joule_seconds")),
    ("Time", ("_cycles", "_seconds")),
    ("Memory", ("_bytes",)),
    ("Counts and shares", ("",)),
)
"""What figures are told apart by: the ends of their names; the first group that fits has it."""


def draw(material: Material) -> Sequence[Block]:
    """A table for each group of figures."""
    runs = material.simulated
    if len(runs) < 2:
        return []
    lead = tag(
        "p",
        f"Differences are from {runs[0].name}. Each says whether it is better or worse where one of "
        "the two can be said.",
        class_="lead",
    )
    groups = _grouped(material)
    parts = [
        details(f"{title} ({len(infos)})", _table(title, infos, runs), is_open=n == 0)
        for n, (title, infos) in enumerate(groups.items())
    ]
    return [lead, *parts]


def _grouped(material: Material) -> dict[str, list[FigureInfo]]:
    groups: dict[str, list[FigureInfo]] = {title: [] for title, _ in GROUPS}
    for info in material.figures.values():
        if all(run.figure(info.name) is None for run in material.simulated):
            continue
        title = next(title for title, ends in GROUPS if info.name.endswith(ends))
        groups[title].append(info)
    return {title: infos for title, infos in groups.items() if infos}


def _table(title: str, infos: Sequence[FigureInfo], runs: Sequence[SimulatedRun]) -> Html:
    head: list[Title | str] = ["Figure", "Unit", runs[0].name]
    for run in runs[1:]:
        head += [run.name, Title("Difference", f"of {run.name} from {runs[0].name}")]
    return table(head, [_row(info, runs) for info in infos], caption=title)


def _row(info: FigureInfo, runs: Sequence[SimulatedRun]) -> list[Cell]:
    values = [run.figure(info.name) for run in runs]
    scale = Scale(info.unit, values)
    name = join([tag("span", info.name, title=info.meaning), " ", badge(info.kind)])
    cells = [Cell(name), Cell(scale.unit or "count"), Cell(scale.text(values[0]), classes="number")]
    for value in values[1:]:
        difference = Difference(info.name, value, values[0])
        cells.append(Cell(scale.text(value), classes="number"))
        cells.append(Cell(str(difference), classes=difference.verdict))
    return cells
