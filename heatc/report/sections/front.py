"""The fronts of searches: accuracy proxy over energy × delay, with links to the plans."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from heatc.report.chart import Block, Chart, hover, key
from heatc.report.html import Cell, Html, Title, table, tag
from heatc.report.material import FrontPoint, FrontRun, Material
from heatc.report.numbers import Difference, Number, Scale, digits
from heatc.report.reading.front import FIGURES

Json = Any

UNITS = {"edp": "J s", "seconds": "s", "joules": "J"}
TITLES = {"proxy": "proxy", "edp": "energy × delay", "seconds": "time", "joules": "energy"}
SENSES = {"edp": "edp_joule_seconds", "parameters": "parameters"}
"""Figures whose difference from the dense model is told, by a name that ends in the unit."""


def draw(material: Material) -> Sequence[Block]:
    """A picture and a table for each front."""
    blocks: list[Block] = []
    for number, run in enumerate(material.fronts):
        blocks += _front(number, run, material.output)
    return blocks


def _front(number: int, run: FrontRun, output: Path) -> Iterator[Block]:
    yield tag("h3", run.name)
    yield tag(
        "p",
        f"Costs are modelled on {run.hardware} for one sequence of {run.tokens} tokens. The proxy says "
        "which of two plans is nearer to the model before training; less is nearer. Down and to the "
        "left is better.",
        class_="lead",
    )
    scale = Scale("J s", [run.dense["edp"], *(p.figures["edp"] for p in run.points)])
    yield Chart(
        id=f"front-{number}",
        label=f"Front of {run.name}: proxy over energy × delay of {len(run.points)} plans",
        figures={key(): {"data": _traces(run, scale, output)}},
        table=None,
        layout={
            "xaxis": {"title": {"text": f"energy × delay ({scale.unit}, modelled)"}},
            "yaxis": {
                "title": {"text": "proxy (divergence from the model)"},
                "rangemode": "tozero",
            },
            "showlegend": True,
        },
    )
    yield _table(run, scale, output)


def _traces(run: FrontRun, scale: Scale, output: Path) -> list[Json]:
    listed = [p for p in run.points if not p.goal]
    chosen = [p for p in run.points if p.goal]
    traces = [
        _trace("one format, one share", run.uniform, scale, ("x", 8, "var(--muted)")),
        _trace("front", [p.figures for p in listed], scale, ("circle", 10, "var(--series-0)")),
        _trace("chosen", [p.figures for p in chosen], scale, ("star", 14, "var(--series-1)")),
        _trace("dense model", [run.dense], scale, ("square", 10, "var(--text)")),
    ]
    texts = (
        ["one format and one share for all layers"] * len(run.uniform),
        [_hover(p, scale) for p in listed],
        [_hover(p, scale) for p in chosen],
        ["the model as it is"],
    )
    for trace, text in zip(traces, texts):
        trace["hovertext"] = text
    for trace, points in ((traces[1], listed), (traces[2], chosen)):
        trace["customdata"] = [link(p.link, output) for p in points]
    return [trace for trace in traces if trace["x"]]


def _trace(
    name: str,
    figures: Sequence[Mapping[str, Number]],
    scale: Scale,
    marker: tuple[str, int, str],
) -> Json:
    symbol, size, colour = marker
    ordered = [(f["edp"], f["proxy"]) for f in figures]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [None if edp is None else edp / scale.factor for edp, _ in ordered],
        "y": [proxy for _, proxy in ordered],
        "hoverinfo": "text",
        "cliponaxis": False,
        "marker": {"symbol": symbol, "size": size, "color": colour},
    }


def _hover(point: FrontPoint, scale: Scale) -> str:
    figures = point.figures
    lines = [point.name, _formats(point), f"proxy {_plain(figures['proxy'])}"]
    lines += [f"{TITLES['edp']} {scale.full(figures['edp'])}, modelled"]
    lines += [
        f"{TITLES[n]} {Scale(UNITS[n], [figures[n]]).full(figures[n])}"
        for n in ("seconds", "joules")
    ]
    lines += [f"{figures['parameters']:,} parameters"] if figures["parameters"] is not None else []
    return hover(*(line for line in lines if line))


def _plain(value: Number) -> str:
    return "–" if value is None else digits(value)


def _formats(point: FrontPoint) -> str:
    return ", ".join(f"{name} {count}" for name, count in point.formats.items())


def link(path: Path | None, output: Path) -> str | None:
    """The address of a file from where the page is; None for a file that is not there."""
    if path is None:
        return None
    near = os.path.relpath(path.resolve(), output.resolve().parent)
    return quote(near.replace(os.sep, "/"))


# --- The table --------------------------------------------------------------------------------


def _table(run: FrontRun, scale: Scale, output: Path) -> Html:
    seconds = Scale("s", [run.dense["seconds"]])
    joules = Scale("J", [run.dense["joules"]])
    head = [
        "Plan",
        Title("Formats", "layers of each"),
        "Proxy",
        Title("Energy × delay", scale.unit),
        "Beside dense",
        Title("Time", seconds.unit),
        Title("Energy", joules.unit),
        "Parameters",
        "MACs",
        "Machine",
    ]
    scales = {"edp": scale, "seconds": seconds, "joules": joules}
    rows = [_row(tag("span", "dense model"), "", run.dense, run, scales)]
    for point in run.points:
        address = link(point.link, output)
        name = tag("a", point.name, href=address) if address else tag("span", point.name)
        goal = f" chosen for {point.goal}" if point.goal else None
        row = _row(tag("span", name, goal), _formats(point), point.figures, run, scales)
        row[-1] = Cell(point.hardware)
        rows.append(row)
    return table(
        head, rows, caption=f"Plans of {run.name}; all costs are modelled", is_sortable=True
    )


def _row(
    name: Html,
    formats: str,
    figures: Mapping[str, Number],
    run: FrontRun,
    scales: Mapping[str, Scale],
) -> list[Cell]:
    difference = Difference(SENSES["edp"], figures["edp"], run.dense["edp"])
    if figures is run.dense:
        difference = Difference(SENSES["edp"], None, None)
    cells = [Cell(name), Cell(formats)]
    for figure in FIGURES:
        if figure == "cycles":
            continue
        value = figures[figure]
        text = scales[figure].text(value) if figure in scales else _count(value)
        cells.append(Cell(text, _key(value), "number"))
        if figure == "edp":
            cells.append(Cell(str(difference), _key(value), difference.verdict))
    return [*cells, Cell(run.hardware)]


def _count(value: Number) -> str:
    return f"{value:,}" if isinstance(value, int) else _plain(value)


def _key(value: Number) -> float:
    """What a column of numbers is sorted by."""
    return float("-inf") if value is None else value
