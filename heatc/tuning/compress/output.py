"""The folder of a compression: front.json, plans with factors, the program; the table that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatc.errors import InfeasibleError
from heatc.files import atomic_write, make_folder
from heatc.kinds import FRONT
from heatc.names import (
    FRONT_FILE,
    FRONT_PLAN,
    compressed_program,
    factors_file,
    plan_file,
)
from heatc.progress import ProgressCallback
from heatc.targets import Numpy
from heatc.tuning.compress.figures import FIGURES, SCHEMA, SOURCES, units
from heatc.tuning.compress.model import copy_plan
from heatc.tuning.compress.points import Point
from heatc.tuning.compress.request import Request
from heatc.tuning.compress.session import Result
from heatc.verify import Settings

_MEANING = {
    "labels": "accuracy lost against labels, paired",
    "changed predictions": "predictions that changed (no labels), an upper bound of accuracy lost",
    "cosine": "100 x (1 - cosine of the first output with the dense one)",
}


@dataclass(frozen=True)
class Written:
    """What was written: front.json's content, and what the check of the program said."""

    data: Mapping[str, Any]
    verified: str


def write_plans(request: Request, result: Result, folder: Path) -> dict[str, Any]:
    """
    Write front.json, NN.json of every point and plan.json, each with its factors.

    Plans that an earlier run left under other numbers go. Returns what front.json says.
    """
    make_folder(folder)
    files = [plan_file(number) for number in range(1, len(result.points) + 1)]
    for name, point in zip(files, result.points):
        copy_plan(point.plan, folder / name)
    copy_plan(result.points[result.best].plan, folder / FRONT_PLAN)
    _remove_others(folder, len(files), request.points)
    data = _front_data(request, result, files)
    with atomic_write(folder / FRONT_FILE, "w") as stream:
        stream.write(FRONT.json_text(data))
    return data


def _remove_others(folder: Path, written: int, points: int) -> None:
    """Plans of an earlier run that this one did not write: they would be taken for its own."""
    for number in range(written + 1, points + 2):
        for path in (folder / plan_file(number), factors_file(folder / plan_file(number))):
            path.unlink(missing_ok=True)


def write_program(result: Result, folder: Path, progress: ProgressCallback) -> str:
    """
    Compile plan.json to prog.hdp or prog.py; returns what the check of the program said.

    Raises `VerificationError` where the program is wrong.
    """
    progress("compiling", 0, 1)
    is_numpy = isinstance(result.target, Numpy)
    made = result.model.planned(folder / FRONT_PLAN, result.target, Settings())
    made.run()
    made.write(folder / compressed_program(is_numpy), result.target.forms[0].name)
    progress("compiling", 1, 1)
    return str(made.verification)


# ---- front.json --------------------------------------------------------------------------------


def _front_data(request: Request, result: Result, files: Sequence[str]) -> dict[str, Any]:
    best = files[result.best]
    return {
        "schema": SCHEMA,
        "command": "heatc-tune compress",
        "model": request.model,
        "model_sha256": result.digest,
        "hw": request.hardware.name,
        "hw_sha256": result.hw_sha256,
        "target": result.target.name,
        "seed": request.seed,
        "goals": [str(goal) for goal in request.goals.goals],
        "goals_met": result.is_met,
        "chosen": best if result.is_met else None,
        "nearest": None if result.is_met else best,
        "samples": dict(result.samples),
        "judged_by": {"basis": result.basis, "meaning": _MEANING[result.basis]},
        "minutes": request.budget.minutes,
        "stage_seconds": {name: round(value, 1) for name, value in result.seconds.items()},
        "figures": units(),
        "sources": dict(SOURCES),
        "dense": _figures(result.dense),
        "points": [_point(p, file) for p, file in zip(result.points, files)],
        "remarks": list(result.remarks),
    }


def _point(point: Point, file: str) -> dict[str, Any]:
    before = None if point.start is None else _figures(point.start)
    return {
        "file": file,
        "made_by": point.made_by,
        "is_trained": point.start is not None,
        "is_pruned": point.is_pruned,
        "steps": point.figures.get("steps"),
        **_figures(point.figures),
        "before_training": before,
    }


def _figures(found: Mapping[str, Any]) -> dict[str, Any]:
    return {figure.name: found.get(figure.name) for figure in FIGURES}


# ---- the table ---------------------------------------------------------------------------------


def table(data: Mapping[str, Any]) -> str:
    """What is printed: a row a plan, the chosen one marked, with what the columns mean."""
    head, *rows = _rows(data)
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    lines = [
        "  ".join(_aligned(k, text, widths[k]) for k, text in enumerate(r)).rstrip()
        for r in (head, *rows)
    ]
    count = data["samples"]["dev"]
    right = data["dense"]["accuracy"]
    has = "" if right is None else f"; the dense model has {right:.2f} % right"
    return "\n".join([
        *lines,
        "",
        f"lost: {data['judged_by']['meaning']}, {count:,} samples held back, 95 % interval{has}",
        f"edp (energy x latency), energy, latency: modelled for {data['hw']}, a pass at the data's lengths",
    ])  # fmt: skip


def _rows(data: Mapping[str, Any]) -> list[list[str]]:
    shown = [figure for figure in FIGURES if figure.column]
    rows = [["plan", "", *(figure.column for figure in shown), "made by"]]
    rows[0].insert(3, "(95 %)")
    best = data["chosen"] or data["nearest"]
    mark = "*" if data["goals_met"] else "~"
    for point in ({"file": "dense", **data["dense"]}, *data["points"]):
        texts = [figure.shown(float(point[figure.name])) for figure in shown]
        low, high = point["accuracy_drop_low"], point["accuracy_drop_high"]
        interval = "" if point["file"] == "dense" else f"({low:.2f} to {high:.2f})"
        texts.insert(1, interval)
        is_best = mark if point["file"] == best else ""
        rows.append([point["file"], is_best, *texts, point.get("made_by", "the model as it is")])
    return rows


def _aligned(column: int, text: str, width: int) -> str:
    """Numbers to the right, words to the left."""
    last = 3 + sum(1 for figure in FIGURES if figure.column)
    return text.ljust(width) if column in (0, 1, last) else text.rjust(width)


def verdict(data: Mapping[str, Any], folder: Path) -> str:
    """Which plan it is, and what it reaches."""
    if not data["goals_met"]:
        return f"~ {folder / data['nearest']} comes nearest; it is {FRONT_PLAN} too"
    point = next(p for p in data["points"] if p["file"] == data["chosen"])
    told = (
        f"* {folder / data['chosen']} holds {' and '.join(data['goals'])}: loses "
        f"{point['accuracy_drop']:.2f} points, takes {point['edp_times_less']:.2f}x less edp (modelled); "
        f"it is {FRONT_PLAN} too"
    )
    most = next((g for g in data["goals"] if g.startswith("accuracy-drop")), None)
    bound = None if most is None else float(most.partition("<=")[2])
    if bound is not None and point["accuracy_drop_high"] > bound:
        told += (
            f"\n  with {data['samples']['dev']:,} samples the loss may also be "
            f"{point['accuracy_drop_high']:.2f} points: more of them (--dev) tell it finer"
        )
    return told


def out_of_reach(request: Request, result: Result, folder: Path) -> InfeasibleError:
    """The error of goals that no plan holds."""
    number = result.best
    return request.goals.out_of_reach(
        str(folder / plan_file(number + 1)),
        result.points[number].reached,
        f"{folder / FRONT_FILE}, all {len(result.points)} plans and the program of the nearest are written",
        "more --minutes train longer; more text (--data, --extra) trains better",
    )
