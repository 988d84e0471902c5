"""
What pruning a layer costs and saves on a machine (modelled).

Read off runs of the program in which that layer alone prunes: blocks a little and blocks much, taken
for linear in the share of blocks between and beyond them, and once with a gate of heads beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heatc.rules import Rule
from heatc.tuning.calibrate.assign import LayerTable
from heatc.tuning.calibrate.candidates import RHO_B
from heatc.tuning.calibrate.cost_model import ProgramCost


@dataclass(frozen=True)
class LayerCost:
    """
    What a layer adds to the cost of a program without pruning, as a share of that.

    `deciding` is added where it prunes, `gating` beside it where heads may be pruned too; `blocks`
    is saved where it keeps none of its blocks.
    """

    deciding: float
    gating: float
    blocks: float

    def added(self, kept: float, gated: bool) -> float:
        """What it adds where it keeps a share of its blocks; below 0 it saves something."""
        return self.deciding + (self.gating if gated else 0.0) - (1.0 - kept) * self.blocks


LayerCosts = Mapping[str, LayerCost]
"""Of every layer, by its path."""


MEASURED_RHO_B = (RHO_B.index(0.3), RHO_B.index(0.9))
"""The thresholds of blocks, as places in `RHO_B`."""
OPEN_GATE = 1e-6
"""A threshold of heads that the machine decides about and next to no head is below."""

Measure = Callable[[Mapping[str, Rule]], ProgramCost]
"""What the program costs under rules by module path."""


def relative_cost(cost: ProgramCost, unpruned: ProgramCost, metric: str) -> float:
    """
    By how much a cost is above another: of cycles the share, of energy x latency both shares added.

    (1 + a)(1 + b) - 1 is a + b to first order, so that layers add up.
    """
    cycles = cost.cycles / unpruned.cycles - 1.0
    return cycles if metric == "cycles" else cycles + cost.joules / unpruned.joules - 1.0


def measure_layer_costs(
    tables: Sequence[LayerTable],
    measure: Measure,
    metric: str,
    progress: Callable[[int, int], None],
) -> dict[str, LayerCost]:
    """
    The cost of every layer by its path, under the candidates' default choices.

    `metric` is "cycles" or "edp"; `progress` is told how many of the runs are done.
    """
    unpruned = measure({})
    runs = len(MEASURED_RHO_B) + tables[0].candidates.gates
    layer_costs: dict[str, LayerCost] = {}
    for number, table in enumerate(tables):
        candidates, points = table.candidates, list[tuple[float, float]]()

        def added(setting: int, tau_h: float, table: LayerTable = table) -> float:
            rule = table.candidates.rule(
                table.candidates.default, rho_b=RHO_B[setting], tau_h=tau_h
            )
            return relative_cost(measure({table.path: rule}), unpruned, metric)

        for place, setting in enumerate(MEASURED_RHO_B):
            progress(runs * number + place, runs * len(tables))
            kept = float(table.kept(candidates.default)[setting]) / table.blocks
            points.append((kept, added(setting, 0.0)))
        deciding, blocks = _line(*points)
        gating = 0.0
        if candidates.gates:
            progress(runs * number + len(MEASURED_RHO_B), runs * len(tables))
            gating = max(0.0, added(MEASURED_RHO_B[-1], OPEN_GATE) - points[-1][1])
        layer_costs[table.path] = LayerCost(deciding, gating, blocks)
    progress(runs * len(tables), runs * len(tables))
    return layer_costs


def _line(little: tuple[float, float], much: tuple[float, float]) -> tuple[float, float]:
    """What deciding adds and all blocks save, of shares kept and what was added in two runs."""
    (kept, added), (kept_less, added_less) = little, much
    difference = kept - kept_less
    # Leaving blocks out never costs anything: where it seems to, the runs differ by less than they can tell.
    blocks = max(0.0, (added - added_less) / difference) if difference > 0 else 0.0
    return added + (1.0 - kept) * blocks, blocks
