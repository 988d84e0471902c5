"""The instructions that rules beside `paper` need, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes

from heatc.errors import HeatcError
from heatc.isa import units
from heatc.isa.words import inst


def _int64(array: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(array).astype(np.int64)


@pytest.mark.parametrize("dtype", ["i8", "i16"])
def test_sums_of_keys_and_rows_of_scores(dtype: str):
    """colsum over two parts, then wide: the sums of the rows of q k^T, before any score."""
    q, k = codes((6, 5), 1, dtype), codes((9, 5), 2, dtype)
    kit = Kit(Tiny(cores=1))
    dq, dk = kit.put(q, dtype), kit.put(k, dtype)
    dr = kit.tensor((6, 1), "i32")
    tq, tk = (kit.tile("local", dtype, 9 * 5 * 2) for _ in range(2))
    total, r, out = (
        kit.tile("local", "acc", 30),
        kit.tile("local", "acc", 36),
        kit.tile("local", "i32", 24),
    )
    kit.emit("ld", t=tq, d=dq, rows=6, cols=5)
    for at, rows in ((0, 6), (6, 3)):
        kit.emit("li", rd=1, imm=at)
        kit.emit("ld", t=tk, d=dk, row_reg=1, rows=rows, cols=5)
        kit.emit("colsum", t=total, x=tk, first=int(at == 0))
    kit.emit("wide", r=r, x=tq, t=total)
    kit.emit("drain", t=out, acc=r, bias=r, shift=4)
    kit.emit("st", d=dr, t=out)
    result = kit.run()
    expected = np.rint((_int64(q) @ _int64(k).T).sum(axis=1) / 16)
    np.testing.assert_array_equal(kit.get(dr)[:, 0], np.clip(expected, -(2**31), 2**31 - 1))
    # colsum: 6 and 3 rows of 5, 4 a cycle; wide: 2 folds of rows, 2 halves, depth 5, one fill of an
    # array of 4 x 4; the drain moves 2 x 1 rows.
    assert result.busy["adder"].tolist() == [8 + 4]
    assert result.busy["pe"].tolist() == [2 * 2 * 5 + 6 + 2]
    assert result.macs == 2 * 6 * 5


def _gate(kit: Kit, importance: str, own: bool) -> tuple[int, int, int]:
    """Integer scores, mask and gate of a head a core, from queries that are the keys; r60 is 4."""
    x = codes((4, 6), 3, "i8", 9)
    mask, positions, inverse = (kit.put(np.ones((1, 4), np.int64), "i64"),) + tuple(
        kit.tensor((1, 4), "i64") for _ in range(2)
    )
    dx, dm = kit.put(x, "i8"), kit.tensor((4, 6), "i8")
    t = {n: kit.tile("local", d, 200) for n, d in (("x", "i8"), ("a", "i32"), ("theta", "acc"))}
    t |= {n: kit.tile("local", d, 64) for n, d in (("sum", "acc"), ("r", "acc"), ("m", "i8"))}
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=4, has_mask=1)
    kit.emit("seq", rb=0)
    kit.emit("param", which="rho", head=1, value=-0.9)
    kit.emit("param", which="rho", head=0, value=0.9)
    kit.emit("param", which="tau", head=2, value=1e9)
    kit.emit("heads", rc=0, stride=1, limit=3)
    kit.emit("ld", t=t["x"], d=dx, rows=4, cols=2, core_cols=2)
    kit.emit("colsum", t=t["sum"], x=t["x"], first=1)
    kit.emit("wide", r=t["r"], x=t["x"], t=t["sum"])
    positive = int(importance == "positive")
    kit.emit("scores", a=t["a"], q=t["x"], k=t["x"], theta=t["theta"], r=t["r"], positive=positive)
    kit.emit("mask", m=t["m"], theta=t["theta"], rho=0.25, own=int(own))
    kit.emit("gate", tau=0.0, own=int(own), positive=positive)
    kit.emit("st", d=dm, t=t["x"], core_cols=2)
    return dx, dm, t["m"]


@pytest.mark.parametrize("importance", ["abs", "positive"])
@pytest.mark.parametrize("own", [False, True])
def test_thresholds_of_a_head(importance: str, own: bool):
    """With own each core takes its head's; head 2 is pruned and stores zeros."""
    kit = Kit(Tiny(cores=4))
    dx, dm, tile = _gate(kit, importance, own)
    seen: dict[str, Any] = {}

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "mask":
            seen["mask"] = np.array(state.tile(tile).read().array)

    kit.run(watch)
    heads = _int64(kit.get(dx)).reshape(4, 3, 2).swapaxes(0, 1)
    theta = units.block_importance(heads @ heads.swapaxes(1, 2), (2, 2), importance)
    rho = np.array([0.9, -0.9, 0.0])[:, None] if own else 0.25
    np.testing.assert_array_equal(seen["mask"][:3], units.block_mask(theta, rho))
    stored = kit.get(dm).reshape(4, 3, 2).any(axis=(0, 2))
    assert stored.tolist() == [True, True, not own]


def test_own_thresholds_need_a_round_of_heads():
    kit = Kit(Tiny())
    mask, positions, inverse = (kit.put(np.ones((1, 4), np.int64), "i64"),) + tuple(
        kit.tensor((1, 4), "i64") for _ in range(2)
    )
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=4, has_mask=1)
    kit.emit("seq", rb=0)
    kit.emit("gate", tau=0.0, own=1)
    with pytest.raises(HeatcError, match="no round of heads has begun"):
        kit.run()


def test_a_parameter_is_finite():
    kit = Kit(Tiny())
    kit.emit("param", which="tau", head=0, value=float("inf"))
    with pytest.raises(HeatcError, match="the parameter is not finite"):
        kit.run()


def test_sums_stay_below_32_bits():
    """What `wide` multiplies in two halves must have two halves."""
    kit = Kit(Tiny(cores=1, local_buffer_bytes=1 << 18))
    x = np.full((1 << 16, 1), -32768, np.int16)
    dx = kit.put(x, "i16")
    tile, total = kit.tile("local", "i16", 1 << 17), kit.tile("local", "acc", 6)
    kit.emit("ld", t=tile, d=dx, rows=(1 << 16) - 1, cols=1)
    kit.emit("colsum", t=total, x=tile, first=1)
    kit.emit("colsum", t=total, x=tile, first=0)
    with pytest.raises(HeatcError, match="may exceed 32 bits"):
        kit.run()


def test_positive_scores_need_their_row_sums():
    kit = Kit(Tiny())
    _gate(kit, "positive", False)
    kit.code = [i for i in kit.code if i.mnemonic != "wide"]
    with pytest.raises(HeatcError, match="is read before it is written"):
        kit.run()


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("leave", [0, 1])
def test_pruned_heads_have_a_row_of_their_own(early: bool, leave: int):
    """Head 2 is pruned: the row of its column sums over r60, halved, stands in all of its rows."""
    kit = Kit(Tiny(cores=4, early_head_exit=early))
    dx, dm, _ = _gate(kit, "abs", True)
    kit.code[-1] = inst("st", d=dm, t=kit.code[-1]["t"], core_cols=2, leave=leave)
    tile = int(kit.code[-1]["t"])
    total, row = kit.tile("local", "acc", 12), kit.tile("local", "i16", 4)
    out = kit.tensor((4, 6), "i16")
    kit.emit("pruned")
    kit.emit("colsum", t=total, x=tile, first=1)
    kit.emit("divide", t=row, acc=total, shift=-1)
    kit.emit("strow", d=out, t=row, core_cols=2)
    result = kit.run()
    x = _int64(kit.get(dx))
    expected = np.zeros((4, 6))
    expected[:, 4:] = np.rint(2 * x[:, 4:].sum(axis=0) / 4)
    np.testing.assert_array_equal(kit.get(out), expected)
    stored = x.copy()
    stored[:, 4:] = 0
    np.testing.assert_array_equal(kit.get(dm), stored)
    listed = 2 * 4 * 8
    assert result.dram_bytes_written == listed + 4 * 6 - leave * 4 * 2 + 4 * 2 * 2
    assert result.heads_kept == 2


def test_a_wide_row_times_keys_is_a_row():
    """The scores of the mean query, by parts of the keys, divided into one row of i32."""
    q, k = codes((4, 3), 5, "i16"), codes((4, 3), 6, "i16")
    kit = Kit(Tiny(cores=1))
    mask, positions, inverse = (kit.put(np.ones((1, 4), np.int64), "i64"),) + tuple(
        kit.tensor((1, 4), "i64") for _ in range(2)
    )
    dq, dk, ds = kit.put(q, "i16"), kit.put(k, "i16"), kit.tensor((1, 4), "i32")
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=4, has_mask=1)
    kit.emit("seq", rb=0)
    part, total = kit.tile("local", "i16", 24), kit.tile("local", "acc", 18)
    c, s = kit.tile("local", "acc", 12), kit.tile("local", "i32", 16)
    kit.emit("ld", t=part, d=dq, rows=4, cols=3)
    kit.emit("colsum", t=total, x=part, first=1)
    for at in (0, 2):
        kit.emit("li", rd=1, imm=at)
        kit.emit("ld", t=part, d=dk, row_reg=1, rows=2, cols=3)
        kit.emit("wide", r=c, x=part, t=total, as_row=1)
        kit.emit("divide", t=s, acc=c, col_reg=1, wide=1, shift=3)
    kit.emit("st", d=ds, t=s)
    kit.run()
    scores = _int64(q) @ _int64(k).T
    np.testing.assert_array_equal(kit.get(ds), units.mean_query(scores, 3, 0))


def test_only_a_row_is_stored_again():
    kit = Kit(Tiny())
    x = kit.put(codes((2, 2), 1, "i16"), "i16")
    out, tile = kit.tensor((4, 2), "i16"), kit.tile("local", "i16", 8)
    kit.emit("ld", t=tile, d=x, rows=2, cols=2)
    kit.emit("strow", d=out, t=tile)
    with pytest.raises(HeatcError, match=r"is \(2, 2\), expected \(1, 2\)"):
        kit.run()


def test_pruned_heads_are_those_of_a_round():
    kit = Kit(Tiny())
    kit.emit("pruned")
    with pytest.raises(HeatcError, match="no round of heads has begun"):
        kit.run()


@pytest.mark.parametrize(
    ("pruned", "constant"), [("zero", 0), ("zero", 1), ("mean", 0), ("mean", 1)]
)
def test_one_number_stands_for_the_pruned_scores_of_a_row(pruned: str, constant: int):
    """The same scores and probabilities; adder and softmax unit take a row's pruned ones once."""
    kit = Kit(Tiny(cores=1))
    x = codes((6, 4), 9, "i8", 9)
    mask, positions, inverse = (kit.put(np.ones((1, 6), np.int64), "i64"),) + tuple(
        kit.tensor((1, 6), "i64") for _ in range(2)
    )
    dx, ds, dp = kit.put(x, "i8"), kit.tensor((6, 6), "i32"), kit.tensor((6, 6), "i16")
    kinds = {"x": "i8", "a": "i32", "s": "i32", "p": "i16", "m": "i8"}
    kinds |= dict.fromkeys(("theta", "sum", "r", "f1", "f2"), "acc")
    t = {n: kit.tile("local", d, 256) for n, d in kinds.items()}
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=6, has_mask=1)
    kit.emit("seq", rb=0)
    kit.emit("ld", t=t["x"], d=dx, rows=6, cols=4)
    kit.emit("colsum", t=t["sum"], x=t["x"], first=1)
    kit.emit("wide", r=t["r"], x=t["x"], t=t["sum"])
    kit.emit("scores", a=t["a"], q=t["x"], k=t["x"], theta=t["theta"], r=t["r"])
    kit.emit("mask", m=t["m"], theta=t["theta"], rho=0.1)
    parts = {"f1": t["f1"], "f2": t["f2"], "mask": t["m"]}
    kit.emit("frac", **parts, qi=t["x"], qf=t["x"], ki=t["x"], kf=t["x"])
    kit.emit("add", s=t["s"], a=t["a"], **parts, pruned=pruned, r=t["r"], constant=constant)
    kit.emit("softmax", p=t["p"], s=t["s"], multiplier=40000, shift=20)
    kit.emit("st", d=ds, t=t["s"])
    kit.emit("st", d=dp, t=t["p"])
    result = kit.run()
    a = _int64(x) @ _int64(x).T
    kept = units.expand_mask(
        units.block_mask(units.block_importance(a, (2, 2)), 0.1), (2, 2), (6, 6)
    )
    assert 0 < kept.sum() < 36
    merged = units.merge_scores(a, a, a, kept, pruned, units.Points(0, 0, 0)).codes
    np.testing.assert_array_equal(kit.get(ds), merged)
    expected = units.softmax_unit(merged, 0, units.SoftmaxScale(40000, 20))
    np.testing.assert_array_equal(kit.get(dp), expected)
    taken = int(kept.sum()) + 6 if constant else 36
    longest = int(kept.sum(axis=1).max()) + 1 if constant else 6
    summed = 6 * 4 // 4
    assert result.busy["adder"].tolist() == [-(-taken // 4) + summed]
    assert result.busy["softmax"].tolist() == [-(-taken // 2) + 2 * -(-longest // 2)]


def test_an_integer_score_is_no_constant():
    kit = Kit(Tiny())
    _gate(kit, "abs", False)
    tiles = {int(i["t"]) for i in kit.code if i.mnemonic == "tile"}
    acc = kit.tile("local", "acc", 200)
    s, other = kit.tile("local", "i32", 200), kit.tile("local", "acc", 200)
    x, a, m = (min(tiles) + n for n in (0, 1, 5))
    kit.emit("frac", f1=acc, f2=other, qi=x, qf=x, ki=x, kf=x, mask=m)
    kit.emit("add", s=s, a=a, f1=acc, f2=other, mask=m, pruned="int", constant=1)
    with pytest.raises(HeatcError, match="a pruned score that is int is no constant"):
        kit.run()


def _values(
    kit: Kit, parts: tuple[int, ...], rho: float, pruned: str, dtype: str = "i16", **fields: int
) -> tuple[int, list[int]]:
    """
    Attention of 6 tokens, queries that are the keys, of width 4, and values of width 5.

    Returns the tensor of P V and the pcs of `pv`, one a part of the keys.
    """
    x, v = codes((6, 4), 9, "i8", 9), codes((6, 5), 10, dtype)
    mask, positions, inverse = (kit.put(np.ones((1, 6), np.int64), "i64"),) + tuple(
        kit.tensor((1, 6), "i64") for _ in range(2)
    )
    dx, dv, do = kit.put(x, "i8"), kit.put(v, dtype), kit.tensor((6, 5), "i32")
    kinds = {"x": "i8", "v": dtype, "a": "i32", "s": "i32", "p": "i16", "m": "i8", "o": "i32"}
    kinds |= dict.fromkeys(("theta", "sum", "f1", "f2", "acc", "total"), "acc")
    t = {n: kit.tile("local", d, 256) for n, d in kinds.items()}
    kit.emit("hpack", dpos=positions, dinv=inverse, dmask=mask, batch=1, length=6, has_mask=1)
    kit.emit("seq", rb=0)
    kit.emit("ld", t=t["x"], d=dx, rows=6, cols=4)
    kit.emit("scores", a=t["a"], q=t["x"], k=t["x"], theta=t["theta"])
    kit.emit("mask", m=t["m"], theta=t["theta"], rho=rho)
    merged = {"f1": t["f1"], "f2": t["f2"], "mask": t["m"]}
    kit.emit("frac", **merged, qi=t["x"], qf=t["x"], ki=t["x"], kf=t["x"])
    kit.emit("add", s=t["s"], a=t["a"], **merged, pruned=pruned)
    kit.emit("softmax", p=t["p"], s=t["s"], multiplier=900, shift=20)
    for at in (0, 4):
        kit.emit("li", rd=1, imm=at)
        kit.emit("ld", t=t["v"], d=dv, row_reg=1, rows=min(4, 6 - at), cols=5)
        kit.emit("colsum", t=t["total"], x=t["v"], first=int(at == 0))
    pcs, at = [], 0
    for keys in parts:
        kit.emit("li", rd=1, imm=at)
        kit.emit("ldm", t=t["v"], d=dv, row_reg=1, rows=keys, cols=5, mask=t["m"], axis="key")
        operands = {n: t[n] for n in ("acc", "p", "v", "total")} | {"mask": t["m"], "col_reg": 1}
        operands |= {"first": int(at == 0), "sparse": 1} | fields
        pcs.append(kit.emit("pv", **operands))
        at += keys
    kit.emit("drain", t=t["o"], acc=t["acc"], shift=0)
    kit.emit("st", d=do, t=t["o"])
    return do, pcs


def _kept_and_product(rho: float, pruned: str) -> tuple[Any, Any]:
    """The mask of scores of `_values`, and P V by the formulas, dense."""
    x, v = _int64(codes((6, 4), 9, "i8", 9)), _int64(codes((6, 5), 10, "i16"))
    a = x @ x.T
    theta = units.block_importance(a, (2, 2))
    kept = units.expand_mask(units.block_mask(theta, rho), (2, 2), (6, 6))
    merged = units.merge_scores(a, a, a, kept, pruned, units.Points(0, 0, 0)).codes
    return kept, units.softmax_unit(merged, 0, units.SoftmaxScale(900, 20)) @ v


@pytest.mark.parametrize("parts", [(6,), (4, 2), (2, 2, 2)])
@pytest.mark.parametrize("pruned", ["zero", "mean"])
@pytest.mark.parametrize("rho", [-1.0, 0.1, 0.9])
def test_the_sum_of_all_values_stands_for_those_of_pruned_scores(
    rho: float, pruned: str, parts: tuple[int, ...]
):
    """P V of kept scores alone, plus two products of 16 bits a row for the 32 bits of the sum."""
    kit = Kit(Tiny(cores=1))
    do, pcs = _values(kit, parts, rho, pruned, constant=1)
    result = kit.run()
    kept, expected = _kept_and_product(rho, pruned)
    assert kept.all() == (rho == -1.0)
    np.testing.assert_array_equal(kit.get(do), expected)
    at = 0
    for pc, keys in zip(pcs, parts):
        rows = kept[:, at : at + keys].sum(axis=1)
        # Two groups of 4 query rows, 2 folds of 4 columns; one fill of an array of 4 x 4.
        depth = rows[:4].max() + rows[4:].max() + 2 * 2 * (at == 0)
        cycles = 2 * depth + 6 if depth else 0
        assert result.pc_busy["pe"][pc + kit.head] == cycles
        assert result.pc_macs[pc + kit.head] == 5 * rows.sum() + 2 * 6 * 5 * (at == 0)
        at += keys


@pytest.mark.parametrize("rho", [0.1, 0.9])
def test_the_sum_is_read(rho: float):
    """Without constant the values of pruned scores are missing."""
    kit = Kit(Tiny(cores=1))
    do, _ = _values(kit, (6,), rho, "zero", constant=0)
    kit.run()
    assert (kit.get(do) != _kept_and_product(rho, "zero")[1]).any()


@pytest.mark.parametrize(
    ("fields", "dtype", "message"),
    [
        ({"constant": 1, "sparse": 0}, "i16", "constant stands for pruned blocks, none are"),
        ({"constant": 1}, "i8", "is i8, expected i16"),
        ({"constant": 1, "total": 0}, "i16", "t0 is i8, expected acc"),
    ],
)
def test_constant_values_are_refused(fields: dict[str, int], dtype: str, message: str):
    kit = Kit(Tiny(cores=1))
    _values(kit, (6,), 0.1, "zero", dtype, **fields)
    with pytest.raises(HeatcError, match=message):
        kit.run()
