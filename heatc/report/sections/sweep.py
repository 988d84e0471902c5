"""Sweeps: what a program costs on machines that differ in some keys of the hardware file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heatc.report.chart import Block, Chart, Control, hover, key, plot_text, series_colour
from heatc.report.html import Cell, Html, Title, table, tag
from heatc.report.material import Material, SweepPoint, SweepRun
from heatc.report.numbers import Number, Scale

Json = Any

FIGURES = {
    "energy_delay_product_joule_seconds": "Energy × delay",
    "total_cycles": "Cycles",
    "time_seconds": "Time",
    "energy_joules": "Energy",
    "dram_read_bytes": "Read from DRAM",
    "dram_written_bytes": "Written to DRAM",
    "pe_utilisation_percent": "PE arrays busy",
    "host_utilisation_percent": "Host busy",
}
"""What is drawn, and what it is called."""


def draw(material: Material) -> Sequence[Block]:
    """A picture and a table for each sweep."""
    blocks: list[Block] = []
    for number, run in enumerate(material.sweeps):
        blocks += _sweep(number, run)
    return blocks


def _sweep(number: int, run: SweepRun) -> Iterator[Block]:
    names = [name for name in FIGURES if name in run.columns]
    planned = (
        "The model was compiled for each machine."
        if run.is_recompiled
        else f"Every machine runs what was planned for {run.planned_for}."
    )
    yield tag("h3", run.name)
    yield tag("p", f"{run.program} on {len(run.points)} machines. {planned}", class_="lead")
    yield Chart(
        id=f"sweep-{number}",
        label=f"Costs of {run.program} over {', '.join(run.keys)}",
        figures={key(n): _figure(run, name) for n, name in enumerate(names)},
        table=None,
        layout={"showlegend": len(run.keys) > 1},
        controls=[Control("Quantity", [FIGURES[name] for name in names])],
    )
    yield _table(run, names)


def _figure(run: SweepRun, name: str) -> Json:
    """A line for each combination of the other keys, over the values of the first key."""
    info = run.columns[name]
    scale = Scale(info.unit, [point.figures.get(name) for point in run.points])
    first, *others = run.keys
    lines: dict[tuple[str, ...], list[SweepPoint]] = {}
    for point in run.points:
        if not point.problem:
            lines.setdefault(tuple(point.changes[k] for k in others), []).append(point)
    traces = [
        _trace(n, (first, name), dict(zip(others, values)), points, scale)
        for n, (values, points) in enumerate(lines.items())
    ]
    title = f"{FIGURES[name].lower()} ({scale.unit or 'count'}, {info.kind})"
    values = [plot_text(value) for value in run.keys[first]]
    return {
        "data": traces,
        "layout": {
            "xaxis": {
                "title": {"text": plot_text(first)},
                "type": "category",
                "categoryorder": "array",
                "categoryarray": values,
            },
            "yaxis": {"title": {"text": title}, "rangemode": "tozero"},
        },
    }


def _trace(
    number: int,
    what: tuple[str, str],
    others: Mapping[str, str],
    points: Sequence[SweepPoint],
    scale: Scale,
) -> Json:
    first, name = what
    told = ", ".join(f"{k} {value}" for k, value in others.items())
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": plot_text(told or FIGURES[name]),
        "x": [plot_text(point.changes[first]) for point in points],
        "y": [scale.number(point.figures.get(name)) for point in points],
        "hovertext": [
            hover(*_changes(point), f"{FIGURES[name]}: {scale.full(point.figures.get(name))}")
            for point in points
        ],
        "hoverinfo": "text",
        "cliponaxis": False,
        "marker": {"size": 9, "color": series_colour(number)},
        "line": {"color": series_colour(number)},
    }


def _changes(point: SweepPoint) -> list[str]:
    return [f"{name} {value}" for name, value in point.changes.items()]


def _table(run: SweepRun, names: Sequence[str]) -> Html:
    scales = {
        name: Scale(run.columns[name].unit, [point.figures.get(name) for point in run.points])
        for name in names
    }
    head = [*map(Title, run.keys), *(Title(FIGURES[n], scales[n].unit or "count") for n in names)]
    rows: list[list[Cell]] = []
    for point in run.points:
        cells = [Cell(value) for value in point.changes.values()]
        if point.problem:
            rows.append([*cells, Cell(f"does not fit: {point.problem}", classes="wrap")])
            continue
        values: list[Number] = [point.figures.get(name) for name in names]
        cells += [Cell(scales[n].text(v), _key(v), "number") for n, v in zip(names, values)]
        rows.append(cells)
    # A machine that does not fit has fewer cells, which nothing can be sorted by.
    is_whole = not any(point.problem for point in run.points)
    caption = f"Machines of {run.name}; all figures are modelled"
    return table(head, rows, caption=caption, is_sortable=is_whole)


def _key(value: Number) -> float:
    return float("-inf") if value is None else value
