"""Losses are what they say: paired accuracy, changed predictions, or one minus a cosine."""

from __future__ import annotations

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.tuning.common.evaluation import Evaluator, compared_output, reduce_output

DENSE = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.2, 0.0]])
PRUNED = np.array([[1.0, 0.0], [1.0, 0.0], [3.0, 0.0], [0.0, 0.3]])
ALL = np.ones(4, np.bool_)


def test_with_labels_a_loss_is_a_paired_difference_of_accuracy():
    evaluator = Evaluator.of("logits", DENSE, np.array([0, 1, 0, 1]))
    counted = evaluator.counted_loss(PRUNED, ALL)
    assert counted.points == pytest.approx(0.0)  # one answer lost, one won
    assert counted.low < 0 < counted.high
    assert evaluator.basis == "labels"
    first = np.array([True, True, False, False])
    assert evaluator.counted_loss(PRUNED, first).points == pytest.approx(50.0)


def test_expected_loss_weighs_changes_by_the_dense_probabilities():
    evaluator = Evaluator.of("logits", DENSE, np.array([0, 1, 0, 0]))
    assert evaluator.expected_loss(DENSE, ALL) == 0.0
    assert evaluator.expected_loss(PRUNED, ALL) > 0.0
    # By counting, four samples say little, but their interval has a say.
    assert evaluator.loss(PRUNED, ALL) == max(
        evaluator.expected_loss(PRUNED, ALL), evaluator.counted_loss(PRUNED, ALL).low
    )


def test_without_labels_changed_predictions_count():
    evaluator = Evaluator.of("logits", DENSE, None)
    assert evaluator.counted_loss(PRUNED, ALL).points == pytest.approx(50.0)
    changed = evaluator.changed(PRUNED)
    assert changed is not None
    assert changed.tolist() == [False, True, False, True]


def test_divergence_is_zero_only_without_a_change():
    evaluator = Evaluator.of("logits", DENSE, None)
    np.testing.assert_allclose(evaluator.divergence(DENSE + 5.0), 0.0, atol=1e-12)
    p = np.exp(DENSE[0]) / np.exp(DENSE[0]).sum()
    q = np.exp(PRUNED[0]) / np.exp(PRUNED[0]).sum()
    assert evaluator.divergence(PRUNED)[0] == pytest.approx(float((p * np.log(p / q)).sum()))


def test_other_models_are_compared_by_cosine():
    outputs = {"last_hidden_state": np.ones((2, 3, 4)), "pooler_output": np.ones((2, 4))}
    assert compared_output(outputs, 2, labelled=False) == ("last_hidden_state", False)
    assert compared_output(outputs, 2, labelled=True) == ("pooler_output", True)
    name = "last_hidden_state"
    other = np.ones((2, 3, 4))
    other[1] *= -1
    found = reduce_output(other, outputs[name], 2, classes=False)
    np.testing.assert_allclose(found, [[0.0], [2.0]], atol=1e-12)
    evaluator = Evaluator.of(name, np.zeros((2, 1)), None)
    assert evaluator.basis == "cosine"
    assert evaluator.counted_loss(found, np.ones(2, np.bool_)).points == pytest.approx(100.0)
    assert evaluator.changed(found) is None


def test_labels_that_are_no_classes_are_refused():
    with pytest.raises(HeatcError, match="label 3, the output 'logits' has 2 classes"):
        Evaluator.of("logits", DENSE, np.array([0, 1, 3, 0]))
    with pytest.raises(HeatcError, match="no output"):
        Evaluator.of("x", np.zeros((4, 1)), np.array([0, 1, 1, 0]))


def test_a_loss_by_cosine_is_never_negative():
    """Rounding puts cosines of equal outputs above 1; an output of zeros is like no other."""
    rows = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
    rows[0] = 0
    assert reduce_output(rows * np.float32(1 + 1e-7), rows, 64, classes=False).min() >= 0
    assert reduce_output(
        np.zeros((2, 3)), np.array([[0, 0, 0], [1, 0, 0]]), 2, classes=False
    ).tolist() == [[0.0], [1.0]]
