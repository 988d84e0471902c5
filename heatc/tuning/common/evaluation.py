"""
How far outputs are from the dense ones: points of accuracy, changed predictions, divergence.

A classifier is recognised by an output (batch, classes). Its divergence is the Kullback-Leibler
divergence of the dense distribution from the pruned one; of any other model, one minus the cosine
of its first output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.npz import LABELS

Array = NDArray[Any]
Reals = NDArray[np.float64]
Basis = Literal["labels", "changed predictions", "cosine"]

_Z95 = 1.959964


@dataclass(frozen=True)
class LossInterval:
    """A loss in points with its 95 % interval, over `samples` samples."""

    points: float
    low: float
    high: float
    samples: int


@dataclass(frozen=True)
class Evaluator:
    """
    Compares what was computed with what the dense model computed.

    `dense` is (N, classes) of a classifier, (N, 1) of zeros else. `output` is the output looked at.
    """

    output: str
    dense: Reals
    labels: NDArray[np.int64] | None
    basis: Basis

    @classmethod
    def of(cls, output: str, dense: Reals, labels: NDArray[np.int64] | None) -> Evaluator:
        """Raises `HeatcError` for labels that are no classes of the output."""
        classes = dense.shape[1]
        if labels is None:
            return cls(output, dense, None, "changed predictions" if classes > 1 else "cosine")
        if classes == 1:
            raise HeatcError(
                "labels are given, but the model has no output (samples, classes)",
                place=LABELS,
                notes=["leave them out: the dense outputs are then what is compared with"],
            )
        if int(labels.max()) >= classes:
            raise HeatcError(
                f"label {int(labels.max())}, the output {output!r} has {classes} classes",
                place=LABELS,
            )
        return cls(output, dense, labels, "labels")

    def of_samples(self, samples: NDArray[np.int64]) -> Evaluator:
        """The same for some of the samples, by number."""
        labels = None if self.labels is None else self.labels[samples]
        return Evaluator(self.output, self.dense[samples], labels, self.basis)

    def divergence(self, reduced: Reals) -> Reals:
        """(N,), 0 where nothing changed."""
        if self.dense.shape[1] == 1:
            return reduced[:, 0]
        log_p, log_q = _log_softmax(self.dense), _log_softmax(reduced)
        return np.maximum((np.exp(log_p) * (log_p - log_q)).sum(axis=1), 0.0)

    def changed(self, reduced: Reals) -> NDArray[np.bool_] | None:
        """(N,): whether the prediction is another; None for a model that predicts no class."""
        if self.dense.shape[1] == 1:
            return None
        return reduced.argmax(axis=1) != self.dense.argmax(axis=1)

    def loss(self, reduced: Reals, chosen: NDArray[np.bool_]) -> float:
        """
        What an accuracy goal bounds on the chosen samples (N,): `counted_loss`, and with labels `expected_loss`.

        A few hundred labels cannot tell a point from none by counting. They still have a say: the
        lower end of the interval that they give, where it is above the expected loss.
        """
        counted = self.counted_loss(reduced, chosen)
        if self.labels is None:
            return counted.points
        return max(self.expected_loss(reduced, chosen), counted.low)

    def expected_loss(self, reduced: Reals, chosen: NDArray[np.bool_]) -> float:
        """
        Points that the changed predictions cost by the dense model's own probabilities.

        They are sharpened or softened to fit the labels first (temperature scaling, C. Guo et al.,
        ICML 2017). Which labels the changed samples happen to have does not matter here, so a few
        hundred samples say more than by counting.
        """
        assert self.labels is not None
        p = np.exp(_log_softmax(self.dense / _temperature(self.dense, self.labels)))
        rows = np.arange(len(p))
        lost = p[rows, self.dense.argmax(axis=1)] - p[rows, reduced.argmax(axis=1)]
        return float(100.0 * lost[chosen].mean())

    def counted_loss(self, reduced: Reals, chosen: NDArray[np.bool_]) -> LossInterval:
        """
        Points lost on the chosen samples (N,).

        With labels: the paired difference of accuracy. Without: the share of changed predictions,
        which bounds it from above, or 100 times one minus the mean cosine.
        """
        if self.basis == "labels":
            right = self.dense.argmax(axis=1) == self.labels
            lost = right.astype(np.float64) - (reduced.argmax(axis=1) == self.labels)
        elif self.basis == "changed predictions":
            lost = (reduced.argmax(axis=1) != self.dense.argmax(axis=1)).astype(np.float64)
        else:
            lost = reduced[:, 0]
        return _interval(100.0 * lost[chosen])


def _temperature(scores: Reals, labels: NDArray[np.int64]) -> float:
    """The divisor of the scores under which the labels are likeliest, of 0.25 to 8."""
    candidates = np.geomspace(0.25, 8.0, 41)
    rows = np.arange(len(labels))
    likelihood = [_log_softmax(scores / t)[rows, labels].sum() for t in candidates]
    return float(candidates[int(np.argmax(likelihood))])


def _interval(points: Reals) -> LossInterval:
    mean = float(points.mean())
    half = _Z95 * float(points.std()) / math.sqrt(len(points))
    return LossInterval(mean, mean - half, mean + half, len(points))


class ComparedOutput(NamedTuple):
    """The output that is compared, and whether it holds a score for each class."""

    name: str
    classes: bool


def compared_output(outputs: Mapping[str, Array], batch: int, labelled: bool) -> ComparedOutput:
    """
    The first output (batch, classes), else the first of all.

    An output without labels to tell is taken for classes by its name; it might be an embedding.
    """
    for name, array in outputs.items():
        told = labelled or is_named_for_classes(name)
        if array.ndim == 2 and len(array) == batch and array.shape[1] > 1 and told:
            return ComparedOutput(name, True)
    return ComparedOutput(next(iter(outputs)), False)


def is_named_for_classes(name: str) -> bool:
    """Whether an output's name says that it holds a score for each class."""
    return any(word in name for word in ("logit", "score", "prob"))


def reduce_output(array: Array, dense: Array, count: int, classes: bool) -> Reals:
    """
    The first `count` samples of an output as they are kept: the classes' scores, or (count, 1).

    The latter is one minus the cosine with `dense`, over all of a sample's values.
    """
    if classes:
        return array[:count].astype(np.float64)
    a, b = (x[:count].reshape(count, -1).astype(np.float64) for x in (array, dense))
    first, second = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    size: Reals = first * second
    inner: Reals = (a * b).sum(axis=1)
    # Two outputs of zeros are the same; rounding may put the cosine of equal ones above 1.
    different: Reals = (first != second).astype(np.float64)
    far = np.where(size > 0, 1.0 - inner / np.where(size > 0, size, 1.0), different)
    return np.maximum(far, 0.0)[:, None]


def _log_softmax(scores: Reals) -> Reals:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
