"""
What pruning a layer costs and spares on a machine (modelled).

Read off runs of the program in which that layer alone prunes: blocks a little and blocks much, taken
for linear in the share of blocks between and beyond them, and once with a gate of heads beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from heatc.rules import Rule
from heatc.tuning.calibrate.assign import LayerTable
from heatc.tuning.calibrate.assign_by_cost import Price
from heatc.tuning.calibrate.candidates import RHO_B
from heatc.tuning.calibrate.cost_model import Cost

SETTINGS = (RHO_B.index(0.3), RHO_B.index(0.9))
"""The thresholds of blocks, as places in `RHO_B`."""
OPEN = 1e-6
"""A threshold of heads that the machine decides about and next to no head is below."""

Measure = Callable[[Mapping[str, Rule]], Cost]
"""What the program costs under rules by module path."""


def relative(cost: Cost, unpruned: Cost, metric: str) -> float:
    """
    By how much a cost is above another: of cycles the share, of energy x latency both shares added.

    (1 + a)(1 + b) - 1 is a + b to first order, so that layers add up.
    """
    cycles = cost.cycles / unpruned.cycles - 1.0
    return cycles if metric == "cycles" else cycles + cost.joules / unpruned.joules - 1.0


def layer_prices(
    tables: Sequence[LayerTable],
    measure: Measure,
    metric: str,
    progress: Callable[[int, int], None],
) -> dict[str, Price]:
    """
    The price of every layer by its path, under the menu's default choices.

    `metric` is "cycles" or "edp"; `progress` is told how many of the runs are done.
    """
    unpruned = measure({})
    runs = len(SETTINGS) + tables[0].menu.gates
    prices: dict[str, Price] = {}
    for number, table in enumerate(tables):
        menu, points = table.menu, list[tuple[float, float]]()

        def added(setting: int, tau_h: float, table: LayerTable = table) -> float:
            rule = table.menu.rule(table.menu.default, rho_b=RHO_B[setting], tau_h=tau_h)
            return relative(measure({table.path: rule}), unpruned, metric)

        for place, setting in enumerate(SETTINGS):
            progress(runs * number + place, runs * len(tables))
            kept = float(table.kept(menu.default)[setting]) / table.blocks
            points.append((kept, added(setting, 0.0)))
        deciding, blocks = _line(*points)
        gating = 0.0
        if menu.gates:
            progress(runs * number + len(SETTINGS), runs * len(tables))
            gating = max(0.0, added(SETTINGS[-1], OPEN) - points[-1][1])
        prices[table.path] = Price(deciding, gating, blocks)
    progress(runs * len(tables), runs * len(tables))
    return prices


def _line(little: tuple[float, float], much: tuple[float, float]) -> tuple[float, float]:
    """What deciding adds and all blocks spare, of shares kept and what was added in two runs."""
    (kept, added), (kept_less, added_less) = little, much
    difference = kept - kept_less
    # Leaving blocks out never costs anything: where it seems to, the runs differ by less than they can tell.
    blocks = max(0.0, (added - added_less) / difference) if difference > 0 else 0.0
    return added + (1.0 - kept) * blocks, blocks
