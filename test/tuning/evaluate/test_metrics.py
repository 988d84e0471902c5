"""Metrics and intervals, against their definitions and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from numpy.typing import NDArray

from heatc.tuning.evaluate import intervals
from heatc.tuning.evaluate.metrics import METRICS, ClassCounts

Classes = NDArray[np.int64]


def counts_of(labels: Classes, predicted: Classes, classes: int) -> ClassCounts:
    right = [np.sum((labels == c) & (predicted == c)) for c in range(classes)]
    true = [np.sum(labels == c) for c in range(classes)]
    said = [np.sum(predicted == c) for c in range(classes)]
    return ClassCounts(*(np.array(x, np.float64) for x in (right, true, said)))


def draw(classes: int, samples: int = 300) -> tuple[Classes, Classes]:
    """Labels and predictions that are right more often than not."""
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, samples)
    return labels, np.where(rng.random(samples) < 0.6, labels, rng.integers(0, classes, samples))


def accuracy(labels: Classes, predicted: Classes, classes: int) -> float:
    return 100 * sum(a == b for a, b in zip(labels.tolist(), predicted.tolist())) / len(labels)


def correlation(labels: Classes, predicted: Classes, classes: int) -> float:
    """Gorodkin's definition: the correlation of the two tables of indicators."""
    x, y = (np.equal.outer(v, np.arange(classes)).astype(float) for v in (labels, predicted))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def f1(labels: Classes, predicted: Classes, classes: int) -> float:
    """The harmonic mean of precision and recall."""

    def of(c: int) -> float:
        both = np.sum((labels == c) & (predicted == c))
        precision, recall = both / np.sum(predicted == c), both / np.sum(labels == c)
        return 2 * precision * recall / (precision + recall)

    return of(1) if classes == 2 else float(np.mean([of(c) for c in range(classes)]))


ORACLES = {"accuracy": accuracy, "mcc": correlation, "f1": f1}


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("name", METRICS)
def test_a_metric_is_what_its_definition_says(name: str, classes: int):
    labels, predicted = draw(classes)
    found = METRICS[name](counts_of(labels, predicted, classes))
    assert found == pytest.approx(ORACLES[name](labels, predicted, classes), abs=1e-12)


def test_mcc_of_two_classes_is_pearsons_correlation():
    labels, predicted = draw(2)
    found = METRICS["mcc"](counts_of(labels, predicted, 2))
    assert found == pytest.approx(np.corrcoef(labels, predicted)[0, 1])


def test_mcc_of_one_prediction_is_zero():
    labels, _ = draw(3)
    assert METRICS["mcc"](counts_of(labels, np.zeros_like(labels), 3)) == 0


def test_f1_leaves_out_classes_that_do_not_occur():
    labels, predicted = draw(3)
    three, five = (METRICS["f1"](counts_of(labels, predicted, n)) for n in (3, 5))
    assert three == pytest.approx(five)


@pytest.mark.parametrize(("hits", "samples"), [(0, 20), (20, 20), (13, 20), (431, 1500)])
def test_a_share_has_wilsons_interval(hits: int, samples: int):
    found = intervals.share_percent(hits, samples)
    oracle = scipy.stats.binomtest(hits, samples).proportion_ci(method="wilson")
    expected = (100 * hits / samples, 100 * oracle.low, 100 * oracle.high)
    assert found == pytest.approx(expected, abs=1e-6)


def test_matched_shares_are_covered():
    """A difference of 3 points, 60 samples, many draws: some 95 % of the intervals hold it."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(60, [0.08, 0.05, 0.87], size=4000).tolist()
    found = [intervals.matched_points(up, down, 60) for up, down, _ in drawn]
    ends = np.array([[x.low, x.high] for x in found], np.float64)
    held = (ends[:, 0] <= 3.0) & (ends[:, 1] >= 3.0)
    assert 0.94 <= held.mean() <= 0.985
    assert found[0].value == pytest.approx(100 * (drawn[0][0] - drawn[0][1]) / 60)


def test_no_difference_seen_is_no_certainty():
    found = intervals.matched_points(0, 0, 40)
    assert found.value == 0
    assert found.low is not None
    assert found.high is not None
    assert found.low < -1 < 1 < found.high


def test_a_mean_has_scipys_bootstrap_interval():
    values = np.random.default_rng(3).gamma(2.0, size=200)
    found = intervals.mean(values, seed=0)
    oracle = scipy.stats.bootstrap((values,), np.mean, method="percentile", rng=1)
    low, high = oracle.confidence_interval
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.02)


@pytest.mark.parametrize("name", ["mcc", "f1"])
def test_a_paired_bootstrap_draws_samples(name: str):
    """Against a bootstrap that draws the samples themselves, one by one."""
    labels, reference = draw(3)
    predicted = np.where(np.arange(300) % 10 == 0, labels, reference)
    found = intervals.metric(METRICS[name], labels, reference, predicted, 3, seed=0)
    rng, scores, changes = np.random.default_rng(5), list[float](), list[float]()
    for _ in range(1500):
        s = rng.integers(0, 300, 300)
        own, other = (ORACLES[name](labels[s], x[s], 3) for x in (predicted, reference))
        scores.append(own)
        changes.append(own - other)
    for estimate, drawn in ((found.score, scores), (found.change, changes)):
        ends = np.percentile(drawn, [2.5, 97.5])
        width = ends[1] - ends[0]
        assert (estimate.low, estimate.high) == pytest.approx(tuple(ends), abs=0.12 * width)
    assert found.score.value == pytest.approx(ORACLES[name](labels, predicted, 3))


def test_the_same_predictions_have_no_change():
    labels, reference = draw(2)
    found = intervals.metric(METRICS["mcc"], labels, reference, reference, 2, seed=0)
    assert found.change == (0, 0, 0)


def test_a_seed_gives_the_same_interval():
    values = np.random.default_rng(0).random(50)
    assert intervals.mean(values, 4) == intervals.mean(values, 4) != intervals.mean(values, 5)
