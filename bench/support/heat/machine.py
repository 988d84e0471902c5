"""
Factorised layers on the HDP machine: paths and fusion, in the cost model and in the simulator.

Parts of `bench/heat_costs.py`. All figures are modelled. The cost model times the instructions that
the compiler emits; the simulator runs the encoded program, without values, on which the cycles of
dense attention do not depend.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from bench.support.parts import Part
from bench.support.report import Json, Row
from heatc.api import make_context
from heatc.backends.hdp.encode import NUMPY_DTYPES, encode_module
from heatc.capture import capture_path
from heatc.capture.inputs import parse_inputs
from heatc.dialects.einsum import ContractOp, PathAttr
from heatc.hardware import load_hardware
from heatc.heat.formats import Format, Spec
from heatc.isa.units import Mask
from heatc.machine.energy import EnergyReport, energy_report
from heatc.machine.machine import Machine, MachineState, Memory, RunResult
from heatc.machine.state import Extent
from heatc.machine.values import Shapes
from heatc.passes.allocate_buffers import allocate
from heatc.passes.analysis.costs import (
    NOTHING,
    QUICK,
    Cost,
    Weighed,
    layer_cost,
    machine_front,
    weigh,
)
from heatc.passes.analysis.paths import Network, count, least_product, left_to_right
from heatc.passes.analysis.paths import Path as Steps
from heatc.passes.analysis.ranks import layer_network
from heatc.passes.lower_to_hdp import LowerToHdpPass
from heatc.passes.order_contractions import network_of, rest_of
from heatc.passes.plan_tiles import PlanTilesPass
from heatc.passes.tile_for_hdp import TileForHdpPass
from heatc.passes.tiling.scratch import scratch_layer, time_packing
from heatc.passes.tiling.timing import Timed, time_module
from heatc.pipeline import build, run_passes
from heatc.targets import Hdp, Options, pipeline_text
from heatc.weights import WeightStore

PRESETS = ("hdp-edge", "hdp-server")
TOKENS = 128
WORD_BYTES = 2


# --- The simulator ----------------------------------------------------------------------------


class _NoMasks:
    """Decisions of a program that makes none."""

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        raise AssertionError("a dense program ranks no blocks")

    def gate(self, pc: int, state: MachineState) -> Mask:
        raise AssertionError("a dense program gates no heads")

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        raise AssertionError("a dense program ranks no heads")


def simulated(module: ModuleOp, hw: str) -> tuple[RunResult, EnergyReport]:
    """What the simulator counts for a module at the tiled or machine level, full sequences."""
    hardware = load_hardware(hw)
    if any(op.name.startswith("scf.") for op in module.walk()):
        module = module.clone()
        LowerToHdpPass().apply(Context(), module)
        for function in module.ops:
            assert isinstance(function, FuncOp)
            allocate(module, function, hardware)
    encoded = encode_module(module)
    sizes = (np.dtype(NUMPY_DTYPES[w.dtype]).itemsize * math.prod(w.shape) for w in encoded.weights)
    memory = Memory(np.zeros(sum(sizes), np.uint8), encoded.dram_bytes)
    for port in encoded.inputs:
        if port.role == "mask":
            memory.write(port.address, np.ones(port.shape, np.int64), "i64")
    result = Machine(hardware, memory).run(encoded.program, values=Shapes(_NoMasks()))
    return result, energy_report(result, hardware)


def simulated_layer(network: Network, path: Steps, hw: str, *, fused: bool) -> Cost:
    """A layer alone, by the simulator, without `hpack`."""
    hardware = load_hardware(hw)
    module, context = (
        scratch_layer(network, path, hardware, fused=fused),
        make_context(hardware=hardware),
    )
    PlanTilesPass().apply(context, module)
    TileForHdpPass().apply(context, module)
    result, report = simulated(module, hw)
    packing = time_packing(network.sizes[network.result[0]], hardware)
    return Cost(
        result.cycles - packing.cycles,
        report.seconds - packing.seconds,
        report.joules - packing.joules,
        result.dram_bytes_read + result.dram_bytes_written - packing.dram_bytes,
        report.actions["shared_read"] + report.actions["shared_write"] - packing.shared_bytes,
    )


# --- DRAM words -------------------------------------------------------------------------------

TTM = Spec("ttm", (24, 32), (24, 32), (8,))
KNOWN_WORDS = {"dense": 0.79e6, "unfused": 1.78e6, "fused": 0.21e6}


def words_part() -> Part:
    """DRAM words of a tensor-train matrix, dense, unfused and fused, against the published ones."""
    network = layer_network(TTM, TOKENS)
    dense = Network.of(["ti", "oi"], "to", {"t": TOKENS, "i": 768, "o": 768}, [1])
    naive = left_to_right(3)
    ways: dict[str, tuple[Network, Steps, bool]] = {
        "dense": (dense, ((0, 1),), False),
        "unfused": (network, naive, False),
        "fused": (network, naive, True),
    }
    rows: list[Row] = []
    table: list[dict[str, Json]] = []
    for hw in PRESETS:
        for name, (net, path, fused) in ways.items():
            model = layer_cost(net, path, load_hardware(hw), fused=fused).dram_bytes / WORD_BYTES
            counted = simulated_layer(net, path, hw, fused=fused).dram_bytes / WORD_BYTES
            what = f"DRAM words TTM (24,32) r=8, M=128, {name}, {hw}"
            rows.append(Row(f"{what}: cost model", model, "words", 1.05 * KNOWN_WORDS[name], "<="))
            off = abs(counted / model - 1)
            rows.append(
                Row(f"{what}: simulator's counters off the model", off, "share", 0.05, "<=")
            )
            table.append({"layer": name, "hw": hw, "model": model, "simulator": counted,
                          "published": KNOWN_WORDS[name]})  # fmt: skip
    return Part(rows, {"words: TTM (24,32) r=8, M=128": table})


# --- Agreement --------------------------------------------------------------------------------

LAYERS = ((768, 768), (768, 3072), (3072, 768))


def agreement_part(specs: Sequence[Spec]) -> Part:
    """Every way to compute the layers of BERT-Base, dense and factorised: model against simulator."""
    planned = list(_planning_rows(specs))
    table: list[dict[str, Json]] = []
    worst = {"cycles": 0.0, "joules": 0.0}
    compared = 0
    for hw in PRESETS:
        for name, network, way, fused in _ways(specs, hw):
            model = way.cost
            counted = simulated_layer(network, way.path, hw, fused=fused)
            off = {k: abs(getattr(counted, k) / getattr(model, k) - 1) for k in worst}
            worst = {k: max(worst[k], off[k]) for k in worst}
            compared += 1
            table.append({"layer": name, "hw": hw, "path": way.name, "fused": fused,
                          "cycles": model.cycles, "simulated": counted.cycles,
                          "joules": model.joules, "simulated joules": counted.joules})  # fmt: skip
    what = f"cost model against simulator, every layer of BERT-Base, {compared} ways"
    rows = [Row(f"{what}, {k}", value, "share off", 0.05, "<=") for k, value in worst.items()]
    return Part(rows + planned, {"agreement: layers of BERT-Base, 128 tokens": table})


def _planning_rows(specs: Sequence[Spec]) -> Iterator[Row]:
    """CPU seconds to choose paths for all linears of a model, each format's for the first time."""
    hw, counts = PRESETS[0], {(768, 768): 48, (768, 3072): 12, (3072, 768): 12}
    weigh(layer_network(Spec("low-rank", (64,), (64,), (8,)), TOKENS), load_hardware(hw))
    for format_ in dict.fromkeys(spec.format for spec in specs):
        own = [spec for spec in specs if spec.format == format_]
        start = time.process_time()
        fronts = [
            machine_front(layer_network(spec, TOKENS), "edp", load_hardware(hw), most=QUICK)
            for spec in own
            for _ in range(counts[math.prod(spec.inputs), math.prod(spec.outputs)])
        ]
        least_product(fronts)
        seconds = time.process_time() - start
        what = f"planning all of BERT-Base by energy x latency on {hw} ({format_}, {len(fronts)} linears)"
        yield Row(what, seconds, "CPU s", 2, "<=")


def _ways(specs: Sequence[Spec], hw: str) -> Iterator[tuple[str, Network, Weighed, bool]]:
    for inputs, outputs in LAYERS:
        network = Network.of(["ti", "oi"], "to", {"t": TOKENS, "i": inputs, "o": outputs}, [1])
        for way in weigh(network, load_hardware(hw), fused=False):
            yield f"dense {inputs}x{outputs}", network, way, False
    for spec, fused in itertools.product(specs, (False, True)):
        network = layer_network(spec, TOKENS)
        name = f"{spec.format} {math.prod(spec.inputs)}x{math.prod(spec.outputs)}"
        for way in weigh(network, load_hardware(hw), fused=fused):
            if way.cost.is_possible:
                yield name, network, way, fused


# --- The ablation -----------------------------------------------------------------------------

Order = Literal["left to right", "fewest MACs", "EDP"]
ORDERS: tuple[Order, ...] = ("left to right", "fewest MACs", "EDP")


@dataclass(frozen=True)
class Model:
    """A model whose linears are factorised, at the packed level, with its weights."""

    module: ModuleOp
    weights: WeightStore

    @property
    def factorised(self) -> list[ContractOp]:
        """The contractions of three operands or more, in order."""
        found = (op for op in self.module.walk() if isinstance(op, ContractOp))
        return [op for op in found if len(op.inputs) > 2]


@dataclass(frozen=True)
class Column:
    """A whole program: in the cost model and as the simulator counts it."""

    order: Order
    fused: bool
    paths: tuple[Steps, ...]
    model: Timed
    cycles: int
    joules: float

    @property
    def product(self) -> float:
        """Energy x latency of the cost model, in joule seconds."""
        return self.model.joules * self.model.seconds


def factorised(folder: Path, format_: Format, ratio: float) -> Model:
    """A model folder captured and factorised, plainly: no cycle depends on the values."""
    captured = capture_path(folder, parse_inputs("input_ids=1x128:i64,attention_mask=1x128:i64"))
    head = pipeline_text(Options(Hdp(PRESETS[0]))).partition(",order-contractions")[0]
    words = f'format={format_} ratio={ratio} init=plain refinements=0 layers="encoder.*"'
    passes = build(f"{head},heat-decompose{{{words}}}")
    run_passes(make_context(captured.weights), captured.module, passes)
    return Model(captured.module, captured.weights)


def chosen_paths(
    networks: Sequence[Network], wish: Order, hw: str, *, fused: bool, rest: Cost = NOTHING
) -> list[Steps]:
    """
    A path for every layer; `rest` is what the model takes beside them.

    The naive one where the machine can follow it, that of fewest multiply-accumulates of those it
    can follow, or those of least energy x latency of all layers together.
    """
    if wish == "EDP":
        fronts = [
            machine_front(network, "edp", load_hardware(hw), fused=fused) for network in networks
        ]
        chosen = least_product(fronts, rest.joules, rest.seconds)
        return [candidate.path for candidate in chosen]
    return [_known(network, wish, hw, fused=fused) for network in networks]


def _known(network: Network, wish: Order, hw: str, *, fused: bool) -> Steps:
    possible = [
        way for way in weigh(network, load_hardware(hw), fused=fused) if way.cost.is_possible
    ]
    naive = left_to_right(len(network.terms))
    if wish == "left to right" and any(way.path == naive for way in possible):
        return naive
    return min(possible, key=lambda way: count(network, way.path).macs).path


def compiled(model: Model, paths: Sequence[Steps], hw: str, *, fused: bool) -> ModuleOp:
    """The whole program along some paths, at the machine level."""
    module = model.module.clone()
    for op, path in zip(Model(module, model.weights).factorised, paths):
        op.path = PathAttr(path)
    later = (
        "lower-contractions" + pipeline_text(Options(Hdp(hw))).partition("lower-contractions")[2]
    )
    passes = [p for p in build(later) if fused or p.name != "fuse-einsums"]
    run_passes(make_context(model.weights, hardware=load_hardware(hw)), module, passes)
    return module


def columns(model: Model, hw: str) -> Iterator[Column]:
    """Every order, unfused and fused."""
    networks = [network_of(op, TOKENS) for op in model.factorised]
    rest = rest_of(model.module, model.factorised, TOKENS, load_hardware(hw))
    for fused in (False, True):
        for wish in ORDERS:
            paths = chosen_paths(networks, wish, hw, fused=fused, rest=rest)
            module = compiled(model, paths, hw, fused=fused)
            timed = time_module(module, load_hardware(hw))
            result, report = simulated(module, hw)
            yield Column(wish, fused, tuple(paths), timed, result.cycles, report.joules)


def ablation_part(folder: Path, formats: Sequence[tuple[Format, float]]) -> Part:
    """Left to right, fewest multiply-accumulates and EDP, unfused and fused, whole BERT-Base."""
    rows: list[Row] = []
    tables: dict[str, Json] = {}
    off = 0.0
    for format_, ratio in formats:
        model = factorised(folder, format_, ratio)
        for hw in PRESETS:
            found = list(columns(model, hw))
            best = next(c for c in found if c.order == "EDP" and c.fused)
            fewest = next(c for c in found if c.order == "fewest MACs" and c.fused)
            least = min(c.product for c in found)
            what = f"ablation, BERT-Base {format_} at {ratio:g} of the MACs, {hw}"
            rows.append(
                Row(f"{what}: E x T of EDP-optimal fused over the least of all six columns",
                    best.product / least, "x", 1, "<="))  # fmt: skip
            off = max(off, *(abs(c.cycles / c.model.cycles - 1) for c in found))
            off = max(off, *(abs(c.joules / c.model.joules - 1) for c in found))
            differ = sum(a != b for a, b in zip(best.paths, fewest.paths))
            tables[f"ablation: {format_} {ratio:g}, {hw}"] = [
                *(_entry(column) for column in found),
                {"EDP-optimal differs from fewest MACs in": differ, "of layers": len(best.paths)},
            ]
    rows.append(
        Row("ablation: simulator off the cost model, whole model", off, "share", 0.01, "<=")
    )
    return Part(rows, tables)


def _entry(column: Column) -> dict[str, Json]:
    return {
        "paths": column.order,
        "fused": column.fused,
        "latency, s": column.model.seconds,
        "energy, J": column.model.joules,
        "E x T, J s": column.product,
        "DRAM, bytes": column.model.dram_bytes,
        "MACs": column.model.macs,
        "simulator, cycles": column.cycles,
        "simulator, J": column.joules,
    }
