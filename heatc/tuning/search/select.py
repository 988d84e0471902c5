"""Which point of the front a goal chooses."""

from __future__ import annotations

from collections.abc import Sequence

from heatc.tuning.common.goal import Goal


def select_point(
    goal: Goal, proxies: Sequence[float], products: Sequence[float], dense: float
) -> int:
    """
    The number of the point that a goal chooses, of points by ascending energy x latency.

    `edp` chooses the least proxy among the points of small enough energy x latency, `proxy` the
    least energy x latency among those of small enough proxy. `products` and `dense`, that of the
    dense model, are in J s.

    Raises:
        InfeasibleError: where no point reaches the goal.
    """
    is_edp = goal.metric == "edp"
    reached = [dense / product for product in products] if is_edp else proxies
    good = [number for number, value in enumerate(reached) if goal.holds(value)]
    if not good:
        best = max(reached) if goal.wants_more else min(reached)
        raise goal.out_of_reach(best, "by any plan", "at the end of the front")
    ranked = proxies if is_edp else products
    return min(good, key=ranked.__getitem__)
