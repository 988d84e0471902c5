"""A goal chooses one point of the front, and one out of reach names what can be reached."""

from __future__ import annotations

import pytest

from heatc.errors import InfeasibleError
from heatc.tuning.common.goal import Goal
from heatc.tuning.search.select import select_point

DENSE = 8.0
PRODUCTS = [1.0, 2.0, 4.0, 6.0]
PROXIES = [0.4, 0.3, 0.2, 0.1]


@pytest.mark.parametrize(
    ("goal", "number"),
    [
        (Goal("edp", 8.0), 0),
        (Goal("edp", 2.0), 2),
        (Goal("edp", 0.1), 3),
        (Goal("proxy", 0.1), 3),
        (Goal("proxy", 0.35), 1),
        (Goal("proxy", 9.0), 0),
    ],
)
def test_the_best_point_within_the_goal(goal: Goal, number: int):
    assert select_point(goal, PROXIES, PRODUCTS, DENSE) == number


@pytest.mark.parametrize(
    ("goal", "holds"), [(Goal("edp", 8.1), "edp>=8x"), (Goal("proxy", 0.09), "proxy<=0.1")]
)
def test_a_goal_out_of_reach(goal: Goal, holds: str):
    with pytest.raises(InfeasibleError, match="cannot be reached by any plan") as caught:
        select_point(goal, PROXIES, PRODUCTS, DENSE)
    assert f'"{holds}"' in caught.value.notes[1]
