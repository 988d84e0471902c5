"""The fronts of searches and compressions: what plans lose over energy × delay, and their files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from heatc.report.chart import Block, Chart, error_bars, hover, key, plot_text
from heatc.report.html import Cell, Html, Title, table, tag
from heatc.report.material import FigureInfo, FrontPoint, FrontRun, Material
from heatc.report.numbers import Difference, Number, Scale, interval

Json = Any

EDP = "edp"
TITLES = {
    EDP: "energy × delay",
    "seconds": "time",
    "joules": "energy",
    "macs": "MACs",
    "accuracy_drop": "accuracy lost",
    "edp_times_less": "energy × delay, times less",
}
"""What figures are called where their names say it badly."""


class Marks(NamedTuple):
    """How points look: a symbol, its size and its colour."""

    symbol: str
    size: int
    colour: str


UNIFORM = Marks("x", 8, "var(--muted)")
LISTED = Marks("circle", 10, "var(--series-0)")
NOTED = Marks("star", 14, "var(--series-1)")
DENSE = Marks("square", 10, "var(--text)")


def draw(material: Material) -> Sequence[Block]:
    """A picture and a table for each front."""
    blocks: list[Block] = []
    for number, run in enumerate(material.fronts):
        blocks += _front(number, run, material.output)
    return blocks


def _front(number: int, run: FrontRun, output: Path) -> Iterator[Block]:
    scale = _scales(run)[EDP]
    loss = f"{title_of(run.loss)} ({run.loss.unit or 'divergence'}, {run.loss.kind})"
    yield tag("h3", run.name)
    yield tag("p", f"{run.conditions} Down and to the left is better.", class_="lead")
    yield Chart(
        id=f"front-{number}",
        label=f"Front of {run.name}: {title_of(run.loss)} over energy × delay",
        figures={key(): {"data": _traces(run, scale, output)}},
        table=None,
        layout={
            "xaxis": {"title": {"text": f"energy × delay ({scale.unit}, modelled)"}},
            "yaxis": {"title": {"text": plot_text(loss)}, "rangemode": "tozero"},
            "showlegend": True,
        },
    )
    yield _table(run, output)


def title_of(info: FigureInfo) -> str:
    """What a figure is called."""
    return TITLES.get(info.name, info.name.replace("_", " "))


def _scales(run: FrontRun) -> dict[str, Scale]:
    every = [run.dense, *(point.figures for point in run.points)]
    return {
        info.name: Scale(info.unit, [figures[info.name] for figures in every])
        for info in run.columns
    }


def link(path: Path | None, output: Path) -> str | None:
    """The address of a file from where the page is; None for a file that is not there."""
    if path is None:
        return None
    near = os.path.relpath(path.resolve(), output.resolve().parent)
    return quote(near.replace(os.sep, "/"))


# --- The picture ------------------------------------------------------------------------------


def _traces(run: FrontRun, scale: Scale, output: Path) -> list[Json]:
    listed = [point for point in run.points if not point.note]
    noted = [point for point in run.points if point.note]
    uniform = _trace("one format, one share", run.uniform, UNIFORM, run.loss, scale)
    uniform["hovertext"] = ["one format and one share for all layers"] * len(run.uniform)
    # The dense model loses nothing of itself, whether the file says so or not.
    dense = _trace("dense model", [{**run.dense, run.loss.name: 0}], DENSE, run.loss, scale)
    dense["hovertext"] = ["the model as it is"]
    traces = [uniform]
    for name, points, marks in (("front", listed, LISTED), ("for the goal", noted, NOTED)):
        trace = _trace(name, [point.figures for point in points], marks, run.loss, scale)
        trace["hovertext"] = [_hover(point, run) for point in points]
        trace["customdata"] = [link(point.link, output) for point in points]
        traces.append(trace)
    return [trace for trace in (*traces, dense) if trace["x"]]


def _trace(
    name: str,
    figures: Sequence[Mapping[str, Number]],
    marks: Marks,
    loss: FigureInfo,
    scale: Scale,
) -> Json:
    products = [own[EDP] for own in figures]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [None if product is None else product / scale.factor for product in products],
        "y": [own[loss.name] for own in figures],
        "error_y": _bars(figures, loss),
        "hoverinfo": "text",
        "cliponaxis": False,
        "marker": {"symbol": marks.symbol, "size": marks.size, "color": marks.colour},
    }


LOW, HIGH = "_low", "_high"
"""What the names of the ends of an interval end in."""


def _shown(run: FrontRun) -> list[FigureInfo]:
    """The columns, without the ends of the loss's interval, which stand beside the loss."""
    ends = {run.loss.name + LOW, run.loss.name + HIGH}
    return [info for info in run.columns if info.name not in ends]


def _text(info: FigureInfo, figures: Mapping[str, Number], scale: Scale) -> str:
    low, high = (figures.get(info.name + end) for end in (LOW, HIGH))
    if low is None or high is None:
        return scale.text(figures[info.name])
    return interval({"value": figures[info.name], "low": low, "high": high}, "")


def _bars(figures: Sequence[Mapping[str, Number]], loss: FigureInfo) -> Json:
    """The intervals of the losses, where they have some."""
    found = [[own.get(loss.name + end) for end in (LOW, "", HIGH)] for own in figures]
    known = [ends for ends in found if None not in ends]
    if not known or len(known) < len(found):
        return {"visible": False}
    return error_bars([[end or 0 for end in ends] for ends in known])


def _hover(point: FrontPoint, run: FrontRun) -> str:
    lines = [point.name, point.note, _formats(point)]
    for info in _shown(run):
        value = point.figures[info.name]
        if value is not None:
            scale = Scale(info.unit, [value])
            text = f"{_text(info, point.figures, scale)} {scale.unit}".rstrip()
            lines.append(f"{title_of(info)} {text}, {info.kind}")
    return hover(*(line for line in lines if line))


def _formats(point: FrontPoint) -> str:
    return ", ".join(f"{name} {count}" for name, count in point.formats.items())


# --- The table --------------------------------------------------------------------------------


def _table(run: FrontRun, output: Path) -> Html:
    scales = _scales(run)
    head = [Title("Plan"), Title("Formats", "layers of each")]
    for info in _shown(run):
        title = title_of(info)
        head.append(Title(title[:1].upper() + title[1:], scales[info.name].unit))
        head += [Title("Beside dense")] if info.name == EDP else []
    rows = [_row(tag("span", "dense model"), "", run.dense, run)]
    rows += [_row(_name(p, output), _formats(p), p.figures, run) for p in run.points]
    machines = {point.hardware for point in run.points}
    if len(machines) > 1:
        head.append(Title("Machine"))
        for row, name in zip(rows, ["", *(point.hardware for point in run.points)]):
            row.append(Cell(name))
    return table(head, rows, caption=f"Plans of {run.name}; costs are modelled", is_sortable=True)


def _name(point: FrontPoint, output: Path) -> Html:
    address = link(point.link, output)
    name = tag("a", point.name, href=address) if address else tag("span", point.name)
    return tag("span", name, f" {point.note}" if point.note else None)


def _row(name: Html, formats: str, figures: Mapping[str, Number], run: FrontRun) -> list[Cell]:
    scales, cells = _scales(run), [Cell(name), Cell(formats)]
    for info in _shown(run):
        value = figures[info.name]
        cells.append(Cell(_text(info, figures, scales[info.name]), _key(value), "number"))
        if info.name == EDP:
            base = None if figures is run.dense else run.dense[EDP]
            difference = Difference("edp_joule_seconds", value, base)
            cells.append(Cell(str(difference), _key(value), f"number {difference.verdict}"))
    return cells


def _key(value: Number) -> float:
    """What a column of numbers is sorted by."""
    return float("-inf") if value is None else value
