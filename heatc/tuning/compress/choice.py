"""Which plan is trained next: the one that is likely to reach the goals with the most to gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from heatc.tuning.compress.goals import Goals, Reached

RECOVERED = 5.0
"""
How many times less a plan loses once its factors are trained: 6 at a fifth of MiniLM's weights after
four epochs (docs/design/end_to_end.md), less after fewer.
"""

LEAST_LOST = 0.5
"""Points of a bound below it count as so many here: the loss of few samples is not told finer."""


@dataclass(frozen=True)
class Standing:
    """
    Where a plan stands.

    Attributes:
        reached: what it reaches as it is.
        is_trained: whether training its factors was tried.
    """

    reached: Reached
    is_trained: bool


def next_trained(goals: Goals, plans: Sequence[Standing]) -> int | None:
    """
    The number of the plan to train next, None where no training can bring anything.

    `plans` are in order of their gain, the greatest first. Plans that gain more are taken to lose
    more: beyond a trained plan that still loses too much none is trained.
    """
    open_ = [k for k, plan in enumerate(plans) if not plan.is_trained]
    enough = [k for k in open_ if goals.gains_much(plans[k].reached)]
    most = goals.most_lost
    if most is None:
        trained = any(plan.is_trained for plan in plans)
        # Of those that gain enough the one that gains least loses least.
        return None if trained or not open_ else (enough or open_[:1])[-1]
    if not enough:
        return None if any(plan.is_trained for plan in plans) else _promising(open_, plans, most)
    failed = [k for k, plan in enumerate(plans) if plan.is_trained and plan.reached.drop > most]
    held = [k for k, plan in enumerate(plans) if goals.holds(plan.reached)]
    first, last = max(failed, default=-1), min(held, default=len(plans))
    between = [k for k in enough if first < k < last]
    if between:
        return _promising(between, plans, most)
    # Nothing gains more: the chosen one may still lose less.
    chosen = goals.chosen([plan.reached for plan in plans])
    return chosen if chosen in open_ else None


def _promising(numbers: Sequence[int], plans: Sequence[Standing], most: float) -> int:
    """Of some plans the first whose loss training is likely to bring below a bound, else the last."""
    bound = RECOVERED * max(most, LEAST_LOST)
    return next((k for k in numbers if plans[k].reached.drop <= bound), numbers[-1])
