"""What goals choose among plans, which plan is trained next, and how minutes are shared out."""

from __future__ import annotations

import pytest

from heatc.errors import UsageError
from heatc.tuning.common.goal import Goal, parse_goals
from heatc.tuning.compress.budget import Budget, default_minutes
from heatc.tuning.compress.choice import Standing, next_measured, next_trained
from heatc.tuning.compress.goals import Goals, Reached

PLANS = [Reached(6.0, 8.0), Reached(2.0, 4.0), Reached(0.8, 2.0), Reached(0.1, 1.2)]
DROP, EDP = Goal("accuracy-drop", 1.0), Goal("edp", 3.0)


@pytest.mark.parametrize(
    ("goals", "chosen"),
    [
        ((DROP,), 2),
        ((EDP,), 1),
        ((Goal("accuracy-drop", 2.5), EDP), 1),
        ((DROP, EDP), None),
        ((Goal("edp", 9.0),), None),
    ],
)
def test_the_plan_that_goals_choose(goals: tuple[Goal, ...], chosen: int | None):
    assert Goals(goals).chosen(PLANS) == chosen


def test_what_is_not_bounded_is_optimised():
    plans = [Reached(0.9, 3.0), Reached(0.2, 3.5), Reached(0.5, 3.5)]
    assert Goals((EDP,)).chosen(plans) == 1
    assert Goals((DROP,)).chosen([*plans, Reached(1.0, 5.0)]) == 3


@pytest.mark.parametrize(
    ("goals", "nearest", "told"),
    [
        ((DROP, EDP), 2, "loses 0.80 points, takes 2.00x less edp"),
        ((Goal("edp", 9.0),), 0, "loses 6.00 points, takes 8.00x less edp"),
        ((Goal("accuracy-drop", 0.0),), 3, "loses 0.10 points, takes 1.20x less edp"),
    ],
)
def test_the_nearest_plan_is_named_with_what_it_loses(
    goals: tuple[Goal, ...], nearest: int, told: str
):
    found = Goals(goals)
    assert found.nearest(PLANS) == nearest
    error = found.out_of_reach("x.json", PLANS[nearest])
    assert error.exit_code == 4
    assert f"the nearest plan is x.json: it {told}" in error.notes[0]
    held = error.notes[1].split('"')[1::2]
    assert held
    reached = PLANS[nearest]
    for goal in parse_goals(held, "compress"):
        assert goal.holds(reached.drop if goal.metric == "accuracy-drop" else reached.times_less)


@pytest.mark.parametrize("goals", [(DROP,), (EDP,), (DROP, EDP)])
def test_plans_are_measured_near_what_goals_bound(goals: tuple[Goal, ...]):
    """Of 24 plans 6 are measured: for every goal one within two of the first that holds it."""
    plans = [Reached(20.0 * 0.8**k, 30.0 * 0.87**k) for k in range(24)]
    measured: dict[int, Reached] = {}
    for _ in range(6):
        number = next_measured(Goals(goals), measured, len(plans), 6)
        assert number not in measured
        measured[number] = plans[number]
    for goal in goals:
        holds = [
            goal.holds(p.drop if goal.metric == "accuracy-drop" else p.times_less) for p in plans
        ]
        place = holds.index(goal.metric == "accuracy-drop")
        assert min(abs(place - number) for number in measured) <= 2


def test_in_the_end_every_plan_is_measured():
    measured: dict[int, Reached] = {}
    for _ in range(5):
        number = next_measured(Goals((DROP,)), measured, 5, 5)
        assert number not in measured
        measured[number] = Reached(0.5, 2.0)
    assert sorted(measured) == list(range(5))


def standing(*plans: tuple[float, float, bool]) -> list[Standing]:
    return [Standing(Reached(drop, gain), trained) for drop, gain, trained in plans]


def test_first_the_most_gain_that_training_is_likely_to_save():
    plans = standing((9.0, 8.0, False), (4.0, 4.0, False), (2.0, 2.0, False))
    assert next_trained(Goals((DROP,)), plans) == 1
    assert next_trained(Goals((Goal("accuracy-drop", 2.0),)), plans) == 0


def test_a_plan_that_holds_leads_to_more_gain_and_one_that_fails_to_less():
    goals = Goals((DROP,))
    plans = standing((9.0, 8.0, False), (0.5, 4.0, True), (2.0, 2.0, False))
    assert next_trained(goals, plans) == 0
    plans = standing((9.0, 8.0, False), (1.5, 4.0, True), (2.0, 2.0, False))
    assert next_trained(goals, plans) == 2
    assert next_trained(goals, standing((3.0, 8.0, True), (0.9, 4.0, True))) is None


def test_the_chosen_plan_is_trained_where_none_can_gain_more():
    goals = Goals((DROP,))
    assert next_trained(goals, standing((0.9, 4.0, False), (0.2, 2.0, False))) == 0
    assert next_trained(goals, standing((0.9, 4.0, True), (0.2, 2.0, False))) is None


def test_a_goal_of_gain_trains_the_plan_that_loses_least_of_those_that_gain_enough():
    plans = standing((9.0, 8.0, False), (4.0, 4.0, False), (2.0, 2.0, False))
    assert next_trained(Goals((EDP,)), plans) == 1
    assert next_trained(Goals((Goal("edp", 99.0),)), plans) == 0
    assert next_trained(Goals((EDP,)), standing((9.0, 8.0, False), (1.0, 4.0, True))) is None
    # Both: none that gains too little.
    assert next_trained(Goals((DROP, EDP)), plans) == 1


def test_goals_are_repeated_or_stand_between_commas():
    both = ("accuracy-drop<=1", "edp>=2x")
    expected = (Goal("accuracy-drop", 1.0), Goal("edp", 2.0))
    assert parse_goals(both, "compress") == expected
    assert parse_goals([",".join(both)], "compress") == expected
    with pytest.raises(UsageError, match="edp is bounded twice"):
        parse_goals(["edp>=2x,edp>=3x"], "compress")
    with pytest.raises(UsageError, match="sparsity is no goal of heatc-tune compress"):
        parse_goals(["sparsity>=0.5"], "compress")


def test_minutes_grow_with_the_model_and_end():
    sizes = [10_000, 22_000_000, 110_000_000, 7_000_000_000]
    found = [default_minutes(size) for size in sizes]
    assert found == sorted(found)
    assert (found[0], found[-1]) == (2, 120)


def test_what_earlier_runs_took_is_gone():
    budget = Budget(1.0, earlier=45.0)
    assert 14.0 < budget.left <= 15.0
    assert budget.training_seconds(5.0, 2) == pytest.approx(0.9 * 5.0, abs=0.2)
    assert Budget(1.0, earlier=90.0).training_seconds(0.0, 1) == 0.0


@pytest.mark.parametrize("goals", [(DROP,), (EDP,)])
def test_of_no_plans_none_is_trained(goals: tuple[Goal, ...]):
    assert next_trained(Goals(goals), []) is None
