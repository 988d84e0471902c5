"""Goals are read, and anything that is none is wrong usage with an example."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heatc.errors import UsageError
from heatc.tuning.common.goal import EXAMPLES, Command, Goal, Metric, parse_goal


@pytest.mark.parametrize(
    ("command", "text", "goal"),
    [
        ("calibrate", "accuracy-drop<=1.0", Goal("accuracy-drop", 1.0)),
        ("calibrate", " sparsity >= 0.85 ", Goal("sparsity", 0.85)),
        ("calibrate", "cycles<=2e6", Goal("cycles", 2e6)),
        ("calibrate", "edp>=1.15x", Goal("edp", 1.15)),
        ("search", "edp>=5.7x", Goal("edp", 5.7)),
        ("search", " edp >= 5.7x ", Goal("edp", 5.7)),
        ("search", "proxy<=0.05", Goal("proxy", 0.05)),
        ("search", "proxy <= 5e-2", Goal("proxy", 0.05)),
    ],
)
def test_goals_are_read_and_printed(command: Command, text: str, goal: Goal):
    assert parse_goal(text, command) == goal
    assert parse_goal(str(goal), command) == goal


@pytest.mark.parametrize("command", ["calibrate", "search"])
def test_examples_are_goals(command: Command):
    for metric, example in EXAMPLES[command].items():
        assert parse_goal(example.split('"')[1], command).metric == metric


@pytest.mark.parametrize(
    ("command", "text", "message"),
    [
        ("calibrate", "sparsity", "malformed goal"),
        ("calibrate", "", "malformed goal"),
        ("calibrate", "energy<=3", "unknown figure 'energy'"),
        ("calibrate", "proxy<=0.05", "proxy is no goal of heatc-tune calibrate"),
        ("calibrate", "sparsity<=0.5", "bounded by >=, not by <="),
        ("calibrate", "sparsity>=85", "no share between 0 and 1"),
        ("calibrate", "accuracy-drop<=-1", "outside 0..100"),
        ("calibrate", "accuracy-drop<=nan", "no bound"),
        ("calibrate", "cycles<=many", "no number"),
        ("calibrate", "cycles<=0", "no bound"),
        ("calibrate", "edp>=1.15", "ends in x"),
        ("calibrate", "edp>=0x", "no bound"),
        ("calibrate", "edp<=2x", "bounded by >=, not by <="),
        ("calibrate", "cycles<=10x", "has no unit"),
        ("search", "", "malformed goal"),
        ("search", "edp>=1.15", "ends in x"),
        ("search", "edp>=infx", "no bound"),
        ("search", "edp<=2x", "bounded by >=, not by <="),
        ("search", "proxy>=0.05", "bounded by <=, not by >="),
        ("search", "proxy<=0", "a proxy of 0 is no bound"),
        ("search", "proxy<=0.05x", "has no unit"),
        ("search", "sparsity>=0.85", "sparsity is no goal of heatc-tune search"),
    ],
)
def test_other_texts_are_wrong_usage(command: Command, text: str, message: str):
    with pytest.raises(UsageError, match=message) as caught:
        parse_goal(text, command)
    assert caught.value.place == "--goal"
    for example in EXAMPLES[command].values():
        assert example in caught.value.notes[0]


def test_a_goal_holds_on_its_own_side():
    assert Goal("sparsity", 0.8).holds(0.8)
    assert not Goal("sparsity", 0.8).holds(0.79)
    assert Goal("cycles", 100).holds(99)
    assert Goal("edp", 1.1).holds(1.2)
    assert not Goal("edp", 1.1).holds(1.0)
    assert not Goal("accuracy-drop", 1).holds(1.1)
    assert not Goal("proxy", 0.05).holds(0.051)


@given(
    st.sampled_from(["accuracy-drop", "cycles", "edp", "proxy"]),
    st.floats(1e-6, 1e9).map(lambda value: float(f"{value:.12g}")),
)
def test_what_a_value_reaches_is_printed_so_that_it_holds(metric: Metric, value: float):
    printed = str(Goal(metric, 1.0).reached_by(value))
    number = printed.lstrip("abcdefghijklmnopqrstuvwxyz-<>=").removesuffix("x")
    assert Goal(metric, float(number)).holds(value)
    assert float(number) == pytest.approx(value, rel=2e-3)


def test_an_error_names_a_goal_that_holds():
    error = Goal("edp", 5.0).out_of_reach(1.53449, "by any plan", "at the end", "more")
    assert error.render().splitlines() == [
        "error: --goal: the goal edp>=5x cannot be reached by any plan",
        "note: reached: edp 1.534x at the end",
        'note: a goal that holds: "edp>=1.534x"',
        "note: more",
    ]
