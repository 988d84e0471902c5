"""Paths: counts against brute force, optimality against every tree and against other searches."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import cotengra as _cotengra
import numpy as np
import opt_einsum as _opt_einsum
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatc.errors import HeatcError
from heatc.heat.formats import FORMATS, Format, Modes, Spec, scaled
from heatc.passes.analysis.paths import (
    Candidate,
    Network,
    Path,
    PathCost,
    Step,
    best_path,
    check_path,
    count,
    from_linear,
    least_product,
    left_to_right,
    path_front,
    plan_paths,
    prune,
    steps,
    to_linear,
)
from heatc.passes.analysis.ranks import layer_macs, layer_network

# Neither has types.
cotengra: Any = _cotengra
opt_einsum: Any = _opt_einsum


def brute_force_macs(network: Network, path: Path) -> int:
    """Multiply-accumulates counted by running every step's loop nest over index values."""
    total = 0
    for step in steps(network, path):
        letters = dict.fromkeys(step.left.letters + step.right.letters)
        total += sum(1 for _ in itertools.product(*(range(step.extents[c]) for c in letters)))
    return total


@st.composite
def networks(draw: st.DrawFn, most: int = 6) -> Network:
    count_ = draw(st.integers(2, most))
    letters = "abcdef"
    terms = [
        "".join(draw(st.permutations(letters))[: draw(st.integers(1, 3))]) for _ in range(count_)
    ]
    used = sorted(set("".join(terms)))
    result = "".join(draw(st.lists(st.sampled_from(used), unique=True, max_size=3)))
    return Network.of(terms, result, {c: draw(st.integers(1, 4)) for c in used})


def every_path(operands: int) -> Iterator[Path]:
    """Every contraction order, as single-assignment paths."""

    def grow(live: list[int], number: int, path: list[tuple[int, int]]) -> Iterator[Path]:
        if len(live) == 1:
            yield tuple(path)
            return
        for a, b in itertools.combinations(live, 2):
            rest = [n for n in live if n not in (a, b)]
            yield from grow([*rest, number], number + 1, [*path, (a, b)])

    yield from grow(list(range(operands)), operands, [])


@given(networks(5))
@settings(max_examples=40, deadline=None)
def test_no_path_beats_the_best(network: Network) -> None:
    for objective in ("macs", "traffic", "peak"):
        best = best_path(network, objective)
        least = min(count(network, p).value(objective) for p in every_path(len(network.terms)))
        assert best.cost.value(objective) == least
        assert best.cost == count(network, best.path)


@given(networks(), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_counts_and_values_are_those_of_the_equation(network: Network, seed: int) -> None:
    path = best_path(network, "macs").path
    assert count(network, path).macs == brute_force_macs(network, path)
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal([network.sizes[c] for c in term]) for term in network.terms]
    live = dict(enumerate(arrays))
    for number, (step, (a, b)) in enumerate(zip(steps(network, path), path), len(arrays)):
        equation = f"{step.left.letters},{step.right.letters}->{step.result}"
        live[number] = np.einsum(equation, live.pop(a), live.pop(b))
    (value,) = live.values()
    np.testing.assert_allclose(value, np.einsum(network.equation, *arrays), atol=1e-9)


@given(networks())
@settings(max_examples=30, deadline=None)
def test_path_forms_are_inverse(network: Network) -> None:
    n = len(network.terms)
    path = best_path(network, "traffic").path
    check_path(path, n)
    assert from_linear(to_linear(path, n), n) == path


def _format_networks() -> Iterator[Network]:
    for format_, modes in itertools.product(FORMATS, (2, 3)):
        if format_ == "low-rank":
            if modes == 2:
                yield layer_network(scaled(format_, (96,), (128,), 16), 64)
            continue
        ins, outs = ((8, 12), (8, 16)) if modes == 2 else ((4, 4, 6), (4, 4, 8))
        for level in (2, 6):
            yield layer_network(scaled(format_, ins, outs, level), 64)


def _equation(network: Network) -> str:
    return network.equation


ISSUE_248 = Network.of(
    ["iP", "sP", "PQ", "jQ", "tQ", "ti", "sj"],
    "",
    {"i": 300, "j": 300, "P": 2000, "Q": 2000, "s": 50, "t": 50},
)


@pytest.mark.parametrize("network", [*_format_networks(), ISSUE_248], ids=_equation)
def test_never_worse_than_other_searches(network: Network) -> None:
    inputs, result, sizes = [set(t) for t in network.terms], set(network.result), network.sizes
    n = len(inputs)
    found = [from_linear(cotengra.GreedyOptimizer()(network.terms, network.result, sizes), n)]
    for wish in ("flops", "size", "write"):
        search = opt_einsum.DynamicProgramming(minimize=wish)
        found.append(from_linear(search(inputs, result, sizes), n))
        cotengra_search = cotengra.OptimalOptimizer(minimize=wish)
        found.append(from_linear(cotengra_search(network.terms, network.result, sizes), n))
    if n <= 6:
        found.append(from_linear(opt_einsum.paths.optimal(inputs, result, sizes), n))
    for objective in ("macs", "traffic", "peak"):
        theirs = min(count(network, p).value(objective) for p in found)
        assert best_path(network, objective).cost.value(objective) <= theirs


def test_large_networks_go_to_opt_einsum() -> None:
    letters = "abcdefghijkl"
    terms = [letters[i : i + 2] for i in range(11)]
    network = Network.of(terms, "al", {c: 3 for c in letters})
    best = best_path(network, "macs")
    assert best.cost.macs == 10 * 27
    assert best.cost.macs <= count(network, left_to_right(11)).macs


def _machine(step: Step) -> tuple[float, float]:
    """Energy by words, latency by multiply-accumulates: the two pull apart."""
    return float(step.traffic) ** 1.1, float(step.macs)


@given(networks(5))
@settings(max_examples=25, deadline=None)
def test_pareto_set_is_complete(network: Network) -> None:
    front = path_front(network, "edp", _machine)
    everything = [count(network, p, _machine) for p in every_path(len(network.terms))]
    for cost in everything:
        assert any(
            c.cost.energy <= cost.energy * (1 + 1e-9) and c.cost.latency <= cost.latency
            for c in front
        )
    least = min(c.energy * c.latency for c in everything)
    assert best_path(network, "edp", _machine).cost.value("edp") <= least * (1 + 1e-9)
    for objective in ("energy", "latency"):
        best = min(getattr(c, objective) for c in everything)
        assert math.isclose(best_path(network, objective, _machine).cost.value(objective), best)


@given(
    st.lists(
        st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=4),
        min_size=1,
        max_size=4,
    ),
    st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
@settings(max_examples=60, deadline=None)
def test_whole_model_product_is_least(
    choices: list[list[tuple[int, int]]], rest: tuple[int, int]
) -> None:
    """Also where the rest of the model takes energy and time that no choice changes."""
    energy, latency = rest
    fronts = [
        prune((Candidate((), PathCost(1, 1, 1, float(e), float(t))) for e, t in front), "edp")
        for front in choices
    ]

    def product(picked: Iterable[Candidate]) -> float:
        costs = [candidate.cost for candidate in picked]
        joules = energy + sum(cost.energy for cost in costs)
        return joules * (latency + sum(cost.latency for cost in costs))

    least = min(map(product, itertools.product(*fronts)))
    assert product(least_product(fronts, energy, latency)) == least


def test_a_machine_is_asked_for() -> None:
    network = Network.of(["ab", "bc", "cd"], "ad", {c: 2 for c in "abcd"})
    with pytest.raises(HeatcError, match="objective 'edp' needs the costs of a machine"):
        plan_paths([network], "edp")


# ---- published figures: 768 to 768, 384 tokens, as shares of the dense layer -----------------------

TABLE = [
    # format, inputs, outputs, ranks, parameters, best path, left to right
    ("ttm", (24, 32), (24, 32), (8,), 0.022, 0.58, 0.58),
    ("ttm", (24, 32), (24, 32), (32,), 0.087, 1.08, 2.33),
    ("ttm", (8, 8, 12), (8, 8, 12), (8, 8), 0.010, 0.79, 0.88),
    ("ttm", (8, 8, 12), (8, 8, 12), (32, 32), 0.122, 1.10, 11.5),
    ("tt", (8, 8, 12), (12, 8, 8), (16,) * 5, 0.018, 0.044, None),
    ("tt", (8, 8, 12), (12, 8, 8), (64,) * 5, 0.28, 0.197, None),
    ("cp", (8, 8, 12), (8, 8, 12), (128,), 0.012, 0.33, None),
    ("tucker", (8, 8, 12), (8, 8, 12), (4, 4, 6, 4, 4, 6), 0.016, 0.035, None),
    ("tucker", (8, 8, 12), (8, 8, 12), (6, 6, 9, 6, 6, 9), 0.179, 0.22, None),
]


@pytest.mark.parametrize(("format_", "ins", "outs", "ranks", "params", "best", "naive"), TABLE)
def test_cost_table(
    format_: Format,
    ins: Modes,
    outs: Modes,
    ranks: Modes,
    params: float,
    best: float,
    naive: float | None,
) -> None:
    spec = Spec(format_, ins, outs, ranks)
    dense = 768 * 768
    assert spec.parameters / dense == pytest.approx(params, abs=6e-4 if params < 0.1 else 6e-3)
    assert layer_macs(spec, 384) / (384 * dense) == pytest.approx(best, rel=0.02)
    if naive is not None:
        network = layer_network(spec, 384)
        path = left_to_right(len(network.terms))
        assert count(network, path).macs / (384 * dense) == pytest.approx(naive, rel=0.01)


def test_tt_path_is_the_one_of_comera() -> None:
    """Input cores together, the activation with them, output cores together, then both."""
    network = layer_network(Spec("tt", (8, 8, 12), (12, 8, 8), (16,) * 5), 384)
    path = best_path(network, "macs").path
    assert path == ((1, 2), (7, 3), (0, 8), (5, 6), (4, 10), (9, 11))


def test_rebuilding_wins_where_tokens_are_many() -> None:
    spec = Spec("ttm", (8, 8, 12), (8, 8, 12), (32, 32))
    few, many = (best_path(layer_network(spec, tokens), "macs").path for tokens in (1, 128))
    assert any(0 in pair for pair in few[:1])
    assert not any(0 in pair for pair in many[:-1])
