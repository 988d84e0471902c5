"""Layers cost in the model what the machine counts for them, and the least of them is chosen."""

from __future__ import annotations

import math
import pathlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from timing_kit import machine_run

from heatc.context import HeatcContext
from heatc.errors import HeatcError, InfeasibleError
from heatc.hardware import load_hardware
from heatc.heat.formats import FORMATS, Format, Spec, default_modes
from heatc.passes.analysis.costs import (
    FEWEST,
    NAIVE,
    QUICK,
    REBUILT,
    StepEstimate,
    Weighed,
    layer_cost,
    machine_front,
    neighbours,
    path_of,
    run_of,
    weigh,
)
from heatc.passes.analysis.paths import Network, Path, count, left_to_right
from heatc.passes.analysis.ranks import largest_within, layer_network
from heatc.passes.plan_tiles import PlanTilesPass
from heatc.passes.tile_for_hdp import TileForHdpPass
from heatc.passes.tiling.scratch import scratch_layer, time_packing

PRESETS = ("hdp-edge", "hdp-server")
EDGE = load_hardware("hdp-edge")


def dense(inputs: int, outputs: int, tokens: int) -> Network:
    return Network.of(["ti", "oi"], "to", {"t": tokens, "i": inputs, "o": outputs}, [1])


def layer(format_: Format, inputs: int, outputs: int, tokens: int, ratio: float = 0.4) -> Network:
    """A layer of a format at a share of the multiply-accumulates."""
    spec = largest_within(format_, *default_modes(format_, inputs, outputs), ratio, tokens)
    assert spec is not None
    return layer_network(spec, tokens)


@pytest.mark.parametrize("hw", PRESETS)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(
    ("format_", "inputs", "outputs", "tokens"),
    [
        (None, 768, 768, 128),
        (None, 768, 3072, 30),
        ("low-rank", 768, 768, 128),
        ("low-rank", 384, 1536, 77),
        ("tt", 768, 768, 128),
        ("ttm", 768, 768, 16),
        ("tucker", 384, 384, 64),
        ("cp", 384, 384, 128),
    ],
)
def test_every_way_costs_what_the_machine_counts(
    hw: str, fused: bool, format_: Format | None, inputs: int, outputs: int, tokens: int
):
    """Cycles, joules and bytes of every path that is weighed, without those of `hpack`."""
    if format_ is None:
        network = dense(inputs, outputs, tokens)
    else:
        network = layer(format_, inputs, outputs, tokens)
    hardware = load_hardware(hw)
    packing = time_packing(tokens, hardware)
    possible = 0
    for way in weigh(network, hardware, fused=fused):
        cost = way.cost
        if not cost.is_possible:
            assert cost.refused
            continue
        possible += 1
        module = scratch_layer(network, way.path, hardware, fused=fused)
        module.verify()
        context = HeatcContext(hardware=hardware)
        PlanTilesPass().apply(context, module)
        TileForHdpPass().apply(context, module)
        result, report = machine_run(module, hardware, [tokens])
        assert cost.cycles == result.cycles - packing.cycles > 0
        assert cost.joules == pytest.approx(report.joules - packing.joules, rel=1e-9)
        moved = result.dram_bytes_read + result.dram_bytes_written
        assert cost.dram_bytes == moved - packing.dram_bytes
    assert possible


@pytest.mark.parametrize("format_", FORMATS)
def test_the_front_is_never_beaten(format_: Format):
    """The choice is among the ways that are possible, and none of them has both less."""
    network = layer(format_, 384, 384, 128)
    ways = [w for w in weigh(network, EDGE) if w.cost.is_possible]
    front = machine_front(network, "edp", EDGE)
    assert {c.path for c in front} <= {w.path for w in ways}
    for candidate in front:
        cost = candidate.cost
        for way in ways:
            assert way.cost.joules >= cost.energy or way.cost.seconds > cost.latency
    for objective in ("latency", "energy"):
        (best,) = machine_front(network, objective, EDGE)
        assert best.cost.value(objective) == min(c.cost.value(objective) for c in front)


def test_a_quick_search_times_few_paths_and_beats_the_counted_ones():
    network = layer("tucker", 384, 384, 64)
    quick, long = (weigh(network, EDGE, most=most) for most in (QUICK, None))
    assert len(quick) == QUICK < len(long)

    def best(ways: tuple[Weighed, ...]) -> float:
        return min(w.cost.joules * w.cost.seconds for w in ways if w.cost.is_possible)

    counted = tuple(w for w in long if w.name in (NAIVE, FEWEST))
    assert best(long) <= best(quick) <= best(counted)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_rebuilt_weight_costs_what_the_dense_layer_does(format_: Format):
    """Steps of weights only are done when the program is compiled."""
    network = layer(format_, 384, 1536, 64)
    (rebuilt,) = (way for way in weigh(network, EDGE) if way.name == REBUILT)
    expected = layer_cost(dense(384, 1536, 64), ((0, 1),), EDGE, fused=False)
    assert rebuilt.cost == expected


def test_a_step_that_keeps_an_index_of_its_weight_has_no_product():
    """CP's shared rank survives where a factor meets the tokens: refused, and infinite."""
    network = layer("cp", 384, 384, 64)
    path = left_to_right(len(network.terms))
    cost = layer_cost(network, path, EDGE, fused=False)
    assert not cost.is_possible
    assert cost.cycles == cost.joules == math.inf
    assert "no product" in cost.refused
    estimate = StepEstimate(load_hardware("hdp-edge"), network, False)
    assert count(network, path, estimate).energy == math.inf


def test_what_is_no_layer_is_refused():
    """Two activations, or a result whose first index is another one."""
    with pytest.raises(HeatcError, match="no layer of one input"):
        weigh(Network.of(["ti", "tj"], "tij", {"t": 4, "i": 8, "j": 8}), EDGE)
    with pytest.raises(HeatcError, match="no layer of one input"):
        weigh(Network.of(["ti", "oi"], "ot", {"t": 4, "i": 8, "o": 8}, [1]), EDGE)


def test_no_path_is_infeasible(tmp_path: pathlib.Path):
    """A machine with buffers too small for any tile has no path, and says why."""
    file = tmp_path / "tiny.yaml"
    file.write_text("base: hdp-edge\nbuffers:\n  local: 1 KiB\n  shared: 1 KiB\n")
    with pytest.raises(InfeasibleError, match="no path of"):
        machine_front(layer("low-rank", 384, 384, 64), "edp", load_hardware(file))


# --- Runs -------------------------------------------------------------------------------------


@st.composite
def networks_and_paths(draw: st.DrawFn) -> tuple[Network, Path]:
    """A tensor train of 3 to 6 factors with an activation, and any path."""
    spec = Spec("tt", (4, 3), (2, 5), (2, 3, 2))
    network = layer_network(spec, 7)
    live, path = list(range(len(network.terms))), list[tuple[int, int]]()
    while len(live) > 1:
        a = live.pop(draw(st.integers(0, len(live) - 1)))
        b = live.pop(draw(st.integers(0, len(live) - 1)))
        path.append((a, b))
        live.append(len(network.terms) + len(path) - 1)
    return network, tuple(path)


@settings(max_examples=60, deadline=None)
@given(networks_and_paths())
def test_a_run_has_a_path_that_does_it(drawn: tuple[Network, Path]):
    """Every weight meets the activation once; the path made of a run does that run."""
    network, path = drawn
    run = run_of(network, path)
    assert sorted(i for group in run for i in group) == sorted(network.weights)
    assert run_of(network, path_of(network, run)) == run
    for other in neighbours(run):
        assert sorted(i for group in other for i in group) == sorted(network.weights)
        assert run_of(network, path_of(network, other)) == other
