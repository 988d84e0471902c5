"""A run on stored masks, without values, costs what the run that made them cost."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encode_kit import Net, Value, compile_text, expect_same, hardware, write_hardware

from heatc.backends.hdp.container import Manifest, Program
from heatc.backends.hdp.simulation import simulate, simulate_timing
from heatc.backends.hdp.trace import ChromeSink, TraceRecorder
from heatc.errors import HeatcError

Array = np.ndarray[Any, Any]

RULES: tuple[dict[str, Any] | None, ...] = (
    None,
    {},
    {"rho": 0.25, "pruned": "int"},
    {"rho": -0.5, "pruned": "neginf"},
    {"pruned": "mean"},
    {"tau": 2.0},
    {"tau": 2.5, "pruned": "neginf"},
    {"rho": 0.25, "size": (4, 2)},
    {"rho": 0.1, "pruned": "neginf", "size": (1, 1), "tau": 2.0},
)
MECHANISMS = ("fetch_upon_mask", "early_head_exit", "stage_overlap", "local_a_stationary")


def _mask(*lengths: int, size: int) -> Array:
    mask = np.zeros((len(lengths), size), np.int64)
    for row, length in zip(mask, lengths):
        row[size - length :] = 1
    return mask


def _program(net: Net, result: Value, hw: str) -> Program:
    encoded = compile_text(net.text(result), net.store(), hw)
    manifest = Manifest(hardware(hw), encoded.inputs, encoded.outputs, encoded.dram_bytes)
    parts = [item.array(net.store()) for item in encoded.weights]
    data = b"".join(np.ascontiguousarray(part).tobytes() for part in parts)
    weights = np.frombuffer(data, np.uint8)
    debug = json.loads(json.dumps(encoded.debug))
    return Program(Path("p.hdp"), manifest, encoded.program, weights, {}, {}, debug)


def _layer(net: Net, heads: int, rule: dict[str, Any] | None) -> Value:
    """An encoder layer: every kind of instruction."""
    width = net.x.codes.shape[1]
    q, k, v = (net.linear(name, net.x, width, 10) for name in "qkv")
    points = (12, 11) if rule is None else (9, 11)
    if rule is None:
        attention = net.dense(q, k, v, heads, points)
    else:
        attention = net.paper(q, k, v, heads, points, **rule)
    x = net.norm("norm", net.linear("dense", attention, width, 10), net.x, 11)
    return net.gelu("gelu", net.linear("up", x, 2 * width, 10), 10)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule(rule: dict[str, Any] | None):
    """Odd lengths, an empty sequence, more heads than cores of hdp-edge."""
    net = Net(_mask(21, 0, 8, 1, size=21), 60)
    program = _program(net, _layer(net, 10, rule), "hdp-edge")
    whole = simulate(program, net.inputs(), masks=True)
    timed = simulate_timing(program, whole.masks)
    expect_same(timed.result, whole.result)
    assert not timed.computed
    assert timed.outputs == {}
    np.testing.assert_array_equal(whole.masks["lengths"], [21, 0, 8, 1])


@pytest.mark.parametrize("rule", [None, {"rho": 0.25}, {"tau": 2.0, "pruned": "mean"}])
def test_streamed_keys_and_ragged_tiles(rule: dict[str, Any] | None, tmp_path: Path):
    small = replace(hardware("hdp-edge"), local_buffer_bytes=8192)
    net = Net(_mask(50, 33, 16, size=50), 64)
    program = _program(net, _layer(net, 2, rule), write_hardware(small, tmp_path))
    whole = simulate(program, net.inputs(), masks=True)
    expect_same(simulate_timing(program, whole.masks).result, whole.result)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_other_hardware(mechanism: str):
    """Masks do not depend on the hardware: one run serves a sweep."""
    net = Net(_mask(21, 13, size=21), 60)
    program = _program(net, _layer(net, 10, {"tau": 2.5}), "hdp-edge")
    stored = simulate(program, net.inputs(), masks=True).masks
    base = hardware("hdp-edge")
    slow = replace(base, dram_bytes_per_second=base.dram_bytes_per_second // 8)
    for hw in (slow, replace(base, **{mechanism: False})):
        expected = simulate(program, net.inputs(), hw).result
        expect_same(simulate_timing(program, stored, hw).result, expected)


def test_masks_decide():
    """The masks are really those of the file."""
    net = Net(_mask(20, size=20), 32)
    program = _program(net, _layer(net, 4, {"tau": 0.01}), "hdp-edge")
    stored = simulate(program, net.inputs(), masks=True).masks
    name = next(key for key in stored if key.startswith("mask/"))
    gate = name.replace("mask/", "gate/")
    full = simulate_timing(program, {**stored, name: np.ones_like(stored[name])}).result
    assert full.blocks_kept == full.blocks_total
    none = simulate_timing(program, {**stored, gate: np.zeros_like(stored[gate])}).result
    assert none.heads_kept == 0
    assert none.cycles < full.cycles


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": None}, "expected a row of integers"),
        ({"lengths": np.array([21])}, "a length is outside 0 to 20"),
        ({"mask": np.ones((1, 4, 3, 3), np.bool_)}, "expected (1, 4, 10, 10) bool, found (1, 4, 3"),
        ({"gate": None}, "expected (1, 4) bool, found nothing"),
    ],
)
def test_wrong_masks_are_refused(change: dict[str, Any], message: str):
    net = Net(_mask(20, size=20), 32)
    program = _program(net, _layer(net, 4, {"tau": 0.01}), "hdp-edge")
    stored = dict(simulate(program, net.inputs(), masks=True).masks)
    ((kind, value),) = change.items()
    name = next(key for key in stored if key.split("/")[0] == kind)
    del stored[name]
    if value is not None:
        stored[name] = value
    with pytest.raises(HeatcError) as caught:
        simulate_timing(program, stored)
    assert message in caught.value.message
    assert "--save-masks" in " ".join(caught.value.notes)


@pytest.mark.parametrize("mechanism", [None, *MECHANISMS])
def test_a_trace_shows_every_busy_cycle(mechanism: str | None):
    net = Net(_mask(21, 13, size=21), 60)
    program = _program(net, _layer(net, 10, {"tau": 2.5}), "hdp-edge")
    hw = hardware("hdp-edge")
    hw = hw if mechanism is None else replace(hw, **{mechanism: False})
    stream = io.BytesIO()
    trace = TraceRecorder(
        ChromeSink(stream), program.instructions, program.debug, hw.cores, hw.clock_hz
    )
    result = simulate(program, net.inputs(), hw, trace=trace).result
    trace.close()
    events = json.loads(stream.getvalue())["traceEvents"]
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    cycles = dict.fromkeys(result.busy, 0.0)
    for event in events:
        if event["ph"] == "X":
            engine = next(e for e in cycles if e in names[event["tid"]].split())
            cycles[engine] += event["dur"] * hw.clock_hz / 1e6
    for engine, busy in result.busy.items():
        assert cycles[engine] == pytest.approx(int(busy.sum())), engine
