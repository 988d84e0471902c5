"""The share of blocks to prune, searched with runs of the whole model against the goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from heatc.errors import InfeasibleError
from heatc.tuning.calibrate.assign import RuleAssignment
from heatc.tuning.calibrate.calibrator import Trial
from heatc.tuning.common.goal import Goal

RESOLUTION = 0.004
"""Shares nearer to each other than this are not told apart."""

ROUNDS = 10

RunTrial = Callable[[RuleAssignment], Trial]


@dataclass(frozen=True)
class SearchResult:
    """A choice that reaches the goal: the share asked for, the rules, the run, the goal's figure."""

    share: float
    assignment: RuleAssignment
    trial: Trial
    value: float


@dataclass(frozen=True)
class _Tried:
    """A choice on the way; no run was made for a figure that needs none."""

    share: float
    assignment: RuleAssignment
    trial: Trial | None
    value: float


@dataclass(frozen=True)
class GoalSearch:
    """
    Looks for the least pruning that reaches a sparsity or a cost, or for the most pruning that
    stays within a loss.

    `choose` gives rules for a share in [`least`, `most`], of the blocks or of what can be saved
    on a machine; `attempt` runs them, `value` is the figure that the goal bounds, which for a cost
    needs no run. `notes` go with the error of a goal out of reach.
    """

    goal: Goal
    choose: Callable[[float], RuleAssignment]
    attempt: RunTrial
    value: Callable[[RuleAssignment, Trial | None], float]
    least: float
    most: float
    notes: tuple[str, ...] = ()

    def run(self) -> SearchResult:
        """Raises `InfeasibleError` where no share reaches the goal."""
        best = self._best()
        trial = self.attempt(best.assignment) if best.trial is None else best.trial
        return SearchResult(best.share, best.assignment, trial, best.value)

    def _best(self) -> _Tried:
        if self.goal.metric == "sparsity":
            return self._sparsity()
        wanted_most = self.goal.metric == "accuracy-drop"
        safe = self._at(self.least if wanted_most else self.most)
        if not self.goal.holds(safe.value):
            raise self._infeasible(safe)
        other = self._at(self.most if wanted_most else self.least)
        if self.goal.holds(other.value):
            return other
        return self._bisect(safe, other.share)

    def _at(self, share: float) -> _Tried:
        assignment = self.choose(share)
        trial = None if self.goal.is_cost else self.attempt(assignment)
        return _Tried(share, assignment, trial, self.value(assignment, trial))

    def _bisect(self, good: _Tried, bad: float) -> _Tried:
        for _ in range(ROUNDS):
            if abs(good.share - bad) <= RESOLUTION:
                break
            found = self._at((good.share + bad) / 2)
            if self.goal.holds(found.value):
                good = found
            else:
                bad = found.share
        return good

    def _sparsity(self) -> _Tried:
        """Measured sparsity follows the share asked for closely: correct it a few times."""
        share = min(max(self.goal.bound, self.least), self.most)
        best: _Tried | None = None
        for _ in range(ROUNDS):
            found = self._at(share)
            if self.goal.holds(found.value) and (best is None or found.value < best.value):
                best = found
            missing = self.goal.bound - found.value
            if -RESOLUTION < missing <= 0 or (missing < 0 and share <= self.least):
                break
            if missing > 0 and share >= self.most:
                break
            share = min(max(share + missing + RESOLUTION / 4, self.least), self.most)
        if best is None:
            raise self._infeasible(self._at(self.most))
        return best

    def _infeasible(self, reached: _Tried) -> InfeasibleError:
        share = 100.0 * reached.assignment.predicted
        farthest = (
            f"with about {share:.1f} % of the blocks pruned, the farthest that calibration goes"
        )
        return self.goal.out_of_reach(reached.value, "on these samples", farthest, *self.notes)
