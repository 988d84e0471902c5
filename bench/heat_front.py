"""
HEAT end to end: search, distillation, the front of accuracy and energy x latency, and HEAT + HDP.

    python bench/heat_front.py                       all parts; writes bench/results/heat_front.json
    python bench/heat_front.py --parts chosen,front  some parts, merged into that file
    python bench/heat_front.py --page                writes docs/heat_front.md from the file

Trainings take hours on two cores and are kept by content in the user's cache: a bench that was
interrupted goes on. Accuracy is that of compiled programs on all test sentences, paired with the
dense program's; cycles and joules are modelled; points are chosen on dev.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench import heat_families as families
from bench import heat_front_page as page
from bench import heat_runs as runs
from bench import parts, report
from bench.heat_families import Layers
from bench.heat_runs import CHOSEN, FRONT, Budget, Cost, Form
from bench.parts import Part
from bench.report import Json, Row
from heatc.hardware import Hardware, load_hardware

RESULT = report.RESULTS / "heat_front.json"
PLANS = report.RESULTS / "plans"
SEED = 0
FROZEN = ("hdp-edge", "hdp-server")
VECTOR = ("hdp-edge-vector", "hdp-server-vector")
SEARCHED = "hdp-edge-vector"
"""The machine that points are searched for."""
FASTEST = "hdp-server-vector"
"""What predictions are simulated on: every machine computes the same bits."""
PADDED = 128
ALLOWED = 1.1
"""Points of accuracy that may be lost."""
WISHES = (2.4, 3.6, 4.8, 6.4)
"""The four points of the search: times less energy x latency than dense, by its own sums of layers."""
LONG = (128, 384, 512)
SWEPT = (0.25, 0.5, 1.0, 2.0, 4.0)
PRUNED: dict[str, Json] = {
    "rule": "ours", "rho_b": 0.7, "pruned_score": "zero", "block": [8, 8],
}  # fmt: skip
"""
Of every attention of the joint plan: blocks of 8 x 8, whose rows share the array's folds. Chosen on 256
sentences of dev among rho_b .3, .5, .7 and rule `topk`, by energy x latency at 512 tokens.
"""
JOINT = Budget(epochs="0+1", extra=10_000)
"""The chosen point's factors go on under the rule."""


# ---- costs -------------------------------------------------------------------------------------


@cache
def data_cost(form: Form, hw: str) -> Cost:
    """A test sentence at its own length, on average."""
    judged = runs.judged()["test"]
    return runs.cost(form, hw, runs.lengths_of(judged), judged.rows, runs.LENGTH)


@cache
def padded_cost(form: Form, hw: str, tokens: int = PADDED, room: int = 0) -> Cost:
    """A text of so many tokens."""
    rows = runs.judged()["test"].rows
    return runs.cost(form, hw, {tokens: 1}, rows, room or tokens)


def gains(form: Form, hw: str) -> dict[str, float]:
    """Times less energy x latency than the dense program, on the data's lengths and at 128 tokens."""
    return {
        "data": data_cost(Form(), hw).edp / data_cost(form, hw).edp,
        str(PADDED): padded_cost(Form(), hw).edp / padded_cost(form, hw).edp,
    }


def measured(form: Form, machines: Sequence[str] = (*VECTOR, *FROZEN)) -> dict[str, Json]:
    """The columns of a table of points: accuracy by the NumPy program, modelled gains."""
    found: dict[str, Json] = {}
    for name, judged in runs.judged().items():
        one = runs.accuracy(form, judged)
        found[f"{name}, %"] = round(one.accuracy, 2)
        found[f"{name}: points lost"] = round(one.lost, 2)
        found[f"{name}: 95 %"] = f"{one.low:.2f} to {one.high:.2f}"
        found[f"{name}: changed, %"] = round(one.changed, 2)
    for hw in machines:
        dense, mine = data_cost(Form(), hw), data_cost(form, hw)
        found[f"{hw}: EDP, times less"] = round(dense.edp / mine.edp, 2)
        found[f"{hw}: latency, us"] = round(1e6 * mine.seconds, 1)
        found[f"{hw}: energy, uJ"] = round(1e6 * mine.joules, 1)
        at = padded_cost(Form(), hw).edp / padded_cost(form, hw).edp
        found[f"{hw}: EDP at {PADDED} tokens, times less"] = round(at, 2)
    return found


def sizes(layers: Layers) -> dict[str, Json]:
    """Parameters and multiply-accumulates of the encoder's linears, as shares of the dense ones."""
    from heatc.heat.formats import Spec, parse_format, parse_shape
    from heatc.passes.analysis.ranks import layer_macs

    whole = parameters = macs = 0
    for path, (outputs, inputs) in families.linears(runs.model()).items():
        whole += inputs * outputs
        heat = layers.get(path, {}).get("heat")
        if heat is None:
            parameters, macs = parameters + inputs * outputs, macs + inputs * outputs
            continue
        ins, outs = parse_shape(heat["shape"]) if heat.get("shape") else ((inputs,), (outputs,))
        spec = Spec(parse_format(heat["format"]), ins, outs, tuple(heat["ranks"]))
        parameters += spec.parameters
        macs += layer_macs(spec, PADDED) / PADDED
    return {
        "parameters / dense": round(parameters / whole, 3),
        "MACs / dense": round(macs / whole, 3),
    }


# ---- search ------------------------------------------------------------------------------------


def searched(hw: str = SEARCHED) -> Path:
    """The folder of a search, with front.json and its plans."""
    used = runs.sources_of("heatc/tuning/heat_search", "heatc/heat", "passes", "heatc/hardware")
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


def search_part() -> Part:
    """What the search took and found, and how well its proxy tells accuracy."""
    rows: list[Row] = []
    tables: dict[str, Json] = {}
    for hw in (SEARCHED,):
        folder = searched(hw)
        front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
        took = json.loads((folder.parent / "seconds.json").read_text(encoding="utf-8"))
        what = f"search, MiniLM, 2 cores: to a front, {hw}"
        rows.append(Row(what, round(took["seconds"], 1), "s", 600, "<="))
        tables[f"search: {hw}, space"] = [{"after": k, **v} for k, v in front["space"].items()]
        tables[f"search: {hw}, rank correlation over untrained plans"] = _correlations(front)
        kept = ("edp", "proxy", "cycles", "joules", "parameters", "macs", "file")
        tables[f"search: {hw}, front"] = [
            {k: one[k] for k in kept if k in one} for one in front["points"]
        ]
    return Part(rows, tables)


def _correlations(front: Mapping[str, Any]) -> list[dict[str, Json]]:
    """Spearman's, of each sum over layers with what whole plans were measured to do."""
    found: dict[str, dict[str, float]] = front["validation"]["spearman"]
    measured_by = list(found)
    return [
        {"sum over layers": name, **{kind: round(found[kind][name], 3) for kind in measured_by}}
        for name in found[measured_by[0]]
    ]


# ---- fronts ------------------------------------------------------------------------------------


def family_points() -> dict[str, list[tuple[str, Layers]]]:
    """Name and layers of every point of every family."""
    found: dict[str, list[tuple[str, Layers]]] = {
        "search": [(f"{wish:g}x", wished(wish)) for wish in WISHES]
    }
    for family, settings in families.POINTS.items():
        found[family] = [(f"{p:g}", families.layers(family, p, runs.model())) for p in settings]
    return found


def front_part() -> Part:
    """Accuracy against energy x latency of all families, one budget of training for all."""
    found = family_points()
    runs.train_all([(layers, FRONT) for points in found.values() for _, layers in points])
    table: list[dict[str, Json]] = []
    for family, points in found.items():
        for name, layers in points:
            plan = runs.trained(layers, FRONT)
            entry: dict[str, Json] = {"family": family, "point": name, **sizes(layers)}
            entry |= measured(Form(plan.plan), (SEARCHED,))
            table.append({**entry, "training, s": round(plan.seconds)})
            runs.say(f"{family} {name}: {table[-1]}")
    rows = [
        Row(
            f"fronts: ours (search) against {family} at 0 to 5 points lost: least quotient of EDP",
            dominance(table, "search", family), "x", 1, ">=",
        )
        for family in ("hand-tuned", "heuristic", "uniform")
    ]  # fmt: skip
    volumes: list[dict[str, Json]] = [
        {"family": family, "hypervolume": round(hypervolume(table, family), 3)}
        for family in dict.fromkeys(str(entry["family"]) for entry in table)
    ]
    return Part(rows, {"front: points": table, "front: hypervolume": volumes})


def _curve(table: Sequence[Mapping[str, Any]], family: str) -> list[tuple[float, float]]:
    """(points lost on test, times less EDP) of a family, and of the dense model."""
    key = f"{SEARCHED}: EDP, times less"
    own = [(e["test: points lost"], e[key]) for e in table if e["family"] == family]
    return [(0.0, 1.0), *((max(lost, 0.0), gain) for lost, gain in own)]


def _best(curve: Sequence[tuple[float, float]], lost: float) -> float:
    return max(gain for at, gain in curve if at <= lost)


LEVELS = tuple(round(0.1 * i, 1) for i in range(51))


def dominance(table: Sequence[Mapping[str, Any]], ours: str, theirs: str) -> float:
    """The least quotient of what two families win, over levels of accuracy lost."""
    mine, other = _curve(table, ours), _curve(table, theirs)
    return round(min(_best(mine, level) / _best(other, level) for level in LEVELS), 3)


def hypervolume(table: Sequence[Mapping[str, Any]], family: str) -> float:
    """The mean, over levels of 0 to 5 points lost, of log2 of the EDP won."""
    curve = _curve(table, family)
    return float(np.mean([np.log2(_best(curve, level)) for level in LEVELS]))


# ---- ablations ---------------------------------------------------------------------------------

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


# ---- the chosen points -------------------------------------------------------------------------

CHOICES = {"HEAT": 4.8, "HEAT, careful": 3.6}
"""Points of the search that are trained longer, as `WISHES` names them."""


def chosen_layers(name: str) -> Layers:
    """The chosen point's layers, as committed: a search with other costs may find others."""
    path = PLANS / f"{name.replace(', ', '-').lower()}.json"
    if not path.is_file():
        runs.write_plan(path, wished(CHOICES[name]))
    return runs.plan_layers(path)


def chosen(name: str) -> Form:
    """A chosen point, trained."""
    return Form(runs.trained(chosen_layers(name), CHOSEN).plan)


def chosen_part() -> Part:
    """The first claim: energy x latency at a bounded loss on test, by the compiled programs."""
    form = chosen("HEAT")
    lost = runs.accuracy(form, runs.judged()["test"]).lost
    rows = [
        _took("HEAT"),
        Row("HEAT alone: points lost on test", round(lost, 2), "points", ALLOWED, "<="),
        *_gain_rows("HEAT alone", form, VECTOR[0], 10.0),
        *_gain_rows("HEAT alone", form, VECTOR[1], 5.7),
        *_gain_rows("HEAT alone", form, FROZEN[0], 10.0),
        *_gain_rows("HEAT alone", form, FROZEN[1], 5.7),
        *_agreement_rows(form),
    ]
    table: list[dict[str, Json]] = [{**sizes(chosen_layers("HEAT")), **measured(form)}]
    return Part(rows, {"chosen: point": table})


def careful_part() -> Part:
    """The second claim: energy x latency at a bounded loss on test and out of domain, each."""
    name = "HEAT, careful"
    form = chosen(name)
    rows = [_took(name)]
    for set_name, judged in runs.judged().items():
        lost = round(runs.accuracy(form, judged).lost, 2)
        rows.append(Row(f"{name}: points lost on {set_name}", lost, "points", ALLOWED, "<="))
    rows += _gain_rows(name, form, VECTOR[0], 5.7)
    table: list[dict[str, Json]] = [{**sizes(chosen_layers(name)), **measured(form)}]
    return Part(rows, {"careful: point": table})


def _took(name: str) -> Row:
    minutes = runs.trained(chosen_layers(name), CHOSEN).seconds / 60
    what = f"distillation of one chosen point, 2 cores: {name}"
    return Row(what, round(minutes, 1), "min", 60, "<=")


def _gain_rows(name: str, form: Form, hw: str, goal: float) -> list[Row]:
    where = {"data": "lengths as in the data", str(PADDED): f"{PADDED} tokens"}
    return [
        Row(f"{name}: EDP against dense, {hw}, {where[at]}", round(value, 2), "x", goal, ">=")
        for at, value in gains(form, hw).items()
    ]


def _plan(form: Form) -> Path:
    assert form.plan is not None
    return form.plan


def _agreement_rows(form: Form) -> list[Row]:
    """The HDP program of the point on the whole test set, against the NumPy program."""
    judged = runs.judged()["test"]
    dense, found = (runs.by_hdp(f, FASTEST, judged).classes for f in (Form(), form))
    of_numpy = runs.by_numpy(form, judged).classes
    lost = runs.compare(found, dense, judged.labels).lost
    same = 100.0 * float((found == of_numpy).mean())
    return [
        Row(
            "HEAT: points lost on test by the HDP program (hdp-run)",
            round(lost, 2),
            "points",
            ALLOWED,
            "<=",
        ),
        Row(
            "HEAT: same class from hdp-run and the NumPy program, all test sentences",
            round(same, 2),
            "%",
            99,
            ">=",
        ),
    ]


# ---- HEAT + HDP --------------------------------------------------------------------------------


def joint_plan() -> Path:
    """The chosen point's plan with pruned attention, its factors trained on under the rule."""
    return runs.trained_on(_plan(chosen("HEAT")), _pruning(), JOINT)


def pruned_only() -> Path:
    """The dense model under the same rule."""
    return runs.untrained(_pruning())


def _pruning(rule: Mapping[str, Json] = PRUNED) -> Layers:
    layers = range(int(runs.config()["num_hidden_layers"]))
    return {f"bert.encoder.layer.{layer}.attention.self": {"hdp": dict(rule)} for layer in layers}


def together_part() -> Part:
    """Dense, HEAT, HDP and both, on every machine, short and long; HDP's own share apart."""
    forms = {
        "dense": Form(),
        "HEAT": chosen("HEAT"),
        "HDP": Form(pruned_only()),
        "HEAT + HDP": Form(joint_plan()),
    }
    table, accuracies = list[dict[str, Json]](), list[dict[str, Json]]()
    for name, form in forms.items():
        entry: dict[str, Json] = {"model": name}
        judged = runs.judged()["test"]
        dense, found = (runs.by_hdp(f, FASTEST, judged).classes for f in (Form(), form))
        one = runs.compare(found, dense, judged.labels)
        entry["test, %"] = round(one.accuracy, 2)
        entry["test: points lost"] = round(one.lost, 2)
        entry["test: 95 %"] = f"{one.low:.2f} to {one.high:.2f}"
        entry["test: changed, %"] = round(one.changed, 2)
        plain = form if name in ("dense", "HEAT") else forms["HEAT" if "HEAT" in name else "dense"]
        entry["NumPy program without pruning, s for the test set"] = round(
            runs.by_numpy(plain, runs.judged()["test"]).seconds, 2
        )
        accuracies.append(entry)
    for hw in (*VECTOR, *FROZEN):
        for tokens in LONG:
            costs = {name: padded_cost(form, hw, tokens) for name, form in forms.items()}
            for name, one in costs.items():
                table.append(_cost_entry(hw, f"{tokens}", name, one, costs))
    rows = [_own_share(table, hw) for hw in (*VECTOR, *FROZEN)]
    last = accuracies[-1]
    what = "HEAT + HDP: points lost on test by the HDP program"
    rows.append(Row(what, float(str(last["test: points lost"])), "points", ALLOWED, "<="))
    swept = {name: forms[name] for name in ("dense", "HEAT", "HEAT + HDP")}
    tables: dict[str, Json] = {
        "together: accuracy of the HDP programs": accuracies,
        "together: cost": table,
        "together: rules on top of HEAT, 512 tokens": _rules(),
        "together: host and bandwidth": _swept(swept),
    }
    return Part(rows, tables)


RULES: dict[str, dict[str, Json]] = {
    "ours, rho_b 0.5, mean, 2x2": {"rule": "ours", "rho_b": 0.5, "pruned_score": "mean"},
    "ours, rho_b 0.5, mean, 8x8": {**PRUNED, "rho_b": 0.5, "pruned_score": "mean"},
    "ours, rho_b 0.7, zero, 8x8": PRUNED,
    "ours, rho_b 0.7, neginf, 8x8": {**PRUNED, "pruned_score": "neginf"},
    "topk, density 0.125, 8x8": {"rule": "topk", "density": 0.125, "block": [8, 8]},
    "spatten, ratio 0.2": {"rule": "spatten", "ratio": 0.2},
}
"""What attention may be pruned by, on top of HEAT: cost alone."""
SPLIT = 8
"""Bits of the multipliers that narrow PEs split into."""


def _rules() -> list[dict[str, Json]]:
    """What rules save or cost on top of HEAT at 512 tokens, also where PEs split."""
    base = _plan(chosen("HEAT"))
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
            for name, rule in RULES.items():
                one = cost(Form(runs.with_layers(base, _pruning(rule))))
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


# ---- the command -------------------------------------------------------------------------------

PARTS = {
    "search": search_part,
    "chosen": chosen_part,
    "careful": careful_part,
    "together": together_part,
    "front": front_part,
    "stages": stages_part,
}


def main(arguments: Sequence[str]) -> int:
    """Runs the parts that are asked for; 1 if a figure misses its goal."""
    parser = argparse.ArgumentParser(description="HEAT end to end")
    parser.add_argument("--parts", default=",".join(PARTS), help=", ".join(PARTS))
    parser.add_argument("--page", action="store_true", help="only write the page")
    options = parser.parse_args(arguments)
    if not options.page:
        names = options.parts.split(",")
        command = "python bench/heat_front.py" + (
            "" if len(names) == len(PARTS) else f" --parts {options.parts}"
        )
        for name in names:
            found = parts.run({name: PARTS[name]})
            parts.merge(RESULT, found, list(PARTS), report.provenance(command, SEED))
            report.show(found[name].rows)
    page.write(RESULT)
    content = json.loads(RESULT.read_text(encoding="utf-8"))
    return 0 if all(row["holds"] for row in content["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
