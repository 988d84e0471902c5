"""The machine's time: overlap, monotony, and that nothing is free."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes

from heatc.errors import HeatcError
from heatc.isa import units
from heatc.isa.table import CYCLE_CONSTANTS, ISA
from heatc.isa.words import Inst
from heatc.machine.clocks import compile_cycles, cycle_constants
from heatc.machine.machine import Machine, Memory, RunResult


def _linear(hardware: Tiny, buffers: int, steps: int = 12) -> Kit:
    """`steps` rounds of load, multiply, drain, store over `buffers` sets of tiles."""
    kit = Kit(hardware)
    x, w = codes((16, 32), 1), codes((32, 8 * steps), 2)
    dx, dw, dy = kit.put(x, "i16"), kit.put(w, "i16"), kit.tensor((16, 8 * steps), "i16")
    tx = kit.tile("shared", "i16", 16 * 32 * 2)
    sets = [
        (
            kit.tile("local", "i16", 32 * 8 * 2),
            kit.tile("local", "acc", 16 * 8 * 6),
            kit.tile("local", "i16", 16 * 8 * 2),
        )
        for _ in range(buffers)
    ]
    kit.emit("ld", t=tx, d=dx, rows=16, cols=32)
    for step in range(steps):
        tw, acc, ty = sets[step % buffers]
        kit.emit("li", rd=1, imm=8 * step)
        kit.emit("ld", t=tw, d=dw, col_reg=1, rows=32, cols=8)
        kit.emit("mm", acc=acc, a=tx, b=tw, first=1)
        kit.emit("drain", t=ty, acc=acc, shift=10)
        kit.emit("st", d=dy, t=ty, col_reg=1)
    return kit


def test_double_buffering_overlaps():
    single, double = (_linear(Tiny(cores=1), n).run() for n in (1, 2))
    work = int(double.busy["pe"][0])
    assert double.cycles - work < 0.5 * (single.cycles - work)
    assert double.macs == single.macs
    for result in (single, double):
        busiest = max(int(busy.max()) for busy in result.busy.values())
        assert busiest <= result.cycles
    assert double.cycles < double.busy["dma"][0] + work


def test_dense_cycles_are_the_formula():
    result = _linear(Tiny(cores=1), 2, steps=1).run()
    assert result.busy["pe"][0] == 4 * 2 * 32 + 4 + 4 - 2 + 4 * 8
    assert result.busy["dma"][0] == (16 * 32 * 2 + 32 * 8 * 2 + 16 * 8 * 2) / 8


@given(
    st.integers(1, 64),
    st.integers(1, 4),
    st.sampled_from(["dram_bytes_per_second", "dram_latency_cycles", "pe_rows", "pe_columns"]),
)
@settings(max_examples=25, deadline=None)
def test_better_hardware_is_never_slower(bandwidth: int, buffers: int, key: str):
    base = Tiny(cores=1, dram_bytes_per_second=bandwidth * 1_000_000, dram_latency_cycles=20)
    better = {
        "dram_bytes_per_second": 2 * base.dram_bytes_per_second,
        "dram_latency_cycles": 0,
        "pe_rows": 16,
        "pe_columns": 8,
    }[key]
    slow = _linear(base, buffers).run()
    fast = _linear(replace(base, **{key: better}), buffers).run()
    assert fast.cycles <= slow.cycles
    assert fast.dram_bytes_read == slow.dram_bytes_read


def _masked(rho: float, seed: int) -> RunResult:
    """Fractions, merge and PV under the mask that `rho` gives."""
    return _masked_kit(rho, seed, Tiny(cores=2)).run()


def _masked_kit(rho: float, seed: int, hardware: Tiny) -> Kit:
    """The program of `_masked`."""
    length, e = 14, 8
    kit = Kit(hardware)
    q, k = (codes((length, 2 * e), seed + i, bound=30) for i in (0, 1))
    dq, dk = kit.put(q, "i16"), kit.put(k, "i16")
    size = length * e * 2
    tq, tk, p, v = (kit.tile("local", "i16", max(size, length**2 * 2)) for _ in range(4))
    a, s = (kit.tile("local", "i32", length**2 * 4) for _ in range(2))
    theta, f1, f2, acc = (kit.tile("local", "acc", length**2 * 6) for _ in range(4))
    mask = kit.tile("local", "i8", 7)
    kit.emit("li", rd=60, imm=length)
    kit.emit("heads", rc=0, stride=1, limit=2)
    for t, d in ((tq, dq), (tk, dk)):
        kit.emit("ld", t=t, d=d, rows=length, cols=e, core_cols=e)
    kit.emit("scores", a=a, q=tq, k=tk, theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=rho)
    kit.emit("frac", f1=f1, f2=f2, qi=tq, qf=tq, ki=tk, kf=tk, mask=mask)
    kit.emit("add", s=s, a=a, f1=f1, f2=f2, mask=mask, pruned="neginf", point_q=4, point_k=4)
    scale = units.SoftmaxScale.of(0.25)
    kit.emit("softmax", p=p, s=s, multiplier=scale.multiplier, shift=scale.shift, point=0)
    kit.emit("ldm", t=v, d=dk, rows=length, cols=e, core_cols=e, mask=mask, axis="key")
    kit.emit("pv", acc=acc, p=p, v=v, mask=mask, first=1, sparse=1)
    return kit


@given(st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_sparser_mask_never_costs_more(seed: int):
    results = [_masked(rho, seed) for rho in (-1.0, -0.5, 0.0, 0.3, 0.7, 1.0)]
    for dense, sparse in pairwise(results):
        assert sparse.blocks_kept <= dense.blocks_kept
        assert sparse.cycles <= dense.cycles
        assert sparse.macs <= dense.macs
        assert sparse.dram_bytes_read <= dense.dram_bytes_read
        assert np.all(sparse.busy["pe"] <= dense.busy["pe"])
    assert results[0].blocks_kept == results[0].blocks_total
    assert results[-1].cycles < results[0].cycles


def test_removing_an_instruction_changes_cost():
    kit = _linear(Tiny(cores=1), 2, steps=3)
    whole = kit.run()
    for pc, removed in enumerate(kit.code):
        if removed.mnemonic in ("tile", "li"):
            continue
        shorter = Kit(kit.hardware)
        shorter.__dict__.update({**kit.__dict__, "code": kit.code[:pc] + kit.code[pc + 1 :]})
        try:
            cost = shorter.run()
        except HeatcError:
            continue
        busy = {name: cost.busy[name].tolist() for name in cost.busy}
        assert busy != {name: whole.busy[name].tolist() for name in whole.busy}, removed


def _read_again(kit: Kit) -> dict[str, tuple[int, int]]:
    """By mnemonic what core instructions read from DRAM: bytes, and cycles of the DMA engine."""
    result = kit.run()
    found = zip(result.pc_bytes_read[kit.head :], result.pc_busy["dma"][kit.head :])
    named = zip([inst.mnemonic for inst in kit.code], found)
    return {name: read for name, read in named if any(read) and not name.startswith("ld")}


def test_rows_that_do_not_stay_are_fetched_again_for_each_fold():
    kits = [Kit(Tiny(cores=1, local_a_stationary=stays)) for stays in (True, False)]
    for kit in kits:
        x, w = kit.put(codes((6, 10), 1), "i16"), kit.put(codes((10, 9), 2), "i16")
        a, b, acc = (kit.tile("local", dtype, 512) for dtype in ("i16", "i16", "acc"))
        kit.emit("ld", t=a, d=x, rows=6, cols=10)
        kit.emit("ld", t=b, d=w, rows=10, cols=9)
        kit.emit("mm", acc=acc, a=a, b=b, first=1)
    nbytes = (3 - 1) * 6 * 10 * 2
    assert [_read_again(kit) for kit in kits] == [{}, {"mm": (nbytes, nbytes // 8)}]


def test_masked_products_fetch_rows_again_for_each_fold_of_their_group():
    """Nothing is pruned: 4 groups of 4 query rows, and as many folds of 4 keys for each."""
    kits = [_masked_kit(-1.0, 3, Tiny(cores=2, local_a_stationary=s)) for s in (True, False)]
    scores, fractions = 2 * 3 * 14 * 8 * 2, 2 * (4 * 4 - 4) * 4 * 8 * (2 + 2)
    again = {name: (n, n // 8) for name, n in (("scores", scores), ("frac", fractions))}
    assert [_read_again(kit) for kit in kits] == [{}, again]


def test_counts_by_pc_add_up():
    result = _linear(Tiny(cores=2), 2).run()
    assert sum(result.pc_counts) == sum(result.counts.values()) == result.steps
    assert sum(result.pc_bytes_read) == result.dram_bytes_read
    assert sum(result.pc_bytes_written) == result.dram_bytes_written
    assert sum(result.pc_macs) == result.macs
    total = sum(int(busy.sum()) for busy in result.busy.values())
    assert sum(result.pc_cycles) == total


def test_rewritten_tile_waits_for_its_readers():
    """Placing another tile on bytes that are still read does not hide the hazard."""
    kit = _linear(Tiny(cores=1), 1, steps=2)
    direct = kit.run().cycles
    moved = _linear(Tiny(cores=1), 1, steps=2)
    second = [i for i, x in enumerate(moved.code) if x.mnemonic == "ld"][2]
    tile = next(x for x in moved.code if x.mnemonic == "tile" and x["space"] == 2)
    moved.code.insert(second, tile)
    assert moved.run().cycles >= direct


def test_folds_one_after_the_other_fill_the_array_each():
    """SCALE-Sim's output-stationary array: folds * (k + rows + columns - 2), results included."""
    sizes = {"m": 12, "n": 8, "k": 20, "macs": 1}
    overlap, alone = (cycle_constants(Tiny(cores=1, fold_overlap=value)) for value in (True, False))
    expression = ISA["mm"].cycles
    assert compile_cycles(expression, overlap)(**sizes) == 3 * 2 * 20 + 4 + 4 - 2
    assert compile_cycles(expression, alone)(**sizes) == 3 * 2 * (20 + 4 + 4 - 2)
    assert compile_cycles(ISA["drain"].cycles, overlap)(m=12, n=8) == 3 * 8
    assert compile_cycles(ISA["drain"].cycles, alone)(m=12, n=8) == 0


@pytest.mark.parametrize("mnemonic", sorted(ISA))
def test_cycle_expressions_compile(mnemonic: str):
    constants = cycle_constants(Tiny())
    assert constants.keys() | {"width"} == CYCLE_CONSTANTS.keys()
    function = compile_cycles(ISA[mnemonic].cycles, constants)
    names = function.__code__.co_varnames
    assert set(names) <= {
        "m", "n", "k", "macs", "macs_f1", "macs_f2", "folds", "depth", "blocks", "nbytes", "merged",
        "taken", "longest", "compares",
        "elements", "operations", "width",
    }  # fmt: skip
    low = function(**dict.fromkeys(names, 4))
    assert (
        0
        < low
        <= function(**{**dict.fromkeys(names, 9), **({"width": 4} if "width" in names else {})})
    )


# --- Any program ends in a result or in one kind of error -------------------------------------


@st.composite
def programs(draw: st.DrawFn) -> list[Inst]:
    """Mostly small operands, so that many instructions do something."""
    body: list[Inst] = []
    choose = st.sampled_from(sorted(ISA.keys() - {"loop", "end", "halt"}))
    small = st.sampled_from([0, 0, 1, 2, 3, 4, 8, 64, -1, 1 << 15, (1 << 63) - 1])
    for _ in range(draw(st.integers(0, 25))):
        entry = ISA[draw(choose)]
        operands: list[int | float] = []
        for field in entry.fields:
            if field.kind == "f64":
                operands.append(draw(st.floats(allow_nan=False)))
            else:
                value = draw(small)
                legal = field.low <= value <= field.high
                operands.append(value if legal else value % (field.high + 1))
        body.append(Inst(entry.mnemonic, tuple(operands)))
    return body


SETUP = (
    ("li", {"rd": 60, "imm": 4}),
    ("li", {"rd": 2, "imm": 2}),
    ("heads", {"rc": 0, "stride": 1, "limit": 3}),
    ("tensor", {"d": 1, "dtype": "i16", "base": 0, "rows_imm": 8, "cols": 8}),
    ("tensor", {"d": 2, "dtype": "i16", "base": 4096, "rows_imm": 8, "cols": 8}),
    ("tensor", {"d": 3, "dtype": "i64", "base": 8192, "rows_imm": 8, "cols": 8}),
    ("tile", {"t": 0, "space": "local", "dtype": "i16", "address": 0, "bytes": 256}),
    ("tile", {"t": 1, "space": "local", "dtype": "i16", "address": 256, "bytes": 256}),
    ("tile", {"t": 2, "space": "local", "dtype": "acc", "address": 512, "bytes": 512}),
    ("tile", {"t": 3, "space": "local", "dtype": "i32", "address": 1024, "bytes": 512}),
    ("tile", {"t": 4, "space": "local", "dtype": "acc", "address": 1536, "bytes": 512}),
    ("tile", {"t": 8, "space": "local", "dtype": "i8", "address": 2048, "bytes": 64}),
    ("ld", {"t": 0, "d": 1, "rows": 4, "cols": 4, "core_cols": 2}),
    ("ld", {"t": 1, "d": 1, "rows": 4, "cols": 4}),
    ("scores", {"a": 3, "q": 1, "k": 1, "theta": 4}),
    ("mask", {"m": 8, "theta": 4}),
    ("mm", {"acc": 2, "a": 0, "b": 1, "first": 1}),
    ("hget", {"h": 0, "d": 1, "rows": 4}),
)


@given(programs(), st.integers(0, len(SETUP)))
@settings(max_examples=400, deadline=None)
def test_any_program_runs_or_is_refused(body: list[Inst], prepared: int):
    from heatc.isa.words import inst

    setup = [inst(name, **operands) for name, operands in SETUP[:prepared]]
    weights = np.arange(4096, dtype=np.uint32).astype(np.uint8)
    machine = Machine(Tiny(), Memory(weights, 1 << 16))
    try:
        machine.run([*setup, *body, inst("halt")], max_seconds=0.01)
    except HeatcError as error:
        message = error.message
    else:
        message = "pc"
    assert message.startswith("pc")
