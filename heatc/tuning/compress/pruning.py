"""
Pruning of attention on top of a plan, where it pays on the machine.

Deciding what to prune costs something too. A program whose attentions all prune as much as calibration
ever does is therefore timed first. Where even this one takes more energy x latency than the program
without pruning, nothing is calibrated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from heatc.errors import InfeasibleError
from heatc.hardware import load_hardware
from heatc.plan import SCHEMA, read_plan
from heatc.readers.npz import LABELS
from heatc.rules import Rule
from heatc.targets import Numpy, Options
from heatc.tuning.calibrate import session as calibrating
from heatc.tuning.calibrate.candidates import RHO_B, Candidates
from heatc.tuning.calibrate.cost_model import TIMED as CALIBRATED
from heatc.tuning.calibrate.layer_costs import MEASURED_RHO_B
from heatc.tuning.common.goal import Goal
from heatc.tuning.common.plan_data import rule_data
from heatc.tuning.compress.costs import CostModel
from heatc.tuning.compress.goals import Goals, Reached
from heatc.tuning.compress.model import plan_text, write_plan
from heatc.tuning.compress.points import PRUNED_ALONE, Point
from heatc.tuning.compress.request import Array
from heatc.tuning.compress.run import Run

PROBED = 4
"""Samples that the probe is timed on."""


def _candidates(hw: str) -> Candidates:
    """
    What is calibrated: the largest blocks that the machine has, pruned scores that become 0, no heads.

    Of all settings this one saves the most of a program's cycles (docs/design/end_to_end.md).
    """
    block = max(load_hardware(hw).blocks, key=lambda extents: extents[0] * extents[1])
    return Candidates(block=block, pruned_scores=("zero",), gates=False)


RUNS_A_LAYER = 2
"""Programs that calibration times for each attention without heads to prune."""

PRUNED_ON = 256
"""Samples that pruning is calibrated on."""


class Probe(NamedTuple):
    """
    What pruning as much as calibration ever does would bring, modelled.

    `times_less` is the energy x latency without pruning through that with it. `seconds` is what
    calibration will take to time a program, wall-clock.
    """

    times_less: float
    seconds: float

    @property
    def pays(self) -> bool:
        """Whether pruning can win anything."""
        return self.times_less > 1.0


def probe(run: Run, points: Sequence[Point]) -> Probe | None:
    """What pruning could bring, timed on a plan of the middle; None where nothing prunes."""
    if run.request.is_numpy or not run.attentions:
        return None
    plan = points[len(points) // 2].plan if points else None

    def timed() -> dict[str, float]:
        run.progress("timing pruned attention", 0, 0)
        return _timed(run.cost_model, plan, run.attentions, run.folder)._asdict()

    return Probe(**run.step("probe", timed))


def _timed(cost_model: CostModel, plan: Path | None, paths: Sequence[str], folder: Path) -> Probe:
    """A plan, or the dense model, with all attentions of `paths` pruned against itself without."""
    candidates = _candidates(cost_model.hw)
    most = max(RHO_B[place] for place in MEASURED_RHO_B)
    rule = candidates.rule(candidates.default, rho_b=most)
    pruned = folder / "probe.json"
    _write_pruned(plan, dict.fromkeys(paths, rule), pruned)
    before = cost_model.cost(plan, PROBED)["edp"]
    began = time.monotonic()
    after = cost_model.cost(pruned, PROBED)["edp"]
    return Probe(before / after, (time.monotonic() - began) * CALIBRATED / PROBED)


def _write_pruned(plan: Path | None, rules: Mapping[str, Rule], output: Path) -> None:
    """A plan with pruning rules by module path beside what it says."""
    text: dict[str, Any] = {"schema": SCHEMA, "layers": {}} if plan is None else plan_text(plan)
    layers = dict(text["layers"])
    for path, rule in rules.items():
        layers[path] = {**layers.get(path, {}), "hdp": rule_data(rule)}
    found = None if plan is None else read_plan(plan).factors
    factors = None if found is None else found.open()
    write_plan(output, {**text, "layers": layers}, factors, tuple(factors or ()))


# ---- calibration -------------------------------------------------------------------------------


def reserved_seconds(run: Run, probed: Probe | None) -> float:
    """Seconds that pruning and compiling will take."""
    # The program is compiled and checked once more.
    compiling = 2 * run.compiling
    if probed is None or not probed.pays:
        return compiling
    return compiling + probed.seconds * (1 + RUNS_A_LAYER * len(run.attentions))


def prune_best(run: Run, points: Sequence[Point], probed: Probe | None) -> list[Point]:
    """The best plan with its attentions pruned, where that costs less; none where it does not."""
    if probed is None:
        return []
    if not probed.pays:
        run.remark(
            f"attention is not pruned: deciding costs more edp on {run.machine.name} than the blocks "
            "that are left out save at these lengths "
            f"({100 * (1 / probed.times_less - 1):.1f} % more with all layers pruned, modelled)"
        )
        return []
    best = _best(run.request.goals, points)
    goal = _goal(run, Reached(0.0, 1.0) if best is None else best.reached)
    if goal is None:
        return []
    if run.budget.left < reserved_seconds(run, probed):
        run.remark("no time is left to calibrate pruning: more --minutes prune attention too")
        return []
    run.stage("pruning", "calibrating which attentions are pruned, and how far")
    return _pruned(run, best, goal)


def _best(goals: Goals, points: Sequence[Point]) -> Point | None:
    if not points:
        return None
    reached = [point.reached for point in points]
    chosen = goals.chosen(reached)
    return points[goals.nearest(reached) if chosen is None else chosen]


def _goal(run: Run, reached: Reached) -> Goal | None:
    """What pruning is to reach on top of a plan; None where it is not needed, or nothing may be lost."""
    goals = run.request.goals
    if goals.most_lost is not None:
        room = goals.most_lost - reached.drop
        if room > 0:
            return Goal("accuracy-drop", round(room, 3))
        run.remark("attention is not pruned: the plan loses all that it may without")
        return None
    assert goals.least_gain is not None
    if goals.holds(reached):
        run.remark("attention is not pruned: the goal holds without, and pruning loses accuracy")
        return None
    return Goal("edp", round(goals.least_gain / reached.times_less, 4))


def _pruned(run: Run, best: Point | None, goal: Goal) -> list[Point]:
    name = PRUNED_ALONE if best is None else best.plan.stem
    path = run.folder / f"pruned-{name}-{goal.metric}-{goal.bound:g}.json"

    def calibrated() -> dict[str, Any]:
        try:
            found = calibrating.calibrate(_request(run, best, path, goal), run.progress)
        except InfeasibleError as error:
            return {"failed": error.message}
        if all(rule.name == "none" for rule in found.rules.values()):
            return {"failed": "calibration found no layer whose pruning pays"}
        return run.measured(path) | run.cost(path)

    found = run.step(path.stem, calibrated)
    before = 1.0 if best is None else best.reached.times_less
    problem = found.get("failed")
    if problem is None and found["edp_times_less"] <= before:
        problem = "the program of the pruned plan costs no less"
    if problem is not None:
        run.remark(f"attention is not pruned: {problem}")
        return []
    start = None if best is None else best.start
    own = PRUNED_ALONE if best is None else f"{best.name} pruned"
    return [Point(own, path, found, start, is_pruned=True)]


def _request(run: Run, best: Point | None, path: Path, goal: Goal) -> calibrating.Request:
    request, step = run.request, max(1, len(run.fitted) // PRUNED_ON)
    arrays: dict[str, Array] = dict(run.train)
    if run.fitted.labels is not None:
        arrays[LABELS] = run.fitted.labels
    arrays = {name: array[::step][:PRUNED_ON] for name, array in arrays.items()}
    return calibrating.Request(
        model=request.model,
        compilation=run.model.planned(None if best is None else best.plan, Numpy()),
        arrays=arrays,
        data=request.data[0],
        goal=goal,
        output=path,
        weights=request.weights,
        hw=run.machine.file,
        timed=run.single.compilation(Options(Numpy(), level=0)),
        candidates=_candidates(run.machine.file),
        seed=request.seed,
        folder=run.folder / "calibrate",
    )
