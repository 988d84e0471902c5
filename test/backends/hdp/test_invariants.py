"""
What no program may break: mechanisms change cost only, more hardware is never worse, nothing is free.

The programs are tiny BERTs, compiled once each; costs under given masks come from runs without
arithmetic (`Shapes`).
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Given, Kit, Tiny, codes

import heatc
from heatc.backends.hdp.container import Program, open_program
from heatc.backends.hdp.simulation import simulate
from heatc.errors import HeatcError
from heatc.hardware import Hardware, load_hardware, render
from heatc.machine.machine import Machine, Memory, RunResult
from heatc.machine.values import Shapes

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

BATCH, LENGTH, HIDDEN, HEADS, INNER, LAYERS = 2, 44, 48, 3, 96, 2
SWITCHES = {
    "fetch_upon_mask": "dram_bytes_read",
    "early_head_exit": "macs",
    "stage_overlap": "",
    "local_a_stationary": "dram_bytes_read",
    "block_importance_in_array": "cycles",
}
"""
Each mechanism and what certainly grows without it.

A gated head of one row tile has nothing to overlap: `test_overlap_of_stages_pays` has.
"""

Inputs = dict[str, Any]


@cache
def _model() -> Any:
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=INNER,
        max_position_embeddings=LENGTH,
        initializer_range=0.3,
    )
    return transformers.BertModel(config, add_pooling_layer=False).eval()


_FOLDER = TemporaryDirectory()


@cache
def _program(rule: str, hardware: Hardware) -> Program:
    """The model for some hardware; under `paper`, some heads and most blocks are pruned."""
    folder = Path(_FOLDER.name)
    description = folder / f"{abs(hash(hardware))}.yaml"
    description.write_text(render(hardware), encoding="utf-8")
    shape = (BATCH, LENGTH)
    example = {
        "input_ids": torch.zeros(shape, dtype=torch.int64),
        "attention_mask": torch.ones(shape, dtype=torch.int64),
    }
    output = folder / f"{rule}{abs(hash(hardware))}.hdp"
    pruning: dict[str, Any] = {}
    if rule == "paper":
        pruning = {"rho_b": 0.9, "tau_h": 8.0, "pruned_score": "neginf"}
    if rule == "ours":
        pruning = {"rho_b": 0.5}
    heatc.compile(
        _model(), example, target=str(description), output=output, hdp_rule=rule, **pruning
    )
    return open_program(output)


def _small(**changes: Any) -> Hardware:
    """Few, small cores, so that tiny models have several rounds, tiles and folds."""
    base = load_hardware("hdp-edge")
    return replace(base, cores=2, pe_rows=8, pe_columns=8, **changes)


def _inputs(lengths: tuple[int, ...] = (LENGTH, 31)) -> Inputs:
    rng = np.random.default_rng(1)
    mask = (np.arange(LENGTH) < np.array(lengths)[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(0, 60, mask.shape), "attention_mask": mask}


def _run(program: Program, hardware: Hardware | None = None) -> tuple[RunResult, Any]:
    simulation = simulate(program, _inputs(), hardware)
    return simulation.result, simulation.outputs["last_hidden_state"]


def _cost(program: Program, decisions: Given, hardware: Hardware) -> RunResult:
    memory = Memory(program.weights, program.manifest.dram_bytes)
    for port in program.manifest.inputs:
        values = _inputs()[port.name]
        memory.write(port.address, values, {"int64": "i64"}[port.dtype])
    return Machine(hardware, memory).run(program.instructions, values=Shapes(decisions))


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_mechanism_changes_cost_only(switch: str):
    hardware = _small()
    program = _program("paper", hardware)
    on, expected = _run(program)
    off, values = _run(program, replace(hardware, **{switch: False}))
    np.testing.assert_array_equal(values, expected)
    assert (off.blocks_kept, off.heads_kept) == (on.blocks_kept, on.heads_kept)
    assert 0 < on.heads_kept < on.heads_total
    for cost in ("cycles", "dram_bytes_read", "dram_bytes_written", "macs"):
        assert getattr(off, cost) >= getattr(on, cost)
    if grown := SWITCHES[switch]:
        assert getattr(off, grown) > getattr(on, grown)


def test_overlap_of_stages_pays():
    """Scores of the next row tile or head are computed while the softmax unit works."""
    hardware = _small()
    program = _program("none", hardware)
    on, expected = _run(program)
    off, values = _run(program, replace(hardware, stage_overlap=False))
    np.testing.assert_array_equal(values, expected)
    assert off.cycles > on.cycles


def _two_stages(overlap: bool) -> RunResult:
    kit = Kit(Tiny(cores=1, stage_overlap=overlap))
    x, scores = kit.put(codes((16, 16), 1), "i16"), kit.put(codes((16, 16), 2, "i32"), "i32")
    a, p = (kit.tile("local", "i16", 512) for _ in range(2))
    s, acc = kit.tile("local", "i32", 1024), kit.tile("local", "acc", 16 * 16 * 6)
    kit.emit("ld", t=a, d=x, rows=16, cols=16)
    kit.emit("ld", t=s, d=scores, rows=16, cols=16)
    kit.emit("softmax", p=p, s=s, multiplier=1 << 15, shift=16, point=4)
    kit.emit("mm", acc=acc, a=a, b=a, first=1)
    return kit.run()


def test_stages_of_independent_tiles_overlap():
    with_overlap, without = _two_stages(True), _two_stages(False)
    assert with_overlap.cycles < without.cycles
    assert without.cycles >= without.busy["softmax"][0] + without.busy["pe"][0]
    assert with_overlap.busy["pe"] == without.busy["pe"]


@given(st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1), st.sampled_from(sorted(SWITCHES)))
@settings(max_examples=15, deadline=None)
def test_no_mechanism_costs_anything(seed: int, kept: float, heads: float, switch: str):
    hardware = _small()
    program = _program("paper", hardware)
    on = _cost(program, Given(seed, kept, heads), hardware)
    off = _cost(program, Given(seed, kept, heads), replace(hardware, **{switch: False}))
    assert off.cycles >= on.cycles
    assert off.dram_bytes_read >= on.dram_bytes_read
    assert off.macs >= on.macs


@given(
    st.integers(0, 1000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["", *SWITCHES]),
    st.sampled_from(["paper", "ours"]),
)
@settings(max_examples=25, deadline=None)
def test_pruning_more_blocks_never_costs_more(
    seed: int, kept: float, less: float, off: str, rule: str
):
    """
    The same random numbers: blocks kept below `kept * less` are a part of those below `kept`.

    Rule `ours` multiplies kept values alone, the sum of all values stands for the others.
    """
    hardware = _small()
    program = _program(rule, hardware)
    constant = [i["constant"] for i in program.instructions if i.mnemonic == "pv"]
    assert set(constant) == {int(rule == "ours")}
    if off:
        hardware = replace(hardware, **{off: False})
    many = _cost(program, Given(seed, kept, 1.0), hardware)
    few = _cost(program, Given(seed, kept * less, 1.0), hardware)
    assert few.blocks_kept <= many.blocks_kept
    assert few.cycles <= many.cycles
    assert few.macs <= many.macs
    assert few.dram_bytes_read <= many.dram_bytes_read
    for engine, busy in few.busy.items():
        assert np.all(busy <= many.busy[engine])


@pytest.mark.parametrize("rule", ["none", "paper"])
@pytest.mark.parametrize(
    "key",
    [
        "dram_bytes_per_second",
        "shared_bytes_per_cycle",
        "host_bytes_per_second",
        "host_ops_per_second",
        "softmax_lanes",
        "adder_lanes",
        "se_lanes",
    ],
)
def test_faster_parts_never_cost_more(rule: str, key: str):
    hardware = _small()
    program = _program(rule, hardware)
    slow, _ = _run(program)
    fast, _ = _run(program, replace(hardware, **{key: 3 * getattr(hardware, key)}))
    assert fast.cycles <= slow.cycles
    assert fast.dram_bytes_read == slow.dram_bytes_read
    assert fast.macs == slow.macs


@pytest.mark.parametrize("rule", ["none", "paper"])
@pytest.mark.parametrize("key", ["local_buffer_bytes", "shared_buffer_bytes"])
def test_larger_buffers_never_cost_more(rule: str, key: str):
    """
    Compiled again for each size.

    Tiles are chosen by an estimate of their cycles, at half of the blocks, hence the slack of 2 %.
    """
    least = _small(local_buffer_bytes=24 << 10, shared_buffer_bytes=24 << 10)
    results: list[RunResult] = []
    for factor in (1, 2, 4):
        hardware = replace(least, **{key: factor * getattr(least, key)})
        results.append(_run(_program(rule, hardware))[0])
    for small, large in pairwise(results):
        assert large.cycles <= 1.02 * small.cycles
        assert large.dram_bytes_read + large.dram_bytes_written <= (
            small.dram_bytes_read + small.dram_bytes_written
        )


@pytest.mark.parametrize("lengths", [(LENGTH, 31), (1, 2), (17, 40)])
def test_macs_are_the_analytic_count(lengths: tuple[int, int]):
    program = _program("none", _small())
    result = simulate(program, _inputs(lengths)).result
    linears = sum(lengths) * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
    attention = sum(2 * length**2 * HIDDEN for length in lengths)
    assert result.macs == LAYERS * (linears + attention)


@pytest.mark.parametrize("rule", ["none", "paper"])
@pytest.mark.parametrize("off", ["", "stage_overlap", "early_head_exit"])
def test_total_is_bounded_by_the_roofline(rule: str, off: str):
    hardware = _small(**({off: False} if off else {}))
    result, _ = _run(_program(rule, _small()), hardware)
    for busy in result.busy.values():
        assert int(busy.max()) <= result.cycles
    assert result.cycles >= result.macs / hardware.macs_per_cycle
    moved = result.busy["dma"][0] * hardware.dram_bytes_per_cycle
    assert moved / hardware.dram_bytes_per_cycle <= result.cycles


def test_removing_any_instruction_changes_result_or_cost():
    """
    Of all that a run executes, where what is left is legal; loops cannot be left out.

    Only two kinds may be free: a `tile` that declares what an unrolled copy declared before, and
    an `addi` for a row tile that is beyond these sequences.
    """
    hardware = _small()
    program = _program("paper", hardware)
    whole, expected = _run(program)
    rng = np.random.default_rng(0)
    left_out = ("loop", "end", "halt", "tile", "addi")
    candidates = [
        pc
        for pc, (inst, count) in enumerate(zip(program.instructions, whole.pc_counts))
        if inst.mnemonic not in left_out and count
    ]
    tried = 0
    for pc in sorted(rng.choice(candidates, 40, replace=False)):
        nothing = type(program.instructions[0])("li", (0, 0))
        code = [*program.instructions[:pc], nothing, *program.instructions[pc + 1 :]]
        try:
            result, values = _run(replace(program, instructions=code))
        except HeatcError:
            continue
        tried += 1
        same = np.array_equal(values, expected) and result.cycles == whole.cycles
        same &= result.dram_bytes_read == whole.dram_bytes_read
        busy = [{e: b.tolist() for e, b in r.busy.items()} for r in (result, whole)]
        assert not same or busy[0] != busy[1], program.instructions[pc]
    assert tried


def test_panels_are_recorded_as_one_tensor():
    """What lies in panels has its own name and all of its columns among the layers."""
    program = _program("none", _small())
    tensors = program.debug["tensors"]
    panels = [name for name in tensors if ".panel" in name]
    assert panels
    layers = simulate(program, _inputs(), layers=True).layers
    whole = {name.split(".panel")[0] for name in panels}
    assert not [name for name in layers if ".panel" in name]
    for name in whole:
        assert layers[f"codes/{name}"].shape == (LENGTH + 31, INNER)
        assert program.manifest.points[name] == layers[f"point/{name}"]
