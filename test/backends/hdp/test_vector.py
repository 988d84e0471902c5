"""Vector units: the host's element-wise work on the machine, bit by bit and cycle by cycle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes

from heatc.backends.hdp.energy import energy_report
from heatc.backends.hdp.machine import RunResult
from heatc.hardware import load_hardware

VECTOR = Tiny(cores=2, vector_lanes=4)
"""8 elements a cycle; DRAM gives 8 bytes a cycle, 10 cycles late."""


def _norm(hardware: Tiny, rows: int = 6, columns: int = 32) -> tuple[Kit, int]:
    """Layer norm and GELU of the sum of two tensors; the kit and the result."""
    kit = Kit(hardware)
    dx, dy = (kit.put(codes((rows, columns), seed), "i16") for seed in (1, 2))
    numbers = np.random.default_rng(3).normal(size=(2, columns)).astype(np.float32)
    gamma, beta = (kit.put(row[None], "f32") for row in numbers)
    result = kit.tensor((rows, columns), "i16")
    kit.emit("hget", h=0, d=dx, rows=rows, point=10)
    kit.emit("hget", h=1, d=dy, rows=rows, point=9)
    kit.emit("hadd", h=0, g=1)
    kit.emit("hln", h=0, gamma=gamma, beta=beta, eps=1e-12)
    kit.emit("hgelu", h=0)
    kit.emit("hput", d=result, h=0, point=11)
    return kit, result


def _run(hardware: Tiny, **sizes: int) -> tuple[RunResult, bytes]:
    kit, result = _norm(hardware, **sizes)
    found = kit.run()
    return found, kit.get(result).tobytes()


def test_same_bits_as_the_host():
    (host, expected), (vector, found) = _run(Tiny(cores=2)), _run(VECTOR)
    assert found == expected
    assert len(set(found)) > 100
    assert (host.busy["vector"][0], vector.busy["host"][0]) == (0, 0)
    assert host.busy["host"][0] > 0


def test_cycles_are_those_of_lanes_and_bytes():
    """192 elements of 8 lanes are 24 cycles; 384 bytes of 8 a cycle are 48, and come 10 late."""
    found, _ = _run(VECTOR)
    get, put, add, gelu = 48 + 10, 48, 24, 24
    norm = max(2 * 24, 2 * 32 * 4 / 8) + 10
    assert found.busy["vector"][0] == 2 * get + add + norm + gelu + put
    assert found.busy["dma"][0] == 3 * 48 + 32
    assert found.dram_bytes_read == 2 * 384 + 2 * 128
    assert found.dram_bytes_written == 384


def test_bytes_delay_the_loads_behind_them():
    """A load that waits for nothing comes as much later as the vector units' bytes take."""
    ends: list[int] = []
    for gets in (0, 1):
        kit = Kit(VECTOR)
        d, x = kit.put(codes((16, 64), 1), "i16"), kit.put(codes((16, 64), 2), "i16")
        if gets:
            kit.emit("hget", h=0, d=x, rows=16, point=10)
        tile = kit.tile("shared", "i16", 16 * 64 * 2)
        kit.emit("ld", t=tile, d=d, rows=16, cols=64)
        ends.append(kit.run().cycles)
    # The bytes begin to move while `tile` and `ld` are still to be issued.
    assert ends[1] - ends[0] == pytest.approx(16 * 64 * 2 / 8, abs=2)


def test_energy_is_counted_by_hand():
    """Of a machine with vector units nothing is charged to the host."""
    hardware = load_hardware("hdp-edge-vector")
    kit, _ = _norm(VECTOR)
    actions = energy_report(kit.run(), hardware, {}).actions
    elements = 6 * 32
    assert actions["vector_element"] == elements * (2 + 1 + 1)
    assert actions["vector_function"] == elements
    assert actions["vector_norm"] == 2 * elements
    assert actions["local_write"] == 4 * elements * (2 + 1 + 1 + 1)
    assert actions["local_read"] == 4 * elements * (2 + 2 + 1 + 1)
    assert actions["dram_read"] == 4 * elements + 2 * 32 * 4
    assert actions["dram_write"] == 2 * elements
    assert actions["host_operation"] == actions["host_byte"] == 0


def test_energy_of_the_host_is_none_of_it():
    kit, _ = _norm(Tiny(cores=2))
    actions = energy_report(kit.run(), load_hardware("hdp-edge"), {}).actions
    assert sum(count for name, count in actions.items() if name.startswith("vector")) == 0
    assert actions["host_operation"] == 6 * 32 * (2 + 1 + 8 + 20 + 4)


@pytest.mark.parametrize("action", ["vector_element", "vector_function", "vector_norm"])
def test_twice_an_action_is_twice_its_share(action: str):
    result, _ = _run(VECTOR)
    hardware, key = load_hardware("hdp-edge-vector"), f"energy_{action}_aj"
    more = replace(hardware, **{key: 2 * getattr(hardware, key)})
    before, after = (energy_report(result, h, {}) for h in (hardware, more))
    share = before.actions[action] * getattr(hardware, key) * 1e-18
    assert share > 0
    assert after.joules - before.joules == pytest.approx(share, rel=1e-6)
    assert before.unit_joules("vector") > share


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 16))
@settings(max_examples=25, deadline=None)
def test_more_lanes_are_never_slower(rows: int, columns: int, lanes: int):
    few = replace(VECTOR, vector_lanes=lanes)
    (slow, a), (fast, b) = (
        _run(hardware, rows=rows, columns=columns)
        for hardware in (few, replace(few, vector_lanes=2 * lanes))
    )
    assert fast.cycles <= slow.cycles
    assert a == b
