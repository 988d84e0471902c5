"""What outcomes say of a rule: points lost, intervals, changed predictions."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bench.support.accuracy.runs import SEED, Set
from bench.support.report import Json
from oracle.encoder import Outcome

Bools = npt.NDArray[np.bool_]


class Compared(NamedTuple):
    """A rule against the dense program on the same sentences."""

    points_lost: float
    low: float
    high: float
    changed: float
    accuracy: float


def correct(found: Outcome, sentences: Set) -> Bools:
    """Which sentences are classified rightly."""
    return found.logits.argmax(-1).numpy() == sentences.labels


def compare(pruned: Outcome, dense: Outcome, sentences: Set) -> Compared:
    """Points of accuracy lost, paired, with a normal 95 % interval; changed predictions."""
    before, after = correct(dense, sentences), correct(pruned, sentences)
    lost = 100.0 * (before.astype(float) - after.astype(float))
    half = 1.96 * lost.std(ddof=1) / np.sqrt(len(lost))
    changed = (pruned.logits.argmax(-1) != dense.logits.argmax(-1)).float().mean()
    mean = float(lost.mean())
    return Compared(mean, mean - half, mean + half, 100 * float(changed), 100 * float(after.mean()))


def standard_error(found: Outcome, sentences: Set) -> float:
    """The standard error of an accuracy, in points."""
    right = correct(found, sentences)
    return 100 * float(right.std() / np.sqrt(len(right)))


def matthews(predicted: npt.NDArray[np.int64], labels: npt.NDArray[np.int64]) -> float:
    """Matthews' correlation coefficient in points, 0 where one side is constant."""
    if predicted.std() == 0 or labels.std() == 0:
        return 0.0
    return 100 * float(np.corrcoef(predicted, labels)[0, 1])


def matthews_lost(
    pruned: Outcome, dense: Outcome, sentences: Set, draws: int = 2000
) -> tuple[float, float, float]:
    """Points of MCC lost, and the 2.5 % and 97.5 % quantiles over resampled sentences."""
    before, after = dense.logits.argmax(-1).numpy(), pruned.logits.argmax(-1).numpy()
    labels = sentences.labels
    random = np.random.default_rng(SEED)
    lost: list[float] = []
    for _ in range(draws):
        at = random.integers(0, len(labels), len(labels))
        lost.append(matthews(before[at], labels[at]) - matthews(after[at], labels[at]))
    mean = matthews(before, labels) - matthews(after, labels)
    low, high = np.quantile(lost, [0.025, 0.975])
    return mean, float(low), float(high)


def entry(name: str, pruned: Outcome, dense: Outcome, sentences: Set) -> dict[str, Json]:
    """One line of a table."""
    found = compare(pruned, dense, sentences)
    return {
        "rule": name,
        "set": sentences.name,
        "blocks_pruned_percent": percent(pruned.block_sparsity),
        "heads_pruned_percent": percent(pruned.head_sparsity),
        "net_sparsity_percent": percent(pruned.net_sparsity),
        "accuracy_percent": round(found.accuracy, 2),
        "points_lost": round(found.points_lost, 2),
        "interval_95": [round(found.low, 2), round(found.high, 2)],
        "changed_percent": round(found.changed, 2),
    }


def percent(share: float) -> float:
    """In percent, two digits."""
    return round(100 * share, 2)
