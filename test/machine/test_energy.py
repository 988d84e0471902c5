"""Energy: every action is charged, sums agree, and less work never costs more."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes

from heatc.hardware import Hardware, load_hardware
from heatc.hardware.costs import ACTIONS, area_mm2, leakage_watts
from heatc.isa import units
from heatc.isa.table import ISA, Engine
from heatc.machine.energy import UNITS, action_counts, energy_report, unit_of
from heatc.machine.machine import RunResult
from heatc.machine.work import mac_row

EDGE = load_hardware("hdp-edge")


def priced(tiny: Tiny) -> Hardware:
    """hdp-edge's costs on a machine of the tests."""
    known = {name: value for name, value in vars(tiny).items() if hasattr(EDGE, name)}
    return replace(EDGE, **known)


def attention(
    rho: float, seed: int, tau: float = 0.0, tiny: Tiny | None = None
) -> tuple[RunResult, Hardware]:
    """One attention of two heads with every engine in it, under the mask that `rho` gives."""
    length, e = 14, 8
    tiny = tiny or Tiny(cores=2)
    kit = Kit(tiny)
    q, k = (codes((length, 2 * e), seed + i, bound=30) for i in (0, 1))
    dq, dk = kit.put(q, "i16"), kit.put(k, "i16")
    do = kit.tensor((length, 2 * e), "i16")
    size = length * e * 2
    tq, tk, p, v, o = (kit.tile("local", "i16", max(size, length**2 * 2)) for _ in range(5))
    a, s = (kit.tile("local", "i32", length**2 * 4) for _ in range(2))
    theta, f1, f2, acc = (kit.tile("local", "acc", length**2 * 6) for _ in range(4))
    mask = kit.tile("local", "i8", 7)
    kit.emit("li", rd=60, imm=length)
    kit.emit("heads", rc=0, stride=1, limit=2)
    for t, d in ((tq, dq), (tk, dk)):
        kit.emit("ld", t=t, d=d, rows=length, cols=e, core_cols=e)
    kit.emit("scores", a=a, q=tq, k=tk, theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=rho)
    kit.emit("gate", tau=tau)
    kit.emit("frac", f1=f1, f2=f2, qi=tq, qf=tq, ki=tk, kf=tk, mask=mask)
    kit.emit("add", s=s, a=a, f1=f1, f2=f2, mask=mask, pruned="neginf", point_q=4, point_k=4)
    scale = units.SoftmaxScale.of(0.25)
    kit.emit("softmax", p=p, s=s, multiplier=scale.multiplier, shift=scale.shift, point=0)
    kit.emit("ldm", t=v, d=dk, rows=length, cols=e, core_cols=e, mask=mask, axis="key")
    kit.emit("pv", acc=acc, p=p, v=v, mask=mask, first=1, sparse=1)
    kit.emit("drain", t=o, acc=acc, shift=14)
    kit.emit("st", d=do, t=o, core_cols=e)
    kit.emit("hget", h=0, d=do, rows=length, point=4)
    kit.emit("hgelu", h=0)
    kit.emit("hput", d=do, h=0, point=4)
    return kit.run(), priced(tiny)


def test_every_instruction_has_an_energy():
    for entry in ISA.values():
        assert bool(entry.energy) == (entry.engine is not Engine.CONTROL), entry.mnemonic
        assert entry.energy.keys() <= {*ACTIONS, "mac"}
    assert {unit_of(action) for action in ACTIONS} == set(UNITS)


def test_every_executed_instruction_is_charged():
    result, hardware = attention(0.0, 1)
    report = energy_report(result, hardware)
    assert np.all(report.pc_joules > 0)
    for pc, count in enumerate(result.pc_counts):
        mnemonic = result.work.mnemonics[pc]
        if count and ISA[mnemonic].engine is not Engine.CONTROL:
            assert pc in result.work.names, mnemonic
    assert all(report.unit_joules(unit) > 0 for unit in UNITS if unit not in ("shared", "vector"))


def test_energy_is_a_sum():
    result, hardware = attention(0.3, 2)
    report = energy_report(result, hardware)
    dynamic = sum(report.dynamic_joules.values())
    assert dynamic == pytest.approx(float(report.pc_joules.sum()))
    assert report.seconds == result.cycles / hardware.clock_hz
    assert report.joules == pytest.approx(dynamic + sum(report.leakage_joules.values()))
    assert report.delay_product == pytest.approx(report.joules * report.seconds)
    twice = energy_report([result, result], hardware)
    assert twice.joules == pytest.approx(2 * report.joules)
    assert twice.delay_product == pytest.approx(2 * report.delay_product)


def test_macs_and_bytes_are_those_of_the_run():
    result, hardware = attention(0.3, 3)
    counts = dict(zip(ACTIONS, action_counts(result, hardware).sum(axis=0)))
    assert sum(counts[a] for a in ACTIONS if a.startswith("mac_")) == result.macs
    assert counts["dram_read"] == result.dram_bytes_read
    assert counts["dram_write"] == result.dram_bytes_written
    assert counts["instruction"] == result.steps
    assert counts["block"] == result.blocks_total + 2


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_more_pruned_blocks_never_cost_more(seed: int):
    runs = [attention(rho, seed) for rho in (-1.0, -0.5, 0.0, 0.3, 0.7, 1.0)]
    reports = [energy_report(result, hardware) for result, hardware in runs]
    for dense, sparse in pairwise(reports):
        assert sparse.joules <= dense.joules
        assert np.all(sparse.pc_joules <= dense.pc_joules)


@pytest.mark.parametrize(
    ("switch", "tau"),
    [
        ("fetch_upon_mask", 0.0),
        ("early_head_exit", 1e9),
        ("local_a_stationary", 0.0),
        ("block_importance_in_array", 0.0),
    ],
)
def test_a_mechanism_that_is_off_costs_energy(switch: str, tau: float):
    on, off = Tiny(cores=2), replace(Tiny(cores=2), **{switch: False})
    results = [attention(0.7, 6, tau, tiny) for tiny in (on, off)]
    with_it, without = (energy_report(*result) for result in results)
    assert with_it.joules < without.joules
    for result, hardware in results:
        counts = dict(zip(ACTIONS, action_counts(result, hardware).sum(axis=0)))
        assert counts["dram_read"] == result.dram_bytes_read


def test_a_pruned_head_costs_less():
    kept, gone = (energy_report(*attention(0.0, 4, tau)) for tau in (0.0, 1e9))
    assert gone.dynamic_joules["softmax"] == 0
    assert gone.joules < kept.joules


@pytest.mark.parametrize(
    "action", [a for a in ACTIONS if not a.startswith(("shared", "mac", "fuse", "vector"))]
)
def test_twice_an_action_is_twice_its_share(action: str):
    result, hardware = attention(0.3, 5)
    key = f"energy_{action}_aj"
    more = replace(hardware, **{key: 2 * getattr(hardware, key)})
    before, after = (energy_report(result, h) for h in (hardware, more))
    share = before.actions[action] * getattr(hardware, key) * 1e-18
    assert share > 0
    assert after.joules - before.joules == pytest.approx(share, rel=1e-6)


def test_nothing_run_costs_its_sequencer_and_leakage():
    tiny = Tiny()
    result, hardware = Kit(tiny).run(), priced(tiny)
    report = energy_report(result, hardware)
    assert report.joules == pytest.approx(
        hardware.energy_instruction_aj * 1e-18 * result.steps
        + sum(leakage_watts(hardware).values()) * report.seconds
    )
    assert energy_report([], hardware).joules == 0


def _linear(cores: int, columns: int, space: str) -> dict[str, float]:
    kit = Kit(Tiny(cores=cores))
    x, w = codes((8, 16), 1), codes((16, columns), 2)
    dx, dw = kit.put(x, "i16"), kit.put(w, "i16")
    tx = kit.tile(space, "i16", 8 * 16 * 2)
    tw, acc = kit.tile("local", "i16", 16 * 8 * 2), kit.tile("local", "acc", 8 * 8 * 6)
    kit.emit("ld", t=tx, d=dx, rows=8, cols=16)
    kit.emit("ld", t=tw, d=dw, rows=16, cols=8, core_cols=8)
    kit.emit("mm", acc=acc, a=tx, b=tw, first=1)
    counts = action_counts(kit.run(), priced(kit.hardware)).sum(axis=0)
    return dict(zip(ACTIONS, counts.tolist()))


def test_a_broadcast_reads_the_shared_buffer_once():
    shared, local = _linear(3, 24, "shared"), _linear(3, 24, "local")
    # Two folds of 4 columns read a twice, two folds of 4 rows read b twice, on each core.
    assert shared["shared_read"] == 2 * 8 * 16 * 2
    assert shared["local_read"] == 3 * 2 * 16 * 8 * 2
    assert local["local_read"] == shared["local_read"] + 3 * shared["shared_read"]
    assert local["shared_read"] == 0
    assert local["local_write"] == shared["local_write"] + 3 * 8 * 16 * 2


def test_clipped_parts_are_charged_by_what_they_hold():
    # 20 columns: the third core has 4 of its 8.
    counts = _linear(3, 20, "shared")
    assert counts["mac_16x16"] == 8 * 16 * 20
    assert counts["shared_read"] == 2 * 8 * 16 * 2
    assert counts["local_read"] == 2 * 16 * 20 * 2


def test_operand_widths_choose_the_row():
    assert mac_row(16, 16, 4) == "mac_16x16"
    assert mac_row(16, 8, 8) == mac_row(8, 16, 8) == "mac_8x16"
    assert mac_row(3, 5, 4) == "mac_4x8"
    assert mac_row(3, 5, 8) == "mac_8x8"
    # A multiplier that does not split has all of its bits at work.
    assert mac_row(3, 8, 16) == "mac_16x16"


def test_area_and_leakage_grow_with_the_machine():
    small, large = area_mm2(EDGE), area_mm2(load_hardware("hdp-server"))
    assert all(small[unit] <= large[unit] for unit in small)
    assert small["shared"] == pytest.approx(0.303)
    assert small["pe"] == pytest.approx(2048 * 352.8e-6)
    assert 1 < sum(small.values()) < 4
