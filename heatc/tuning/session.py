"""One calibration from start to end: check, measure, search, confirm, write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from heatc.api import Compilation
from heatc.files import atomic_write
from heatc.plan import SCHEMA, hardware_sha256, model_sha256
from heatc.rules import OPTIONS, Rule
from heatc.tuning import measure
from heatc.tuning.calibrate import Calibrator, Step, Trial
from heatc.tuning.choose import Chosen, LayerTable, by_head, by_one_value
from heatc.tuning.forward import PackedModel
from heatc.tuning.goal import Goal
from heatc.tuning.judge import Judge
from heatc.tuning.report import Comparison, Report
from heatc.tuning.samples import Samples, check_samples
from heatc.tuning.search import Found, Search
from heatc.tuning.store import Store, cache_folder, content_key
from heatc.version import VERSION

__all__ = ["Request", "Result", "Step", "calibrate"]

Array = NDArray[Any]


class Choose(Protocol):
    """Rules for a share of blocks to prune; `ValueError` where there are none."""

    def __call__(self, tables: Sequence[LayerTable], share: float) -> Chosen: ...


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        model: path of the model, for its digest.
        compilation: a compilation without target (`Options(level=0)`) that captured the model.
        arrays: the calibration data by name, `data` the file that they came from.
        goal: what is to be reached.
        output: the plan.json to write; `<name>.report.json` comes beside it.
        hw: the machine, None where none was named.
        seed: of the samples that are held back.
        folder: where an interrupted run goes on, None for the user's cache.
    """

    model: str
    compilation: Compilation
    arrays: Mapping[str, Array]
    data: str
    goal: Goal
    output: Path
    hw: str | None = None
    seed: int = 0
    folder: Path | None = None


@dataclass(frozen=True)
class Result:
    """The plan's rules by module path, the report, its table and remarks as texts."""

    rules: Mapping[str, Rule]
    report: Mapping[str, Any]
    table: str
    remarks: tuple[str, ...]


def calibrate(request: Request, step: Step) -> Result:
    """
    Choose the parameters and write the plan and its report.

    Raises `HeatcError` for data that does not fit the model, `InfeasibleError` for a goal that is
    out of reach. What was computed before an interruption is used again.
    """
    digest = model_sha256(request.model)
    request.compilation.run()
    model = PackedModel(request.compilation.module, request.compilation.weights)
    samples = check_samples(request.arrays, model.shapes, model.limits, request.seed, request.data)
    store = Store(_folder(request, digest, model))
    work = Calibrator(model, samples, store, step)
    judge = work.measure()
    tables = work.tables(judge)
    heads = _search(request, work, judge, tables, by_head, "trying values by head")
    comparison = _compare(work, judge, tables, heads)
    found = heads
    if not comparison.by_head_wins:
        found = _search(request, work, judge, tables, by_one_value, "trying one value")
    report = Report(request.goal, samples, judge, tables, found, comparison, store.reused)
    _write(request, digest, found.chosen, report.data())
    return Result(found.chosen.rules, report.data(), report.table(), report.remarks())


def _folder(request: Request, digest: str, model: PackedModel) -> Path:
    """Where this calibration keeps what it computes: named by all that it depends on."""
    lists = (measure.FINER, measure.IMPORTANCES, measure.PRUNED_SCORES, measure.GATED)
    texts = {
        "version": VERSION,
        "model": digest,
        "seed": str(request.seed),
        "grid": repr((*lists, measure.RHO_B)),
        "shapes": repr(model.shapes),
    }
    return (request.folder or cache_folder()) / content_key(texts, request.arrays)


def _search(
    request: Request,
    work: Calibrator,
    judge: Judge,
    tables: Sequence[LayerTable],
    choose: Choose,
    what: str,
) -> Found:
    least, most = _range(tables, choose)

    def attempt(chosen: Chosen) -> Trial:
        return work.trial(chosen.rules, what)

    def value(trial: Trial) -> float:
        return _value(request.goal, trial, work.samples, judge)

    def choose_share(share: float) -> Chosen:
        return choose(tables, share)

    return Search(request.goal, choose_share, attempt, value, least, most).run()


def _range(tables: Sequence[LayerTable], choose: Choose) -> tuple[float, float]:
    """The least and the greatest share of blocks that can be asked for."""
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        try:
            choose(tables, middle)
            low = middle
        except ValueError:
            high = middle
    return float(choose(tables, 0.0).predicted), low


def _value(goal: Goal, trial: Trial, samples: Samples, judge: Judge) -> float:
    """The figure that the goal bounds; of losses the greater of the fitted and of all samples."""
    everything = np.ones(len(samples), np.bool_)
    if goal.metric == "sparsity":
        return trial.sparsity(everything)
    parts = (~samples.held, everything)
    return max(judge.loss(trial.reduced, part) for part in parts)


def _compare(
    work: Calibrator, judge: Judge, tables: Sequence[LayerTable], found: Found
) -> Comparison:
    """Values by head against one value for all, at one sparsity, on the samples held back."""
    held = work.samples.held
    everything = np.ones(len(held), np.bool_)
    wanted = found.trial.sparsity(everything)
    share = wanted
    one: tuple[Chosen, Trial] | None = None
    for _ in range(3):
        try:
            chosen = by_one_value(tables, share)
        except ValueError:
            break
        one = chosen, work.trial(chosen.rules, "comparing with one value")
        missing = wanted - one[1].sparsity(everything)
        if abs(missing) < 0.003:
            break
        share += missing
    if one is None:
        return Comparison(None, None, None, held)
    return Comparison(
        one[0],
        one[1],
        (judge.divergence(one[1].reduced) - judge.divergence(found.trial.reduced))[held],
        held,
    )


def _write(request: Request, digest: str, chosen: Chosen, report: Mapping[str, Any]) -> None:
    plan = {
        "schema": SCHEMA,
        "model_sha256": digest,
        "hw_sha256": None if request.hw is None else hardware_sha256(request.hw),
        "seed": request.seed,
        "layers": {path: {"hdp": rule_data(rule)} for path, rule in chosen.rules.items()},
    }
    path = request.output
    with atomic_write(path.with_suffix(".report.json"), "w") as stream:
        stream.write(f"{json.dumps(report, indent=1)}\n")
    with atomic_write(path, "w") as stream:
        stream.write(f"{json.dumps(plan, indent=1)}\n")


def rule_data(rule: Rule) -> dict[str, Any]:
    """A rule as an entry of plan.json."""
    data: dict[str, Any] = {"rule": rule.name}
    for name, value in rule.options.items():
        option = OPTIONS[name]
        plain = list(cast("tuple[Any, ...]", value)) if isinstance(value, tuple) else value
        single = option.count is None and len(plain) == 1
        data[option.key or name] = plain[0] if single else plain
    return data
