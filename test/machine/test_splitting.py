"""PEs that split into narrower multipliers: cost changes with operand widths, values never."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes
from test_energy import priced

from heatc.hardware import load_hardware
from heatc.hardware.costs import ACTIONS, SPLITS, area_mm2, leakage_watts, macs_per_pe
from heatc.isa.table import DTYPES, Engine
from heatc.machine.energy import action_counts, energy_report, mac_counts
from heatc.machine.machine import RunResult

NARROW = ("i8", "i16")


def _factor(dtypes: tuple[str, str], split: int) -> int:
    """MACs a PE and cycle, counted in the 4x4 bit multipliers of a 16x16 one."""
    parts = [max(8 * DTYPES[dtype], split) // 4 for dtype in dtypes]
    return 16 // (parts[0] * parts[1])


def _product(shape: tuple[int, int, int], dtypes: tuple[str, str], split: int) -> tuple[Any, Kit]:
    m, k, n = shape
    kit = Kit(Tiny(cores=1, split_bits=split))
    a, b = codes((m, k), 1, dtypes[0], 100), codes((k, n), 2, dtypes[1], 100)
    dx, dw = kit.put(a, dtypes[0]), kit.put(b, dtypes[1])
    dy = kit.tensor((m, n), "i32")
    ta, tb = (kit.tile("local", d, 2 * s) for d, s in zip(dtypes, (m * k, k * n)))
    acc, ty = kit.tile("local", "acc", m * n * 6), kit.tile("local", "i32", m * n * 4)
    kit.emit("ld", t=ta, d=dx, rows=m, cols=k)
    kit.emit("ld", t=tb, d=dw, rows=k, cols=n)
    kit.emit("mm", acc=acc, a=ta, b=tb, first=1)
    kit.emit("drain", t=ty, acc=acc)
    kit.emit("st", d=dy, t=ty)
    result = kit.run()
    return (result, kit.get(dy), a.astype(np.int64) @ b.astype(np.int64)), kit


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 12)),
    st.sampled_from(NARROW),
    st.sampled_from(NARROW),
    st.sampled_from(SPLITS),
)
@settings(max_examples=40, deadline=None)
def test_a_fold_takes_its_depth_over_the_products_a_cycle(
    shape: tuple[int, int, int], a: str, b: str, split: int
):
    (result, got, expected), kit = _product(shape, (a, b), split)
    np.testing.assert_array_equal(got, expected)
    m, k, n = shape
    folds = ceil(m / 4) * ceil(n / 4)
    drained = ceil(m / 4) * n
    steps = ceil(k / _factor((a, b), split))
    assert result.busy["pe"][0] == folds * steps + 4 + 4 - 2 + drained
    hardware = priced(kit.hardware)
    bits = sorted((8 * DTYPES[a], 8 * DTYPES[b]))
    assert mac_counts(result, hardware)[f"{bits[0]}x{bits[1]}"] == m * k * n == result.macs
    assert sum(mac_counts(result, hardware).values()) == result.macs


def test_macs_per_pe_are_those_of_bit_fusion():
    """A fused unit does 1, 4 and 16 products at full, half and quarter width, 2 and 4 if mixed."""
    assert [macs_per_pe(b, b, 4) for b in (16, 8, 4)] == [1, 4, 16]
    assert [macs_per_pe(16, b, 4) for b in (16, 8, 4)] == [1, 2, 4]
    assert [macs_per_pe(8, 8, split) for split in (16, 8, 4)] == [1, 4, 4]
    assert macs_per_pe(4, 8, 4) == macs_per_pe(8, 4, 4) == 8


def _hdp(dtypes: tuple[str, str], split: int, seed: int, rho: float) -> tuple[RunResult, Kit, Any]:
    """Integer pass, fraction pass and probabilities times values; integer parts and fractions."""
    length, e = 13, 7
    kit = Kit(Tiny(cores=2, split_bits=split))
    parts = [codes((length, 2 * e), seed + i, d, 30) for i, d in enumerate((*dtypes, *dtypes))]
    tensors = [kit.put(x, d) for x, d in zip(parts, (*dtypes, *dtypes))]
    tiles = [kit.tile("local", d, length * e * 2) for d in (*dtypes, *dtypes)]
    v, do = kit.put(codes((length, 2 * e), 9, dtypes[0]), dtypes[0]), kit.tensor((13, 2 * e), "i16")
    tv = kit.tile("local", dtypes[0], length * e * 2)
    p, o = (kit.tile("local", "i16", length**2 * 2) for _ in range(2))
    a, s = (kit.tile("local", "i32", length**2 * 4) for _ in range(2))
    theta, f1, f2, acc = (kit.tile("local", "acc", length**2 * 6) for _ in range(4))
    mask = kit.tile("local", "i8", 7)
    kit.emit("li", rd=60, imm=length)
    kit.emit("heads", rc=0, stride=1, limit=2)
    for t, d in zip((*tiles, tv), (*tensors, v)):
        kit.emit("ld", t=t, d=d, rows=length, cols=e, core_cols=e)
    qi, qf, ki, kf = tiles
    kit.emit("scores", a=a, q=qi, k=ki, theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=rho)
    kit.emit("frac", f1=f1, f2=f2, qi=qi, qf=qf, ki=ki, kf=kf, mask=mask)
    kit.emit("add", s=s, a=a, f1=f1, f2=f2, mask=mask, pruned="neginf", point_q=8, point_k=8)
    kit.emit("softmax", p=p, s=s, multiplier=40000, shift=20, point=0)
    kit.emit("pv", acc=acc, p=p, v=tv, mask=mask, first=1, sparse=1)
    kit.emit("drain", t=o, acc=acc, shift=14)
    kit.emit("st", d=do, t=o, core_cols=e)
    return kit.run(), kit, kit.get(do)


@given(st.integers(0, 1000), st.sampled_from((-0.5, 0.0, 0.5)), st.sampled_from((8, 4)))
@settings(max_examples=20, deadline=None)
def test_splitting_never_costs_cycles_and_changes_no_value(seed: int, rho: float, split: int):
    whole, whole_kit, values = _hdp(("i8", "i16"), 16, seed, rho)
    parts, kit, same = _hdp(("i8", "i16"), split, seed, rho)
    np.testing.assert_array_equal(values, same)
    assert parts.cycles <= whole.cycles
    assert all(x <= y for x, y in zip(parts.pc_cycles, whole.pc_cycles))
    assert parts.busy["pe"].sum() < whole.busy["pe"].sum()
    assert parts.macs == whole.macs
    assert parts.pc_macs == whole.pc_macs
    assert mac_counts(parts, priced(kit.hardware)) == mac_counts(whole, priced(whole_kit.hardware))


@pytest.mark.parametrize("integer", NARROW)
@pytest.mark.parametrize("fraction", NARROW)
@pytest.mark.parametrize(("seed", "rho"), [(3, -0.5), (4, 0.0), (5, 0.5)])
def test_macs_by_width_are_the_masks(integer: str, fraction: str, seed: int, rho: float):
    result, kit, _ = _hdp((integer, fraction), 8, seed, rho)
    length, e, heads = 13, 7, 2
    dense = heads * length * length * e
    kept = (result.macs - dense) // 3
    # Of a kept score both fraction products, and a probability (i16) times values (integer's dtype).
    assert result.macs == dense + 3 * kept
    assert kept % e == 0
    expected = dict.fromkeys(mac_counts(result, priced(kit.hardware)), 0)
    for times, one, other in (
        (dense, integer, integer),
        (2 * kept, integer, fraction),
        (kept, "i16", integer),
    ):
        low, high = sorted(8 * DTYPES[dtype] for dtype in (one, other))
        expected[f"{low}x{high}"] += times
    assert mac_counts(result, priced(kit.hardware)) == expected


def test_narrow_products_cost_less_where_a_pe_splits():
    runs = {split: _hdp(("i8", "i16"), split, 1, 0.0) for split in SPLITS}
    hardware = {split: priced(kit.hardware) for split, (_, kit, _) in runs.items()}
    counts = {
        split: dict(zip(ACTIONS, action_counts(runs[split][0], hardware[split]).sum(axis=0)))
        for split in SPLITS
    }
    widths = mac_counts(runs[16][0], hardware[16])
    # Without splitting every multiplication takes the 16 bit multiplier, and nothing is fused.
    assert counts[16]["mac_16x16"] == runs[16][0].macs
    assert counts[16]["fuse_8"] == counts[16]["fuse_4"] == 0
    for split in (8, 4):
        assert {w: counts[split][f"mac_{w}"] for w in widths} == widths
        cycles = widths["8x8"] / 4 + widths["8x16"] / 2 + widths["16x16"]
        assert counts[split][f"fuse_{split}"] == pytest.approx(cycles)
        assert counts[split][f"fuse_{12 - split}"] == 0

    def products(split: int) -> float:
        rows = [a for a in ACTIONS if a.startswith(("mac_", "fuse_"))]
        costs = {a: getattr(hardware[split], f"energy_{a}_aj") for a in rows}
        return sum(counts[split][a] * cost for a, cost in costs.items())

    assert products(8) < products(4) < products(16)


def test_wide_products_cost_more_where_a_pe_splits():
    reports = {
        split: energy_report(result[0], priced(kit.hardware))
        for split in (16, 8)
        for result, kit in [_product((8, 16, 8), ("i16", "i16"), split)]
    }
    assert reports[8].dynamic_joules["pe"] > reports[16].dynamic_joules["pe"]
    assert reports[8].seconds == reports[16].seconds


def test_a_splitting_pe_is_larger_and_leaks_more():
    edge = load_hardware("hdp-edge")
    machines = [replace(edge, split_bits=split) for split in (16, 8, 4)]
    for measure in (area_mm2, leakage_watts):
        sizes = [measure(hardware) for hardware in machines]
        assert sizes[0]["pe"] < sizes[1]["pe"] < sizes[2]["pe"]
        for other in sizes[1:]:
            assert {k: v for k, v in other.items() if k != "pe"} == {
                k: v for k, v in sizes[0].items() if k != "pe"
            }


def test_pe_array_is_the_same_at_full_width():
    for split in SPLITS:
        (result, _, _), _ = _product((8, 16, 8), ("i16", "i16"), split)
        assert result.busy[Engine.PE.value][0] == 4 * 16 + 6 + 16
