"""
How a family of points stands against another: what it wins at each level of accuracy lost.

A front is a step function: at a level it wins what its best point wins among those that lose no more;
the dense model is a point of every family. What a set of sentences leaves open is told by resampling it;
what another seed of the trainings would change is not. Changed predictions are the steadier measure: of them
it does not matter which happened to be labelled as they came out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Right = npt.NDArray[np.bool_]
"""Which sentences are classified as they are labelled, (N,)"""

LEVELS = np.linspace(0, 5, 51)
"""Points of accuracy lost"""
CHANGED = np.linspace(0, 10, 101)
"""Predictions that are not the dense model's, in percent"""
RESAMPLED = 2000
"""Times that the sentences are drawn anew, with replacement"""
SEED = 0


class Curve(NamedTuple):
    """The points of a family: what each loses, (..., points), and what it wins, (points,)."""

    lost: Floats
    won: Floats

    def best(self, levels: Floats = LEVELS) -> Floats:
        """The most that is won at each level, (..., levels); never less than 1, the dense model."""
        within = np.maximum(self.lost, 0)[..., None, :] <= levels[:, None] + 1e-9
        return np.where(within, self.won, 1.0).max(axis=-1, initial=1.0)


def quotients(mine: Curve, other: Curve, levels: Floats = LEVELS) -> Floats:
    """What one family wins over what another does, (..., levels)."""
    return mine.best(levels) / other.best(levels)


def hypervolume(curve: Curve) -> Floats:
    """The mean, over levels, of log2 of what is won, (...)."""
    return np.log2(curve.best()).mean(axis=-1)


class Judged(NamedTuple):
    """What a point wins, and which sentences it has right."""

    won: float
    right: Right


class Doubt(NamedTuple):
    """
    What the sentences leave open between two families, from resampling them.

    `low` and `high` are the 95 % interval of the difference of hypervolumes, mine less the other's;
    `ahead` and `behind` the shares of levels at which mine wins more, or less, in 97.5 % of the draws.
    """

    low: float
    high: float
    ahead: float
    behind: float


def doubt(mine: Sequence[Judged], other: Sequence[Judged], dense: Right) -> Doubt:
    """Resamples the sentences for all points of both families at once; `dense` is the dense model's."""
    ours, theirs = (_resampled(points, dense) for points in (mine, other))
    ratio = quotients(ours, theirs)
    low, high = np.quantile(hypervolume(ours) - hypervolume(theirs), (0.025, 0.975))
    ahead, behind = ((sign * np.log(ratio) > 0).mean(axis=0) >= 0.975 for sign in (1, -1))
    return Doubt(float(low), float(high), float(ahead.mean()), float(behind.mean()))


def _resampled(points: Sequence[Judged], dense: Right) -> Curve:
    lost = np.stack([dense.astype(float) - one.right for one in points], axis=1)
    draw = np.random.default_rng(SEED)
    count = len(dense)
    times = draw.multinomial(count, np.full(count, 1 / count), size=RESAMPLED)
    return Curve(100.0 * (times @ lost) / count, np.array([one.won for one in points]))


def curve(table: Sequence[Mapping[str, object]], family: str, lost: str, won: str) -> Curve:
    """A family's points in a table that has these columns."""
    own = [entry for entry in table if entry["family"] == family]
    return Curve(*(np.array([float(str(e[key])) for e in own]) for key in (lost, won)))
