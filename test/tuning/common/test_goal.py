"""Goals are read, and anything that is none is wrong usage with an example."""

from __future__ import annotations

import pytest

from heatc.errors import UsageError
from heatc.tuning.common.goal import Goal, parse_goal


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("accuracy-drop<=1.0", Goal("accuracy-drop", 1.0)),
        (" sparsity >= 0.85 ", Goal("sparsity", 0.85)),
        ("cycles<=2e6", Goal("cycles", 2e6)),
        ("edp>=1.15x", Goal("edp", 1.15)),
    ],
)
def test_goals_are_read_and_printed(text: str, goal: Goal):
    assert parse_goal(text) == goal
    assert parse_goal(str(goal)) == goal


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sparsity", "malformed goal"),
        ("", "malformed goal"),
        ("energy<=3", "unknown figure 'energy'"),
        ("sparsity<=0.5", "bounded by >=, not by <="),
        ("sparsity>=85", "no share between 0 and 1"),
        ("accuracy-drop<=-1", "outside 0..100"),
        ("accuracy-drop<=nan", "no bound"),
        ("cycles<=many", "no number"),
        ("cycles<=0", "no bound"),
        ("edp>=1.15", "ends in x"),
        ("edp>=0x", "no bound"),
        ("edp<=2x", "bounded by >=, not by <="),
        ("cycles<=10x", "has no unit"),
    ],
)
def test_other_texts_are_wrong_usage(text: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        parse_goal(text)
    assert "sparsity>=0.85" in caught.value.notes[0]


def test_a_goal_holds_on_its_own_side():
    assert Goal("sparsity", 0.8).holds(0.8)
    assert not Goal("sparsity", 0.8).holds(0.79)
    assert Goal("cycles", 100).holds(99)
    assert Goal("edp", 1.1).holds(1.2)
    assert not Goal("edp", 1.1).holds(1.0)
    assert not Goal("accuracy-drop", 1).holds(1.1)
