"""Training: the factors of the plans that are likely to reach the goals, as far as the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from heatc.errors import HeatcError
from heatc.targets import Numpy, Options
from heatc.tuning.compress.budget import LEAST_TRAINING
from heatc.tuning.compress.choice import Standing, next_trained
from heatc.tuning.compress.points import Point
from heatc.tuning.compress.run import Run
from heatc.tuning.distill import session as distilling
from heatc.tuning.distill.recipe import ROUNDS, Recipe

RATE, NEAR_RATE = 1e-3, 3e-4
"""Of training; the second is for students that begin near the model (docs/design/distillation.md)."""

NEAR = 0.05
"""Divergence below which a student begins near: tensor trains of rank 192 do, which 2e-3 spoils."""

EVALUATED = 256
"""Samples that a training is evaluated on between its rounds."""


def train_points(run: Run, points: Sequence[Point], reserved: float) -> None:
    """
    Train some of the points, which are in order of their gain; they get the trained factors.

    So many seconds are kept for what follows.
    """
    goals, budget = run.request.goals, run.budget
    for number in range(budget.trainings):
        chosen = next_trained(goals, [Standing(p.reached, p.is_tried) for p in points])
        if chosen is None:
            return
        left = 1 if goals.most_lost is None else budget.trainings - number

        def decide(chosen: int = chosen, left: int = left) -> dict[str, Any]:
            seconds = budget.training_seconds(reserved, left)
            return {"plan": points[chosen].name, "seconds": round(seconds, 1)}

        decision = run.step(f"training-{number}", decide, decided=True)
        point = next(p for p in points if p.name == decision["plan"])
        if decision["seconds"] < LEAST_TRAINING:
            run.remark("no time is left to train factors: more --minutes train them")
            return
        _train_point(run, point, decision["seconds"])


def _train_point(run: Run, point: Point, seconds: float) -> None:
    """Replace a point's factors by trained ones, where they are nearer to the model."""
    gain = point.reached.times_less
    run.stage("training", f"training a plan of {gain:.2f}x less edp for {seconds / 60:.1f} min")
    path = run.folder / f"trained-{point.name}-{seconds:g}.json"

    def train() -> dict[str, Any]:
        try:
            found = distilling.distill(_request(run, point, path, seconds), run.progress)
        except HeatcError as error:
            return {"failed": error.message}
        return {"steps": found.report["steps"], **run.measured(path)}

    found = run.step(path.stem, train)
    point.is_tried = True
    if problem := _problem(point.figures, found, seconds):
        run.remark(f"the plan of {gain:.2f}x keeps its first factors: {problem}")
        return
    point.start, point.figures, point.plan = point.figures, {**point.figures, **found}, path


def _problem(start: Mapping[str, Any], found: Mapping[str, Any], seconds: float) -> str:
    """Why trained factors are not taken; empty where they are."""
    if "failed" in found:
        return found["failed"]
    if not found["steps"]:
        return f"{seconds:.0f} s are too short to train"
    before, after = start["divergence"], found["divergence"]
    if after < before:
        return ""
    return f"training brought them no nearer to the model (divergence {after:.3g}, before {before:.3g})"


def _request(run: Run, point: Point, path: Path, seconds: float) -> distilling.Request:
    request, step = run.request, max(1, len(run.dev) // EVALUATED)
    rate = NEAR_RATE if point.figures["divergence"] < NEAR else RATE
    return distilling.Request(
        teacher=run.model.compilation(Options(Numpy(), level=0)),
        student=run.model.planned(point.plan, Numpy()),
        data=(request.data[0], run.train),
        extra=request.extra,
        dev=(run.named_dev[0], {name: array[::step] for name, array in run.dev.inputs.items()}),
        output=path,
        recipe=Recipe(
            epochs=(1, 0),
            rates=(rate, rate),
            patience=ROUNDS + 1,
            seed=request.seed,
            seconds=seconds,
        ),
        device=run.device,
        folder=run.folder / "distill",
    )
