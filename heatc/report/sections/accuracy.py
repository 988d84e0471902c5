"""Evaluations: what each program gives on data, and what a sample costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heatc.report.chart import Block, Chart, error_bars, hover, key, plot_text, series_colour
from heatc.report.html import Cell, Html, badge, table, tag
from heatc.report.material import EvaluationRun, Material
from heatc.report.numbers import NOTHING, Number, Scale, interval
from heatc.tuning.evaluate.figures import FIGURES, Figure

Json = Any

EDP = "batch_p50_energy_delay_product_joule_seconds"
COSINE = "cosine_mean"
SCORES = ("accuracy_percent", COSINE)
"""What is drawn over energy × delay: the first one that every program has."""


def draw(material: Material) -> Sequence[Block]:
    """For each evaluation a picture where there is something to draw, and its tables."""
    blocks: list[Block] = []
    for number, run in enumerate(material.evaluations):
        blocks += _evaluation(number, run)
    return blocks


def _evaluation(number: int, run: EvaluationRun) -> Iterator[Block]:
    data, subjects = run.data, run.data["subjects"]
    labels = "labelled" if data.get("labelled") else "unlabelled"
    yield tag("h3", run.name)
    yield tag(
        "p",
        f"{data['samples']:,} {labels} samples. The others are compared with "
        f"{_short(data['reference'])}. Square brackets hold 95 % intervals.",
        class_="lead",
    )
    shown = _table(run.name, subjects)
    score = _score(run)
    if score is None:
        yield shown
        return
    yield _chart(number, run, score)
    yield shown


def _short(name: str) -> str:
    return Path(name).name or name


def _table(title: str, subjects: Sequence[Json]) -> Html:
    """Figures in rows, programs in columns."""
    head = ["Figure", "Unit", *(_short(s["name"]) for s in subjects)]
    rows: list[list[Cell]] = []
    for figure in FIGURES:
        values = [s[figure.source].get(figure.name) for s in subjects]
        if all(value is None for value in values):
            continue
        name = tag("span", figure.name, " ", badge(figure.source), title=figure.meaning)
        unit, texts = _texts(figure, values)
        rows.append([Cell(name), Cell(unit), *(Cell(text, classes="number") for text in texts)])
    return table(head, rows, caption=title)


def _texts(figure: Figure, values: Sequence[Any]) -> tuple[str, list[str]]:
    """The unit, and each value."""
    if figure.source == "compared":
        return figure.unit, [NOTHING if v is None else interval(v, "") for v in values]
    scale = Scale(figure.unit, values)
    return scale.unit or figure.unit, [scale.text(value) for value in values]


# --- The picture ------------------------------------------------------------------------------


class Drawn(NamedTuple):
    """A program in the picture: its name, energy × delay in J s, and its score with an interval."""

    name: str
    edp: float
    score: Mapping[str, Number]


def _score(run: EvaluationRun) -> str | None:
    """What can be drawn over energy × delay for two programs or more."""
    return next((score for score in SCORES if len(_drawn(run, score)) > 1), None)


def _drawn(run: EvaluationRun, score: str) -> list[Drawn]:
    found: list[Drawn] = []
    for subject in run.data["subjects"]:
        edp, value = subject["modelled"].get(EDP), subject["compared"].get(score)
        if score == COSINE and subject["name"] == run.data["reference"]:
            value = {"value": 1.0, "low": None, "high": None}
        if edp and value is not None and value["value"] is not None:
            found.append(Drawn(_short(subject["name"]), edp, value))
    return found


def _chart(number: int, run: EvaluationRun, score: str) -> Chart:
    drawn = _drawn(run, score)
    info = next(figure for figure in FIGURES if figure.name == score)
    title = "cosine with the reference" if score == COSINE else "accuracy"
    scale = Scale("J s", [one.edp for one in drawn])
    traces: list[Json] = []
    for place, one in enumerate(drawn):
        edp = f"{scale.full(one.edp)} a batch, median, modelled"
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [one.edp / scale.factor],
                "y": [one.score["value"]],
                "error_y": _bars(one.score),
                "name": plot_text(one.name),
                "hovertext": [hover(one.name, f"{title} {interval(one.score, info.unit)}", edp)],
                "hoverinfo": "text",
                "marker": {"size": 11, "color": series_colour(place)},
            }
        )
    layout = {
        "xaxis": {"title": {"text": f"energy × delay of a batch ({scale.unit}, modelled)"}},
        "yaxis": {"title": {"text": f"{title} ({info.unit}, compared)"}},
        "showlegend": True,
    }
    label = f"{title} of {len(drawn)} programs over their energy × delay"
    return Chart(f"accuracy-{number}", label, {key(): {"data": traces}}, None, layout)


def _bars(found: Mapping[str, Number]) -> Json:
    value, low, high = found["value"], found["low"], found["high"]
    if value is None or low is None or high is None:
        return {"visible": False}
    return error_bars([(low, value, high)])
