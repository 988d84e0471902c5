"""One compression from start to end: search, factorise, time, train, prune, and which plan it is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.api import Compilation
from heatc.dialects.attn import SdpaOp
from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError, InfeasibleError
from heatc.files import held_folder, make_folder
from heatc.hardware import Hardware
from heatc.heat.formats import Format
from heatc.heat.statistics import cache_root
from heatc.kinds import OUTPUTS
from heatc.passes.rewriting import module_path
from heatc.progress import ProgressCallback
from heatc.readers.npz import LABELS, write_npz
from heatc.targets import Hdp, Numpy, Options
from heatc.targets.base import Target
from heatc.tuning.calibrate import session as calibrating
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.goal import Goal
from heatc.tuning.common.packed_model import PackedModel
from heatc.tuning.common.samples import Samples, check_samples
from heatc.tuning.common.torch_model import best_device
from heatc.tuning.common.workers import Workers
from heatc.tuning.compress.accuracy import Judge
from heatc.tuning.compress.budget import LEAST_TRAINING, ONE_FORMAT, Budget
from heatc.tuning.compress.choice import Standing, next_trained
from heatc.tuning.compress.costs import CostModel
from heatc.tuning.compress.goals import Goals, Reached
from heatc.tuning.compress.model import CapturedModel, plan_text, write_plan
from heatc.tuning.compress.pruning import Probe, candidates_of, probe
from heatc.tuning.distill import session as distilling
from heatc.tuning.distill.recipe import ROUNDS, Recipe
from heatc.tuning.search import output as searched
from heatc.tuning.search import session as searching
from heatc.tuning.search.candidate_costs import Machine
from heatc.tuning.search.result_cache import ResultCache, code_digest

__all__ = ["Point", "Request", "Result", "compress"]

Array = NDArray[Any]
Arrays = Mapping[str, Array]

PROBED_SAMPLES = 128
"""That the search weighs errors on."""

PRUNED_ON = 256
"""Samples that pruning is calibrated on."""

RATE = 2e-3
"""Of training: what docs/design/distillation.md found best for features."""

RUNS_A_LAYER = 2
"""Programs that calibration times for each attention without heads to prune."""


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        compilation: a compilation (`Options(Numpy(), level=0)`) that captured the model and has not
            run; runs on the data.
        timed: the same for the batch that the program will have.
        data: inputs by file and name; `dev` what judges, None for a quarter of `data`; `extra`
            unlabelled text of other domains.
        hardware: the machine that costs are modelled for.
        is_numpy: the program is a NumPy program.
        layers: globs of module paths; formats: to choose from, None for what the time allows.
        points: plans on the front.
        folder: where an interrupted run goes on, None for the user's cache.
    """

    model: str
    weights: str | None
    compilation: Compilation
    timed: Compilation
    data: tuple[str, Arrays]
    dev: tuple[str, Arrays] | None
    extra: Mapping[str, Arrays]
    hardware: Hardware
    is_numpy: bool
    goals: Goals
    minutes: float
    layers: str
    formats: tuple[Format, ...] | None
    points: int
    seed: int
    jobs: int
    folder: Path | None


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
        seconds: of every stage; `resumed` counts results of an earlier run.
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
    remarks: Sequence[str]
    seconds: Mapping[str, float]
    resumed: int
    budget: Budget


def compress(request: Request, progress: ProgressCallback, tell: Callable[[str], None]) -> Result:
    """
    Find plans that reach the goals, train the best of them, and prune attention where it pays.

    `tell` takes what is decided on the way. Raises `HeatcError` for data that does not fit the
    model, `InfeasibleError` where nothing is cheaper factorised or pruned.
    """
    run = _Compression(request, progress, tell)
    with held_folder(run.folder):
        return run.run()


@dataclass
class _Compression:
    request: Request
    progress: ProgressCallback
    tell: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    remarks: list[str] = field(default_factory=list[str])
    resumed: int = 0
    compiling: float = 0.0
    """Seconds that one program takes."""

    def __post_init__(self) -> None:
        request = self.request
        self.model = CapturedModel.of(request.compilation)
        self.single = CapturedModel.of(request.timed)
        self.digest = request.compilation.weights_sha256()
        self.machine = Machine.of(request.hardware)
        self.device = best_device()
        self.packed = self.model.planned(None, Numpy())
        self.packed.run()
        self.fitted, self.dev = self._samples()
        self.train = self.fitted.inputs
        self.folder = make_folder((request.folder or cache_root() / "compress") / self._key())
        self.kept = ResultCache(self.folder / "results")
        goals = content_key({"goals": str(request.goals), "minutes": str(request.minutes)}, {})
        self.decided = ResultCache(self.folder / f"run-{goals}")
        self.budget = Budget(request.minutes, float(self.decided.read("spent") or 0.0))

    # --- What it works on ---------------------------------------------------------------------

    def _samples(self) -> tuple[Samples, Samples]:
        """The samples that are fitted on, and those that judge."""
        request, model = self.request, PackedModel(self.packed.module, self.packed.weights)
        self.batch = model.batch

        def checked(name: str, arrays: Arrays) -> Samples:
            return check_samples(arrays, model.shapes, model.limits, request.seed, name)

        own = checked(*request.data)
        real = own.lengths > 0
        if request.dev is not None:
            return _part(own, real), checked(*request.dev)
        return _part(own, real & ~own.held), _part(own, real & own.held)

    def _key(self) -> str:
        """What results depend on, whatever the goals and the time."""
        request = self.request
        texts = {
            "code": code_digest(),
            "model": self.digest,
            "module": str(self.model.module),
            "single": str(self.single.module),
            "machine": self.machine.sha256,
            "numpy": str(request.is_numpy),
            "layers": request.layers,
            "formats": repr(self._formats()),
            "points": str(request.points),
            "seed": str(request.seed),
        }
        dev = {name: array for name, array in self.dev.inputs.items()}
        dev |= {} if self.dev.labels is None else {LABELS: self.dev.labels}
        arrays = {f"train {name}": array for name, array in self.train.items()}
        arrays |= {f"dev {name}": array for name, array in dev.items()}
        for number, own in enumerate(request.extra.values()):
            arrays |= {f"extra {number} {name}": array for name, array in own.items()}
        return content_key(texts, arrays)

    def _formats(self) -> tuple[Format, ...]:
        from heatc.heat.formats import FORMATS

        if self.request.formats is not None:
            return self.request.formats
        return FORMATS if self.request.minutes >= ONE_FORMAT else ("low-rank",)

    @property
    def _named_dev(self) -> tuple[str, Arrays]:
        """What judges, by the file that it came from, without labels."""
        data, dev = self.request.data, self.request.dev
        return (f"a quarter of {data[0]}" if dev is None else dev[0]), self.dev.inputs

    @cached_property
    def judge(self) -> Judge:
        """Runs the dense model on the samples that judge."""
        module, weights = self.packed.module, self.packed.weights
        return Judge.of(module, weights, self.dev, self.batch, self.device, self.progress)

    @cached_property
    def cost_model(self) -> CostModel:
        """Costs on the machine."""
        return CostModel(self.single, self.machine.file, self.dev, self.request.is_numpy)

    @cached_property
    def text(self) -> Path:
        """The file of inputs that factors are made near on."""
        path = self.folder / "train.npz"
        with path.open("wb") as stream:
            write_npz(stream, self.train, OUTPUTS)
        return path

    @cached_property
    def attentions(self) -> list[str]:
        """The module paths of attentions."""
        ops = (op for op in self.packed.module.walk() if isinstance(op, SdpaOp))
        return list(dict.fromkeys(path for op in ops if (path := module_path(op))))

    # --- The stages ---------------------------------------------------------------------------

    def run(self) -> Result:
        """Stage after stage."""
        self._stage("search", "searching formats and ranks")
        plans = self._search()
        self._stage("plans", f"factorising and measuring {len(plans)} plans")
        dense = self._dense()
        points = self._cheaper([self._start(n, plan, dense) for n, plan in enumerate(plans)])
        self._stage("pruning", "timing whether pruned attention pays")
        probed = self._probe(points)
        self._train(points, dense, probed)
        points += self._prune(points, dense, probed)
        self._end_stage()
        if not points:
            raise InfeasibleError(
                f"nothing is cheaper than the dense model on {self.machine.name}",
                notes=["give other --formats or --layers, longer inputs, or another machine"],
            )
        points.sort(key=lambda point: -point.reached.times_less)
        return self._result(points, dense)

    def _result(self, points: list[Point], dense: Mapping[str, Any]) -> Result:
        request, reached = self.request, [point.reached for point in points]
        chosen = request.goals.chosen(reached)
        return Result(
            points,
            request.goals.nearest(reached) if chosen is None else chosen,
            chosen is not None,
            dense,
            self.judge.evaluator.basis,
            {"train": len(self.fitted), "dev": len(self.dev)},
            self.single,
            Numpy() if request.is_numpy else Hdp(self.machine.file),
            self.digest,
            self.remarks,
            self.seconds,
            self.resumed,
            self.budget,
        )

    def _stage(self, name: str, what: str) -> None:
        """Say what begins, and how much of the time is gone."""
        self._end_stage()
        self._running = name, time.monotonic()
        self.tell(f"{self.budget.told()}: {what}")

    _running: tuple[str, float] | None = None

    def _end_stage(self) -> None:
        """Note what a stage took; an interrupted run goes on with the time that is left."""
        if self._running is not None:
            name, began = self._running
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - began
        self._running = None
        self.decided.write("spent", self.budget.spent)

    def _remark(self, text: str) -> None:
        """What is told at once, and again in the report."""
        self.remarks.append(text)
        self.tell(text)

    def _step(self, name: str, compute: Callable[[], Any], *, decided: bool = False) -> Any:
        """The result of a step: that of an earlier run, or computed and kept."""
        kept = self.decided if decided else self.kept
        found = kept.read(name)
        if found is not None:
            self.resumed += 1
            return found
        found = compute()
        kept.write(name, found)
        self.decided.write("spent", self.budget.spent)
        return found

    # --- Search -------------------------------------------------------------------------------

    def _search(self) -> list[Path]:
        """Plans of the front without factors, the cheapest first; none where no layer is cheaper."""
        folder = self.folder / "front"

        def run() -> dict[str, Any]:
            request = self._search_request()
            try:
                found = searching.search(request, self.progress)
                data = searched.write_front(request, found, folder, self.progress)
            except InfeasibleError as error:
                return {"files": [], "failed": error.message}
            return {"files": [point["file"] for point in data["points"]]}

        found = self._step("search", run)
        if "failed" in found:
            self._remark(f"no layer is factorised: {found['failed']}")
        return [folder / name for name in found["files"]]

    def _search_request(self) -> searching.Request:
        request = self.request
        options = Options(Numpy(), level=0)
        return searching.Request(
            model=request.model,
            weights=request.weights,
            compilation=self.model.compilation(options),
            timed=self.single.compilation(options),
            data=(request.data[0], self.train),
            dev=self._named_dev,
            hardware=request.hardware,
            layers=request.layers,
            formats=self._formats(),
            samples=PROBED_SAMPLES,
            validate=0,
            points=request.points,
            programs=False,
            goal=None,
            seed=request.seed,
            workers=Workers(request.jobs),
            folder=None if request.folder is None else request.folder / "search",
        )

    # --- Figures ------------------------------------------------------------------------------

    def _dense(self) -> dict[str, Any]:
        """Figures of the model as it is."""

        def run() -> dict[str, float]:
            began = time.monotonic()
            cost = self.cost_model.cost(None)
            return {**cost, "compiling": time.monotonic() - began}

        cost = self._step("dense", run)
        self.compiling = cost.pop("compiling")
        accuracy = self.judge.dense_accuracy
        none = dict.fromkeys(("accuracy_drop", "accuracy_drop_low", "accuracy_drop_high"), 0.0)
        return {**none, "accuracy": accuracy, "divergence": 0.0, "edp_times_less": 1.0, **cost}

    def _start(self, number: int, plan: Path, dense: Mapping[str, Any]) -> Point:
        """A plan of the front with factors near the weights, and its figures."""
        path = self.folder / f"start-{number:02d}.json"

        def run() -> dict[str, Any]:
            made = self.model.factorised(plan, self.text)
            text = {**plan_text(plan), "model_sha256": self.digest, "hw": self.machine.name}
            write_plan(path, text, made.weights, made.weights.added)
            return self.judge.measure(made) | self._cost(path, dense)

        figures = self._step(f"start-{number:02d}", run)
        return Point(f"{number:02d}", path, figures)

    def _cheaper(self, points: list[Point]) -> list[Point]:
        """The points whose programs take less than the dense model's, the cheapest first."""
        kept = [point for point in points if point.reached.times_less > 1.0]
        if left_out := len(points) - len(kept):
            self._remark(
                f"{left_out} of {len(points)} plans of the search are left out: at the data's lengths "
                "their programs take no less edp than the dense model's"
            )
        return sorted(kept, key=lambda point: -point.reached.times_less)

    def _cost(self, plan: Path, dense: Mapping[str, Any]) -> dict[str, float]:
        cost = self.cost_model.cost(plan)
        return {"edp_times_less": dense["edp"] / cost["edp"], **cost}

    def _measured(self, plan: Path) -> dict[str, Any]:
        made = self.model.planned(plan, Numpy())
        made.run()
        return self.judge.measure(made)

    # --- Training -----------------------------------------------------------------------------

    def _train(self, points: list[Point], dense: Mapping[str, Any], probed: Probe | None) -> None:
        """Train the points that are likely to reach the goals, as far as the time goes."""
        goals, budget = self.request.goals, self.budget
        for number in range(budget.trainings):
            standing = [Standing(p.reached, p.is_tried) for p in points]
            chosen = next_trained(goals, standing)
            if chosen is None:
                return
            left = 1 if goals.most_lost is None else budget.trainings - number

            def decide(chosen: int = chosen, left: int = left) -> dict[str, Any]:
                seconds = budget.training_seconds(self._reserved(probed), left)
                return {"plan": points[chosen].name, "seconds": round(seconds, 1)}

            decision = self._step(f"training-{number}", decide, decided=True)
            point = next(p for p in points if p.name == decision["plan"])
            if decision["seconds"] < LEAST_TRAINING:
                self._remark("no time is left to train factors: more --minutes train them")
                return
            self._train_point(point, decision["seconds"])

    def _train_point(self, point: Point, seconds: float) -> None:
        """Replace a point's factors by trained ones, where they are nearer to the model."""
        gain = point.reached.times_less
        self._stage(
            "training", f"training a plan of {gain:.2f}x less edp for {seconds / 60:.1f} min"
        )
        path = self.folder / f"trained-{point.name}-{seconds:g}.json"

        def run() -> dict[str, Any]:
            try:
                found = distilling.distill(
                    self._distill_request(point, path, seconds), self.progress
                )
            except HeatcError as error:
                return {"failed": error.message}
            return {"steps": found.report["steps"], **self._measured(path)}

        found = self._step(path.stem, run)
        start, point.is_tried = point.figures, True
        if "failed" in found:
            self._remark(f"the plan of {gain:.2f}x keeps its first factors: {found['failed']}")
            return
        if not found["steps"]:
            self._remark(
                f"{seconds:.0f} s are too short to train the plan of {gain:.2f}x: it keeps its first factors"
            )
            return
        trained = {**start, **found}
        if trained["divergence"] >= start["divergence"]:
            self._remark(
                f"training brought the plan of {gain:.2f}x no nearer to the model (divergence "
                f"{trained['divergence']:.3g}, before {start['divergence']:.3g}): it keeps its first "
                "factors"
            )
            return
        point.start, point.figures, point.plan = start, trained, path

    def _distill_request(self, point: Point, path: Path, seconds: float) -> distilling.Request:
        request = self.request
        return distilling.Request(
            teacher=self.model.compilation(Options(Numpy(), level=0)),
            student=self.model.planned(point.plan, Numpy()),
            data=(request.data[0], self.train),
            extra=request.extra,
            dev=self._named_dev,
            output=path,
            recipe=Recipe(
                epochs=(1, 0),
                rates=(RATE, RATE),
                patience=ROUNDS + 1,
                seed=request.seed,
                seconds=seconds,
            ),
            device=self.device,
            folder=self.folder / "distill",
        )

    # --- Pruning ------------------------------------------------------------------------------

    def _reserved(self, probed: Probe | None) -> float:
        """Seconds that pruning and compiling will take."""
        # The program is compiled and checked once more.
        compiling = 2 * self.compiling
        if probed is None or not probed.pays:
            return compiling
        return compiling + probed.seconds * (1 + RUNS_A_LAYER * len(self.attentions))

    def _probe(self, points: Sequence[Point]) -> Probe | None:
        """What pruning could bring, timed on a plan of the middle; None where nothing prunes."""
        if self.request.is_numpy or not self.attentions:
            return None
        plan = points[len(points) // 2].plan if points else None

        def run() -> dict[str, float]:
            return probe(self.cost_model, plan, self.attentions, self.folder)._asdict()

        return Probe(**self._step("probe", run))

    def _prune(
        self, points: Sequence[Point], dense: Mapping[str, Any], probed: Probe | None
    ) -> list[Point]:
        """The best plan with its attentions pruned, where that costs less."""
        if probed is None:
            return []
        if not probed.pays:
            self._remark(
                f"attention is not pruned: deciding costs more edp on {self.machine.name} than the "
                "blocks that are left out save at these lengths "
                f"({100 * (1 / probed.times_less - 1):.1f} % more with all layers pruned, modelled)"
            )
            return []
        best = self._best(points)
        goal = self._pruning_goal(Reached(0.0, 1.0) if best is None else best.reached)
        if goal is None:
            return []
        if self.budget.left < self._reserved(probed):
            self._remark("no time is left to calibrate pruning: more --minutes prune attention too")
            return []
        self._stage("pruning", "calibrating which attentions are pruned, and how far")
        return self._calibrated(best, dense, goal)

    def _pruning_goal(self, reached: Reached) -> Goal | None:
        """What pruning is to reach on top of a plan; None where it is not needed, or nothing may be lost."""
        goals = self.request.goals
        if goals.most_lost is not None:
            room = goals.most_lost - reached.drop
            if room > 0:
                return Goal("accuracy-drop", round(room, 3))
            self._remark("attention is not pruned: the plan loses all that it may without")
            return None
        assert goals.least_gain is not None
        if goals.holds(reached):
            self._remark(
                "attention is not pruned: the goal holds without, and pruning loses accuracy"
            )
            return None
        return Goal("edp", round(goals.least_gain / reached.times_less, 4))

    def _best(self, points: Sequence[Point]) -> Point | None:
        if not points:
            return None
        goals, reached = self.request.goals, [point.reached for point in points]
        chosen = goals.chosen(reached)
        return points[goals.nearest(reached) if chosen is None else chosen]

    def _calibrated(self, best: Point | None, dense: Mapping[str, Any], goal: Goal) -> list[Point]:
        name = PRUNED_ALONE if best is None else best.plan.stem
        path = self.folder / f"pruned-{name}-{goal.metric}-{goal.bound:g}.json"

        def run() -> dict[str, Any]:
            request = self._calibrate_request(best, path, goal)
            try:
                found = calibrating.calibrate(request, self.progress)
            except InfeasibleError as error:
                return {"failed": error.message}
            if all(rule.name == "none" for rule in found.rules.values()):
                return {"failed": "calibration found no layer whose pruning pays"}
            return self._measured(path) | self._cost(path, dense)

        found = self._step(path.stem, run)
        if "failed" in found:
            self._remark(f"attention is not pruned: {found['failed']}")
            return []
        before = 1.0 if best is None else best.reached.times_less
        if found["edp_times_less"] <= before:
            self._remark("attention is not pruned: the program of the pruned plan costs no less")
            return []
        start = None if best is None else best.start
        own = PRUNED_ALONE if best is None else f"{best.name} pruned"
        return [Point(own, path, found, start, is_pruned=True)]

    def _calibrate_request(self, best: Point | None, path: Path, goal: Goal) -> calibrating.Request:
        request, step = self.request, max(1, len(self.fitted) // PRUNED_ON)
        arrays: dict[str, Array] = dict(self.train)
        if self.fitted.labels is not None:
            arrays[LABELS] = self.fitted.labels
        arrays = {name: array[::step][:PRUNED_ON] for name, array in arrays.items()}
        return calibrating.Request(
            model=request.model,
            compilation=self.model.planned(None if best is None else best.plan, Numpy()),
            arrays=arrays,
            data=request.data[0],
            goal=goal,
            output=path,
            weights=request.weights,
            hw=self.machine.file,
            timed=self.single.compilation(Options(Numpy(), level=0)),
            candidates=candidates_of(self.machine.file),
            seed=request.seed,
            folder=self.folder / "calibrate",
        )


def _part(samples: Samples, chosen: NDArray[np.bool_]) -> Samples:
    """Some of the samples."""
    labels = None if samples.labels is None else samples.labels[chosen]
    inputs = {name: array[chosen] for name, array in samples.inputs.items()}
    return replace(
        samples,
        inputs=inputs,
        lengths=samples.lengths[chosen],
        held=samples.held[chosen],
        labels=labels,
    )


def weights_of(compilation: Compilation) -> int:
    """How many numbers the weights are that a captured module reads."""
    ops = (op for op in compilation.module.walk() if isinstance(op, WeightOp))
    names = {key for op in ops for key in op.keys}
    return sum(int(np.prod(compilation.weights.shape(name))) for name in names)
