"""What single steps of HEAT are worth: the parts `stages` and `ablations` of bench/heat_front.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from bench.support.heat import families as families
from bench.support.heat import runs as runs
from bench.support.heat.families import Layers
from bench.support.heat.measures import PADDED, padded_cost
from bench.support.heat.points import FROZEN, VECTOR, wished
from bench.support.heat.runs import FRONT, Budget, Form
from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.heat.formats import Spec, parse_format, parse_shape

ABLATED = 4.8
"""The point of the search that ablations are of."""
STAGES = {"none": None, "one stage": "4+0", "two stages": "2+2"}
SEEDS = (0, 1, 2)


def stages_part() -> Part:
    """No, one-stage and two-stage distillation, three seeds."""
    layers, table = wished(ABLATED), list[dict[str, Json]]()
    budgets = [replace(FRONT, epochs=e, seed=s) for e in STAGES.values() if e for s in SEEDS]
    runs.train_all([(layers, budget) for budget in budgets])
    lost: dict[str, list[float]] = {}
    for name, epochs in STAGES.items():
        for seed in SEEDS if epochs else SEEDS[:1]:
            if epochs is None:
                plan = runs.untrained(layers)
            else:
                plan = runs.trained(layers, replace(FRONT, epochs=epochs, seed=seed)).plan
            entry: dict[str, Json] = {"training": name, "seed": seed}
            for set_name, judged in runs.judged().items():
                one = runs.accuracy(Form(plan), judged)
                entry[f"{set_name}: points lost"] = round(one.lost, 2)
                lost.setdefault(f"{name}, {set_name}", []).append(one.lost)
            table.append(entry)
    spread: list[dict[str, Json]] = [
        {
            "training, set": name,
            "mean points lost": round(float(np.mean(values)), 2),
            "spread (max - min)": round(max(values) - min(values), 2),
        }
        for name, values in lost.items()
    ]
    ahead = np.mean(lost["one stage, test"]) - np.mean(lost["two stages, test"])
    what = "two-stage against one-stage, three seeds: mean points of test accuracy that it is ahead"
    return Part([Row(what, round(float(ahead), 2), "points", 0, ">=")],
                {"stages: seeds": table, "stages: mean and spread": spread})  # fmt: skip


# ---- start, paths, fusion ----------------------------------------------------------------------

STARTED = 0.2
"""The uniform point that both starts are of: a fifth of the multiply-accumulates, low-rank."""
WORDS = f"low-rank,ratio={STARTED},layers=*encoder.*"
"""The same layers and ranks in words, which may name the start; a plan may not."""
PLAIN = f"{WORDS},init=plain"
ROUTED = {"search": ABLATED, "hand-tuned": 96, "heuristic": 0.25}
"""The point of each family that is compiled without path optimisation and without fusion."""
DECOMPOSED = Budget(epochs="0+0", extra=0)
"""What a program costs does not depend on what its factors are: these are not trained."""


def ablations_part() -> Part:
    """Plain against activation-aware start; without path optimisation; without fusion."""
    return Part([], {"ablations: start": _starts(), "ablations: paths and fusion": _routes()})


def _starts() -> list[dict[str, Json]]:
    """Points lost before and after the same training."""
    starts: dict[str, tuple[str, Layers | str]] = {
        "activation-aware": (WORDS, families.layers("uniform", STARTED, runs.model())),
        "plain": (PLAIN, PLAIN),
    }
    runs.train_all([(trained, FRONT) for _, trained in starts.values()])
    table: list[dict[str, Json]] = []
    for name, (words, trained) in starts.items():
        forms = {
            "before training": runs.decomposed(words),
            "after": Form(runs.trained(trained, FRONT).plan),
        }
        entry: dict[str, Json] = {"start": name}
        for when, form in forms.items():
            for set_name, judged in runs.judged().items():
                lost = runs.accuracy(form, judged).lost
                entry[f"{when}: points lost on {set_name}"] = round(lost, 2)
        table.append(entry)
    return table


def _routes() -> list[dict[str, Json]]:
    """Modelled energy x latency at 128 tokens, and the seconds of the NumPy program."""
    table: list[dict[str, Json]] = []
    for family, point in ROUTED.items():
        layers = (
            wished(point) if family == "search" else families.layers(family, point, runs.model())
        )
        plan = runs.trained(layers, DECOMPOSED).plan
        own = runs.plan_layers(plan)
        forms = {
            "as compiled": Form(plan),
            "paths from left to right": Form(runs.with_layers(plan, _changed(own, left_to_right))),
            "without fusion": Form(runs.with_layers(plan, _changed(own, _unfused))),
        }
        for name, form in forms.items():
            entry: dict[str, Json] = {"family": family, "compiled": name}
            for hw in (*VECTOR, *FROZEN):
                ratio = padded_cost(form, hw).edp / padded_cost(forms["as compiled"], hw).edp
                entry[f"{hw}: EDP / as compiled, {PADDED} tokens"] = round(ratio, 3)
            entry["NumPy program, s for the test set"] = round(
                runs.by_numpy(form, runs.judged()["test"]).seconds, 2
            )
            table.append(entry)
    return table


def _changed(
    layers: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> Layers:
    return {path: {**one, "heat": change(one["heat"])} for path, one in layers.items()}


def _unfused(heat: Mapping[str, Any]) -> dict[str, Any]:
    return {**heat, "fuse": False}


def left_to_right(heat: Mapping[str, Any]) -> dict[str, Any]:
    """The activation times each factor in the order in which they stand."""
    ins, outs = parse_shape(heat["shape"]) if "shape" in heat else ((1,), (1,))
    spec = Spec(parse_format(heat["format"]), ins, outs, tuple(heat["ranks"]))
    factors = len(spec.factor_shapes)
    path = [[0, 1], *([factors + k, k + 1] for k in range(1, factors))]
    return {**heat, "path": path}
