"""The plans of the front: searched, with factors near the weights, and their figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from heatc.errors import InfeasibleError
from heatc.targets import Numpy, Options
from heatc.tuning.common.workers import Workers
from heatc.tuning.compress.choice import next_measured
from heatc.tuning.compress.goals import Reached
from heatc.tuning.compress.model import plan_text, write_plan
from heatc.tuning.compress.run import Run
from heatc.tuning.search import output as searched
from heatc.tuning.search import session as searching

FINE = 4
"""Plans of the search for each one that is measured."""


@dataclass
class Point:
    """
    A plan with its factors, and its figures by name.

    Attributes:
        name: of the plan in the folder of the run.
        start: figures before its factors were trained, None where they are not trained.
        is_tried: whether training was tried, which may have brought nothing.
        is_pruned: whether its attentions are pruned too.
    """

    name: str
    plan: Path
    figures: dict[str, Any]
    start: dict[str, Any] | None = None
    is_tried: bool = False
    is_pruned: bool = False

    @property
    def reached(self) -> Reached:
        """What goals look at."""
        return Reached(self.figures["accuracy_drop"], self.figures["edp_times_less"])

    @property
    def made_by(self) -> str:
        """What was done to it, in words."""
        words = ["factorised"] if self.name != PRUNED_ALONE else []
        words += ["trained"] if self.start is not None else []
        return ", ".join([*words, "pruned"] if self.is_pruned else words)


PRUNED_ALONE = "pruned"
"""The name of a plan that factorises no layer."""


def search_plans(run: Run) -> list[Path]:
    """Plans of the front without factors, the cheapest first; none where no layer is cheaper."""
    folder = run.folder / "front"

    def search() -> dict[str, Any]:
        request = _request(run)
        try:
            found = searching.search(request, run.progress)
            data = searched.write_front(request, found, folder, run.progress)
        except InfeasibleError as error:
            return {"files": [], "failed": error.message}
        return {"files": [point["file"] for point in data["points"]]}

    found = run.step("search", search)
    if "failed" in found:
        run.remark(f"no layer is factorised: {found['failed']}")
    return [folder / name for name in found["files"]]


def _request(run: Run) -> searching.Request:
    request, options = run.request, Options(Numpy(), level=0)
    return searching.Request(
        model=request.model,
        weights=request.weights,
        compilation=run.model.compilation(options),
        timed=run.single.compilation(options),
        data=(request.data[0], run.train),
        dev=run.named_dev,
        hardware=request.hardware,
        layers=request.layers,
        formats=run.formats,
        samples=run.budget.probed,
        validate=0,
        points=FINE * request.points,
        programs=False,
        goal=None,
        seed=request.seed,
        workers=Workers(request.jobs),
        folder=None if request.folder is None else request.folder / "search",
    )


def start_points(run: Run, plans: Sequence[Path]) -> list[Point]:
    """
    As many plans as are asked for with factors near the weights, the one that gains most first.

    They are chosen near what the goals bound. Those whose programs take no less energy x latency than the dense model's are left out.
    """
    count, wanted = len(plans), min(run.request.points, len(plans))
    found: dict[int, Point] = {}
    while len(found) < wanted:
        reached = {number: point.reached for number, point in found.items()}
        number = next_measured(run.request.goals, reached, count, wanted)
        found[number] = _start(run, number, plans[number])
    points = list(found.values())
    kept = [point for point in points if point.reached.times_less > 1.0]
    if left_out := len(points) - len(kept):
        run.remark(
            f"{left_out} of {len(points)} measured plans are left out: at the data's lengths "
            "their programs take no less edp than the dense model's"
        )
    return sorted(kept, key=lambda point: -point.reached.times_less)


def _start(run: Run, number: int, plan: Path) -> Point:
    name = f"{number:02d}"
    path = run.folder / f"start-{name}.json"

    def start() -> dict[str, Any]:
        run.progress(f"factorising {path.stem}", 0, 0)
        made = run.model.factorised(plan, run.text)
        text = {**plan_text(plan), "model_sha256": run.digest, "hw": run.machine.name}
        write_plan(path, text, made.weights, made.weights.added)
        return run.judge.measure(made, path.stem) | run.cost(path)

    return Point(name, path, run.step(path.stem, start))
