"""The share is searched from the right side, and a goal out of reach names one that holds."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heatc.errors import InfeasibleError
from heatc.tuning.calibrate.assign import RuleAssignment
from heatc.tuning.calibrate.calibrator import Trial
from heatc.tuning.calibrate.goal_search import RESOLUTION, GoalSearch
from heatc.tuning.common.goal import Goal, Metric, parse_goal

NO_TRIAL = cast(Trial, None)


def search(
    metric: Metric, bound: float, slope: float, offset: float
) -> tuple[GoalSearch, list[float]]:
    """A model whose figure is linear in the share; the list takes the shares that were tried."""
    tried: list[float] = []

    def choose(share: float) -> RuleAssignment:
        tried.append(share)
        return RuleAssignment({}, {}, share, 0.0, {})

    found = GoalSearch(
        Goal(metric, bound),
        choose,
        lambda assignment: NO_TRIAL,
        lambda assignment, trial: offset + slope * assignment.predicted,
        0.4,
        0.95,
    )
    return found, tried


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.floats(0.45, 0.9), st.floats(-0.03, 0.03))
def test_sparsity_is_reached_with_little_to_spare(bound: float, offset: float):
    found, tried = search("sparsity", bound, 1.0, offset)
    result = found.run()
    assert bound <= result.value <= bound + 2 * RESOLUTION
    assert len(tried) <= 6


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.floats(0.5, 0.9))
def test_the_most_pruning_within_a_loss(edge: float):
    found, tried = search("accuracy-drop", 10.0 * edge, 10.0, 0.0)
    share = found.run().share
    assert edge - 2 * RESOLUTION <= share <= edge + 1e-9
    assert len(tried) <= 12


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.floats(0.45, 0.9))
def test_the_least_pruning_within_cycles(edge: float):
    found, _ = search("cycles", 1000 * (1 - edge), -1000.0, 1000.0)
    share = found.run().share
    assert edge - 1e-9 <= share <= edge + 2 * RESOLUTION


@pytest.mark.parametrize("metric", ["cycles", "accuracy-drop"])
def test_the_model_is_run_on_the_way_only_where_the_goal_needs_it(metric: Metric):
    figures = {"cycles": (400.0, -1000.0, 1000.0), "accuracy-drop": (6.0, 10.0, 0.0)}
    found, tried = search(metric, *figures[metric])
    runs: list[RuleAssignment] = []
    trial = Trial(*(np.zeros((1, 1)) for _ in range(4)))  # pyright: ignore[reportArgumentType]

    def attempt(assignment: RuleAssignment) -> Trial:
        runs.append(assignment)
        return trial

    result = replace(found, attempt=attempt).run()
    assert len(tried) > 3
    assert result.trial is trial
    if metric == "cycles":
        assert runs == [result.assignment]
    else:
        assert len(runs) == len(tried)


def test_a_goal_that_holds_everywhere_takes_the_end():
    assert search("accuracy-drop", 50.0, 10.0, 0.0)[0].run().share == 0.95
    assert search("cycles", 5000.0, -1000.0, 1000.0)[0].run().share == 0.4
    assert search("sparsity", 0.1, 1.0, 0.0)[0].run().share == 0.4


@pytest.mark.parametrize(
    ("metric", "bound", "slope", "offset"),
    [
        ("sparsity", 0.99, 1.0, 0.0),
        ("sparsity", 0.7, 0.3, 0.1234),
        ("cycles", 10.0, -1000.0, 1234.5),
        ("accuracy-drop", 0.5, 10.0, 0.12345),
        ("edp", 2.0, 0.4, 1.12345),
    ],
)
def test_out_of_reach_names_a_goal_that_holds(
    metric: Metric, bound: float, slope: float, offset: float
):
    with pytest.raises(InfeasibleError, match="cannot be reached") as caught:
        search(metric, bound, slope, offset)[0].run()
    text = caught.value.notes[1].split('"')[1]
    goal = parse_goal(text, "calibrate")
    assert goal.metric == metric
    reached = offset + slope * (0.4 if metric == "accuracy-drop" else 0.95)
    assert goal.holds(reached)
    assert np.isclose(goal.bound, reached, rtol=0.02)
