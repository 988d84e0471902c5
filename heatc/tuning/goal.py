"""The wish that calibration works for: `accuracy-drop<=1.0`, `sparsity>=0.85`, `cycles<=2e6`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, cast

from heatc.errors import UsageError

Metric = Literal["accuracy-drop", "sparsity", "cycles"]

_SENSE: dict[str, str] = {"accuracy-drop": "<=", "sparsity": ">=", "cycles": "<="}
_GOAL = re.compile(r"\s*([a-z-]+)\s*(<=|>=)\s*(\S+?)\s*")
EXAMPLES = '"accuracy-drop<=1.0" (points), "sparsity>=0.85" (share), "cycles<=2000000"'


@dataclass(frozen=True)
class Goal:
    """
    A bound on one figure.

    `accuracy-drop` is in points (percent of samples), `sparsity` the net share of blocks pruned,
    `cycles` the mean number of modelled cycles of one pass of the program.
    """

    metric: Metric
    bound: float

    def __str__(self) -> str:
        return f"{self.metric}{_SENSE[self.metric]}{self.bound:g}"

    def holds(self, value: float) -> bool:
        """Whether a measured value reaches the goal."""
        return value >= self.bound if _SENSE[self.metric] == ">=" else value <= self.bound


def parse_goal(text: str) -> Goal:
    """The goal of `--goal`; raises `UsageError` for anything that is none."""
    match = _GOAL.fullmatch(text)
    if match is None:
        raise _error(f"malformed goal {text[:80]!r}")
    metric, sense, number = match.groups()
    if metric not in _SENSE:
        raise _error(f"unknown figure {metric!r}")
    if sense != _SENSE[metric]:
        raise _error(f"{metric} is bounded by {_SENSE[metric]}, not by {sense}")
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


def _error(message: str) -> UsageError:
    return UsageError(message, place="--goal", notes=[f"goals: {EXAMPLES}"])
