"""What goals bound of plans, which plan they choose, and which one comes nearest where none does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from heatc.errors import InfeasibleError
from heatc.tuning.common.goal import OPTION, Goal


class Reached(NamedTuple):
    """What a plan reaches: points lost, and times less energy x latency than the dense model."""

    drop: float
    times_less: float


@dataclass(frozen=True)
class Goals:
    """
    Bounds on points lost and on energy x latency, one of both at least.

    A plan holds the goals if its own figures do, without their intervals. Among the plans that do,
    the one of the greatest gain in energy x latency is chosen; where the gain alone is bounded, the
    one that loses least.
    """

    goals: tuple[Goal, ...]

    def __str__(self) -> str:
        return " and ".join(map(str, self.goals))

    def bound(self, metric: str) -> float | None:
        """The bound on a metric, None where it has none."""
        return next((goal.bound for goal in self.goals if goal.metric == metric), None)

    @property
    def most_lost(self) -> float | None:
        """Points that may be lost."""
        return self.bound("accuracy-drop")

    @property
    def least_gain(self) -> float | None:
        """Times less energy x latency that are wanted."""
        return self.bound("edp")

    def holds(self, reached: Reached) -> bool:
        """Whether a plan reaches all goals."""
        return self.loses_little(reached) and self.gains_much(reached)

    def loses_little(self, reached: Reached) -> bool:
        """Whether a plan reaches the goal of accuracy, if there is one."""
        return self.most_lost is None or reached.drop <= self.most_lost

    def gains_much(self, reached: Reached) -> bool:
        """Whether a plan reaches the goal of energy x latency, if there is one."""
        return self.least_gain is None or reached.times_less >= self.least_gain

    def chosen(self, plans: Sequence[Reached]) -> int | None:
        """The number of the plan that the goals choose, None where no plan holds them."""
        good = [number for number, plan in enumerate(plans) if self.holds(plan)]
        if not good:
            return None
        if self.most_lost is None:
            return min(good, key=lambda number: (plans[number].drop, -plans[number].times_less))
        return max(good, key=lambda number: plans[number].times_less)

    def nearest(self, plans: Sequence[Reached]) -> int:
        """
        The number of the plan that comes nearest to goals that no plan holds.

        A loss within its bound comes first, then the greatest gain. Where every plan loses too much,
        it is the one that loses least; of equal ones the one that gains most.
        """
        numbers = range(len(plans))
        little = [number for number in numbers if self.loses_little(plans[number])]
        if little:
            return max(little, key=lambda number: plans[number].times_less)
        return min(numbers, key=lambda number: (plans[number].drop, -plans[number].times_less))

    def out_of_reach(self, nearest: str, reached: Reached, *notes: str) -> InfeasibleError:
        """The error of goals that no plan holds; names the nearest plan and what it loses."""
        loses = (
            f"loses {reached.drop:.2f} points, takes {reached.times_less:.2f}x less edp (modelled)"
        )
        missed: list[str] = []
        if not self.loses_little(reached):
            missed.append(f'"{Goal("accuracy-drop", 0).reached_by(reached.drop)}"')
        if not self.gains_much(reached):
            missed.append(f'"{Goal("edp", 1).reached_by(reached.times_less)}"')
        return InfeasibleError(
            f"no plan reaches {self}",
            place=OPTION,
            notes=[
                f"the nearest plan is {nearest}: it {loses}",
                f"it holds {' and '.join(missed)} instead",
                *notes,
            ],
        )
