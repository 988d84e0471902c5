"""From measurements to rules: the settings of layers, then the thresholds of heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from heatc.rules import Rule
from heatc.tuning.calibrate.allocate import (
    TAU_SHARES,
    UNGATED,
    HeadChoice,
    HeadOptions,
    choose_at_price,
    choose_within_budget,
    head_options,
)
from heatc.tuning.calibrate.candidates import ALL_CANDIDATES, RHO_B, Candidates, LayerSettings
from heatc.tuning.calibrate.measure import Measured

TOLERANCE = 0.05
"""The settings of a layer depart from the rule's defaults only for more than this less cost."""


@dataclass(frozen=True)
class LayerTable:
    """
    What was measured of a layer under every candidate.

    `weight` turns its errors into damage at the outputs, `blocks` is how many were measured.
    """

    path: str
    measured: Measured
    weight: float
    blocks: float
    candidates: Candidates = ALL_CANDIDATES
    _options: dict[LayerSettings, HeadOptions] = field(
        default_factory=dict["LayerSettings", "HeadOptions"]
    )

    def options(self, settings: LayerSettings) -> HeadOptions:
        """Weighed errors and kept blocks of every head under these settings."""
        if settings not in self._options:
            m, (f, i, p, g) = self.measured, settings
            found = head_options(
                RHO_B,
                self.weight * m.error[f, i, p].astype(np.float64),
                m.kept[f, i].astype(np.float64),
                m.score[f, i].astype(np.float64),
                self.weight * m.gated[f, g].astype(np.float64),
                TAU_SHARES if self.candidates.gates else UNGATED,
            )
            self._options[settings] = found
        return self._options[settings]

    def kept(self, settings: LayerSettings) -> NDArray[np.float64]:
        """Blocks that the whole layer keeps at each of `RHO_B`, without a head gate."""
        return (
            self.measured.kept[settings.finer, settings.importance]
            .sum(axis=(1, 2))
            .astype(np.float64)
        )

    def error(self, settings: LayerSettings) -> NDArray[np.float64]:
        """Weighed error of the whole layer at each of `RHO_B`, without a head gate."""
        m, (f, i, p, _) = self.measured, settings
        return self.weight * m.error[f, i, p].sum(axis=(1, 2), dtype=np.float64)


@dataclass(frozen=True)
class RuleAssignment:
    """
    Rules by module path for a share of blocks to prune.

    Attributes:
        rules: of every layer.
        settings: those that the rules were made of.
        predicted: the share of blocks pruned, as the measurements have it.
        price: what a block costs in damage.
        damage: divergence at the outputs that each layer is expected to cause.
    """

    rules: dict[str, Rule]
    settings: dict[str, LayerSettings]
    predicted: float
    price: float
    damage: dict[str, float]


def assign_by_head(tables: Sequence[LayerTable], share: float) -> RuleAssignment:
    """
    Settings of every layer and thresholds of every head, all at one price of a block.

    Raises `ValueError` where so large a share cannot be pruned.
    """
    budget = (1.0 - share) * sum(t.blocks for t in tables)
    candidates = tables[0].candidates
    settings_by_layer = dict.fromkeys((t.path for t in tables), candidates.default)
    _, price = _solve(tables, settings_by_layer, budget)
    settings_by_layer = {t.path: best_settings(t, price) for t in tables}
    choices, price = _solve(tables, settings_by_layer, budget)
    rules: dict[str, Rule] = {}
    damage: dict[str, float] = {}
    kept = 0.0
    for table, choice in zip(tables, choices):
        rules[table.path] = layer_rule(table, settings_by_layer[table.path], choice, price)
        damage[table.path] = float(choice.error.sum())
        kept += float(choice.kept.sum())
    return RuleAssignment(
        rules, settings_by_layer, 1.0 - kept / sum(t.blocks for t in tables), price, damage
    )


def layer_rule(
    table: LayerTable, settings: LayerSettings, choice: HeadChoice, price: float
) -> Rule:
    """The rule of what a layer's heads take at a price of a block."""
    options = table.options(settings)
    rows = np.arange(len(choice.index))
    rho_b = tuple(float(x) for x in _ratios(options, choice, price))
    tau_h = tuple(_rounded(x) for x in options.tau_h[rows, choice.index])
    return table.candidates.rule(settings, rho_b=rho_b, tau_h=tau_h)


def _ratios(options: HeadOptions, choice: HeadChoice, price: float) -> NDArray[np.float64]:
    """
    rho_B of every head.

    A head that was pruned for every sample gets the one that it would have without a gate: other
    inputs may need it.
    """
    ungated = np.where(options.tau_h > 0, np.inf, options.error)
    alone = choose_at_price(ungated, options.kept, price).index
    index = np.where(choice.kept > 0, choice.index, alone)
    return options.rho_b[np.arange(len(index)), index]


def _solve(
    tables: Sequence[LayerTable], settings_by_layer: Mapping[str, LayerSettings], budget: float
) -> tuple[list[HeadChoice], float]:
    options = [t.options(settings_by_layer[t.path]) for t in tables]
    error = np.concatenate([o.error for o in options])
    kept = np.concatenate([o.kept for o in options])
    _, price = choose_within_budget(error, kept, budget)
    return [choose_at_price(o.error, o.kept, price) for o in options], price


def best_settings(table: LayerTable, price: float) -> LayerSettings:
    """The settings of least cost at a price of a block; the default where others gain little."""
    costs: dict[LayerSettings, float] = {}
    for settings in table.candidates.layer_settings:
        options = table.options(settings)
        choice = choose_at_price(options.error, options.kept, price)
        costs[settings] = float(choice.error.sum() + price * choice.kept.sum())
    best = min(costs, key=lambda settings: costs[settings])
    # By the distance from the best: costs may be 0, where nothing is damaged and blocks are free.
    near = [k for k, cost in costs.items() if cost - costs[best] <= TOLERANCE * abs(costs[best])]
    if table.candidates.default in near:
        return table.candidates.default
    # Coarser integer parts are narrower products on the machine.
    return min(near, key=lambda settings: (settings.finer, costs[settings]))


def assign_no_pruning(tables: Sequence[LayerTable]) -> RuleAssignment:
    """Rule `none` everywhere."""
    paths = [t.path for t in tables]
    return RuleAssignment(
        dict.fromkeys(paths, Rule()),
        dict.fromkeys(paths, tables[0].candidates.default),
        0.0,
        0.0,
        dict.fromkeys(paths, 0.0),
    )


def assign_one_value(
    tables: Sequence[LayerTable], share: float, dense: Collection[str] = ()
) -> RuleAssignment:
    """
    One rho_B for all layers and heads, no head gate, the rule's defaults for the rest.

    `dense` are paths of layers that are not pruned. Raises `ValueError` where the others cannot
    prune so large a share of all blocks.
    """
    candidates = tables[0].candidates
    total = sum(t.blocks for t in tables)
    pruned = [t for t in tables if t.path not in dense]
    kept: NDArray[np.float64] = np.sum([t.kept(candidates.default) for t in pruned], axis=0)
    kept = kept + (total - sum(t.blocks for t in pruned))
    shares: NDArray[np.float64] = 1.0 - kept / total
    if share > shares.max():
        raise ValueError(f"no rho_b prunes a share of {share:g}")
    order = shares.argsort(kind="stable")
    rho = round(float(np.interp(share, shares[order], np.asarray(RHO_B)[order])), 4)
    rule = candidates.rule(candidates.default, rho_b=rho)
    assignment = assign_no_pruning(tables)
    for table in pruned:
        assignment.rules[table.path] = rule
        assignment.damage[table.path] = float(
            np.interp(rho, RHO_B, table.error(candidates.default))
        )
    return replace(assignment, predicted=float(np.interp(rho, RHO_B, shares)))


def _rounded(value: float) -> float:
    """Six digits: thresholds lie between measured scores, more digits say nothing."""
    return float(f"{value:.6g}")
