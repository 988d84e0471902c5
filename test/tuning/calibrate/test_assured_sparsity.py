"""The share of blocks that a sparsity goal bounds: not above what any mix of lengths says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatc.tuning.calibrate.calibrator import Trial


def trial(kept: list[float], blocks: list[int], heads: int = 2) -> Trial:
    """Samples that keep these shares of their blocks in every head."""
    counts = np.asarray(blocks, np.int64)
    each = np.round(np.asarray(kept) * counts).astype(np.int64)[:, None].repeat(heads, 1)
    return Trial(np.zeros((len(counts), 2)), each, np.ones_like(each), counts)


def test_equal_samples_leave_no_doubt():
    found = trial([0.25] * 8, [100] * 8)
    assert found.assured_sparsity() == found.sparsity(np.ones(8, np.bool_)) == 0.75


def test_long_samples_do_not_speak_for_short_ones():
    found = trial([0.4, 0.4, 0.1, 0.1] * 16, [100, 100, 10_000, 10_000] * 16)
    assert found.sparsity(np.ones(64, np.bool_)) == pytest.approx(0.897, abs=1e-3)
    # mean 0.75, deviation 0.15 of 64
    assert found.assured_sparsity() == pytest.approx(0.75 - 1.645 * 0.15 / 8, abs=1e-3)


def test_short_samples_do_not_speak_for_long_ones():
    found = trial([0.1, 0.1, 0.4, 0.4] * 16, [100, 100, 10_000, 10_000] * 16)
    pooled = found.sparsity(np.ones(64, np.bool_))
    assert pooled == pytest.approx(0.603, abs=1e-3)
    assert 0.59 < found.assured_sparsity() < pooled


def test_fully_masked_samples_say_nothing():
    found = trial([0.25, 0.3, 0.2, 0.0], [100, 100, 100, 0])
    assert found.assured_sparsity() == trial([0.25, 0.3, 0.2], [100] * 3).assured_sparsity()


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(1, 1000)), min_size=1, max_size=30),
)
def test_never_above_the_pooled_share_or_the_mean(samples: list[tuple[float, int]]):
    found = trial([kept for kept, _ in samples], [blocks for _, blocks in samples])
    mean = 1 - float((found.kept.sum(1) / (2 * found.blocks)).mean())
    pooled = found.sparsity(np.ones(len(samples), np.bool_))
    assert found.assured_sparsity() <= min(mean, pooled) + 1e-12


def test_other_samples_of_the_kind_reach_it():
    """Of 200 draws of 64 samples the bound is above what all samples have in about 5 %."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(9, 1025, 20_000)
    kept = np.clip(rng.normal(0.3 - 0.1 * blocks / 1025, 0.05), 0, 1)
    truth = min(1 - float((kept * blocks).sum() / blocks.sum()), 1 - float(kept.mean()))
    above = 0
    for _ in range(200):
        drawn = rng.integers(0, len(blocks), 64)
        above += trial(list(kept[drawn]), list(blocks[drawn])).assured_sparsity() > truth
    assert above <= 20
