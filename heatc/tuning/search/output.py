"""front.json, the plans of its points, and the table that is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from heatc.errors import InfeasibleError
from heatc.files import atomic_write, make_folder
from heatc.hardware import load_hardware
from heatc.heat.plan import entry
from heatc.kinds import FRONT, HARDWARE, PLAN, REPORT, Kind
from heatc.names import FRONT_FILE, FRONT_PLAN, FRONT_REPORT, machine_file, point_file
from heatc.plan import SCHEMA as PLAN_SCHEMA
from heatc.temporary import scratch_folder
from heatc.tuning.common.goal import OPTION, Goal
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.search.candidate_costs import Machine, Variant
from heatc.tuning.search.front import Plans, nondominated, option_numbers, spread_points
from heatc.tuning.search.hardware_space import area
from heatc.tuning.search.program_cost import program_cost
from heatc.tuning.search.select import select_point
from heatc.tuning.search.session import MachineFront, Request, SearchResult

SCHEMA = 1
"""Of front.json."""


@dataclass(frozen=True)
class Point:
    """A plan of the front on its machine, with its figures."""

    front: MachineFront
    plan: tuple[int, ...]
    figures: Mapping[str, float]


def write_front(
    request: Request, found: SearchResult, folder: Path, progress: ProgressCallback
) -> dict[str, Any]:
    """
    Write front.json, NN.json for each of its points, plan.json of the goal, and hardware files.

    Returns what front.json says. Where no point reaches the goal there is no plan.json, and `missed`
    has the goal, what was wrong, and the file of the plan that comes nearest. Raises
    `InfeasibleError` where every layer stays dense.
    """
    points = [_point(found, place) for place in found.points]
    real = [point for point in points if any(point.plan)]
    if not real:
        raise InfeasibleError(
            f"no layer is cheaper factorised on {found.base.name}",
            notes=["give more --formats, other --layers, or longer inputs"],
        )
    products = np.array([point.figures["edp"] for point in real])
    shown = [real[k] for k in spread_points(products, request.points)]
    files = _hardware_files(request, found, make_folder(folder))
    listed: list[dict[str, Any]] = []
    for number, point in enumerate(shown):
        file = point_file(number)
        _write(folder / file, PLAN, _plan(request, found, point))
        listed.append({**_listed(point, file, files), **_program(request, point, folder / file)})
        progress("points", number + 1, len(shown))
    data = _front_data(request, found, listed, files)
    _write(folder / FRONT_FILE, FRONT, data)
    _write(folder / FRONT_REPORT, REPORT, {"seconds": dict(found.seconds)})
    goal = request.goal
    if goal is None:
        return data
    try:
        chosen = _goal_point(request, goal, found, real)
    except InfeasibleError as error:
        # That of an earlier search: it would be taken for the plan of this goal.
        (folder / FRONT_PLAN).unlink(missing_ok=True)
        nearest = min(listed, key=lambda point: _distance(point, goal))["file"]
        told = {"goal": str(goal), "nearest": nearest, "message": error.message}
        data |= {"missed": {**told, "notes": list(error.notes)}}
    else:
        _write(folder / FRONT_PLAN, PLAN, _plan(request, found, real[chosen]))
        told = {"goal": str(goal), **_listed(real[chosen], FRONT_PLAN, files)}
        data |= {"chosen": told | _program(request, real[chosen], folder / FRONT_PLAN)}
    _write(folder / FRONT_FILE, FRONT, data)
    return data


def _distance(point: Mapping[str, Any], goal: Goal) -> float:
    """What orders points by how near they come to a goal: energy x latency in J s, or the proxy."""
    figures = point.get("program", point) if goal.metric == "edp" else point
    return float(figures[goal.metric])


def missed(data: Mapping[str, Any], folder: Path) -> InfeasibleError | None:
    """The error of a front without a point that reaches the goal, which names the nearest plan."""
    if "missed" not in data:
        return None
    told = data["missed"]
    point = next(p for p in data["points"] if p["file"] == told["nearest"])
    less = _times_less(point, data["dense"])
    notes = [
        f"the nearest plan is {folder / told['nearest']}: edp {less}, proxy {point['proxy']:.4g}",
        f"{folder / FRONT_FILE} and its {len(data['points'])} plans are written",
    ]
    return InfeasibleError(told["message"], place=OPTION, notes=[*told["notes"], *notes])


def _goal_point(request: Request, goal: Goal, found: SearchResult, points: Sequence[Point]) -> int:
    """The number of the point that a goal chooses; with programs, by what they take."""
    proxies = [point.figures["proxy"] for point in points]
    dense = _product(found.base_dense.joules, found.base_dense.seconds)
    if goal.metric != "edp" or not request.programs:
        products = [point.figures["edp"] for point in points]
        return select_point(goal, proxies, products, dense)
    dense = program_cost(request.timed, None, found.base.file)["edp"]

    def product(number: int) -> float:
        point = points[number]
        with scratch_folder() as folder:
            file = folder / "plan.json"
            _write(file, PLAN, _plan(request, found, point))
            return program_cost(request.timed, file, point.front.machine.file)["edp"]

    # Programs grow with the sums, by which points are in order: the last one that is small enough.
    low, high = 0, len(points) - 1
    select_point(goal, proxies[:1], [product(0)], dense)
    while low < high:
        middle = (low + high + 1) // 2
        if goal.holds(dense / product(middle)):
            low = middle
        else:
            high = middle - 1
    return low


def _front_data(
    request: Request, found: SearchResult, points: Sequence[Any], files: Mapping[str, str]
) -> dict[str, Any]:
    dense = _dense_figures(found)
    if request.programs:
        dense["program"] = program_cost(request.timed, None, found.base.file)
    machines = [
        {
            "name": front.machine.name,
            "sha256": front.machine.sha256,
            "file": files.get(front.machine.sha256),
            "area_mm2": area(load_hardware(front.machine.file)),
            "points": sum(m == number for m, _ in found.points),
        }
        for number, front in enumerate(found.fronts)
    ]
    sensitivities = {
        path: {"errors": list(curve.errors), "divergences": list(curve.divergences)}
        for path, curve in found.curves.items()
    }
    return {
        "schema": SCHEMA,
        "seed": request.seed,
        "model_sha256": found.digest,
        "hw": found.base.name,
        "hw_sha256": found.base.sha256,
        "machines": machines,
        "tokens": found.tokens,
        "layers": [layer.path for layer in found.layers],
        "formats": list(request.formats),
        "space": {name: dict(size) for name, size in found.sizes.items()},
        "front_size": len(found.points),
        "dense": dense,
        "validation": found.validation,
        "sensitivities": sensitivities,
        "uniform": _uniform(found),
        "points": list(points),
    }


def _uniform(found: SearchResult) -> list[dict[str, Any]]:
    """Plans of one format and one share for all layers that no other such plan beats."""
    points = [_figured(found, front, plan) for front in found.fronts for plan in front.uniform]
    figures = [point.figures for point in points if any(point.plan)]
    if not figures:
        return []
    order = nondominated(np.array([[f["proxy"], f["edp"]] for f in figures]))
    return [dict(figures[int(k)]) for k in order]


def _dense_figures(found: SearchResult) -> dict[str, Any]:
    cost = found.base_dense
    return {
        "proxy": 0.0,
        "edp": _product(cost.joules, cost.seconds),
        "seconds": cost.seconds,
        "joules": cost.joules,
        "cycles": cost.cycles,
        "parameters": sum(layer.extent.parameters for layer in found.layers),
        "macs": sum(variant.macs for variant in _dense_variants(found.fronts[0])),
    }


def _product(joules: float, seconds: float) -> float:
    return joules * seconds


def _dense_variants(front: MachineFront) -> list[Variant]:
    return [own[0].variant for own in front.options]


def _point(found: SearchResult, place: tuple[int, int]) -> Point:
    front = found.fronts[place[0]]
    return _figured(found, front, front.plans[place[1]])


def _figured(found: SearchResult, front: MachineFront, plan: Plans) -> Point:
    joules, seconds = (float(c[0]) for c in front.space.costs(plan[None]))
    variants = [own[k].variant for own, k in zip(front.options, option_numbers(plan))]
    counts = [layer.count for layer in found.layers]
    parameters = [
        layer.extent.parameters if variant.spec is None else variant.spec.parameters
        for layer, variant in zip(found.layers, variants)
    ]
    figures = {
        "proxy": float(front.space.proxy(plan[None])[0]),
        "edp": _product(joules, seconds),
        "seconds": seconds,
        "joules": joules,
        "cycles": front.rest.cycles
        + sum(n * variant.cycles for n, variant in zip(counts, variants)),
        "parameters": sum(parameters),
        "macs": sum(n * variant.macs for n, variant in zip(counts, variants)),
    }
    return Point(front, tuple(option_numbers(plan)), figures)


def _listed(point: Point, file: str, files: Mapping[str, str]) -> dict[str, Any]:
    machine = point.front.machine
    own = {"hw": machine.name, "hw_file": files[machine.sha256]} if files else {}
    return {**point.figures, **own, "file": file}


def _program(request: Request, point: Point, plan: Path) -> dict[str, Any]:
    """What the program of a written plan takes, if that was asked for."""
    if not request.programs:
        return {}
    return {"program": program_cost(request.timed, plan, point.front.machine.file)}


def _plan(request: Request, found: SearchResult, point: Point) -> dict[str, Any]:
    """As plan.json: the layers that are factorised, along the paths that were costed."""
    variants = [own[k].variant for own, k in zip(point.front.options, point.plan)]
    layers = {
        layer.path: {"heat": entry(variant.spec, variant.path)}
        for layer, variant in zip(found.layers, variants)
        if variant.spec is not None
    }
    return {
        "schema": PLAN_SCHEMA,
        "model_sha256": request.compilation.weights_sha256(),
        "hw": point.front.machine.name,
        "hw_sha256": point.front.machine.sha256,
        "seed": request.seed,
        "layers": layers,
    }


def _hardware_files(request: Request, found: SearchResult, folder: Path) -> dict[str, str]:
    """Of a space of machines those that the front has, by digest; of one machine none."""
    if len(found.fronts) == 1 and found.fronts[0].machine == found.base:
        return {}
    names: dict[str, str] = {}
    for number in sorted({m for m, _ in found.points}):
        machine = found.fronts[number].machine
        names[machine.sha256] = machine_file(len(names))
        _write_text(folder / names[machine.sha256], machine)
    return names


def _write_text(path: Path, machine: Machine) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(HARDWARE.line() + machine.text)


def _write(path: Path, kind: Kind, data: Mapping[str, Any]) -> None:
    with atomic_write(path, "w") as stream:
        stream.write(kind.json_text(data))


# ---- the table --------------------------------------------------------------------------------


def table(data: Mapping[str, Any], seconds: Mapping[str, float]) -> str:
    """What is printed: the space and its cuts, the front's points, the validation, the time."""
    lines = [f"{'the space':52} {'options':>9} {'plans':>10}"]
    for name, size in data["space"].items():
        lines.append(
            f"{name:52} {size['options']:9,} {'1e' + format(size['log10_plans'], '.0f'):>10}"
        )
    lines += ["", _header()]
    dense = data["dense"]
    lines.append(_row("dense", dense, dense))
    lines += [_row(point["file"], point, dense) for point in data["points"]]
    if "chosen" in data:
        chosen = data["chosen"]
        lines += ["", f"{chosen['goal']}: {chosen['file']}", _row(FRONT_PLAN, chosen, dense)]
    if data["validation"] is not None:
        lines += ["", *_validation_lines(data["validation"])]
    told = ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items())
    return "\n".join([*lines, "", f"took {told}"])


def _header() -> str:
    names = ("seconds", "joules", "parameters", "macs")
    head = f"{'plan':10} {'proxy':>11} {'edp':>11} {'less (program)':>15} "
    return head + " ".join(f"{name:>11}" for name in names) + "  machine"


def _row(name: str, point: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    less = _times_less(point, dense)
    figures = [f"{point['proxy']:11.4g}", f"{point['edp']:11.4g}", f"{less:>15}"]
    figures += [f"{point[key]:11.4g}" for key in ("seconds", "joules")]
    figures += [f"{point[key]:11,}" for key in ("parameters", "macs")]
    return f"{name:10} {' '.join(figures)}  {point.get('hw', '')}".rstrip()


def _times_less(point: Mapping[str, Any], dense: Mapping[str, Any]) -> str:
    """Energy x latency against the dense model, by the sums over layers (by programs)."""
    less = f"{dense['edp'] / point['edp']:.2f}x"
    if "program" in point:
        less += f" ({dense['program']['edp'] / point['program']['edp']:.2f}x)"
    return less


def _validation_lines(checked: Mapping[str, Any]) -> list[str]:
    count = len(checked["plans"])
    lines = [f"Spearman's rank correlation over {count} plans, {checked['samples']} samples"]
    for figure, row in checked["spearman"].items():
        for name, value in row.items():
            told = "constant" if value is None else f"{value:+.3f}"
            lines.append(f"  {figure:12} with {name:28} {told:>8}")
    return lines
