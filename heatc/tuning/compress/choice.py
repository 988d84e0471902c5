"""
Which plan is measured next, and which is trained next.

Plans are in order of their gain, the greatest first, and those that gain more are taken to lose more.
So every goal has a place between plans: those before it lose too much, those behind it gain too little.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heatc.tuning.compress.goals import Goals, Reached

Condition = Callable[[Reached], bool]

RECOVERED = 5.0
"""
How many times less a plan loses once its factors are trained: 6 at a fifth of MiniLM's weights after
four epochs (docs/design/end_to_end.md), less after fewer.
"""

LEAST_LOST = 0.5
"""Points of a bound below it count as so many here: the loss of few samples is not told finer."""


def next_measured(goals: Goals, measured: Mapping[int, Reached], count: int, wanted: int) -> int:
    """
    The number of the plan to measure next, of `count` plans of which fewer are measured.

    `wanted` will be measured in all. Half of them are spread over all plans. The others close in on the
    plans that hold a goal as they are, and on those that training is likely to bring there.
    """
    spread = (wanted + 1) // 2
    for number in range(spread):
        place = int((number + 0.5) / spread * count)
        if place not in measured:
            return place
    gaps = [_gap(holds, measured, count) for holds in _conditions(goals)]
    places = [-1, *sorted(measured), count]
    # Where every goal has its place, the widest gap of all is looked into.
    gaps = [gap for gap in gaps if gap[1] - gap[0] > 1] or list(itertools.pairwise(places))
    first, last = max(gaps, key=lambda gap: gap[1] - gap[0])
    return (first + last) // 2


def _conditions(goals: Goals) -> list[Condition]:
    """What plans behind a goal's place hold, and plans before it do not."""

    def is_mended(reached: Reached) -> bool:
        assert goals.most_lost is not None
        return reached.drop <= _mended(goals.most_lost)

    def gains_little(reached: Reached) -> bool:
        return not goals.gains_much(reached)

    found: list[Condition] = []
    if goals.most_lost is not None:
        found += [goals.loses_little, is_mended]
    return found if goals.least_gain is None else [*found, gains_little]


def _gap(holds: Condition, measured: Mapping[int, Reached], count: int) -> tuple[int, int]:
    """The measured plans, or ends, between which a condition begins to hold."""
    last = min((k for k, reached in measured.items() if holds(reached)), default=count)
    return max((k for k in measured if k < last), default=-1), last


def _mended(most: float) -> float:
    """Points that a plan may lose before training, if it may lose so many after it."""
    return RECOVERED * max(most, LEAST_LOST)


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
    if not open_:
        return None
    enough = [k for k in open_ if goals.gains_much(plans[k].reached)]
    most = goals.most_lost
    if most is None:
        trained = any(plan.is_trained for plan in plans)
        # Of those that gain enough the one that gains least loses least.
        return None if trained else (enough or open_[:1])[-1]
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
    return next((k for k in numbers if plans[k].reached.drop <= _mended(most)), numbers[-1])
