"""
Rule `spatten` on the machine: attentions, sums and heads of every layer are those of the fixed level.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from encode_kit import hardware, write_hardware
from replan_kit import replan
from test_timing_only import expect_same

from heatc.api import make_context
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.container import Program
from heatc.backends.hdp.emit import write_module
from heatc.backends.hdp.simulation import simulate_timing
from heatc.capture import Captured, capture_module
from heatc.dialects import attn
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.pipeline import build, run_passes
from heatc.plan import read_plan
from heatc.rules import make_rule
from heatc.targets import RAISE
from heatc.tuning.common.plan_data import plan_data

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYERS, HEADS, WIDTH, SIZE = 4, 6, 48, 40
LENGTHS = (37, 0, 22, 1)
RATIOS = (0.1, 0.4, 0.9)


@cache
def captured() -> Captured:
    """A random encoder whose heads differ in what they put out."""
    torch.manual_seed(7)
    config = transformers.BertConfig(
        vocab_size=80,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=32,
        max_position_embeddings=64,
        initializer_range=0.25,
    )
    # Without a pooler: it would need a token in every row, and one row has none.
    model = transformers.BertModel._from_config(
        config, attn_implementation="eager", add_pooling_layer=False
    ).eval()
    example = {name: torch.ones(len(LENGTHS), SIZE, dtype=torch.int64) for name in inputs()}
    return capture_module(model, example)


def inputs() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    mask = (np.arange(SIZE) < np.array(LENGTHS)[:, None]).astype(np.int64)
    # Padding on the left, on the right, and on both sides.
    mask[2] = np.roll(mask[2], 9)
    mask[3] = mask[3, ::-1]
    ids = rng.integers(0, 80, mask.shape)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask & 0}


@dataclass
class Layers:
    """What the interpreter computes in each attention."""

    codes: list[Any] = field(default_factory=list[Any])
    gates: list[Any] = field(default_factory=list[Any])
    sums: list[Any] = field(default_factory=list[Any])

    def observe(self, op: Any, results: Any) -> None:
        if isinstance(op, attn.WeightedValuesOp):
            self.codes.append(results[0])
        elif isinstance(op, attn.HeadRankingOp):
            self.gates.append(results[0])
        elif isinstance(op, attn.HeadImportanceOp):
            self.sums.append(results[0])


Wanted = Callable[[AttentionPlan], bool]


def compiled(
    options: str, hw: str, folder: Path, wanted: Wanted | None = None, plan: Path | None = None
) -> tuple[Program, Layers, dict[str, Any]]:
    """The program of a rule or plan, and what the fixed level computes: attentions and outputs."""
    module, weights = captured().module.clone(), captured().weights
    context = make_context(weights, hardware=load_hardware(hw))
    context.plan = None if plan is None else read_plan(plan)
    rules = f"insert-hdp{{{options}}}" if plan is None else "apply-plan,insert-hdp"
    passes = ",".join((*RAISE, rules, "partition-host"))
    run_passes(context, module, build(f"{passes},assign-fixed-point"))
    layers = Layers()
    outputs = execute(module, inputs(), weights, layers.observe)
    run_passes(context, module, build("plan-tiles"))
    if wanted is not None:
        replan(module, hw, wanted)
    run_passes(context, module, build("tile-for-hdp,lower-to-hdp,allocate-buffers"))
    # Programs are mapped from their files: each has its own.
    path = folder / f"{len(list(folder.iterdir()))}.hdp"
    with path.open("wb") as stream:
        write_module(stream, module, weights, load_hardware(hw))
    return open_program(path), layers, outputs


def compare(ratio: float, hw: str, folder: Path, wanted: Wanted | None = None) -> Program:
    """Every bit is that of the fixed level, and a run on the gates alone costs the same."""
    program, layers, outputs = compiled(f"rule=spatten ratio={ratio}", hw, folder, wanted)
    found = simulate(program, inputs(), layers=True, masks=True)
    for key, value in outputs.items():
        np.testing.assert_array_equal(found.outputs[key], value, err_msg=key)
    real = np.array(LENGTHS) > 0
    ranked = [n for n in range(LAYERS) if f"gate/{_name(n)}" in found.layers]
    assert len(ranked) == len(layers.gates) > 0
    for layer, gate in zip(ranked, layers.gates):
        np.testing.assert_array_equal(found.layers[f"gate/{_name(layer)}"][real], gate[real])
    for layer, codes in enumerate(layers.codes):
        np.testing.assert_array_equal(found.layers[f"codes/{_name(layer)}"], codes)
    for layer, sums in enumerate(layers.sums):
        name = f"{_name(layer)}.importance"
        exact = np.ldexp(found.layers[f"codes/{name}"], -int(found.layers[f"point/{name}"]))
        np.testing.assert_array_equal(exact[real], sums[real])
    kept = sum(int(gate[real].sum()) for gate in layers.gates)
    kept += (LAYERS - len(ranked)) * HEADS * int(real.sum())
    assert found.result.heads_kept == kept < found.result.heads_total
    assert found.result.heads_total == LAYERS * HEADS * int(real.sum())
    expect_same(simulate_timing(program, found.masks).result, found.result)
    return program


def _name(layer: int) -> str:
    return f"encoder.layer.{layer}.attention.self"


@pytest.mark.parametrize("hw", ["hdp-edge", "hdp-server"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_the_bits_of_the_fixed_level(ratio: float, hw: str, tmp_path: Path):
    compare(ratio, hw, tmp_path)


@pytest.mark.parametrize(
    "kind",
    ["chained", "shared, one slot", "a head a core", "streamed keys", "pairs of cores", "rows"],
)
def test_every_way_of_dealing_out_heads(kind: str, tmp_path: Path):
    """One head after the other or several at a time, whose places in memory are no neighbours."""
    wanted: dict[str, Callable[[Any], bool]] = {
        "chained": lambda p: p.chained,
        "shared, one slot": lambda p: p.shared and p.slots == 1,
        "a head a core": lambda p: p.parts == 1 and p.slots == 1,
        "streamed keys": lambda p: p.parts == 1 and not p.resident,
        "pairs of cores": lambda p: p.parts == 2,
        "rows": lambda p: p.parts == 2 and p.slots == 2 and p.steps > 1,
    }
    four = replace(hardware("hdp-edge"), name="four", cores=4)
    compare(0.4, write_hardware(four, tmp_path), tmp_path, wanted[kind])


@pytest.mark.parametrize("cores", [1, 3])
def test_small_buffers(cores: int, tmp_path: Path):
    """Keys and values pass by in tiles, rows come in several."""
    small = replace(hardware("hdp-edge"), name="small", cores=cores, local_buffer_bytes=8192)
    compare(0.4, write_hardware(small, tmp_path), tmp_path)


@pytest.mark.parametrize("mechanism", ["early_head_exit", "stage_overlap", "local_a_stationary"])
def test_mechanisms_change_no_value(mechanism: str, tmp_path: Path):
    slow = replace(hardware("hdp-edge"), name="slow", **{mechanism: False})
    compare(0.4, write_hardware(slow, tmp_path), tmp_path)


def test_pruned_heads_cost_neither_products_nor_fetches(tmp_path: Path):
    """What is saved is the heads' part of attention; what is added is charged."""
    rules = ("rule=none", "rule=spatten ratio=0.0", "rule=spatten ratio=0.4")
    programs = [compiled(rule, "hdp-edge", tmp_path)[0] for rule in rules]
    dense, none, some = (simulate(program, inputs()).result for program in programs)
    # Without a head to prune nothing is summed: the program is that of dense attention.
    assert none.cycles == dense.cycles
    assert "magnitude" not in none.counts
    pairs = sum(n * n for n in LENGTHS) * 2 * WIDTH // HEADS
    pruned = 1 + 3 + 4
    assert dense.macs - some.macs == pruned * pairs
    fetched = 3 * sum(LENGTHS) * WIDTH // HEADS * 2
    sums = (LAYERS - 1) * 3 * HEADS * 8
    assert dense.dram_bytes_read - some.dram_bytes_read == pruned * fetched - sums
    assert some.busy["adder"].sum() > dense.busy["adder"].sum()


def test_other_rules_between(tmp_path: Path):
    """By a plan the second layer has another rule: heads are ranked over the other three."""
    ranked = make_rule("spatten", {"ratio": 0.4})
    chosen = {_name(n): ranked for n in (0, 2, 3)} | {_name(1): make_rule("ours", {})}
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan_data(chosen)), encoding="utf-8")
    program, layers, outputs = compiled("", "hdp-edge", tmp_path, plan=path)
    found = simulate(program, inputs(), layers=True)
    for key, value in outputs.items():
        np.testing.assert_array_equal(found.outputs[key], value, err_msg=key)
    assert [gate[0].sum() for gate in layers.gates] == [4, 2]
    for layer, gate in zip((2, 3), layers.gates):
        real = np.array(LENGTHS) > 0
        np.testing.assert_array_equal(found.layers[f"gate/{_name(layer)}"][real], gate[real])
    assert f"gate/{_name(1)}" not in found.layers


def test_stored_gates_of_another_number_are_refused(tmp_path: Path):
    program = compiled("rule=spatten ratio=0.4", "hdp-edge", tmp_path)[0]
    stored = simulate(program, inputs(), masks=True).masks
    last = f"gate/{_name(3)}"
    stored[last] = np.ones_like(stored[last])
    with pytest.raises(HeatcError, match="the masks keep 6 of 6 heads, the program 2 of 6"):
        simulate_timing(program, stored)
