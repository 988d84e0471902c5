"""The summary of `heatc-tune search`: the dense model and the plans of the front."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from heatc.names import FRONT_PLAN
from heatc.tools.summary.keys import COMPARED, COUNTED, MODELLED, TOLD, Key, Section
from heatc.tools.summary.next_steps import Step, option, step
from heatc.tools.summary.output import Summary

COMMAND = "heatc-tune search"

Point = Mapping[str, Any]


def _of(name: str) -> Callable[[Point], Any]:
    return lambda point: point.get(name)


_FIGURES: tuple[Key[Point], ...] = (
    Key(
        "proxy_divergence",
        "0 or more",
        COMPARED,
        "sum of the divergences of outputs that each layer alone causes; 0 is the dense model",
        _of("proxy"),
    ),
    Key("total_cycles", "cycles", MODELLED, "summed over layers", _of("cycles")),
    Key("time_seconds", "s", MODELLED, "summed over layers", _of("seconds")),
    Key("energy_joules", "J", MODELLED, "summed over layers", _of("joules")),
    Key(
        "energy_delay_product_joule_seconds",
        "J s",
        MODELLED,
        "EDP: energy_joules times time_seconds",
        _of("edp"),
    ),
    Key("parameters_count", "count", COUNTED, "of the layers searched", _of("parameters")),
    Key("multiply_accumulates_count", "count", COUNTED, "of the layers searched", _of("macs")),
)

DENSE: Section[Point] = Section("dense", "the layers searched as they are", _FIGURES)
POINTS: Section[Point] = Section(
    "points",
    "the plans that were written, those of least EDP first",
    (
        Key("file", "text", TOLD, "plan.json of the point, in the folder of -o", _of("file")),
        *_FIGURES,
    ),
    is_list=True,
)
CHOSEN: Section[Point] = Section(
    "chosen",
    "the plan that --goal chose; null without a goal, and where no plan meets it",
    (
        Key("goal", "text", TOLD, "as it was given", _of("goal")),
        Key("file", "text", TOLD, "the point that it is", _of("file")),
    ),
)

SECTIONS = (DENSE, POINTS, CHOSEN)


def summarize(arguments: argparse.Namespace, data: Point, text: str) -> Summary:
    """The summary of front.json's data; `text` is the table of it."""
    sections = {
        DENSE.name: DENSE.of(data["dense"]),
        POINTS.name: POINTS.of_all(data["points"]),
        CHOSEN.name: CHOSEN.of(data.get("chosen")),
    }
    return Summary(COMMAND, sections, text, next_steps(arguments, data))


def next_steps(arguments: argparse.Namespace, data: Point) -> list[Step]:
    """Train the chosen plan, or the middle one, and compile what comes of it."""
    points = data["points"]
    if not points:
        return []
    name = FRONT_PLAN if "chosen" in data else points[len(points) // 2]["file"]
    plan, small = str(Path(arguments.output) / name), str(Path(arguments.output) / "small.json")
    model = [arguments.model, *option("--inputs", arguments.inputs)]
    trained = ["heatc-tune", "distill", *model, "--plan", plan, "--data", arguments.data]
    compiled = ["heatc", *model, "--plan", plan, "-o", str(Path(plan).with_suffix(".hdp"))]
    return [
        step("train the factors of a plan, so that it loses less", *trained, "-o", small),
        step("compile a plan as it is", *compiled, *option("--hw", arguments.hw)),
    ]
