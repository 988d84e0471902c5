"""Programs of the host's instructions at random: two reckonings of time, values on or off, and energy."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes
from reckoning import Reckoning

from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.isa.table import ISA, Engine, Field, FieldKind
from heatc.isa.words import Inst
from heatc.machine.assumed import NoMasks
from heatc.machine.energy import energy_report
from heatc.machine.machine import Machine, Memory, RunResult
from heatc.machine.values import Shapes

MACHINES = {"host": Tiny(cores=2), "vector": Tiny(cores=2, vector_lanes=4)}
LISTS = ("hpack", "hrows")
"""They need masks, and set registers that others wait for."""

NAMES = [name for name, row in ISA.items() if row.engine is Engine.HOST and name not in LISTS]


def _kit(hardware: Tiny) -> Kit:
    """Tensors of all kinds, and registers of 6 x 8, 1 x 8, 6 x 1 and 8 x 6."""
    kit = Kit(hardware)
    kit.put(codes((6, 8), 1), "i16")
    kit.put(np.arange(8, dtype=np.float32)[None], "f32")
    kit.put(np.array([[0, 3, -1, 5]]), "i64")
    for dtype in ("i16", "i64", "f32"):
        kit.tensor((6, 8), dtype)
    kit.emit("li", rd=1, imm=2)
    kit.emit("hget", h=0, d=0, rows=6, point=9)
    kit.emit("hnum", h=1, rows=1, columns=8, value=0.5)
    kit.emit("hiota", h=2, rows=6, columns=1, start=1, step=1)
    kit.emit("hget", h=3, d=0, rows=6, point=9)
    kit.emit("hshape", h=3, columns=6)
    return kit


LIKELY = {"gamma": 1, "beta": 1, "idx": 2, "heads": 1}
"""Operands without which few programs run."""


def _operand(rng: Random, field: Field) -> int | float:
    if field.name in LIKELY and rng.random() < 0.8:
        return LIKELY[field.name]
    if field.kind is FieldKind.HOST:
        return rng.randrange(4)
    if field.kind is FieldKind.DESC:
        return rng.randrange(6)
    if field.kind is FieldKind.REG:
        return rng.choice((0, 1))
    if field.kind is FieldKind.F64:
        return rng.uniform(0.1, 2)
    value = rng.randrange(len(field.choices)) if field.choices else rng.choice((1, 2, 3, 4, 6, 8))
    return min(value, field.high)


def grown(hardware: Tiny, seed: int, size: int) -> Kit:
    """A program that runs: instructions at random, without those that trap."""
    rng, kit = Random(seed), _kit(hardware)
    for _ in range(size):
        row = ISA[rng.choice(NAMES)]
        kit.code.append(Inst(row.mnemonic, tuple(_operand(rng, f) for f in row.fields)))
        try:
            kit.run()
        except HeatcError:
            kit.code.pop()
    return kit


def _run(kit: Kit, *, values: bool) -> RunResult:
    base = kit.run()
    if values:
        return base
    weights = np.zeros(kit.weight_bytes, np.uint8)
    memory = Memory(weights, kit.size)
    return Machine(kit.hardware, memory).run(kit.program(), values=Shapes(NoMasks(), []))


@pytest.mark.parametrize("machine", MACHINES)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_two_reckonings_agree(machine: str, seed: int):
    kit = grown(MACHINES[machine], seed, 12)
    result = kit.run()
    found = Reckoning(kit.hardware, kit.program(), [], kit.weight_bytes)
    busy = {engine: int(cycles.sum()) for engine, cycles in result.busy.items()}
    assert {e: n for e, n in busy.items() if n} == {e: n for e, n in found.busy.items() if n}
    assert (found.read, found.written) == (result.dram_bytes_read, result.dram_bytes_written)
    assert found.cycles == result.cycles


@pytest.mark.parametrize("machine", MACHINES)
@given(st.integers(0, 2**32 - 1))
@settings(max_examples=15, deadline=None)
def test_cost_needs_no_values(machine: str, seed: int):
    """Without arithmetic the same cycles, bytes and actions; indices are 0 there, and inside."""
    kit = grown(MACHINES[machine], seed, 12)
    exact, counted = _run(kit, values=True), _run(kit, values=False)
    hardware = load_hardware("hdp-edge-vector" if machine == "vector" else "hdp-edge")
    assert counted.cycles == exact.cycles
    assert counted.dram_bytes_read == exact.dram_bytes_read
    assert counted.dram_bytes_written == exact.dram_bytes_written
    assert energy_report(counted, hardware).actions == energy_report(exact, hardware).actions


@pytest.mark.parametrize("machine", MACHINES)
def test_the_programs_have_every_instruction(machine: str):
    """At random, each of them runs in some program of the two tests above."""
    seen = {one.mnemonic for seed in range(120) for one in grown(MACHINES[machine], seed, 12).code}
    assert seen >= {*NAMES}


def _actions(kit: Kit, preset: str) -> dict[str, float]:
    counts = energy_report(kit.run(), load_hardware(preset)).actions
    return {name: count for name, count in counts.items() if count and name != "instruction"}


@pytest.mark.parametrize(
    ("mnemonic", "operands", "host", "vector"),
    [
        (
            "hfun",
            {"function": "exp"},
            20,
            {"vector_function": 1, "local_read": 4, "local_write": 4},
        ),
        ("hfun", {"function": "abs"}, 1, {"vector_element": 1, "local_read": 4, "local_write": 4}),
        (
            "hop",
            {"g": 0, "operation": "pow"},
            41,
            {"vector_element": 1, "vector_function": 2, "local_read": 24, "local_write": 12},
        ),
        (
            "hsoft",
            {},
            27,
            {"vector_element": 2, "vector_function": 2, "local_read": 12, "local_write": 8},
        ),
    ],
)
def test_actions_are_counted_by_hand(
    mnemonic: str, operands: dict[str, int | str], host: int, vector: dict[str, int]
):
    for preset, hardware, each in (
        ("hdp-edge", MACHINES["host"], {"host_operation": host}),
        ("hdp-edge-vector", MACHINES["vector"], vector),
    ):
        totals: list[dict[str, float]] = []
        for count in (0, 1):
            kit = _kit(hardware)
            for _ in range(count):
                kit.emit(mnemonic, h=0, **operands)
            totals.append(_actions(kit, preset))
        before, after = totals
        added = {name: count - before.get(name, 0) for name, count in after.items()}
        assert {name: n for name, n in added.items() if n} == {n: 48 * c for n, c in each.items()}


def test_a_product_of_the_host_takes_registers_from_the_vector_units():
    """6 x 8 times 8 x 6: 48 + 48 + 36 elements of 4 bytes are written to DRAM, and read from there."""
    totals: list[dict[str, float]] = []
    results: list[RunResult] = []
    for count in (0, 1):
        kit = _kit(MACHINES["vector"])
        for _ in range(count):
            kit.emit("hdot", h=0, g=3, transposed=0, batches=1)
        totals.append(_actions(kit, "hdp-edge-vector"))
        results.append(kit.run())
    before, after = totals
    assert after["host_operation"] - before.get("host_operation", 0) == 2 * 6 * 8 * 6
    assert after["dram_read"] - before["dram_read"] == 4 * 132
    assert after["dram_write"] - before.get("dram_write", 0) == 4 * 132
    assert results[1].dram_bytes_read - results[0].dram_bytes_read == 4 * 132


def test_the_host_waits_for_the_vector_units():
    """A product on the host begins when its operand is made, and who reads it waits for the host."""
    kit = _kit(MACHINES["vector"])
    alone = kit.run().cycles
    kit.emit("hdot", h=0, g=3, transposed=0, batches=1)
    kit.emit("hfun", h=0, function="exp")
    hw = kit.hardware
    product = hw.host_call_cycles + -(-(2 * 288 * hw.clock_hz) // hw.host_ops_per_second)
    product += 2 * 4 * 132 * hw.clock_hz // hw.host_bytes_per_second
    assert kit.run().cycles == alone + product + -(-36 // 8)
