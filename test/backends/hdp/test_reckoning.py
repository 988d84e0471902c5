"""The machine's cycles, busy times and bytes against those of a second reckoning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from machine_kit import Given
from masked_models import Encoder
from masked_models import batch as masked_batch
from padded_models import Reader, batch
from reckoning import Reckoning
from rules_kit import LENGTHS, inputs
from test_padding_reads import RULES as PADDED
from test_pinned_runs import MACHINES, RULES, program_of
from timing_kit import Sizes, empty_memory, encoded, encoder_layer, machine_run, tiled, weight_bytes
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.backends.hdp.encode import Encoded, encode_module
from heatc.capture import capture_module
from heatc.hardware import Hardware, load_hardware
from heatc.isa.units import Mask
from heatc.isa.words import Inst
from heatc.machine.machine import Machine, MachineState, RunResult
from heatc.machine.state import Extent
from heatc.machine.values import Shapes
from heatc.pipeline import build, run_passes
from heatc.rules import make_rule
from heatc.targets import Hdp, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

CASES = [(rule, machine) for rule, machines in RULES.items() for machine in machines]
PRESETS = ("hdp-edge", "hdp-server", "hdp-edge-vector", "hdp-server-vector")


@cache
def layer(sizes: Sizes, batch: int, length: int, preset: str) -> ModuleOp:
    """An encoder layer with dense attention."""
    return tiled(encoder_layer(sizes, batch, length), preset)


def expect_agreement(module: ModuleOp, hw: Hardware, lengths: Sequence[int]) -> None:
    """Cycles, busy cycles of every engine, and bytes of DRAM traffic."""
    result, _ = machine_run(module, hw, lengths)
    expect_equal(result, encoded(module, hw), hw, lengths)


def expect_equal(
    result: RunResult,
    program: Encoded,
    hw: Hardware,
    lengths: Sequence[int],
    decided: Sequence[Mask] = (),
    extras: Sequence[int] = (),
) -> None:
    """The same of a run and of the second reckoning."""
    found = Reckoning(hw, program.program, lengths, weight_bytes(program), decided, extras)
    busy = {engine: int(cycles.sum()) for engine, cycles in result.busy.items()}
    assert {e: n for e, n in busy.items() if n} == {e: n for e, n in found.busy.items() if n}
    assert (found.read, found.written) == (result.dram_bytes_read, result.dram_bytes_written)
    assert found.cycles == result.cycles > 0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("sizes", "batch", "length", "lengths"),
    [
        (Sizes(384, 12, 1536), 1, 128, [77]),
        (Sizes(120, 5, 200), 2, 30, [30, 17]),
        (Sizes(120, 5, 200), 4, 200, [200, 2, 9]),
        (Sizes(64, 4, 96), 1, 1, [1]),
    ],
)
def test_two_reckonings_agree(
    preset: str, sizes: Sizes, batch: int, length: int, lengths: Sequence[int]
):
    expect_agreement(layer(sizes, batch, length, preset), load_hardware(preset), lengths)


@pytest.mark.parametrize(
    "change",
    [
        {"fold_overlap": False},
        {"stage_overlap": False},
        {"split_bits": 4},
        {"dram_latency_cycles": 1000},
        {"dram_bytes_per_second": 10**9},
        {"pe_rows": 8, "softmax_lanes": 3},
        {"host_ops_per_second": 10**8},
    ],
)
def test_they_agree_on_other_machines(change: dict[str, int]):
    hw = replace(load_hardware("hdp-edge"), **change)
    expect_agreement(layer(Sizes(120, 5, 200), 2, 30, "hdp-edge"), hw, [30, 17])


class Recorded(Given):
    """Masks and gates, and what they were, in the order in which a program asked."""

    def __init__(self, seed: int, kept: float, heads: float):
        super().__init__(seed, kept, heads)
        self.found: list[Mask] = []

    def _noted(self, found: Mask) -> Mask:
        self.found.append(np.array(found))
        return found

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        return self._noted(super().mask(pc, state, first, rows, columns))

    def gate(self, pc: int, state: MachineState) -> Mask:
        return self._noted(super().gate(pc, state))

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        return self._noted(super().cascade(pc, heads, keep))


def run(
    program: Encoded, hw: Hardware, arrays: Mapping[str, Any], decisions: Recorded
) -> tuple[RunResult, list[tuple[int, int, int]]]:
    """A run on given masks, and first row, keys and further rows of each sequence."""
    memory = empty_memory(program)
    for port in program.inputs:
        memory.write(port.address, arrays[port.name], port.dtype.replace("int", "i"))
    sequences: list[tuple[int, int, int]] = []

    def note(pc: int, inst: Inst, state: MachineState) -> None:
        sequences[:] = state.sequences

    result = Machine(hw, memory).run(program.program, note, values=Shapes(decisions))
    return result, sequences


@pytest.mark.parametrize("kept", [0.2, 0.7])
@pytest.mark.parametrize(("rule", "machine"), CASES)
def test_they_agree_on_pruning(rule: str, machine: str, kept: float):
    hw = MACHINES[machine]
    program, decisions = program_of(rule, hw), Recorded(5, kept, kept)
    result, _ = run(program, hw, inputs(), decisions)
    expect_equal(result, program, hw, LENGTHS, decisions.found)


@pytest.mark.parametrize("rule", ["none", "ours", "topk single", "energon", "sanger", "spatten"])
@pytest.mark.parametrize("reading", ["first", "flat"])
def test_they_agree_where_padding_is_read(reading: str, rule: str):
    arrays = batch(12)
    model = Reader(reading, 12, layers=2, sharpness=6.0).eval()
    captured = capture_module(model, {name: torch.tensor(value) for name, value in arrays.items()})
    passes = build(pipeline_text(Options(Hdp("hdp-edge"), make_rule(*PADDED[rule]))))
    hw = load_hardware("hdp-edge")
    run_passes(make_context(captured.weights, hardware=hw), captured.module, passes)
    program = encode_module(captured.module)
    decisions = Recorded(5, 0.5, 0.5)
    result, sequences = run(program, hw, arrays, decisions)
    _, lengths, extras = zip(*sequences)
    assert sum(extras) > 0
    expect_equal(result, program, hw, lengths, decisions.found, extras)


@pytest.mark.parametrize("rule", ["none", "ours", "paper tau-h=4.0", "topk", "spatten ratio=0.4"])
@pytest.mark.parametrize("preset", ["hdp-edge", "hdp-server"])
def test_they_agree_on_masks_of_the_model(preset: str, rule: str):
    """What rows see and biases of heads come upon positions, are added, and exclude."""
    kinds = ("causal alibi", "window", "learned")
    model, arrays = Encoder(kinds, 37, 48, 3).eval(), masked_batch(kinds, 2, 37)
    captured = capture_module(model, {name: torch.tensor(value) for name, value in arrays.items()})
    text = pipeline_text(Options(Hdp(preset))).replace("rule=none", f"rule={rule}")
    hw = load_hardware(preset)
    run_passes(make_context(captured.weights, hardware=hw), captured.module, build(text))
    program = encode_module(captured.module)
    used = {inst.mnemonic for inst in program.program}
    assert used >= {"ldv", "ldb", "offset"}
    assert ("weigh" in used) == (rule not in ("none", "spatten ratio=0.4"))
    decisions = Recorded(5, 0.6, 0.6)
    result, sequences = run(program, hw, arrays, decisions)
    _, lengths, _ = zip(*sequences)
    expect_equal(result, program, hw, lengths, decisions.found)
