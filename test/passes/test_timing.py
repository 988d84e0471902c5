"""What the compiler times is what the machine counts, cycle by cycle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from timing_kit import Sizes, encoder_layer, machine_run, tiled
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.machine.assumed import AssumedMasks
from heatc.passes.tiling.timing import time_module

PRESETS = ("hdp-edge", "hdp-server", "hdp-edge-vector", "hdp-server-vector")
MINILM, BERT = Sizes(384, 12, 1536), Sizes(768, 12, 3072)


@cache
def program(sizes: Sizes, batch: int, length: int, hw: str):
    return tiled(encoder_layer(sizes, batch, length), hw)


@pytest.mark.parametrize("hw", PRESETS)
@pytest.mark.parametrize("sizes", [MINILM, BERT, Sizes(120, 5, 200)])
@pytest.mark.parametrize(
    ("batch", "length", "lengths"),
    [(1, 128, [128]), (1, 128, [77]), (2, 30, [30, 17]), (1, 1, [1]), (4, 300, [300, 2, 9])],
)
def test_agrees_with_the_machine(
    hw: str, sizes: Sizes, batch: int, length: int, lengths: Sequence[int]
):
    """Cycles, busy cycles, bytes, steps and every action of an encoder layer, dense attention."""
    module = program(sizes, batch, length, hw)
    result, report = machine_run(module, load_hardware(hw), lengths)
    timed = time_module(module, load_hardware(hw), lengths)
    assert timed.cycles == result.cycles > 0
    assert timed.busy == {engine: int(v.sum()) for engine, v in result.busy.items()}
    assert timed.dram_bytes_read == result.dram_bytes_read
    assert timed.dram_bytes_written == result.dram_bytes_written
    assert (timed.macs, timed.steps) == (result.macs, result.steps)
    assert timed.actions == pytest.approx(report.actions)
    assert timed.joules == pytest.approx(report.joules, rel=1e-12)


@pytest.mark.parametrize("switch", ["fold_overlap", "stage_overlap", "local_a_stationary"])
def test_agrees_with_a_mechanism_off(switch: str):
    """Switches of the hardware file change the timer's cycles as the machine's."""
    hw = replace(load_hardware("hdp-edge"), **{switch: False})
    module = program(MINILM, 1, 128, "hdp-edge")
    result, report = machine_run(module, hw, [100])
    timed = time_module(module, hw, [100])
    assert timed.cycles == result.cycles
    assert timed.cycles > time_module(module, load_hardware("hdp-edge"), [100]).cycles
    assert timed.joules == pytest.approx(report.joules, rel=1e-12)


def test_full_sequences_unless_told():
    """Without lengths every sequence is full; the module stays as it is."""
    module, hw = program(MINILM, 2, 30, "hdp-edge"), load_hardware("hdp-edge")
    before = str(module)
    assert time_module(module, hw) == time_module(module, hw, [30, 30])
    assert str(module) == before
    assert time_module(module, hw).cycles > time_module(module, hw, [30, 17]).cycles


@pytest.mark.parametrize("lengths", [[31], [30, 30, 30], [-1]])
def test_lengths_must_fit(lengths: Sequence[int]):
    with pytest.raises(HeatcError, match="none of 2 x 30"):
        time_module(program(MINILM, 2, 30, "hdp-edge"), load_hardware("hdp-edge"), lengths)


GATED = """
func.func @main() {
  %zero = hdp.special zero : index
  hdp.seq %zero : index
  hdp.heads %zero, stride = 1, limit = 8 : index
  hdp.gate tau = 0.5, own = 0, positive = 0, visible = 0
  hdp.halt
  func.return
}
"""

TOKENS = """
func.func @main() {
  %n = hdp.special tokens : index
  %zero = arith.constant 0 : index
  %step = arith.constant 8 : index
  scf.for %i = %zero to %n step %step {
    hdp.all
  }
  hdp.halt
  func.return
}
"""


def parsed(text: str) -> ModuleOp:
    return Parser(make_context(), text).parse_module()


def test_what_depends_on_values_is_refused():
    """A pruning rule's instructions have no time without masks."""
    module, edge = parsed(GATED), load_hardware("hdp-edge")
    with pytest.raises(HeatcError, match="pc 2: what is kept depends on values"):
        time_module(module, edge, [8])
    assert time_module(module, edge, [8], AssumedMasks(0.5, heads=0.5)).steps == 4


def test_tokens_without_packing_must_be_told():
    """A block that somebody else packs for: 3 iterations of 17 tokens, 2 instructions each."""
    module, edge = parsed(TOKENS), load_hardware("hdp-edge")
    with pytest.raises(HeatcError, match="needs the lengths of its sequences"):
        time_module(module, edge)
    assert time_module(module, edge, [17]).steps == 1 + 3 * 2 + 1
    assert time_module(module, edge, [8, 8, 1]).steps == 1 + 3 * 2 + 1


def test_more_bandwidth_never_costs():
    """Cycles fall, and joules do not rise, with DRAM's bandwidth."""
    module, edge = program(BERT, 1, 128, "hdp-edge"), load_hardware("hdp-edge")
    cycles = [
        time_module(module, replace(edge, dram_bytes_per_second=10**9 * n)).cycles
        for n in (2, 8, 32, 128)
    ]
    assert list(np.sort(cycles)[::-1]) == cycles
    assert cycles[-1] < cycles[0]
