"""
Which layers are worth pruning on a machine, and how far.

A layer that prunes pays for deciding, whether it prunes much or little; blocks that it does not keep
spare work. At one weight of cost against damage each layer chooses between its heads' best options,
with heads that may be pruned whole and without, and none: no other choice spares as much with less
damage in sum, for the reason that holds of heads (`heatc.tuning.calibrate.allocate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.calibrate.allocate import Choice, at_price
from heatc.tuning.calibrate.assign import Chosen, LayerTable, best_kind, layer_rule, unpruned
from heatc.tuning.calibrate.candidates import Kind


@dataclass(frozen=True)
class Price:
    """
    What a layer adds to the cost of a program without pruning, as a share of that.

    `deciding` is added where it prunes, `gating` beside it where heads may be pruned too; `blocks`
    is spared where it keeps none of its blocks.
    """

    deciding: float
    gating: float
    blocks: float

    def added(self, kept: float, gated: bool) -> float:
        """What it adds where it keeps a share of its blocks; below 0 it spares something."""
        return self.deciding + (self.gating if gated else 0.0) - (1.0 - kept) * self.blocks


Prices = Mapping[str, Price]
"""Of every layer, by its path."""


@dataclass(frozen=True)
class Weights:
    """What damage and cost count."""

    damage: float
    cost: float


CHEAPEST = Weights(0.0, 1.0)
"""Damage is no object."""


class Worth(NamedTuple):
    """The options that a layer's heads take, and what they add to the cost."""

    choice: Choice
    added: float


def by_cost(tables: Sequence[LayerTable], prices: Prices, share: float) -> Chosen:
    """Rules that spare a share of the most that pruning can; layers that are not worth it stay dense."""
    kinds = dict.fromkeys((t.path for t in tables), tables[0].menu.default)
    weights = _weights(tables, kinds, prices, share)
    kinds = {t.path: best_kind(t, _block(t, prices[t.path], weights)) for t in tables}
    weights = _weights(tables, kinds, prices, share)
    chosen = unpruned(tables)
    kept = 0.0
    for table in tables:
        kind, price = kinds[table.path], prices[table.path]
        found = worth(table, kind, price, weights)
        if found is None:
            kept += table.blocks
            continue
        chosen.kinds[table.path] = kind
        block = _block(table, price, weights)
        chosen.rules[table.path] = layer_rule(table, kind, found.choice, block)
        chosen.damage[table.path] = float(found.choice.error.sum())
        kept += float(found.choice.kept.sum())
    predicted = 1.0 - kept / sum(t.blocks for t in tables)
    return replace(chosen, predicted=predicted, price=weights.cost)


def most_spared(tables: Sequence[LayerTable], prices: Prices) -> float:
    """The most that pruning can spare, as a share of the cost without it; 0 where none is worth it."""
    kinds = dict.fromkeys((t.path for t in tables), tables[0].menu.default)
    return _spared(tables, kinds, prices, CHEAPEST)


def worth(table: LayerTable, kind: Kind, price: Price, weights: Weights) -> Worth | None:
    """The best of a layer, with heads that may be pruned and without; None where dense is no worse."""
    options, block = table.options(kind), _block(table, price, weights)
    ungated: NDArray[np.bool_] = np.all(options.tau_h <= 0.0, axis=0)
    best, least = None, 0.0
    for allowed in (ungated, np.ones_like(ungated)):
        columns: NDArray[np.intp] = np.flatnonzero(allowed)
        choice = at_price(
            weights.damage * options.error[:, columns], options.kept[:, columns], block
        )
        index = columns.take(choice.index)
        rows = np.arange(len(index))
        choice = Choice(index, options.error[rows, index], choice.kept)
        gated = bool((options.tau_h[rows, index] > 0).any())
        added = price.added(float(choice.kept.sum()) / table.blocks, gated)
        total = weights.damage * float(choice.error.sum()) + weights.cost * added
        if total < least:
            best, least = Worth(choice, added), total
    return best


def _block(table: LayerTable, price: Price, weights: Weights) -> float:
    """The price of one of a layer's blocks."""
    return weights.cost * price.blocks / table.blocks


def _spared(
    tables: Sequence[LayerTable], kinds: Mapping[str, Kind], prices: Prices, weights: Weights
) -> float:
    found = (worth(t, kinds[t.path], prices[t.path], weights) for t in tables)
    return -sum(one.added for one in found if one is not None)


def _weights(
    tables: Sequence[LayerTable], kinds: Mapping[str, Kind], prices: Prices, share: float
) -> Weights:
    """The least weight of cost, beside 1 for damage, at which a share of the most is spared."""
    wanted = share * _spared(tables, kinds, prices, CHEAPEST) * (1.0 - 1e-9)

    def reaches(cost: float) -> bool:
        return _spared(tables, kinds, prices, Weights(1.0, cost)) >= wanted

    low, high = 0.0, 1.0
    if reaches(low):
        return Weights(1.0, low)
    while not reaches(high):
        low, high = high, 4.0 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return Weights(1.0, high)
