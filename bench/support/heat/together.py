"""HEAT and HDP in one plan: the part `together` of bench/heat_front.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.support.heat import runs as runs
from bench.support.heat.families import Layers
from bench.support.heat.measures import PADDED, padded_cost
from bench.support.heat.points import FROZEN, JOINT, VECTOR, chosen, chosen_layers, plan_of
from bench.support.heat.runs import Budget, Cost, Form
from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.hardware import Hardware, load_hardware

BASE = "HEAT"
"""The chosen point that is pruned."""
JUDGED_ON = "hdp-server-vector"
"""What predictions are simulated on: every machine computes the same bits."""
ALLOWED = 1.1
"""Points of accuracy that may be lost."""
LONG = (128, 384, 512)
SWEPT = (0.25, 0.5, 1.0, 2.0, 4.0)
PRUNED: dict[str, Json] = {
    "rule": "ours", "rho_b": 0.8, "pruned_score": "zero", "block": [8, 8],
}  # fmt: skip
"""One rule for all attentions that is cheap on the machines."""
UNDER = Budget(epochs="4+0", rates="1e-3,1e-4", extra=10_000)
"""The chosen point's factors go on under the rules."""


WISH = "edp>=1.18x"
"""What pruning is to win at the longest texts before factors are trained under it, times less."""
TEXTS = 48
CHEAP = ("--block", "8,8", "--pruned-score", "zero", "--no-head-gate")


def calibrated_part() -> Part:
    """The joint plan's rules, layer by layer, as `heatc-tune calibrate` finds them on long texts."""
    base = plan_of(chosen(BASE))
    found = runs.calibrated(base, VECTOR[0], WISH, LONG[-1], TEXTS, *CHEAP)
    committed, prices = _joint_rules(), found["cost"]["prices"]
    layers: list[dict[str, Json]] = [
        {
            "layer": one["path"],
            "sensitivity": round(one["sensitivity"], 5),
            "rule": found["plan"][one["path"]]["hdp"]["rule"],
            "rho_B": float(np.mean(one["rho_b"])),
            "blocks pruned, %": round(100 * one["net_sparsity"], 1),
            "deciding adds, %": round(100 * prices[one["path"]]["deciding"], 2),
            "all blocks spare, %": round(100 * prices[one["path"]]["blocks"], 2),
            "as committed": found["plan"][one["path"]] == committed[one["path"]],
        }
        for one in found["layers"]
    ]
    cost = found["cost"]
    won = {
        "values": found["values"],
        "cycles / HEAT": round(cost["plan"]["cycles"] / cost["unpruned"]["cycles"], 3),
        "energy / HEAT": round(cost["plan"]["joules"] / cost["unpruned"]["joules"], 3),
        "EDP, times less than HEAT": round(cost["unpruned"]["edp"] / cost["plan"]["edp"], 3),
    }
    return Part([], {"calibrated: layers": layers, "calibrated: cost": [won]})


def joint_plan() -> Path:
    """The chosen point's plan with pruned attention, its factors trained on under the rules."""
    return runs.trained_on(plan_of(chosen(BASE)), _joint_rules(), UNDER)


def pruned_only() -> Path:
    """The dense model under the same rules."""
    return runs.untrained(_joint_rules())


def _joint_rules() -> Layers:
    """The rules that `heatc-tune calibrate` gave the joint plan's attentions."""
    return {path: one for path, one in chosen_layers(JOINT).items() if "hdp" in one}


def _pruning(rule: Mapping[str, Json]) -> Layers:
    """One rule for every attention."""
    layers = range(int(runs.config()["num_hidden_layers"]))
    return {f"bert.encoder.layer.{layer}.attention.self": {"hdp": dict(rule)} for layer in layers}


def together_part() -> Part:
    """Dense, HEAT, HDP and both, on every machine, short and long; HDP's own share apart."""
    forms = {
        "dense": Form(),
        "HEAT": chosen(BASE),
        "HDP": Form(pruned_only()),
        "HEAT + HDP": Form(joint_plan()),
    }
    table = list[dict[str, Json]]()
    accuracies = [_accuracy_entry(name, form, forms) for name, form in forms.items()]
    for hw in (*VECTOR, *FROZEN):
        for tokens in LONG:
            costs = {name: padded_cost(form, hw, tokens) for name, form in forms.items()}
            for name, one in costs.items():
                table.append(_cost_entry(hw, f"{tokens}", name, one, costs))
    rows = [_own_share(table, hw) for hw in (*VECTOR, *FROZEN)]
    for name in runs.judged():
        what = f"HEAT + HDP: points lost on {name} by the HDP program"
        lost = float(str(accuracies[-1][f"{name}: points lost"]))
        rows.append(Row(what, lost, "points", ALLOWED, "<="))
    swept = {name: forms[name] for name in ("dense", "HEAT", "HEAT + HDP")}
    tables: dict[str, Json] = {
        "together: accuracy of the HDP programs": accuracies,
        "together: cost": table,
        "together: rules on top of HEAT, 512 tokens": _rules(),
        "together: host and bandwidth": _swept(swept),
        "together: what the host leaves to win": _bounds(),
    }
    return Part(rows, tables)


def _accuracy_entry(name: str, form: Form, forms: Mapping[str, Form]) -> dict[str, Json]:
    """Accuracy by the HDP program, and seconds of the NumPy program, which has no pruning."""
    entry: dict[str, Json] = {"model": name}
    for set_name, judged in runs.judged().items():
        dense, found = (runs.by_hdp(f, JUDGED_ON, judged).classes for f in (Form(), form))
        one = runs.compare(found, dense, judged.labels)
        entry[f"{set_name}, %"] = round(one.accuracy, 2)
        entry[f"{set_name}: points lost"] = round(one.lost, 2)
        entry[f"{set_name}: 95 %"] = f"{one.low:.2f} to {one.high:.2f}"
        entry[f"{set_name}: changed, %"] = round(one.changed, 2)
    plain = forms["HEAT" if "HEAT" in name else "dense"]
    seconds = runs.by_numpy(plain, runs.judged()["test"]).seconds
    entry["NumPy program without pruning, s for the test set"] = round(seconds, 2)
    return entry


RULES: dict[str, dict[str, Json]] = {
    "ours, rho_b 0.5, mean, 2x2": {"rule": "ours", "rho_b": 0.5, "pruned_score": "mean"},
    "ours, rho_b 0.5, mean, 8x8": {**PRUNED, "rho_b": 0.5, "pruned_score": "mean"},
    "ours, rho_b 0.7, zero, 8x8": {**PRUNED, "rho_b": 0.7},
    "ours, rho_b 0.7, neginf, 8x8": {**PRUNED, "rho_b": 0.7, "pruned_score": "neginf"},
    "ours, rho_b 0.8, zero, 8x8": PRUNED,
    "topk, density 0.125, 8x8": {"rule": "topk", "density": 0.125, "block": [8, 8]},
    "spatten, ratio 0.2": {"rule": "spatten", "ratio": 0.2},
}
"""What every attention may be pruned by, on top of HEAT: cost alone."""
SPLIT = 8
"""Bits of the multipliers that narrow PEs split into."""


def _rules() -> list[dict[str, Json]]:
    """What rules save or cost on top of HEAT at 512 tokens, also where PEs split."""
    base = plan_of(chosen(BASE))
    rows = runs.judged()["test"].rows
    table: list[dict[str, Json]] = []
    for hw in VECTOR:
        machines = {
            "": None,
            ", PEs that split to 8 bit": replace(load_hardware(hw), split_bits=SPLIT),
        }
        for kind, machine in machines.items():

            def cost(form: Form, hw: str = hw, machine: Hardware | None = machine) -> Cost:
                return runs.cost(form, hw, {LONG[-1]: 1}, rows, LONG[-1], machine)

            alone = cost(Form(base))
            plans = {name: _pruning(rule) for name, rule in RULES.items()}
            for name, layers in (plans | {"calibrated, before training": _joint_rules()}).items():
                one = cost(Form(runs.with_layers(base, layers)))
                table.append(
                    {
                        "machine": hw + kind,
                        "rule": name,
                        "cycles / HEAT": round(one.cycles / alone.cycles, 3),
                        "energy / HEAT": round(one.joules / alone.joules, 3),
                        "EDP, times less than HEAT": round(alone.edp / one.edp, 3),
                    }
                )
    return table


def _cost_entry(
    hw: str, tokens: str, name: str, one: Cost, costs: Mapping[str, Cost]
) -> dict[str, Json]:
    before = {"HEAT + HDP": "HEAT", "HDP": "dense"}.get(name)
    return {
        "machine": hw,
        "tokens": tokens,
        "model": name,
        "cycles": round(one.cycles),
        "energy, uJ": round(1e6 * one.joules, 1),
        "MACs": round(one.macs),
        "DRAM, bytes": round(one.dram_bytes),
        "EDP, times less than dense": round(costs["dense"].edp / one.edp, 2),
        "of it HDP's own": round(costs[before].edp / one.edp, 3) if before else 1.0,
        "busiest": one.regime,
        "host's energy, %": round(100 * one.joules_of["host"] / one.joules, 1),
    }


def _own_share(table: Sequence[Mapping[str, Any]], hw: str) -> Row:
    at = {"machine": hw, "tokens": str(LONG[-1]), "model": "HEAT + HDP"}
    entry = next(e for e in table if all(e[k] == v for k, v in at.items()))
    what = f"HDP on top of HEAT: whole-model EDP, {LONG[-1]} tokens, {hw}"
    return Row(what, float(entry["of it HDP's own"]), "x more", 1.15, ">=")


def _bounds() -> list[dict[str, Json]]:
    """
    How much less energy x latency the frozen presets could take if all but the host's work were free.

    The host's own energy and time are the same for every factorisation and every mask.
    """
    test = runs.judged()["test"]
    texts = {f"{tokens} tokens": ({tokens: 1}, tokens) for tokens in LONG}
    texts["lengths as in the data"] = (runs.lengths_of(test), runs.LENGTH)
    table: list[dict[str, Json]] = []
    for hw in FROZEN:
        for name, (lengths, room) in texts.items():
            costs = [
                (count, runs.cost(Form(), hw, {tokens: 1}, test.rows, room))
                for tokens, count in lengths.items()
            ]
            table.append({"machine": hw, "text": name, **host_alone(costs)})
    return table


def host_alone(costs: Sequence[tuple[int, Cost]]) -> dict[str, Json]:
    """What the host has of the dense program's cost, over so many texts of each cost."""

    def whole(value: Callable[[Cost], float]) -> float:
        return sum(count * value(cost) for count, cost in costs)

    joules, seconds = (lambda c: c.joules_of["host"]), (lambda c: c.busy["host"] * c.cycle)
    bound = whole(lambda c: c.edp) / whole(lambda c: joules(c) * seconds(c))
    return {
        "host's energy, %": round(100 * whole(joules) / whole(lambda c: c.joules), 1),
        "host's time, %": round(100 * whole(seconds) / whole(lambda c: c.seconds), 1),
        "EDP, at most so many times less": round(bound, 2),
    }


def _swept(forms: Mapping[str, Form]) -> list[dict[str, Json]]:
    """EDP won at 128 tokens with a slower and a faster host, and less and more bandwidth."""
    table: list[dict[str, Json]] = []
    keys = {
        "host": ("host_ops_per_second", "host_bytes_per_second"),
        "DRAM": ("dram_bytes_per_second",),
    }
    rows = runs.judged()["test"].rows
    for hw in (*VECTOR, *FROZEN):
        base = load_hardware(hw)
        for what, attributes in keys.items():
            for scale in SWEPT:
                changed = {a: int(getattr(base, a) * scale) for a in attributes}
                machine = replace(base, **changed)
                costs = {
                    name: runs.cost(form, hw, {PADDED: 1}, rows, PADDED, machine)
                    for name, form in forms.items()
                }
                entry: dict[str, Json] = {"machine": hw, "swept": what, "times": scale}
                for name in list(costs)[1:]:
                    entry[f"{name}: EDP, times less"] = round(
                        costs["dense"].edp / costs[name].edp, 2
                    )
                table.append(entry)
    return table
