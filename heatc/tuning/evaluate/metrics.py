"""
Scores of a classifier: accuracy, Matthews correlation coefficient, F1.

Each is a function of three counts a class, so that one call scores thousands of resamplings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]


class ClassCounts(NamedTuple):
    """
    Samples by class, each (..., classes); leading axes are resamplings.

    `right` were predicted as their label, `true` have the label, `predicted` were predicted.
    """

    right: Reals
    true: Reals
    predicted: Reals


def accuracy_percent(counts: ClassCounts) -> Reals:
    """Per cent of the samples whose prediction is their label, (...)."""
    return 100.0 * counts.right.sum(axis=-1) / counts.true.sum(axis=-1)


def mcc(counts: ClassCounts) -> Reals:
    """
    Matthews correlation coefficient of two or more classes, (...), -1 to 1.

    The formula is R_K of J. Gorodkin, Computational Biology and Chemistry 28 (2004). It is 0 where
    all samples have one label, or one prediction.
    """
    right, samples = counts.right.sum(axis=-1), counts.true.sum(axis=-1)
    together = right * samples - (counts.true * counts.predicted).sum(axis=-1)
    spread = [samples**2 - (x**2).sum(axis=-1) for x in (counts.true, counts.predicted)]
    size = np.sqrt(spread[0] * spread[1])
    return np.where(size > 0, together / np.where(size > 0, size, 1.0), 0.0)


def f1(counts: ClassCounts) -> Reals:
    """
    F1, (...), 0 to 1: of class 1 where there are two classes, else the mean over classes.

    A class that no sample has and that is never predicted takes no part in the mean.
    """
    size = counts.true + counts.predicted
    of_class = 2.0 * counts.right / np.where(size > 0, size, 1.0)
    if of_class.shape[-1] == 2:
        return of_class[..., 1]
    present = (size > 0).sum(axis=-1)
    return of_class.sum(axis=-1) / np.maximum(present, 1)


METRICS: Mapping[str, Callable[[ClassCounts], Reals]] = {
    "accuracy": accuracy_percent,
    "mcc": mcc,
    "f1": f1,
}
"""The scores by the names of `figures.METRIC_FIGURES`."""
