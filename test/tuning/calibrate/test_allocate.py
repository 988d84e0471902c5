"""One price for all heads: what it chooses is optimal, and a higher price never keeps more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from heatc.tuning.calibrate.allocate import (
    TAU_SHARES,
    choose_at_price,
    choose_within_budget,
    head_options,
)

Table = NDArray[np.float64]

_TABLE = arrays(np.float64, (3, 4), elements=st.floats(0, 10, width=16))
_COUNTS = arrays(np.float64, (3, 4), elements=st.integers(0, 20).map(float))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TABLE, _COUNTS, st.floats(0, 5), st.floats(0, 5))
def test_a_higher_price_never_keeps_more(error: Table, kept: Table, a: float, b: float):
    low, high = sorted((a, b))
    assert (
        choose_at_price(error, kept, high).kept.sum()
        <= choose_at_price(error, kept, low).kept.sum() + 1e-9
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TABLE, _COUNTS, st.floats(0, 5))
def test_no_other_choice_keeps_as_few_with_less_error(error: Table, kept: Table, price: float):
    choice = choose_at_price(error, kept, price)
    heads = range(len(error))
    for index in itertools.product(range(error.shape[1]), repeat=len(error)):
        if sum(kept[h, index[h]] for h in heads) <= choice.kept.sum():
            assert sum(error[h, index[h]] for h in heads) >= choice.error.sum() - 1e-6


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_TABLE, _COUNTS, st.floats(0, 1))
def test_a_budget_is_never_exceeded(error: Table, kept: Table, share: float):
    least, most = kept.min(axis=1).sum(), kept.max(axis=1).sum()
    budget = least + share * (most - least)
    choice, price = choose_within_budget(error, kept, budget)
    assert choice.kept.sum() <= budget
    assert price >= 0
    np.testing.assert_array_equal(choice.error, error[np.arange(3), choice.index])


def test_a_budget_below_what_can_be_reached_is_refused():
    with pytest.raises(ValueError, match="no choice keeps 1 blocks"):
        choose_within_budget(np.zeros((2, 2)), np.full((2, 2), 3.0), 1.0)


def test_options_are_sums_over_the_sequences_that_a_threshold_keeps():
    rng = np.random.default_rng(0)
    rhos, count, heads = (0.0, 0.5), 20, 3
    error, kept = rng.random((2, count, heads)), rng.integers(1, 9, (2, count, heads)).astype(float)
    score, gated = rng.random((count, heads)), rng.random((count, heads))
    options = head_options(rhos, error, kept, score, gated)
    assert options.error.shape[0] == heads
    assert options.error.shape[1] == len(rhos) * len({round(s * count) for s in TAU_SHARES})
    for head, option in itertools.product(range(heads), range(options.error.shape[1])):
        rho, tau = options.rho_b[head, option], options.tau_h[head, option]
        stays = (tau <= 0) | (score[:, head] >= tau)
        own = rhos.index(rho)
        expected = error[own, stays, head].sum() + gated[~stays, head].sum()
        assert options.error[head, option] == pytest.approx(expected)
        assert options.kept[head, option] == pytest.approx(kept[own, stays, head].sum())
