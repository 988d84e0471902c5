"""What plans say of each layer: format, ranks, kept parameters, pruning rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from heatc.report.chart import Block, Chart, Control, hover, key, plot_text, series_colour
from heatc.report.html import Cell, Html, details, table, tag
from heatc.report.material import Material, PlanLayer, PlanRun
from heatc.report.numbers import NOTHING, Number

Json = Any

BAR, MARGIN = 9, 90
"""Pixels of a bar, and of what is around them."""

Value = Callable[[PlanLayer], Number]


def _greatest_rank(layer: PlanLayer) -> int | None:
    return max(layer.ranks) if layer.ranks else None


QUANTITIES: Mapping[str, tuple[Value, str]] = {
    "Kept parameters": (lambda layer: layer.kept_percent, "% of the dense weight"),
    "Greatest rank": (_greatest_rank, "rank"),
}
"""What bars show: the value of a layer, and what it is."""


def draw(material: Material) -> Sequence[Block]:
    """Bars of the factorised layers, and a table for each plan."""
    plans = material.plans
    if not plans:
        return []
    tables = [
        details(f"{run.name}: {len(run.layers)} layers", _table(run), is_open=len(plans) == 1)
        for run in plans
    ]
    known = {title: of for title, of in QUANTITIES.items() if _is_known(of[0], plans)}
    if not known:
        return tables
    chart = Chart(
        id="ranks-chart",
        label="Ranks and kept parameters of each factorised layer",
        figures={key(n): _bars(plans, *of) for n, of in enumerate(known.values())},
        table=None,
        layout={"barmode": "group", "showlegend": len(plans) > 1},
        controls=[Control("Quantity", list(known))],
        height=420,
    )
    lead = tag(
        "p",
        "Layers that a plan does not name stay as they are. Kept parameters are known where the plan "
        "says the layer's shape, or has factors of its own.",
        class_="lead",
    )
    return [lead, chart, *tables]


def _is_known(value: Value, plans: Sequence[PlanRun]) -> bool:
    return any(value(layer) is not None for run in plans for layer in run.layers)


def _bars(plans: Sequence[PlanRun], value: Value, what: str) -> Json:
    layers = [layer for run in plans for layer in run.layers if layer.format is not None]
    paths = list(dict.fromkeys(layer.path for layer in layers))
    axis = {"tickvals": list(range(len(paths))), "ticktext": [plot_text(p) for p in paths]}
    return {
        "data": [_trace(n, run, paths, value) for n, run in enumerate(plans)],
        "layout": {
            "height": MARGIN + len(paths) * (BAR * len(plans) + 8),
            "yaxis": {**axis, "autorange": "reversed"},
            "xaxis": {"title": {"text": what}, "rangemode": "tozero"},
        },
    }


def _trace(number: int, run: PlanRun, paths: Sequence[str], value: Value) -> Json:
    own = {layer.path: layer for layer in run.layers if layer.format is not None}
    return {
        "type": "bar",
        "orientation": "h",
        "name": plot_text(run.name),
        "x": [value(own[path]) if path in own else None for path in paths],
        "y": list(range(len(paths))),
        "hovertext": [_hover(run, own[path]) if path in own else "" for path in paths],
        "hoverinfo": "text",
        "marker": {"color": series_colour(number)},
    }


def _hover(run: PlanRun, layer: PlanLayer) -> str:
    lines = [layer.path, run.name, f"{layer.format}, ranks {_ranks(layer)}"]
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
