"""From measurements to rules: the layer-wide choices, then the thresholds of heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from heatc.rules import Rule
from heatc.tuning.calibrate.allocate import (
    TAU_SHARES,
    UNGATED,
    Choice,
    Options,
    at_price,
    head_options,
    within_budget,
)
from heatc.tuning.calibrate.candidates import EVERYTHING, RHO_B, Kind, Menu
from heatc.tuning.calibrate.measure import Measured

TOLERANCE = 0.05
"""A layer-wide choice departs from the rule's default only for more than this less cost."""


@dataclass(frozen=True)
class LayerTable:
    """
    What a layer's heads can be told, of what is on the menu.

    `weight` turns its errors into damage at the outputs, `blocks` is how many were measured.
    """

    path: str
    measured: Measured
    weight: float
    blocks: float
    menu: Menu = EVERYTHING
    _options: dict[Kind, Options] = field(default_factory=dict["Kind", "Options"])

    def options(self, kind: Kind) -> Options:
        """Weighed errors and kept blocks under a layer-wide choice."""
        if kind not in self._options:
            m, (f, i, p, g) = self.measured, kind
            found = head_options(
                RHO_B,
                self.weight * m.error[f, i, p].astype(np.float64),
                m.kept[f, i].astype(np.float64),
                m.score[f, i].astype(np.float64),
                self.weight * m.gated[f, g].astype(np.float64),
                TAU_SHARES if self.menu.gates else UNGATED,
            )
            self._options[kind] = found
        return self._options[kind]

    def kept(self, kind: Kind) -> NDArray[np.float64]:
        """Blocks that the whole layer keeps at each of `RHO_B`, without a head gate."""
        return self.measured.kept[kind.finer, kind.importance].sum(axis=(1, 2)).astype(np.float64)

    def error(self, kind: Kind) -> NDArray[np.float64]:
        """Weighed error of the whole layer at each of `RHO_B`, without a head gate."""
        m, (f, i, p, _) = self.measured, kind
        return self.weight * m.error[f, i, p].sum(axis=(1, 2), dtype=np.float64)


@dataclass(frozen=True)
class Chosen:
    """
    Rules by module path for a share of blocks to prune.

    `predicted` is that share as the measurements have it, `price` what a block costs in damage.
    """

    rules: dict[str, Rule]
    kinds: dict[str, Kind]
    predicted: float
    price: float
    damage: dict[str, float]


def by_head(tables: Sequence[LayerTable], share: float) -> Chosen:
    """
    Layer-wide choices and thresholds of every head, all at one price of a block.

    Raises `ValueError` where so large a share cannot be pruned.
    """
    budget = (1.0 - share) * sum(t.blocks for t in tables)
    menu = tables[0].menu
    kinds = dict.fromkeys((t.path for t in tables), menu.default)
    _, price = _solve(tables, kinds, budget)
    kinds = {t.path: best_kind(t, price) for t in tables}
    choices, price = _solve(tables, kinds, budget)
    rules: dict[str, Rule] = {}
    damage: dict[str, float] = {}
    kept = 0.0
    for table, choice in zip(tables, choices):
        rules[table.path] = layer_rule(table, kinds[table.path], choice, price)
        damage[table.path] = float(choice.error.sum())
        kept += float(choice.kept.sum())
    return Chosen(rules, kinds, 1.0 - kept / sum(t.blocks for t in tables), price, damage)


def layer_rule(table: LayerTable, kind: Kind, choice: Choice, price: float) -> Rule:
    """The rule of a layer's choice at a price of a block."""
    options = table.options(kind)
    rows = np.arange(len(choice.index))
    rho_b = tuple(float(x) for x in _ratios(options, choice, price))
    tau_h = tuple(_rounded(x) for x in options.tau_h[rows, choice.index])
    return table.menu.rule(kind, rho_b=rho_b, tau_h=tau_h)


def _ratios(options: Options, choice: Choice, price: float) -> NDArray[np.float64]:
    """
    rho_B of every head.

    A head that was pruned for every sample gets the one that it would have without a gate: other
    inputs may need it.
    """
    ungated = np.where(options.tau_h > 0, np.inf, options.error)
    alone = at_price(ungated, options.kept, price).index
    index = np.where(choice.kept > 0, choice.index, alone)
    return options.rho_b[np.arange(len(index)), index]


def _solve(
    tables: Sequence[LayerTable], kinds: Mapping[str, Kind], budget: float
) -> tuple[list[Choice], float]:
    options = [t.options(kinds[t.path]) for t in tables]
    error = np.concatenate([o.error for o in options])
    kept = np.concatenate([o.kept for o in options])
    _, price = within_budget(error, kept, budget)
    return [at_price(o.error, o.kept, price) for o in options], price


def best_kind(table: LayerTable, price: float) -> Kind:
    """The layer-wide choice of least cost at a price of a block; the default where others gain little."""
    costs: dict[Kind, float] = {}
    for kind in table.menu.kinds:
        options = table.options(kind)
        choice = at_price(options.error, options.kept, price)
        costs[kind] = float(choice.error.sum() + price * choice.kept.sum())
    best = min(costs, key=lambda kind: costs[kind])
    # By the distance from the best: costs may be 0, where nothing is damaged and blocks are free.
    near = [k for k, cost in costs.items() if cost - costs[best] <= TOLERANCE * abs(costs[best])]
    if table.menu.default in near:
        return table.menu.default
    # Coarser integer parts are narrower products on the machine.
    return min(near, key=lambda kind: (kind.finer, costs[kind]))


def unpruned(tables: Sequence[LayerTable]) -> Chosen:
    """Rule `none` everywhere."""
    paths = [t.path for t in tables]
    return Chosen(
        dict.fromkeys(paths, Rule()),
        dict.fromkeys(paths, tables[0].menu.default),
        0.0,
        0.0,
        dict.fromkeys(paths, 0.0),
    )


def by_one_value(tables: Sequence[LayerTable], share: float, dense: Collection[str] = ()) -> Chosen:
    """
    One rho_B for all layers and heads, no head gate, the rule's defaults for the rest.

    `dense` are paths of layers that are not pruned. Raises `ValueError` where the others cannot
    prune so large a share of all blocks.
    """
    menu = tables[0].menu
    total = sum(t.blocks for t in tables)
    pruned = [t for t in tables if t.path not in dense]
    kept: NDArray[np.float64] = np.sum([t.kept(menu.default) for t in pruned], axis=0)
    kept = kept + (total - sum(t.blocks for t in pruned))
    shares: NDArray[np.float64] = 1.0 - kept / total
    if share > shares.max():
        raise ValueError(f"no rho_b prunes a share of {share:g}")
    order = shares.argsort(kind="stable")
    rho = round(float(np.interp(share, shares[order], np.asarray(RHO_B)[order])), 4)
    rule = menu.rule(menu.default, rho_b=rho)
    chosen = unpruned(tables)
    for table in pruned:
        chosen.rules[table.path] = rule
        chosen.damage[table.path] = float(np.interp(rho, RHO_B, table.error(menu.default)))
    return replace(chosen, predicted=float(np.interp(rho, RHO_B, shares)))


def _rounded(value: float) -> float:
    """Six digits: thresholds lie between measured scores, more digits say nothing."""
    return float(f"{value:.6g}")
