"""What plans say of each layer: format, ranks, kept parameters, pruning rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heatc.report.chart import Block, Chart, Control, hover, key, plot_text
from heatc.report.html import Cell, Html, details, table, tag
from heatc.report.material import Material, PlanLayer, PlanRun
from heatc.report.numbers import NOTHING, Number
from heatc.report.places import numbers_of, place_of

Json = Any

ROW, MARGIN = 30, 90
"""Pixels of a place, and of what is around them."""

Value = Callable[[PlanLayer], Number]


def _greatest_rank(layer: PlanLayer) -> int | None:
    return max(layer.ranks) if layer.ranks else None


QUANTITIES: Mapping[str, tuple[Value, str]] = {
    "Greatest rank": (_greatest_rank, "rank"),
    "Kept parameters": (lambda layer: layer.kept_percent, "% kept"),
}
"""What is drawn: the value of a layer, and what it is."""


def draw(material: Material) -> Sequence[Block]:
    """A map of the factorised layers, and a table for each plan."""
    plans = material.plans
    if not plans:
        return []
    tables = [
        details(f"{run.name}: {len(run.layers)} layers", _table(run), is_open=len(plans) == 1)
        for run in plans
    ]
    drawn = [run for run in plans if any(layer.format is not None for layer in run.layers)]
    if not drawn:
        return tables
    figures = {
        key(n, m): _map(run, *of)
        for n, run in enumerate(drawn)
        for m, of in enumerate(QUANTITIES.values())
        if any(of[0](layer) is not None for layer in run.layers)
    }
    chart = Chart(
        id="ranks-chart",
        label="Ranks and kept parameters of each factorised layer",
        figures=figures,
        table=None,
        layout={"showlegend": False},
        controls=[
            Control("Plan", [run.name for run in drawn]),
            Control("Quantity", list(QUANTITIES)),
        ],
        height=260,
    )
    lead = tag(
        "p",
        "Rows are places in the model, columns the numbers in the layer's name, such as that of its "
        "block. Layers that a plan does not name stay as they are. Kept parameters are known where "
        "the plan says the layer's shape, or brings factors.",
        class_="lead",
    )
    return [lead, chart, *tables]


def _map(run: PlanRun, value: Value, what: str) -> Json:
    layers = [layer for layer in run.layers if layer.format is not None]
    rows = list(dict.fromkeys(place_of(layer.path) for layer in layers))
    columns = list(dict.fromkeys(numbers_of(layer.path) for layer in layers))
    at = {(place_of(layer.path), numbers_of(layer.path)): layer for layer in layers}
    cells = [[at.get((row, column)) for column in columns] for row in rows]
    return {
        "data": [
            {
                "type": "heatmap",
                "z": [[None if c is None else value(c) for c in row] for row in cells],
                "text": [["" if c is None else _short(value(c)) for c in row] for row in cells],
                "texttemplate": "%{text}",
                "hovertext": [["" if c is None else _hover(c) for c in row] for row in cells],
                "hoverinfo": "text",
                "hoverongaps": False,
                "xgap": 3,
                "ygap": 3,
                "zmin": 0,
                "zmax": max((value(layer) or 0 for layer in layers), default=0) or 1,
                "colorscale": [[0, "var(--strip-0)"], [1, "var(--strip-1)"]],
                "colorbar": {"title": {"text": what, "side": "right"}, "thickness": 8},
            }
        ],
        "layout": {
            "height": MARGIN + len(rows) * ROW,
            "xaxis": {
                "tickvals": list(range(len(columns))),
                "ticktext": columns,
                "showgrid": False,
                "title": {"text": "number in the name"},
            },
            "yaxis": {
                "tickvals": list(range(len(rows))),
                "ticktext": [plot_text(row) for row in rows],
                "autorange": "reversed",
                "showgrid": False,
            },
        },
    }


def _short(value: Number) -> str:
    return "" if value is None else f"{value:.3g}"


def _hover(layer: PlanLayer) -> str:
    lines = [layer.path, f"{layer.format}, ranks {_ranks(layer)}"]
    if layer.kept_percent is not None:
        lines.append(f"{layer.kept_percent:.1f} % of {layer.dense_parameters:,} parameters")
    return hover(*lines)


def _ranks(layer: PlanLayer) -> str:
    return ", ".join(map(str, layer.ranks)) if layer.ranks else NOTHING


def _table(run: PlanRun) -> Html:
    head = [
        "Layer",
        "Format",
        "Shape",
        "Ranks",
        "Parameters",
        "Of the dense weight",
        "Pruning rule",
    ]
    rows = [
        [
            Cell(layer.path),
            Cell(layer.format or NOTHING),
            Cell(layer.shape or NOTHING),
            Cell(_ranks(layer), _greatest_rank(layer) or -1, "number"),
            Cell(_count(layer.parameters), layer.parameters or -1, "number"),
            Cell(_percent(layer.kept_percent), layer.kept_percent or -1, "number"),
            Cell(layer.rule or NOTHING, classes="wrap"),
        ]
        for layer in run.layers
    ]
    return table(head, rows, caption=f"Layers of {run.name}", is_sortable=True)


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.1f} %"
