"""Calibration data is checked before anything is computed; messages name the array."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heatc.errors import HeatcError
from heatc.tuning.common.samples import Samples, check_samples

SHAPES = {"input_ids": (4, 6), "attention_mask": (4, 6)}


def data(**changes: Any) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = (np.arange(6) < rng.integers(1, 7, 18)[:, None]).astype(np.int64)
    arrays = {"input_ids": rng.integers(0, 9, (18, 6)), "attention_mask": mask}
    arrays |= {"labels": rng.integers(0, 2, 18)}
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def check(arrays: dict[str, np.ndarray]) -> Samples:
    return check_samples(arrays, SHAPES, {"input_ids": 9}, seed=0, place="data.npz")


def test_batches_hold_every_sample_once_shortest_first():
    samples = check(data())
    batches = list(samples.batches(4))
    seen = np.concatenate([batch.samples for batch in batches])
    assert sorted(seen) == list(range(18))
    assert (np.diff(samples.lengths[seen]) >= 0).all()
    assert all(batch.inputs["input_ids"].shape == (4, 6) for batch in batches)
    # What fills up the last batch has one token.
    assert batches[-1].inputs["attention_mask"][2:].sum(axis=1).tolist() == [1, 1]


def test_a_quarter_is_held_back_of_all_lengths():
    samples = check(data())
    assert samples.held.sum() == 4
    again = check(data())
    np.testing.assert_array_equal(samples.held, again.held)
    assert samples.lengths[samples.held].max() > samples.lengths[samples.held].min()


def test_shorter_sequences_are_padded():
    short = {name: array[:, :4] for name, array in data(labels=None).items()}
    assert check({**short, "attention_mask": np.ones((18, 4))}).inputs["input_ids"].shape == (18, 6)


@pytest.mark.parametrize(
    ("changes", "place", "message"),
    [
        ({"attention_mask": None}, "attention_mask", "the input is missing"),
        ({"ids": np.zeros((18, 6))}, "ids", "no such input"),
        ({"input_ids": np.full((18, 6), 9)}, "input_ids", "values 9..9, the table"),
        ({"input_ids": np.zeros((18, 6))}, "input_ids", "expected integers"),
        ({"input_ids": np.zeros((18, 7), int)}, "input_ids", "expected Nx6, found 18x7"),
        ({"input_ids": np.zeros(18, int)}, "input_ids", "expected 2 axes, found 18"),
        ({"input_ids": np.zeros((17, 6), int)}, "input_ids", "different numbers of samples"),
        ({"attention_mask": np.full((18, 6), 2)}, "attention_mask", "expected 0 and 1"),
        ({"attention_mask": np.zeros((18, 6), int)}, "attention_mask", "sample 0 is fully masked"),
        ({"labels": np.zeros(3, int)}, "labels", "expected 18 labels, found 3"),
        ({"labels": np.zeros(18)}, "labels", "expected classes"),
        ({"labels": np.arange(18) - 17}, "labels", "found -17 of sample 0"),
    ],
)
def test_data_that_does_not_fit_is_refused(changes: dict[str, Any], place: str, message: str):
    with pytest.raises(HeatcError, match=message) as caught:
        check(data(**changes))
    assert caught.value.place == f"data.npz: {place}"


def test_too_few_samples_are_refused():
    few = {name: array[:7] for name, array in data().items()}
    with pytest.raises(HeatcError, match="7 samples, needed are at least 8"):
        check(few)
