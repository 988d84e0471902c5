"""
Rules by what pruning costs on a machine: which layers are pruned, and how far.

A layer that prunes pays for deciding, whether it prunes much or little. Blocks that it does not keep
save work. One weight of cost against damage holds for all layers. At that weight each layer takes
the best of three: no pruning, its heads' best options without a gate, or with one. No other choice
saves as much with less damage in sum, for the reason that holds of heads
(`heatc.tuning.calibrate.allocate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.calibrate.allocate import HeadChoice, choose_at_price
from heatc.tuning.calibrate.assign import (
    LayerTable,
    RuleAssignment,
    assign_no_pruning,
    best_settings,
    layer_rule,
)
from heatc.tuning.calibrate.candidates import LayerSettings
from heatc.tuning.calibrate.layer_costs import LayerCost, LayerCosts


@dataclass(frozen=True)
class Weights:
    """How much damage and cost count, per divergence and per share of the cost without pruning."""

    damage: float
    cost: float


COST_ALONE = Weights(0.0, 1.0)
"""Damage is no object."""


class LayerChoice(NamedTuple):
    """The options that a layer's heads take, and what they add to the cost."""

    choice: HeadChoice
    added: float


def assign_by_cost(
    tables: Sequence[LayerTable], layer_costs: LayerCosts, share: float
) -> RuleAssignment:
    """
    Rules that save a share of the most that pruning can save.

    Layers whose pruning does not pay stay dense.
    """
    settings_by_layer = dict.fromkeys((t.path for t in tables), tables[0].candidates.default)
    weights = _weights(tables, settings_by_layer, layer_costs, share)
    settings_by_layer = {
        t.path: best_settings(t, _block_price(t, layer_costs[t.path], weights)) for t in tables
    }
    weights = _weights(tables, settings_by_layer, layer_costs, share)
    assignment = assign_no_pruning(tables)
    kept = 0.0
    for table in tables:
        settings, cost = settings_by_layer[table.path], layer_costs[table.path]
        found = best_choice(table, settings, cost, weights)
        if found is None:
            kept += table.blocks
            continue
        assignment.settings[table.path] = settings
        price = _block_price(table, cost, weights)
        assignment.rules[table.path] = layer_rule(table, settings, found.choice, price)
        assignment.damage[table.path] = float(found.choice.error.sum())
        kept += float(found.choice.kept.sum())
    predicted = 1.0 - kept / sum(t.blocks for t in tables)
    return replace(assignment, predicted=predicted, price=weights.cost)


def most_saved(tables: Sequence[LayerTable], layer_costs: LayerCosts) -> float:
    """The most that pruning can save, as a share of the cost without it; 0 where none pays."""
    settings_by_layer = dict.fromkeys((t.path for t in tables), tables[0].candidates.default)
    return _saved(tables, settings_by_layer, layer_costs, COST_ALONE)


def best_choice(
    table: LayerTable, settings: LayerSettings, cost: LayerCost, weights: Weights
) -> LayerChoice | None:
    """The best of a layer, with heads that may be pruned and without; None where dense is no worse."""
    options, price = table.options(settings), _block_price(table, cost, weights)
    ungated: NDArray[np.bool_] = np.all(options.tau_h <= 0.0, axis=0)
    best, least = None, 0.0
    for allowed in (ungated, np.ones_like(ungated)):
        columns: NDArray[np.intp] = np.flatnonzero(allowed)
        choice = choose_at_price(
            weights.damage * options.error[:, columns], options.kept[:, columns], price
        )
        index = columns.take(choice.index)
        rows = np.arange(len(index))
        choice = HeadChoice(index, options.error[rows, index], choice.kept)
        gated = bool((options.tau_h[rows, index] > 0).any())
        added = cost.added(float(choice.kept.sum()) / table.blocks, gated)
        total = weights.damage * float(choice.error.sum()) + weights.cost * added
        if total < least:
            best, least = LayerChoice(choice, added), total
    return best


def _block_price(table: LayerTable, cost: LayerCost, weights: Weights) -> float:
    """The price of one of a layer's blocks."""
    return weights.cost * cost.blocks / table.blocks


def _saved(
    tables: Sequence[LayerTable],
    settings_by_layer: Mapping[str, LayerSettings],
    layer_costs: LayerCosts,
    weights: Weights,
) -> float:
    found = (
        best_choice(t, settings_by_layer[t.path], layer_costs[t.path], weights) for t in tables
    )
    return -sum(one.added for one in found if one is not None)


def _weights(
    tables: Sequence[LayerTable],
    settings_by_layer: Mapping[str, LayerSettings],
    layer_costs: LayerCosts,
    share: float,
) -> Weights:
    """The least weight of cost, beside 1 for damage, at which a share of the most is saved."""
    wanted = share * _saved(tables, settings_by_layer, layer_costs, COST_ALONE) * (1.0 - 1e-9)

    def reaches(cost: float) -> bool:
        return _saved(tables, settings_by_layer, layer_costs, Weights(1.0, cost)) >= wanted

    low, high = 0.0, 1.0
    if reaches(low):
        return Weights(1.0, low)
    while not reaches(high):
        low, high = high, 4.0 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return Weights(1.0, high)
