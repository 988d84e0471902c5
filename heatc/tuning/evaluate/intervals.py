"""
Intervals of 95 %: of a share, of the difference of two shares of the same samples, and by bootstrap.

The two closed forms stay wide where nothing was seen to differ; a bootstrap would then say that the
value is certain.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.evaluate.figures import LEVEL, Estimate
from heatc.tuning.evaluate.metrics import ClassCounts

Reals = NDArray[np.float64]
Classes = NDArray[np.int64]

RESAMPLES = 2000
"""Samplings of a bootstrap."""

_Z = 1.959964
_ENDS = ((100 - LEVEL) / 2, (100 + LEVEL) / 2)
_DRAWN = 1 << 22
"""Numbers that a bootstrap draws at once, 32 MiB."""


def share_percent(hits: int, samples: int) -> Estimate:
    """
    Per cent of the samples that are hits.

    The interval is E. B. Wilson's, JASA 22 (1927): the shares whose score test does not refuse.
    """
    stats: Any = import_module("scipy.stats")  # half a second, which only an evaluation pays
    ends = stats.binomtest(hits, samples).proportion_ci(LEVEL / 100, method="wilson")
    share = hits / samples
    # Rounding leaves ends that are 0 or 1 by definition a little beside them.
    return Estimate(100 * share, 100 * min(ends.low, share), 100 * max(ends.high, share))


def matched_points(gained: int, lost: int, samples: int) -> Estimate:
    """
    Points by which a share grew, of samples that were looked at twice.

    `gained` became hits, `lost` were hits. The interval is the adjusted Wald interval of A. Agresti
    and Y. Min, Statistics in Medicine 24 (2005): half a sample is added to each of the four counts.
    """
    up, down, count = gained + 0.5, lost + 0.5, samples + 2
    middle = (up - down) / count
    half = _Z * math.sqrt(up + down - (up - down) ** 2 / count) / count
    return Estimate(100 * (gained - lost) / samples, 100 * (middle - half), 100 * (middle + half))


def mean(values: Reals, seed: int) -> Estimate:
    """The mean of (N,), its interval by bootstrap."""
    rng, parts = np.random.default_rng(seed), list[Reals]()
    step = max(1, _DRAWN // len(values))
    for start in range(0, RESAMPLES, step):
        drawn = rng.integers(0, len(values), (min(step, RESAMPLES - start), len(values)))
        parts.append(values[drawn].mean(axis=1))
    return _estimate(float(values.mean()), np.concatenate(parts))


class Pair(NamedTuple):
    """A score with its interval, and its difference from the reference's with its own."""

    score: Estimate
    change: Estimate


def metric(
    function: Callable[[ClassCounts], Reals],
    labels: Classes,
    reference: Classes,
    predicted: Classes,
    classes: int,
    seed: int,
) -> Pair:
    """
    A metric of predictions (N,) against labels (N,), beside that of the reference's predictions.

    Samples that agree in all three are alike, so a bootstrap draws how many of each there are.
    """
    triples = np.stack([labels, reference, predicted], axis=1)
    cells, counts = np.unique(triples, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(
        len(labels), counts / len(labels), size=RESAMPLES
    )
    weights = np.concatenate([counts[None], drawn]).astype(np.float64)
    own = function(_class_counts(cells[:, 0], cells[:, 2], weights, classes))
    change = own - function(_class_counts(cells[:, 0], cells[:, 1], weights, classes))
    return Pair(*(_estimate(float(x[0]), x[1:]) for x in (own, change)))


def _class_counts(labels: Classes, predicted: Classes, weights: Reals, classes: int) -> ClassCounts:
    """Counts (resamplings, classes) of cells that occur `weights` (resamplings, cells) times."""
    true, said = (np.eye(classes)[x] for x in (labels, predicted))
    return ClassCounts(weights @ (true * said), weights @ true, weights @ said)


def _estimate(value: float, resampled: Reals) -> Estimate:
    low, high = (float(x) for x in np.percentile(resampled, _ENDS))
    return Estimate(value, low, high)
