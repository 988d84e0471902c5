"""
Goals: what `--goal` of `heatc-tune` says, in one grammar for all commands.

    goal    = metric sense number [unit]
    metric  = accuracy-drop | sparsity | cycles | edp | proxy

| goal | what is bounded | taken by |
|---|---|---|
| `accuracy-drop<=1` | points lost, percent of samples | calibrate, compress |
| `sparsity>=0.85` | net share of blocks pruned | calibrate |
| `cycles<=2e6` | modelled cycles of one pass, in the mean | calibrate |
| `edp>=1.15x` | how many times less energy x latency a pass takes, modelled | calibrate, search, compress |
| `proxy<=0.05` | the sum of divergences that stands for accuracy | search |

The sense and the unit belong to the metric. Spaces around the parts are allowed. `edp` compares with
the model before the command changed it: not pruned by calibrate, dense before search and compress.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, cast

from heatc.errors import InfeasibleError, UsageError

Metric = Literal["accuracy-drop", "sparsity", "cycles", "edp", "proxy"]
Command = Literal["calibrate", "search", "compress"]

OPTION = "--goal"


class _Form(NamedTuple):
    """How a bound on a metric is written."""

    sense: Literal["<=", ">="]
    unit: Literal["", "x"] = ""


_FORMS: dict[str, _Form] = {
    "accuracy-drop": _Form("<="),
    "sparsity": _Form(">="),
    "cycles": _Form("<="),
    "edp": _Form(">=", "x"),
    "proxy": _Form("<="),
}

EXAMPLES: dict[Command, dict[str, str]] = {
    "calibrate": {
        "accuracy-drop": '"accuracy-drop<=1.0" (points)',
        "sparsity": '"sparsity>=0.85" (share)',
        "cycles": '"cycles<=2000000"',
        "edp": '"edp>=1.15x" (times less energy x latency than without pruning)',
    },
    "search": {
        "edp": '"edp>=5.7x" (times less energy x latency than the dense model)',
        "proxy": '"proxy<=0.05"',
    },
    "compress": {
        "accuracy-drop": '"accuracy-drop<=1" (points)',
        "edp": '"edp>=2x" (times less energy x latency than the dense model)',
    },
}
"""The metrics that each command takes, each with a goal that says how it is written."""

_GOAL = re.compile(r"\s*([a-z-]+)\s*(<=|>=)\s*(\S+?)(x?)\s*")


@dataclass(frozen=True)
class Goal:
    """A bound on one metric: points, a share, cycles, times, or a divergence."""

    metric: Metric
    bound: float

    def __str__(self) -> str:
        form = _FORMS[self.metric]
        return f"{self.metric}{form.sense}{self.bound:g}{form.unit}"

    @property
    def is_cost(self) -> bool:
        """Whether it is a machine that says how far a plan goes."""
        return self.metric in ("cycles", "edp")

    @property
    def wants_more(self) -> bool:
        """Whether it is a lower bound."""
        return _FORMS[self.metric].sense == ">="

    def holds(self, value: float) -> bool:
        """Whether a value of the metric reaches the goal."""
        return value >= self.bound if self.wants_more else value <= self.bound

    def reached_by(self, value: float) -> Goal:
        """The goal of this metric that a value reaches with the least to spare, in four digits."""
        nearest = Goal(self.metric, float(f"{value:.4g}"))
        if nearest.holds(value):
            return nearest
        digit = 10.0 ** (math.floor(math.log10(abs(value))) - 3)
        bound = nearest.bound - digit if self.wants_more else nearest.bound + digit
        return Goal(self.metric, float(f"{bound:.4g}"))

    def out_of_reach(self, value: float, where: str, farthest: str, *notes: str) -> InfeasibleError:
        """
        The error of a goal that nothing reaches, with one that holds.

        `value` is the metric at its best, `farthest` says what it was reached with, and `where`
        among what was looked for.
        """
        unit = _FORMS[self.metric].unit
        return InfeasibleError(
            f"the goal {self} cannot be reached {where}",
            place=OPTION,
            notes=[
                f"reached: {self.metric} {value:.4g}{unit} {farthest}",
                f'a goal that holds: "{self.reached_by(value)}"',
                *notes,
            ],
        )


def parse_goal(text: str, command: Command) -> Goal:
    """The goal of `--goal`; raises `UsageError` for anything that is none of the command."""
    try:
        return _parse(text, command)
    except _GoalError as error:
        examples = ", ".join(EXAMPLES[command].values())
        raise UsageError(str(error), place=OPTION, notes=[f"goals: {examples}"]) from None


def parse_goals(texts: Sequence[str], command: Command) -> tuple[Goal, ...]:
    """The goals of `--goal`, repeated or with commas between; no metric is bounded twice."""
    words = [word for text in texts for word in text.split(",")]
    goals = tuple(parse_goal(word, command) for word in words)
    for number, goal in enumerate(goals):
        if goal.metric in {other.metric for other in goals[:number]}:
            raise UsageError(f"{goal.metric} is bounded twice", place=OPTION)
    return goals


class _GoalError(ValueError):
    """What is wrong with a goal, as a message."""


def _parse(text: str, command: Command) -> Goal:
    match = _GOAL.fullmatch(text)
    if match is None:
        raise _GoalError(f"malformed goal {text[:80]!r}")
    metric, sense, number, unit = match.groups()
    if metric not in _FORMS:
        raise _GoalError(f"unknown figure {metric!r}")
    if metric not in EXAMPLES[command]:
        raise _GoalError(f"{metric} is no goal of heatc-tune {command}")
    form = _FORMS[metric]
    if sense != form.sense:
        raise _GoalError(f"{metric} is bounded by {form.sense}, not by {sense}")
    if unit != form.unit:
        wanted = f"ends in {form.unit}" if form.unit else "has no unit"
        raise _GoalError(f"a goal of {metric} {wanted}, got {text.strip()[:80]!r}")
    try:
        bound = float(number)
    except ValueError:
        raise _GoalError(f"{number[:40]!r} is no number") from None
    _check_range(metric, bound)
    return Goal(cast(Metric, metric), bound)


def _check_range(metric: str, bound: float) -> None:
    if not math.isfinite(bound):
        raise _GoalError(f"{bound} is no bound")
    if metric == "sparsity" and not 0.0 < bound < 1.0:
        raise _GoalError(f"sparsity {bound:g} is no share between 0 and 1")
    if metric == "accuracy-drop" and not 0.0 <= bound <= 100.0:
        raise _GoalError(f"a drop of {bound:g} points is outside 0..100")
    if metric == "cycles" and bound < 1:
        raise _GoalError(f"{bound:g} cycles are no bound")
    if metric == "edp" and bound <= 0:
        raise _GoalError(f"{bound:g} times less is no bound")
    if metric == "proxy" and bound <= 0:
        raise _GoalError(f"a proxy of {bound:g} is no bound")
