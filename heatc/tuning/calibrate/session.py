"""One calibration from start to end: check, measure, search, confirm, write."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.api import Compilation
from heatc.errors import HeatcError, InfeasibleError
from heatc.files import together
from heatc.hardware import load_hardware
from heatc.kinds import PLAN, REPORT
from heatc.names import report_file
from heatc.plan import hardware_sha256, model_sha256
from heatc.rules import Rule
from heatc.tuning.calibrate.assign import (
    LayerTable,
    RuleAssignment,
    assign_by_head,
    assign_no_pruning,
    assign_one_value,
)
from heatc.tuning.calibrate.assign_by_cost import LayerCosts, assign_by_cost, most_saved
from heatc.tuning.calibrate.calibrator import Calibrator, Trial
from heatc.tuning.calibrate.candidates import (
    ALL_CANDIDATES,
    CALIBRATED_SCORES,
    FINER,
    GATED,
    IMPORTANCES,
    RHO_B,
    Candidates,
)
from heatc.tuning.calibrate.cost_model import CostModel
from heatc.tuning.calibrate.goal_search import GoalSearch, SearchResult
from heatc.tuning.calibrate.layer_costs import measure_layer_costs
from heatc.tuning.calibrate.report import Comparison, PlanCost, Report
from heatc.tuning.calibrate.store import Store, cache_folder
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.evaluation import Evaluator
from heatc.tuning.common.factorised import FactorisedLayers, heat_entries
from heatc.tuning.common.goal import Goal
from heatc.tuning.common.packed_model import PackedModel, input_shapes
from heatc.tuning.common.plan_data import plan_data
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.samples import check_samples
from heatc.version import VERSION

__all__ = ["Request", "Result", "calibrate"]

Array = NDArray[Any]


Choose = Callable[[float], RuleAssignment]
"""Rules for a share of blocks to prune; `ValueError` where there are none."""


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        model: path of the model, for its digest.
        weights: the weights file of an .mlir model, None for others.
        compilation: a compilation without target (`Options(Numpy(), level=0)`) that captured the model;
            with a plan whose layers are factorised, it is the factorised model that is pruned.
        timed: a compilation without a plan that captured the model for the batch that costs are
            counted for; needed with `hw`.
        arrays: the calibration data by name, `data` the file that they came from.
        goal: what is to be reached.
        output: the plan.json to write; `<name>.report.json` comes beside it.
        hw: the machine, None where none was named; a goal of cycles or energy x latency needs one.
            Unless the goal is a share of blocks, layers whose pruning it does not make cheaper stay
            dense.
        candidates: what the plan may say.
        seed: of the samples that are held back.
        folder: where an interrupted run goes on, None for the user's cache.
    """

    model: str
    compilation: Compilation
    arrays: Mapping[str, Array]
    data: str
    goal: Goal
    output: Path
    weights: str | None = None
    hw: str | None = None
    timed: Compilation | None = None
    candidates: Candidates = ALL_CANDIDATES
    seed: int = 0
    folder: Path | None = None


@dataclass(frozen=True)
class Result:
    """The plan's rules by module path, the report, its table and remarks as texts."""

    rules: Mapping[str, Rule]
    report: Mapping[str, Any]
    table: str
    remarks: tuple[str, ...]


def calibrate(request: Request, progress: ProgressCallback) -> Result:
    """
    Choose the parameters and write the plan and its report.

    Raises `HeatcError` for data that does not fit the model, `InfeasibleError` for a goal that is
    out of reach. What was computed before an interruption is used again.
    """
    digest = model_sha256(request.model)
    plan = request.compilation.plan
    request.compilation.run()
    model = PackedModel(request.compilation.module, request.compilation.weights)
    if not model.attentions:
        raise HeatcError("the model has no attention to prune")
    samples = check_samples(request.arrays, model.shapes, model.limits, request.seed, request.data)
    store = Store(_folder(request, digest, model))
    layers = None
    if plan is not None:
        layers = FactorisedLayers.of(plan, request.compilation.weights, store.folder)
    calibrator = Calibrator(model, samples, store, progress, request.candidates)
    evaluator = calibrator.measure()
    cost_model = _cost_model(request, calibrator, layers)
    search = _PlanSearch(
        request.goal, calibrator, evaluator, calibrator.tables(evaluator), cost_model
    )
    found, comparison = search.best()
    plan_cost = search.plan_cost(found.assignment)
    report = Report(
        request.goal,
        samples,
        evaluator,
        search.tables,
        found,
        comparison,
        plan_cost,
        store.reused,
        0 if layers is None else len(layers.heat),
    )
    _write(request, found.assignment, layers, report.data())
    remarks = (*_other_machine(request), *report.remarks())
    return Result(found.assignment.rules, report.data(), report.table(), remarks)


def _other_machine(request: Request) -> tuple[str, ...]:
    """The remark on a plan whose layers were factorised for another machine."""
    plan = request.compilation.plan
    if plan is None or request.hw is None:
        return ()
    text = plan.for_other_machine(load_hardware(request.hw))
    return () if text is None else (text,)


def _cost_model(
    request: Request, calibrator: Calibrator, layers: FactorisedLayers | None
) -> CostModel | None:
    if request.hw is None:
        return None
    assert request.timed is not None
    module, samples = request.timed.module, calibrator.samples
    batch = next(iter(input_shapes(module).values()))[0]
    weights, store = request.timed.weights, calibrator.store
    return CostModel(module, weights, request.hw, samples, batch, store, layers)


def _folder(request: Request, digest: str, model: PackedModel) -> Path:
    """Where this calibration keeps what it computes: named by all that it depends on."""
    texts = {
        "version": VERSION,
        "model": digest,
        "weights": "" if request.weights is None else model_sha256(request.weights),
        "seed": str(request.seed),
        "grid": repr((FINER, IMPORTANCES, CALIBRATED_SCORES, GATED, RHO_B)),
        "candidates": repr(request.candidates),
        "shapes": repr(model.shapes),
    }
    arrays = dict(request.arrays)
    weights, plan = request.compilation.weights, request.compilation.plan
    if plan is not None:
        texts["heat"] = json.dumps(heat_entries(plan), sort_keys=True)
        arrays |= {f"factor {name}": np.asarray(weights[name]) for name in weights.added}
    return (request.folder or cache_folder()) / content_key(texts, arrays)


@dataclass(frozen=True)
class _PlanSearch:
    """The search of one plan: values by head, one value for all heads, or no pruning."""

    goal: Goal
    calibrator: Calibrator
    evaluator: Evaluator
    tables: Sequence[LayerTable]
    cost_model: CostModel | None

    @cached_property
    def layer_costs(self) -> LayerCosts | None:
        """Of every layer on the machine, None where blocks are what counts."""
        if self.cost_model is None or self.goal.metric == "sparsity":
            return None
        metric = "cycles" if self.goal.metric == "cycles" else "edp"

        def progress(done: int, count: int) -> None:
            self.calibrator.progress("pricing layers", done, count)

        return measure_layer_costs(self.tables, self.cost_model.cost, metric, progress)

    def best(self) -> tuple[SearchResult, Comparison | None]:
        """
        Values by head, or one for all where they are no better; what was compared, if it was.

        Nothing is pruned, and nothing compared, where the goal of a cost holds without, or where
        pruning within a loss makes the program no cheaper.
        """
        if self.goal.is_cost and self.goal.holds(self.value(assign_no_pruning(self.tables), None)):
            return self._unpruned(), None
        found, comparison = self._pruned()
        # Layer costs are of layers alone and taken for linear: the program has the last word.
        if self.layer_costs is None or self.goal.is_cost or self._is_cheaper(found.assignment):
            return found, comparison
        return self._unpruned(), None

    def _pruned(self) -> tuple[SearchResult, Comparison | None]:
        """
        Values by head, or one for all where they are no better.

        Where one value does not reach the goal, it is values by head all the same.
        """
        found = self._by_head()
        dense = [path for path, rule in found.assignment.rules.items() if rule.name == "none"]
        if len(dense) == len(self.tables):
            return found, None

        def one_value(share: float) -> RuleAssignment:
            return assign_one_value(self.tables, share, dense)

        comparison = self.compare(found, one_value)
        if comparison.by_head_wins:
            return found, comparison
        try:
            return self.search(one_value, *self._range(one_value), "trying one value"), comparison
        except InfeasibleError:
            return found, Comparison(None, None, None)

    def _unpruned(self) -> SearchResult:
        assignment = assign_no_pruning(self.tables)
        trial = self.calibrator.trial(assignment.rules, "running without pruning")
        return SearchResult(0.0, assignment, trial, self.value(assignment, trial))

    def _by_head(self) -> SearchResult:
        """Values by head: of blocks the share that reaches the goal, or of what can be saved."""
        what, layer_costs = "trying values by head", self.layer_costs
        if layer_costs is None:

            def by_blocks(share: float) -> RuleAssignment:
                return assign_by_head(self.tables, share)

            return self.search(by_blocks, *self._range(by_blocks), what)
        if most_saved(self.tables, layer_costs) <= 0 and not self.goal.is_cost:
            return self._unpruned()
        return self.search(
            lambda share: assign_by_cost(self.tables, layer_costs, share), 0.0, 1.0, what
        )

    def _is_cheaper(self, assignment: RuleAssignment) -> bool:
        assert self.cost_model is not None
        return self.cost_model.cost(assignment.rules).edp < self.cost_model.cost({}).edp

    def search(self, choose: Choose, least: float, most: float, what: str) -> SearchResult:
        """The share that reaches the goal, with rules of one kind."""
        return GoalSearch(
            self.goal,
            choose,
            lambda assignment: self.calibrator.trial(assignment.rules, what),
            self.value,
            least,
            most,
            self._notes(),
        ).run()

    def _notes(self) -> tuple[str, ...]:
        if not self.goal.is_cost or self.cost_model is None:
            return ()
        cost = self.cost_model.cost({})
        return (
            f"without pruning: {cost.cycles:,.0f} cycles, {1e6 * cost.joules:,.4g} uJ (modelled)",
        )

    def _range(self, choose: Choose) -> tuple[float, float]:
        """The least and the greatest share of blocks that can be asked for."""
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            try:
                choose(middle)
                low = middle
            except ValueError:
                high = middle
        return float(choose(0.0).predicted), low

    def value(self, assignment: RuleAssignment, trial: Trial | None) -> float:
        """
        The figure that the goal bounds; of losses the greater of fitted and of all samples.

        A cost needs no trial.
        """
        if self.goal.is_cost:
            assert self.cost_model is not None
            cost = self.cost_model.cost(assignment.rules)
            if self.goal.metric == "cycles":
                return cost.cycles
            return self.cost_model.cost({}).edp / cost.edp
        assert trial is not None
        if self.goal.metric == "sparsity":
            return trial.assured_sparsity()
        held = self.calibrator.samples.held
        everything = np.ones(len(held), np.bool_)
        return max(self.evaluator.loss(trial.reduced, part) for part in (~held, everything))

    def plan_cost(self, assignment: RuleAssignment) -> PlanCost | None:
        """What the plan costs and what no pruning does, where a machine was named."""
        machine = self.cost_model
        if machine is None:
            return None
        plan, dense = machine.cost(assignment.rules), machine.cost({})
        return PlanCost(machine.hw, machine.batch, plan, dense, self.layer_costs)

    def compare(self, found: SearchResult, one_value: Choose) -> Comparison:
        """Values by head against one value for all, at one sparsity, on the samples held back."""
        held = self.calibrator.samples.held
        everything = np.ones(len(held), np.bool_)
        wanted = found.trial.sparsity(everything)
        share, one = wanted, None
        for _ in range(3):
            try:
                assignment = one_value(share)
            except ValueError:
                break
            trial = self.calibrator.trial(assignment.rules, "comparing with one value")
            one = assignment, trial
            missing = wanted - trial.sparsity(everything)
            if abs(missing) < 0.003:
                break
            share += missing
        if one is None:
            return Comparison(None, None, None)
        alone, own = (self.evaluator.divergence(t.reduced)[held] for t in (one[1], found.trial))
        return Comparison(one[0], one[1], alone - own)


def _write(
    request: Request,
    assignment: RuleAssignment,
    layers: FactorisedLayers | None,
    report: Mapping[str, Any],
) -> None:
    path = request.output
    name, digest = (None, None) if layers is None else (layers.hw, layers.hw_sha256)
    if request.hw is not None:
        hardware = load_hardware(request.hw)
        name, digest = hardware.name, hardware_sha256(hardware)
    with together() as files:
        plan = plan_data(
            assignment.rules,
            model_sha256=request.compilation.weights_sha256(),
            hw=name,
            hw_sha256=digest,
            seed=request.seed,
            factorised=None if layers is None else layers.beside(path, files),
        )
        files.open(report_file(path), "w").write(REPORT.json_text(report))
        files.open(path, "w").write(PLAN.json_text(plan))
