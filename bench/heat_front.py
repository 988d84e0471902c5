"""
HEAT end to end: search, distillation, the front of accuracy and energy x latency, and HEAT + HDP.

    python bench/heat_front.py                       all parts; writes bench/results/heat_front.json
    python bench/heat_front.py --parts chosen,front  some parts, merged into that file
    python bench/heat_front.py --page                writes docs/heat_front.md from the file

Trainings take hours on two cores and are kept by content in the user's cache: a bench that was
interrupted goes on. Accuracy is that of compiled programs on all test sentences, paired with the
dense program's; cycles and joules are modelled; docs/design/end_to_end.md says how points were chosen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from bench.support import parts, report
from bench.support.heat import dominance as dominance
from bench.support.heat import front_page as page
from bench.support.heat import runs as runs
from bench.support.heat.ablations import ablations_part, stages_part
from bench.support.heat.measures import PADDED, gains, measured, sizes
from bench.support.heat.points import (
    FINAL,
    FROZEN,
    SEARCHED,
    VECTOR,
    chosen,
    chosen_layers,
    family_points,
    searched,
)
from bench.support.heat.runs import ALL, FRONT, Form
from bench.support.heat.together import ALLOWED, JUDGED_ON, calibrated_part, together_part
from bench.support.parts import Part
from bench.support.report import Json, Row

RESULT = report.RESULTS / "heat_front.json"
SEED = 0


# ---- search ------------------------------------------------------------------------------------


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


OURS = "search"


def front_part() -> Part:
    """Accuracy against energy x latency: search, hand-tuned; one budget of training for all."""
    return _front("front", "hand-tuned")


def heuristic_part() -> Part:
    """The same of TensorLy's own shapes and ranks."""
    return _front("heuristic", "heuristic")


def uniform_part() -> Part:
    """The same of the uniform low-rank points, which are the nearest to what search finds."""
    return _front("uniform", "uniform")


def _front(part: str, family: str) -> Part:
    """The points of a family, and how those of the search stand against them."""
    table, forms = _points((OURS, family))
    rows: list[Row] = []
    against: list[dict[str, Json]] = []
    changed: list[dict[str, Json]] = []
    for name in (*runs.judged(), ALL):
        least, entry = _against(table, forms, family, name)
        what = f"fronts: ours (search) against {family} at 0 to 5 points lost on {name}: least quotient of EDP"
        rows.append(Row(what, least, "x", 1, ">="))
        against.append(entry)
        changed.append(by_changes(table, family, name))
    own = [entry for entry in table if entry["family"] == family]
    shown = table if part == "front" else own
    tables: dict[str, Json] = {
        f"{part}: points": list[Json](shown),
        f"{part}: hypervolume": list[Json](_volumes(table, (OURS, family))),
        f"{part}: search against {family}": list[Json](against),
        f"{part}: search against {family}, by predictions changed": list[Json](changed),
    }
    return Part(rows, tables)


def _points(families: Sequence[str]) -> tuple[list[dict[str, Json]], dict[str, list[Form]]]:
    """What is said of every point of some families, and the points themselves, in one order."""
    found = family_points()
    runs.train_all([(layers, FRONT) for family in families for _, layers in found[family]])
    table: list[dict[str, Json]] = []
    forms: dict[str, list[Form]] = {family: [] for family in families}
    for family in families:
        for name, layers in found[family]:
            plan = runs.trained(layers, FRONT)
            forms[family].append(Form(plan.plan))
            entry: dict[str, Json] = {"family": family, "point": name, **sizes(layers)}
            entry |= measured(Form(plan.plan), (SEARCHED,))
            table.append({**entry, "training, s": round(plan.seconds)})
            runs.say(f"{family} {name}: {table[-1]}")
    return table, forms


def _volumes(table: Sequence[Mapping[str, Any]], families: Sequence[str]) -> list[dict[str, Json]]:
    """The mean, over levels, of what each family wins."""
    what = "mean log2 of the EDP won, 0 to 5 points lost"
    return [
        {
            "family": family,
            "set": name,
            what: round(float(dominance.hypervolume(_curve(table, family, name))), 3),
        }
        for family in families
        for name in (*runs.judged(), ALL)
    ]


WON = f"{SEARCHED}: EDP, times less"


def _curve(table: Sequence[Mapping[str, Any]], family: str, set_name: str) -> dominance.Curve:
    return dominance.curve(table, family, f"{set_name}: points lost", WON)


def by_changes(table: Sequence[Mapping[str, Any]], family: str, set_name: str) -> dict[str, Json]:
    """How the search stands against a family where both may change as many predictions."""
    column = f"{set_name}: changed, %"
    ours, theirs = (dominance.curve(table, one, column, WON) for one in (OURS, family))
    ratio = dominance.quotients(ours, theirs, dominance.CHANGED)
    return {
        "against": family,
        "set": set_name,
        "levels at which search wins no less, 0 to 10 % changed, %": round(
            100 * float((ratio >= 1).mean())
        ),
        "least quotient of EDP": round(float(ratio.min()), 3),
        "mean log2 of the EDP won more": round(float(np.log2(ratio).mean()), 3),
    }


def _against(
    table: Sequence[Mapping[str, Any]],
    forms: Mapping[str, Sequence[Form]],
    family: str,
    set_name: str,
) -> tuple[float, dict[str, Json]]:
    """The least that the search wins over a family's front, and what the sentences leave open."""
    ours, theirs = (_curve(table, one, set_name) for one in (OURS, family))
    ratio = dominance.quotients(ours, theirs)
    judged = [
        [
            dominance.Judged(float(str(entry[WON])), runs.right(form, set_name))
            for entry, form in zip(_of(table, one), forms[one])
        ]
        for one in (OURS, family)
    ]
    open_ = dominance.doubt(judged[0], judged[1], runs.right(Form(), set_name))
    levels = {
        "search wins no less": (ratio >= 1).mean(),
        "search wins more, beyond noise": open_.ahead,
        "search wins less, beyond noise": open_.behind,
    }
    entry: dict[str, Json] = {
        "against": family,
        "set": set_name,
        **{f"levels at which {what}, %": round(100 * float(x)) for what, x in levels.items()},
        "mean log2 of the EDP won more": round(float(np.log2(ratio).mean()), 3),
        "its 95 %": f"{open_.low:.2f} to {open_.high:.2f}",
    }
    return round(float(ratio.min()), 3), entry


def _of(table: Sequence[Mapping[str, Any]], family: str) -> list[Mapping[str, Any]]:
    return [entry for entry in table if entry["family"] == family]


# ---- the chosen points -------------------------------------------------------------------------


BOUNDED = {"HEAT": ("test", "out of domain"), "HEAT, server": ("test",)}
"""On what each chosen point's loss is bounded."""


def chosen_part() -> Part:
    """The claims of HEAT: energy x latency at a bounded loss, by the compiled programs."""
    rows: list[Row] = []
    table: list[dict[str, Json]] = []
    for (name, sets), machine, goal in zip(BOUNDED.items(), VECTOR, (10.0, 5.7)):
        form = chosen(name)
        rows.append(_took(name))
        for set_name in sets:
            lost = round(runs.accuracy(form, runs.judged()[set_name]).lost, 2)
            rows.append(Row(f"{name}: points lost on {set_name}", lost, "points", ALLOWED, "<="))
        rows += [*_gain_rows(name, form, machine, goal), *_agreement_rows(name, form)]
        table.append({"point": name, **sizes(chosen_layers(name)), **measured(form)})
    rows += _gain_rows("HEAT", chosen("HEAT"), FROZEN[0], 10.0)
    rows += _gain_rows("HEAT, server", chosen("HEAT, server"), FROZEN[1], 5.7)
    return Part(rows, {"chosen: points": table})


def _took(name: str) -> Row:
    minutes = runs.trained(chosen_layers(name), FINAL).seconds / 60
    what = f"distillation of one chosen point, 2 cores: {name}"
    return Row(what, round(minutes, 1), "min", 60, "<=")


def _gain_rows(name: str, form: Form, hw: str, goal: float) -> list[Row]:
    where = {"data": "lengths as in the data", str(PADDED): f"{PADDED} tokens"}
    return [
        Row(f"{name}: EDP against dense, {hw}, {where[at]}", round(value, 2), "x", goal, ">=")
        for at, value in gains(form, hw).items()
    ]


def _agreement_rows(name: str, form: Form) -> list[Row]:
    """The HDP program of a point on the whole test set, against the NumPy program."""
    judged = runs.judged()["test"]
    dense, found = (runs.by_hdp(f, JUDGED_ON, judged).classes for f in (Form(), form))
    of_numpy = runs.by_numpy(form, judged).classes
    lost = runs.compare(found, dense, judged.labels).lost
    same = 100.0 * float((found == of_numpy).mean())
    what = f"{name}: points lost on test by the HDP program (hdp-run)"
    both = f"{name}: same class from hdp-run and the NumPy program, all test sentences"
    return [
        Row(what, round(lost, 2), "points", ALLOWED, "<="),
        Row(both, round(same, 2), "%", 99, ">="),
    ]


# ---- the command -------------------------------------------------------------------------------

PARTS = {
    "search": search_part,
    "chosen": chosen_part,
    "calibrated": calibrated_part,
    "together": together_part,
    "front": front_part,
    "heuristic": heuristic_part,
    "uniform": uniform_part,
    "stages": stages_part,
    "ablations": ablations_part,
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
