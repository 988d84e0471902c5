"""From the fixed level to the machine and back: programs compute what numerics.md says, exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encode_kit import Net, Value, compile_text, hardware, run, write_hardware
from hypothesis import given, settings
from hypothesis import strategies as st

from heatc import fixed_point
from heatc.backends.hdp.encode import CHUNK, WeightItem
from heatc.errors import InfeasibleError
from heatc.isa.words import encode_program
from heatc.machine.machine import RunResult
from heatc.weights import WeightStore

PRESETS = ("hdp-edge", "hdp-server")
RULES: tuple[dict[str, Any], ...] = (
    {},
    {"rho": 0.25, "pruned": "int"},
    {"rho": -0.5, "pruned": "neginf"},
    {"pruned": "mean"},
    {"tau": 2.0},
    {"tau": 2.0, "pruned": "neginf"},
)


def _mask(*lengths: int, size: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows with real tokens at the end: lengths may be 0."""
    mask = np.zeros((len(lengths), size), np.int64)
    for row, length in zip(mask, lengths):
        row[size - length :] = 1
    return mask


def _check(net: Net, result: Value, hw: str, path: str | None = None) -> RunResult:
    """Compile, run, compare."""
    machine = hardware(path or hw)
    encoded = compile_text(net.text(result), net.store(), path or hw)
    outputs, run_result = run(encoded, net.store(), machine, net.inputs())
    np.testing.assert_array_equal(outputs["y"][: net.tokens], result.codes)
    assert not outputs["y"][net.tokens :].any()
    return run_result


def _attention(net: Net, heads: int, rule: dict[str, Any] | None) -> Value:
    width = net.x.codes.shape[1]
    q, k, v = (net.linear(name, net.x, width, 10) for name in "qkv")
    if rule is None:
        return net.dense(q, k, v, heads, (12, 11))
    return net.paper(q, k, v, heads, (9, 11), **rule)


@pytest.mark.parametrize("hw", PRESETS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(6, 8), (200, 70), (1536, 384)])
def test_linear(hw: str, bias: bool, width: int, depth: int):
    """Ragged in every direction, with and without a bias."""
    net = Net(_mask(13, 0, 30, size=30), depth)
    _check(net, net.linear("fc", net.x, width, 9, bias), hw)


def test_linear_in_small_buffers(tmp_path: Path):
    """Several row tiles, column tiles and slabs."""
    hw = replace(
        hardware("hdp-edge"), name="small", local_buffer_bytes=3072, shared_buffer_bytes=4096
    )
    net = Net(_mask(40, 33, size=40), 90)
    _check(net, net.linear("fc", net.x, 170, 9), "", write_hardware(hw, tmp_path))


@pytest.mark.parametrize("hw", PRESETS)
@pytest.mark.parametrize("rule", [None, *RULES])
def test_attention(hw: str, rule: dict[str, Any] | None):
    """Odd lengths, an empty sequence, more heads than cores of hdp-edge."""
    net = Net(_mask(21, 0, 8, 1, size=21), 60)
    _check(net, _attention(net, 10, rule), hw)


@pytest.mark.parametrize("rule", [None, *RULES])
def test_attention_with_streamed_keys(rule: dict[str, Any] | None, tmp_path: Path):
    """Keys and values that do not fit the local buffer pass by in tiles."""
    hw = replace(hardware("hdp-edge"), name="small", local_buffer_bytes=8192)
    net = Net(_mask(50, 33, 16, size=50), 64)
    _check(net, _attention(net, 2, rule), "", write_hardware(hw, tmp_path))


def test_gate_prunes_some_heads():
    """A pruned head is zero, its neighbours are not."""
    net = Net(_mask(16, 11, size=16), 32)
    result = _attention(net, 8, {"tau": 2.5})
    heads = result.codes.reshape(net.tokens, 8, 4).any(axis=(0, 2))
    counted = _check(net, result, "hdp-edge")
    assert heads.any()
    assert 0 < counted.heads_kept < counted.heads_total


@pytest.mark.parametrize("hw", PRESETS)
@pytest.mark.parametrize("rule", [None, {"tau": 1.0}])
@pytest.mark.parametrize("lengths", [(12, 19), (0, 0)])
def test_encoder_layer(hw: str, rule: dict[str, Any] | None, lengths: tuple[int, ...]):
    """One layer of a transformer encoder, host work included; also of no token at all."""
    net = Net(_mask(*lengths, size=24), 48)
    y = net.linear("dense", _attention(net, 4, rule), 48, 10)
    x = net.norm("norm1", y, net.x, 11)
    hidden = net.gelu("gelu", net.linear("up", x, 192, 10), 10)
    y = net.linear("down", hidden, 48, 10)
    _check(net, net.norm("norm2", y, x, 11), hw)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 18), min_size=1, max_size=3),
    heads=st.integers(1, 5),
    dim=st.integers(1, 9),
    rule=st.sampled_from([None, *RULES]),
)
def test_any_attention(lengths: list[int], heads: int, dim: int, rule: dict[str, Any] | None):
    """Whatever the shape, the program is exact."""
    net = Net(_mask(*lengths, size=18), heads * dim)
    _check(net, _attention(net, heads, rule), "hdp-edge")


def test_shorter_inputs_take_fewer_instructions():
    """Lengths are registers: padding is skipped."""
    steps: list[int] = []
    for length in (96, 40):
        net = Net(_mask(length, size=96), 64)
        steps.append(_check(net, _attention(net, 2, {}), "hdp-edge").steps)
    assert steps[1] < steps[0]


def test_infeasible_hardware(tmp_path: Path):
    """What does not fit is refused with demand, bound and levers."""
    hw = replace(hardware("hdp-edge"), name="tiny", local_buffer_bytes=1024)
    net = Net(_mask(400, size=400), 64)
    text = net.text(_attention(net, 1, {}))
    with pytest.raises(InfeasibleError, match="attention of 400 tokens") as raised:
        compile_text(text, net.store(), write_hardware(hw, tmp_path))
    assert "has 1,024" in raised.value.notes[0]


def test_debug_points_and_ports():
    """What the program tells about itself."""
    net = Net(_mask(10, size=12), 16)
    result = _attention(net, 2, {"tau": 1.0})
    encoded = compile_text(net.text(result), net.store(), "hdp-edge")
    program = encoded.program
    assert encode_program(program)
    assert [(p.name, p.shape, p.role) for p in encoded.inputs] == [
        ("mask", (1, 12), "mask"),
        ("x", (12, 16), ""),
    ]
    assert [(p.name, p.shape) for p in encoded.outputs] == [("y", (12, 16))]
    expected = {"q": 10, "k.weight": 14, "k.bias": 20, "v": 10, "o": 11, "o.scores": 9}
    assert expected.items() <= encoded.points.items()
    attention = encoded.debug["attentions"]["o"]
    assert (attention["heads"], attention["dim"]) == (2, 8)
    assert [program[pc].mnemonic for pc in attention["mask_pcs"]] == ["mask"]
    assert [program[pc].mnemonic for pc in attention["gate_pcs"]] == ["gate"]
    tensors = encoded.debug["tensors"]
    assert {program[pc].mnemonic for pc in np.atleast_1d(tensors["o"]["pc"])} == {"st"}
    planes = [tensors[f"q.{part}"]["point"] for part in ("integer", "fraction")]
    assert planes == [0, 10]
    assert "q" not in tensors


def test_weights_are_quantised_in_chunks():
    """Chunks together are the codes of the whole, with names concatenated or axes permuted."""
    rng = np.random.default_rng(0)
    a, b = (rng.normal(0, 1, (n, 700)).astype(np.float32) for n in (500, 3))
    store = WeightStore({"a": a, "b": b})
    whole = fixed_point.encode(np.concatenate([a, b]).astype(np.float64), 13, 16).codes
    item = WeightItem("w", "i16", (503, 700), ("a", "b"), None, 13)
    assert max(c.size for c in item.chunks(store)) == CHUNK
    np.testing.assert_array_equal(item.array(store), whole)
    turned = WeightItem("w", "i16", (700, 503), ("a", "b"), (1, 0), 13)
    np.testing.assert_array_equal(turned.array(store), whole.T)
    table = WeightItem("b", "f32", (3, 700), ("b",))
    np.testing.assert_array_equal(table.array(store), b)
