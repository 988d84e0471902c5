"""Layers are left dense where pruning them is not worth its cost; what is chosen is optimal."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heatc.rules import Rule
from heatc.tuning.calibrate.assign import LayerTable
from heatc.tuning.calibrate.assign_by_cost import assign_by_cost, most_saved
from heatc.tuning.calibrate.candidates import RHO_B, Candidates
from heatc.tuning.calibrate.cost_model import ProgramCost
from heatc.tuning.calibrate.layer_costs import (
    MEASURED_RHO_B,
    LayerCost,
    measure_layer_costs,
    relative_cost,
)
from heatc.tuning.calibrate.measure import Measured

PLAIN = Candidates(pruned_scores=("zero",), gates=False)
SAMPLES, HEADS, BLOCKS = 3, 2, 20.0


def table(path: str, seed: int, candidates: Candidates = PLAIN) -> LayerTable:
    """Random errors that grow with rho_B and kept blocks that shrink, the same under every choice."""
    rng = np.random.default_rng(seed)
    measured = Measured.empty(SAMPLES, HEADS)
    steps = (len(RHO_B), SAMPLES, HEADS)
    measured.error[:] = np.cumsum(rng.random(steps), axis=0).astype(np.float32)
    measured.kept[:] = BLOCKS * np.sort(rng.random(steps), axis=0)[::-1].astype(np.float32)
    measured.score[:] = rng.random((SAMPLES, HEADS))
    measured.gated[:] = 10 * rng.random((SAMPLES, HEADS))
    return LayerTable(path, measured, 1.0, BLOCKS * SAMPLES * HEADS, candidates)


def ways(layer: LayerTable, cost: LayerCost) -> NDArray[np.float64]:
    """(ways, 2): damage and added cost of all that a layer can be told without a gate, and of none."""
    m = layer.measured
    error, kept = m.error[0, 0, 0].sum(axis=1, dtype=float), m.kept[0, 0].sum(axis=1, dtype=float)
    heads = range(HEADS)
    found = [(0.0, 0.0)]
    for rho in itertools.product(range(len(RHO_B)), repeat=HEADS):
        share = sum(kept[rho[h], h] for h in heads) / layer.blocks
        added = cost.deciding - (1 - share) * cost.blocks
        found.append((sum(error[rho[h], h] for h in heads), added))
    return np.array(found)


def told(layer: LayerTable, rule: Rule, cost: LayerCost) -> tuple[float, float]:
    """Damage and added cost of a rule without a gate."""
    if rule.name == "none":
        return 0.0, 0.0
    places = [RHO_B.index(rho) for rho in rule.rho_b]
    index = 1 + sum(place * len(RHO_B) ** k for k, place in enumerate(reversed(places)))
    damage, added = ways(layer, cost)[index]
    return float(damage), float(added)


def shares(most: int) -> st.SearchStrategy[float]:
    """From 0 to so many hundredths: what is spared by less than rounding is no saving."""
    return st.integers(0, most).map(lambda n: n / 100)


_COST = st.builds(LayerCost, shares(20), st.just(0.0), shares(50))


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 99), _COST, _COST, shares(100))
def test_nothing_else_spares_as_much_with_less_damage(
    seed: int, a: LayerCost, b: LayerCost, share: float
):
    layers = [table("a", seed), table("b", seed + 100)]
    layer_costs = {"a": a, "b": b}
    assignment = assign_by_cost(layers, layer_costs, share)
    found = [told(t, assignment.rules[t.path], layer_costs[t.path]) for t in layers]
    damage, added = (sum(values) for values in zip(*found))
    assert -added >= share * most_saved(layers, layer_costs) * (1 - 1e-6) - 1e-9
    one, two = (ways(t, layer_costs[t.path]) for t in layers)
    whole = one[:, None] + two[None]
    as_cheap = whole[whole[..., 1] <= added + 1e-12]
    assert as_cheap[:, 0].min() >= damage - 1e-6 * (1 + damage)


def test_a_layer_that_costs_more_than_it_spares_stays_dense():
    layers = [table("a", 0), table("b", 1)]
    layer_costs = {"a": LayerCost(0.3, 0.0, 0.2), "b": LayerCost(0.01, 0.0, 0.2)}
    assert 0 < most_saved(layers, layer_costs) < 0.19
    assignment = assign_by_cost(layers, layer_costs, 1.0)
    assert [assignment.rules[name].name for name in "ab"] == ["none", "ours"]
    assert assignment.damage["a"] == 0.0
    assert assign_by_cost(layers, layer_costs, 0.0).rules["b"].name == "none"


def test_nothing_is_pruned_where_no_layer_is_worth_it():
    layers, layer_costs = [table("a", 0)], {"a": LayerCost(0.3, 0.0, 0.2)}
    assert most_saved(layers, layer_costs) == 0.0
    assert assign_by_cost(layers, layer_costs, 1.0).rules["a"].name == "none"


def test_heads_are_pruned_whole_only_where_their_gate_is_worth_it():
    candidates = Candidates(pruned_scores=("zero",))
    layers = [table("a", 0, candidates)]
    cheap, dear = LayerCost(0.01, 0.0, 0.5), LayerCost(0.01, 0.4, 0.5)
    assert most_saved(layers, {"a": cheap}) == pytest.approx(0.49)
    assert max(assign_by_cost(layers, {"a": cheap}, 1.0).rules["a"].tau_h) > 0
    rule = assign_by_cost(layers, {"a": dear}, 1.0).rules["a"]
    assert rule.name == "ours"
    assert max(rule.tau_h) == 0.0


# ---- layer costs --------------------------------------------------------------------------------


@pytest.mark.parametrize("gates", [False, True])
def test_costs_of_a_linear_machine_are_found(gates: bool):
    candidates = Candidates(pruned_scores=("zero",), gates=gates)
    layers = [table("a", 0, candidates), table("b", 1, candidates)]
    true = {"a": LayerCost(0.02, 0.03, 0.3), "b": LayerCost(0.05, 0.01, 0.1)}

    def measure(rules: Mapping[str, Rule]) -> ProgramCost:
        more = 0.0
        for layer in layers:
            if layer.path in rules:
                rule = rules[layer.path]
                kept = layer.kept(candidates.default)[RHO_B.index(rule.rho_b[0])] / layer.blocks
                more += true[layer.path].added(float(kept), max(rule.tau_h) > 0)
        return ProgramCost(1000 * (1 + more), 5e-6, 5e-9 * (1 + more))

    steps: list[tuple[int, int]] = []
    found = measure_layer_costs(layers, measure, "cycles", lambda *step: steps.append(step))
    for path, cost in true.items():
        assert found[path].deciding == pytest.approx(cost.deciding)
        assert found[path].gating == pytest.approx(cost.gating if gates else 0.0)
        assert found[path].blocks == pytest.approx(cost.blocks)
    assert [done for done, _ in steps] == list(range(len(steps)))
    assert steps[-1] == (len(steps) - 1, len(layers) * (len(MEASURED_RHO_B) + gates))


def test_energy_counts_beside_latency():
    before, after = ProgramCost(100.0, 2.0, 200.0), ProgramCost(90.0, 1.9, 171.0)
    assert relative_cost(after, before, "cycles") == pytest.approx(-0.1)
    assert relative_cost(after, before, "edp") == pytest.approx(-0.15)
