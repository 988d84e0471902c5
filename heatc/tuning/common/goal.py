"""The wish that calibration works for: `accuracy-drop<=1`, `sparsity>=0.85`, `cycles<=2e6`, `edp>=1.15x`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from heatc.errors import UsageError

Metric = Literal["accuracy-drop", "sparsity", "cycles", "edp"]

_SENSE: dict[str, str] = {"accuracy-drop": "<=", "sparsity": ">=", "cycles": "<=", "edp": ">="}
_GOAL = re.compile(r"\s*([a-z-]+)\s*(<=|>=)\s*(\S+?)(x?)\s*")
EXAMPLES = (
    '"accuracy-drop<=1.0" (points), "sparsity>=0.85" (share), "cycles<=2000000", '
    '"edp>=1.15x" (times less energy x latency than without pruning)'
)


@dataclass(frozen=True)
class Goal:
    """
    A bound on one figure.

    `accuracy-drop` is in points (percent of samples), `sparsity` the net share of blocks pruned,
    `cycles` the mean number of modelled cycles of one pass of the program, `edp` how many times
    less energy x latency it takes than without pruning, modelled too.
    """

    metric: Metric
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{_SENSE[self.metric]}{self.bound:g}{_unit(self.metric)}"

    @property
    def is_cost(self) -> bool:
        """Whether it is a machine that says how far a plan goes."""
        return self.metric in ("cycles", "edp")

    @property
    def wants_more(self) -> bool:
        """Whether it is a lower bound."""
        return _SENSE[self.metric] == ">="

    def holds(self, value: float) -> bool:
        """Whether a measured value reaches the goal."""
        return value >= self.bound if self.wants_more else value <= self.bound


def parse_goal(text: str) -> Goal:
    """The goal of `--goal`; raises `UsageError` for anything that is none."""
    match = _GOAL.fullmatch(text)
    if match is None:
        raise _error(f"malformed goal {text[:80]!r}")
    metric, sense, number, unit = match.groups()
    if metric not in _SENSE:
        raise _error(f"unknown figure {metric!r}")
    if sense != _SENSE[metric]:
        raise _error(f"{metric} is bounded by {_SENSE[metric]}, not by {sense}")
    if unit != _unit(metric):
        said = "ends in x" if unit == "" else "has no unit"
        raise _error(f"a goal of {metric} {said}, got {text.strip()[:80]!r}")
    try:
        bound = float(number)
    except ValueError:
        raise _error(f"{number[:40]!r} is no number") from None
    _check_range(metric, bound)
    return Goal(cast(Metric, metric), bound)


def _check_range(metric: str, bound: float) -> None:
    if not math.isfinite(bound):
        raise _error(f"{bound} is no bound")
    if metric == "sparsity" and not 0.0 < bound < 1.0:
        raise _error(f"sparsity {bound:g} is no share between 0 and 1")
    if metric == "accuracy-drop" and not 0.0 <= bound <= 100.0:
        raise _error(f"a drop of {bound:g} points is outside 0..100")
    if metric == "cycles" and bound < 1:
        raise _error(f"{bound:g} cycles are no bound")
    if metric == "edp" and bound <= 0:
        raise _error(f"{bound:g} times less is no bound")


def _unit(metric: str) -> str:
    return "x" if metric == "edp" else ""


def _error(message: str) -> UsageError:
    return UsageError(message, place="--goal", notes=[f"goals: {EXAMPLES}"])
