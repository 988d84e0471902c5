"""An evaluation: every subject on all samples, and what eval.json says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heatc.progress import ProgressCallback
from heatc.tuning.common.workers import Workers
from heatc.tuning.evaluate.agreement import Compared, Kept, Reference, compared_figures
from heatc.tuning.evaluate.batches import Batches, run_batches
from heatc.tuning.evaluate.data import Data
from heatc.tuning.evaluate.figures import (
    EACH,
    LEVEL,
    PERCENTILES,
    SCHEMA,
    SHARES,
    Estimate,
    cost_figure,
    of_source,
)
from heatc.tuning.evaluate.intervals import RESAMPLES
from heatc.tuning.evaluate.program import Ran, batch_of, bytes_of, length_of, sha256_of
from heatc.tuning.evaluate.subject import Subject

Costs = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Request:
    """
    What is evaluated: the reference is the first subject.

    `output` names the compared output, None for the usual one. `metric` is that of the table.
    """

    subjects: Sequence[Subject]
    data: Data
    metric: str
    output: str | None
    seed: int
    workers: Workers


def evaluate(request: Request, progress: ProgressCallback) -> dict[str, Any]:
    """
    Run every subject on the data; what eval.json says, without its provenance.

    Raises `HeatcError` for data that does not fit a subject, before any subject runs, and where one
    fails.
    """
    data = request.data
    fitted = [Batches(s.program, data.fitted(s.program)) for s in request.subjects]
    reference = Reference(data, request.output)
    runs = [_run(request, s, b, reference, progress) for s, b in zip(request.subjects, fitted)]
    return {
        "schema": SCHEMA,
        "samples": len(data),
        "labelled": data.labels is not None,
        "output": reference.output,
        "classes": reference.classes,
        "metric": request.metric,
        "reference": request.subjects[0].name,
        "intervals": {"level_percent": LEVEL, "resamples": RESAMPLES, "seed": request.seed},
        "subjects": [
            _described(request, subject, batches, run, Compared(
                run.kept, runs[0].kept, data.labels, reference.classes, number == 0, request.seed
            ))
            for number, (subject, batches, run) in enumerate(zip(request.subjects, fitted, runs))
        ],
    }  # fmt: skip


@dataclass(frozen=True)
class _Run:
    """What a subject gave: its outputs as they are kept, and the costs of each batch by name."""

    kept: Kept
    costs: Costs


def _run(
    request: Request,
    subject: Subject,
    batches: Batches,
    reference: Reference,
    progress: ProgressCallback,
) -> _Run:
    is_reference = subject is request.subjects[0]
    kept: list[Kept] = []
    costs: dict[str, list[float]] = {}
    progress(subject.name, 0, len(batches))

    def done(number: int, ran: Ran) -> None:
        samples = batches.slice_of(number)
        if is_reference:
            reference.take(subject.program, samples, ran)
        else:
            kept.append(reference.reduce(subject.program, samples, ran))
        for name, value in ran.costs.items():
            costs.setdefault(name, []).append(value)
        progress(subject.name, number + 1, len(batches))

    run_batches(batches, request.workers, done)
    if is_reference:
        whole = reference.whole
        scores = whole.astype(np.float64) if reference.classes else None
        return _Run(Kept(np.ones(len(whole)), scores), costs)
    scores = [k.scores for k in kept if k.scores is not None]
    cosines = np.concatenate([k.cosines for k in kept])
    return _Run(Kept(cosines, np.concatenate(scores) if scores else None), costs)


def _described(
    request: Request, subject: Subject, batches: Batches, run: _Run, compared: Compared
) -> dict[str, Any]:
    """The object of a subject."""
    program = subject.program
    costs = _cost_figures(run.costs, batch_of(program))
    costs["program_bytes"] = bytes_of(program)
    figures = compared_figures(compared)
    return {
        "name": subject.name,
        "kind": subject.kind,
        "runs": program.runs,
        "sha256": sha256_of(program.files),
        "plan_sha256": subject.plan_sha256,
        "batch_samples": batch_of(program),
        "length_tokens": length_of(program),
        "batches": len(batches),
        "hardware": None if program.hardware is None else program.hardware.name,
        "clock_hertz": None if program.hardware is None else program.hardware.clock_hz,
        "compared": {f.name: _estimate(figures[f.name]) for f in of_source("compared")},
        "modelled": {f.name: costs.get(f.name) for f in of_source("modelled")},
        "measured": {f.name: costs.get(f.name) for f in of_source("measured")},
    }


def _estimate(found: Estimate | None) -> dict[str, float | None] | None:
    return None if found is None else found._asdict()


def _cost_figures(costs: Costs, batch: int) -> dict[str, float]:
    """Percentiles over batches, of batches and of a sample's share of them."""
    figures: dict[str, float] = {}
    for quantity, values in costs.items():
        for share in SHARES if EACH[quantity].is_per_sample else SHARES[:1]:
            divisor = 1 if share == "batch" else batch
            for name, percentile in PERCENTILES.items():
                found = float(np.percentile(values, percentile)) / divisor
                figures[cost_figure(share, name, quantity)] = found
    return figures
