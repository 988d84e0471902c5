"""
Outputs of a subject against those of the reference, and against labels.

The compared output is (samples, classes) of a classifier. Of any other model it is the first output;
values at padding are left out, because programs may leave anything there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError, suggest
from heatc.readers.source import size_text
from heatc.tuning.common.evaluation import (
    Evaluator,
    compared_output,
    is_named_for_classes,
    reduce_output,
)
from heatc.tuning.evaluate import intervals
from heatc.tuning.evaluate.data import Data
from heatc.tuning.evaluate.figures import METRIC_FIGURES, Estimate
from heatc.tuning.evaluate.metrics import METRICS
from heatc.tuning.evaluate.program import Program, Ran, length_of

Array = NDArray[Any]
Reals = NDArray[np.float64]

LARGEST = 1 << 30
"""Bytes of the reference's compared output, which is kept while the others run."""


@dataclass(frozen=True)
class Kept:
    """
    What is kept of a subject's outputs.

    `cosines` (N,) are those with the reference; `scores` (N, classes) are None for a model that is no
    classifier.
    """

    cosines: Reals
    scores: Reals | None


class Reference:
    """The compared output of the reference, all samples of it, chosen when its first batch is there."""

    def __init__(self, data: Data, output: str | None):
        self.data = data
        self._wanted = output
        self._parts: list[Array] = []
        self.output = ""
        self.classes: int | None = None

    def take(self, program: Program, samples: slice, ran: Ran) -> None:
        """Keep a batch; raises `HeatcError` for labels that the output has no classes for."""
        if not self._parts:
            self._choose(program, ran)
        part = self.comparable(program, samples, ran)
        self._parts.append(part.astype(np.float32, copy=False))
        size = part[0].size * 4 * len(self.data)
        if size > LARGEST:
            raise HeatcError(
                f"output {self.output!r} of all samples takes {size_text(size)}, more than "
                f"{size_text(LARGEST)}",
                place=str(program.files[0]),
                notes=["give fewer samples (--limit), or a model that pools its tokens"],
            )

    def _choose(self, program: Program, ran: Ran) -> None:
        found, labels = ran.outputs, self.data.labels
        if self._wanted is not None:
            found = {self._wanted: _output(found, self._wanted, program)}
        batch = len(next(iter(found.values())))
        self.output, is_classes = compared_output(found, batch, labels is not None)
        array = found[self.output]
        if labels is not None and not is_named_for_classes(self.output):
            # An embedding has the same form; whether all its values are classes only labels can say.
            is_classes = is_classes and array.shape[1] == int(labels.max()) + 1
        if is_classes:
            Evaluator.of(self.output, array.astype(np.float64), labels)
            self.classes = array.shape[1]

    @property
    def whole(self) -> Array:
        """(N, ...)."""
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]
        return self._parts[0]

    def comparable(self, program: Program, samples: slice, ran: Ran) -> Array:
        """
        The compared output of some samples, without the repeats that filled their batch.

        Tokens (samples, tokens, ...) are cut to the longest sample, and are 0 at padding. Raises
        `HeatcError` where it is not there, or has a value that is not finite.
        """
        array = _output(ran.outputs, self.output, program)
        if array.ndim:
            array = array[: samples.stop - samples.start]
        real = self.data.real
        if real is not None and array.ndim > 2 and array.shape[1] == length_of(program):
            own = real[samples]
            array = np.where(own[(..., *[None] * (array.ndim - 2))], array[:, : own.shape[1]], 0)
        if not np.isfinite(array).all():
            wrong = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
            raise HeatcError(
                f"output {self.output!r} of sample {samples.start + int(wrong.argmax())} is not finite",
                place=str(program.files[0]),
            )
        return array

    def reduce(self, program: Program, samples: slice, ran: Ran) -> Kept:
        """A batch of a subject against that of the reference."""
        array, dense = self.comparable(program, samples, ran), self.whole[samples]
        if array.shape != dense.shape:
            raise HeatcError(
                f"output {self.output!r} has the shape {array.shape}, the reference's {dense.shape}",
                place=str(program.files[0]),
                notes=["are both of one model? compare others in two runs"],
            )
        cosines = 1.0 - reduce_output(array, dense, len(array), False)[:, 0]
        scores = reduce_output(array, dense, len(array), True) if self.classes else None
        return Kept(cosines, scores)


def _output(outputs: Mapping[str, Array], name: str, program: Program) -> Array:
    if name not in outputs:
        notes = [*suggest(name, outputs), f"it has {', '.join(outputs)}; --output chooses another"]
        raise HeatcError(
            f"the program has no output {name!r}, which is compared",
            place=str(program.files[0]),
            notes=notes,
        )
    return outputs[name]


@dataclass(frozen=True)
class Compared:
    """What figures are computed from: a subject beside the reference, and labels (N,) or None."""

    subject: Kept
    reference: Kept
    labels: NDArray[np.int64] | None
    classes: int | None
    is_reference: bool
    seed: int

    @property
    def predicted(self) -> NDArray[np.int64] | None:
        """(N,): the subject's classes."""
        return None if self.subject.scores is None else self.subject.scores.argmax(axis=1)

    @property
    def expected(self) -> NDArray[np.int64] | None:
        """(N,): the reference's classes."""
        return None if self.reference.scores is None else self.reference.scores.argmax(axis=1)


def compared_figures(found: Compared) -> dict[str, Estimate | None]:
    """The figures of the group `compared` by name, None where there is nothing to say."""
    return {**_scores(found), **_changes(found)}


def _scores(found: Compared) -> dict[str, Estimate | None]:
    labels, predicted, expected = found.labels, found.predicted, found.expected
    names = [name for pair in METRIC_FIGURES.values() for name in pair]
    if labels is None or predicted is None or expected is None:
        return dict.fromkeys(names)
    right, was_right = predicted == labels, expected == labels
    gained, lost = int((right & ~was_right).sum()), int((was_right & ~right).sum())
    count = len(labels)
    accuracy = intervals.share_percent(int(right.sum()), count)
    pairs = {"accuracy": intervals.Pair(accuracy, intervals.matched_points(gained, lost, count))}
    classes = found.classes or 0
    for metric, function in METRICS.items():
        if metric not in pairs:
            pairs[metric] = intervals.metric(
                function, labels, expected, predicted, classes, found.seed
            )
    figures: dict[str, Estimate | None] = {}
    for metric, (score, change) in METRIC_FIGURES.items():
        figures[score] = pairs[metric].score
        figures[change] = None if found.is_reference else pairs[metric].change
    return figures


def _changes(found: Compared) -> dict[str, Estimate | None]:
    names = ("changed_predictions_percent", "cosine_mean", "cosine_least")
    if found.is_reference:
        return dict.fromkeys(names)
    changed = None
    if found.predicted is not None and found.expected is not None:
        count = len(found.predicted)
        changed = intervals.share_percent(int((found.predicted != found.expected).sum()), count)
    cosines = found.subject.cosines
    values = (changed, intervals.mean(cosines, found.seed), Estimate(float(cosines.min())))
    return dict(zip(names, values))
