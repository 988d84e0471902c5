"""
The plans that bench/heat_front.py measures: those of searches, of the other families, the chosen ones.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np

from bench.support import report, sources
from bench.support.heat import families as families
from bench.support.heat import runs as runs
from bench.support.heat.families import Layers
from bench.support.heat.runs import Budget, Form

PLANS = report.RESULTS / "plans"
FROZEN = ("hdp-edge", "hdp-server")
VECTOR = ("hdp-edge-vector", "hdp-server-vector")
SEARCHED = "hdp-edge-vector"
"""The machine that points are searched for."""
WISHES = (1.6, 2.4, 3.6, 4.8, 6.4)
"""The points of the search: times less energy x latency than dense, by its own sums of layers. The
first is about as light as the lightest point of the other families."""


# ---- search ------------------------------------------------------------------------------------


def searched(hw: str = SEARCHED) -> Path:
    """The folder of a search, with front.json and its plans."""
    used = sources.digest("heatc.tools.tune_search")
    place = runs.folder("searched", hw, used)
    if not (place / "seconds.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        text = runs.texts(0, place / "text")
        options = ["--hw", hw, *text, "--layers", "*encoder.*", "--points", 16]
        options += ["--work-dir", place / "work", "-o", place / "front", "-q"]
        seconds = runs.tune("search", runs.model(), *options)
        runs.keep(place / "seconds.json", {"seconds": seconds, "load": os.getloadavg()[1]})
        runs.say(f"searched {hw} in {seconds:.0f} s")
    return place / "front"


def front_points(hw: str = SEARCHED) -> list[dict[str, Any]]:
    """The points of a search, dearest first, each with its plan."""
    folder = searched(hw)
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    points = [{**one, "plan": folder / one["file"]} for one in front["points"]]
    return sorted(points, key=lambda one: -one["edp"])


def wished(times: float, hw: str = SEARCHED) -> Layers:
    """The searched plan that is nearest to so many times less energy x latency than dense."""
    folder = searched(hw)
    dense = json.loads((folder / "front.json").read_text(encoding="utf-8"))["dense"]["edp"]
    near = min(front_points(hw), key=lambda one: abs(np.log(dense / one["edp"] / times)))
    return runs.plan_layers(near["plan"])


# ---- families ----------------------------------------------------------------------------------


def family_points() -> dict[str, list[tuple[str, Layers]]]:
    """Name and layers of every point of every family."""
    found: dict[str, list[tuple[str, Layers]]] = {
        "search": [(f"{wish:g}x", wished(wish)) for wish in WISHES]
    }
    for family, settings in families.POINTS.items():
        found[family] = [(f"{p:g}", families.layers(family, p, runs.model())) for p in settings]
    return found


# ---- the chosen points -------------------------------------------------------------------------


FINAL = Budget(epochs="8+0", extra=10_000)
"""How chosen points are trained: on all text that there is."""
JOINT = "HEAT + HDP"
"""The chosen point for the first machine, its attentions pruned."""


def chosen_layers(name: str) -> Layers:
    """
    The chosen point's layers, as committed: a search with other costs may find others.

    docs/design/end_to_end.md says how each was found.
    """
    file = re.sub(r"\W+", "-", name).lower()
    return runs.plan_layers(PLANS / f"{file}.json")


def chosen(name: str) -> Form:
    """A chosen point, trained."""
    return Form(runs.trained(chosen_layers(name), FINAL).plan)


def plan_of(form: Form) -> Path:
    """The plan of a form that has one."""
    assert form.plan is not None
    return form.plan
