"""One compression from start to end: search, factorise, time, train, prune, and which plan it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatc.api import Compilation
from heatc.dialects.einsum import WeightOp
from heatc.errors import InfeasibleError
from heatc.files import held_folder
from heatc.progress import ProgressCallback
from heatc.targets import Hdp, Numpy
from heatc.targets.base import Target
from heatc.tuning.compress.budget import Budget
from heatc.tuning.compress.model import CapturedModel
from heatc.tuning.compress.points import Point, search_plans, start_points
from heatc.tuning.compress.pruning import probe, prune_best, reserved_seconds
from heatc.tuning.compress.request import Request
from heatc.tuning.compress.run import Run
from heatc.tuning.compress.training import train_points


@dataclass(frozen=True)
class Result:
    """
    What a compression came to.

    Attributes:
        points: by descending gain in energy x latency; all of them bring their factors.
        best: the number of the chosen point, or of the nearest where `is_met` is false.
        dense: figures of the model as it is.
        samples: how many train and judge.
        model: what compiles the program of a point, `target` for what.
        seconds: of every stage.
    """

    points: Sequence[Point]
    best: int
    is_met: bool
    dense: Mapping[str, Any]
    basis: str
    samples: Mapping[str, int]
    model: CapturedModel
    target: Target
    digest: str
    hw_sha256: str
    remarks: Sequence[str]
    seconds: Mapping[str, float]
    budget: Budget


def compress(request: Request, progress: ProgressCallback, tell: Callable[[str], None]) -> Result:
    """
    Find plans that reach the goals, train the best of them, and prune attention where it pays.

    `tell` takes what is decided on the way. Raises `HeatcError` for data that does not fit the
    model, `InfeasibleError` where nothing is cheaper factorised or pruned.
    """
    run = Run(request, progress, tell)
    with held_folder(run.folder):
        points = _points(run)
        run.end_stage()
    if not points:
        raise InfeasibleError(
            f"nothing is cheaper than the dense model on {run.machine.name}",
            notes=["give other --formats or --layers, longer inputs, or another machine"],
        )
    return _result(run, sorted(points, key=lambda point: -point.reached.times_less))


def _points(run: Run) -> list[Point]:
    """Stage after stage."""
    run.stage("search", "searching formats and ranks")
    plans = search_plans(run)
    count = min(run.request.points, len(plans))
    run.stage("plans", f"factorising and measuring {count} of {len(plans)} plans")
    points = start_points(run, plans)
    run.stage("pruning", "timing whether pruned attention pays")
    probed = probe(run, points)
    train_points(run, points, reserved_seconds(run, probed))
    return [*points, *prune_best(run, points, probed)]


def _result(run: Run, points: Sequence[Point]) -> Result:
    request, reached = run.request, [point.reached for point in points]
    chosen = request.goals.chosen(reached)
    return Result(
        points,
        request.goals.nearest(reached) if chosen is None else chosen,
        chosen is not None,
        run.dense,
        run.judge.evaluator.basis,
        {"train": len(run.fitted), "dev": len(run.dev)},
        run.single,
        Numpy() if request.is_numpy else Hdp(run.machine.file),
        run.digest,
        run.machine.sha256,
        run.remarks,
        run.seconds,
        run.budget,
    )


def weights_of(compilation: Compilation) -> int:
    """How many numbers the weights are that a captured module reads."""
    ops = (op for op in compilation.module.walk() if isinstance(op, WeightOp))
    names = {key for op in ops for key in op.keys}
    return sum(int(np.prod(compilation.weights.shape(name))) for name in names)
