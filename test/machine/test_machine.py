"""The machine's values: each instruction against NumPy formulas."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny, codes, expected_attention
from numpy.typing import NDArray

from heatc import fixed_point
from heatc.errors import HeatcError, InfeasibleError
from heatc.isa import units
from heatc.isa.table import PRUNED_SCORES, split_dtypes
from heatc.machine import datapath
from heatc.machine.machine import Machine, Memory


def _int64(array: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(array).astype(np.int64)


# --- Linear layers ----------------------------------------------------------------------------


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("outputs", [32, 30, 20, 7])
def test_linear_is_spread_over_cores(transposed: int, outputs: int):
    """Wide output columns by core; the last round is ragged, cores without columns are idle."""
    x, bias = codes((6, 24), 1), codes((1, outputs), 2, "i32")
    w = codes((outputs, 24) if transposed else (24, outputs), 3)
    kit = Kit(Tiny(cores=4))
    dx, dw, db = kit.put(x, "i16"), kit.put(w, "i16"), kit.put(bias, "i32")
    dy = kit.tensor((6, outputs), "i16")
    tx, tw = kit.tile("shared", "i16", 6 * 24 * 2), kit.tile("local", "i16", 24 * 8 * 2)
    tb, acc = kit.tile("local", "i32", 8 * 4), kit.tile("local", "acc", 6 * 8 * 6)
    ty = kit.tile("local", "i16", 6 * 8 * 2)
    kit.emit("ld", t=tx, d=dx, rows=6, cols=24)
    size = {"rows": 8, "cols": 24, "core_rows": 8} if transposed else {}
    kit.emit("ld", t=tw, d=dw, **(size or {"rows": 24, "cols": 8, "core_cols": 8}))
    kit.emit("ld", t=tb, d=db, rows=1, cols=8, core_cols=8)
    kit.emit("mm", acc=acc, a=tx, b=tw, first=1, b_transposed=transposed)
    kit.emit("drain", t=ty, acc=acc, bias=tb, has_bias=1, bias_shift=3, shift=12)
    kit.emit("st", d=dy, t=ty, core_cols=8)
    result = kit.run()
    exact = fixed_point.matmul(x, w.T if transposed else w) + (_int64(bias) << 3)
    expected = fixed_point.saturate(fixed_point.round_shift(exact, 12), 16)
    np.testing.assert_array_equal(kit.get(dy), expected.codes)
    assert sum(result.saturations.values()) == expected.saturated
    assert result.macs == 6 * 24 * outputs
    assert result.dram_bytes_written == 6 * outputs * 2
    columns = np.clip(outputs - 8 * np.arange(4), 0, 8)
    cycles = np.where(columns > 0, 24 + 4 + 4 - 2 + 0 * columns, 0)
    folds = -(-columns // 4) * -(-6 // 4)
    drains = -(-6 // 4) * columns
    np.testing.assert_array_equal(
        result.busy["pe"], np.where(columns > 0, folds * 24 + 6, 0) + drains
    )
    assert cycles.shape == (4,)


def test_accumulation_over_depth_and_local_a():
    x, w = codes((5, 12), 4), codes((12, 16), 5)
    kit = Kit(Tiny(cores=2))
    dx, dw, dy = kit.put(x, "i16"), kit.put(w, "i16"), kit.tensor((5, 16), "i32")
    a, b = kit.tile("local", "i16", 5 * 4 * 2), kit.tile("local", "i16", 4 * 8 * 2)
    acc, y = kit.tile("local", "acc", 5 * 8 * 6), kit.tile("local", "i32", 5 * 8 * 4)
    for step in range(3):
        kit.emit("li", rd=1, imm=4 * step)
        kit.emit("ld", t=a, d=dx, col_reg=1, rows=5, cols=4)
        kit.emit("ld", t=b, d=dw, row_reg=1, rows=4, cols=8, core_cols=8)
        kit.emit("mm", acc=acc, a=a, b=b, first=int(step == 0))
    kit.emit("drain", t=y, acc=acc)
    kit.emit("st", d=dy, t=y, core_cols=8)
    kit.run()
    np.testing.assert_array_equal(
        kit.get(dy), fixed_point.saturate(fixed_point.matmul(x, w), 32).codes
    )


def test_drain_rounds_half_to_even_and_saturates():
    x = np.array([[1, 3, 5, -1, -3, 32767, -32768, 2]], np.int16)
    kit = Kit(Tiny(cores=1))
    dx, dw = kit.put(x.T.copy(), "i16"), kit.put(np.array([[1]], np.int16), "i16")
    dy = kit.tensor((8, 1), "i8")
    a, b = kit.tile("local", "i16", 16), kit.tile("local", "i16", 2)
    acc, y = kit.tile("local", "acc", 48), kit.tile("local", "i8", 8)
    kit.emit("ld", t=a, d=dx, rows=8, cols=1)
    kit.emit("ld", t=b, d=dw, rows=1, cols=1)
    kit.emit("mm", acc=acc, a=a, b=b, first=1)
    pc = kit.emit("drain", t=y, acc=acc, shift=1)
    kit.emit("st", d=dy, t=y)
    result = kit.run()
    np.testing.assert_array_equal(kit.get(dy)[:, 0], [0, 2, 2, 0, -2, 127, -128, 1])
    assert result.saturations == {pc: 2}


@given(st.integers(-32768, 32767), st.integers(0, 20))
@settings(max_examples=30, deadline=None)
def test_drains_splits_toward_zero(code: int, point: int):
    from heatc.machine import datapath

    integer, fraction = datapath.split(np.array([[[code]]], np.int16), point)
    expected = fixed_point.split(np.array([code]), point)
    assert (integer[0, 0, 0], fraction[0, 0, 0]) == (expected[0][0], expected[1][0])


@pytest.mark.parametrize("point", range(21))
def test_split_dtypes_are_the_narrowest_that_hold_every_part(point: int):
    parts = fixed_point.split(np.arange(-(1 << 15), 1 << 15), point)
    narrowest = tuple("i8" if p.min() >= -128 and p.max() <= 127 else "i16" for p in parts)
    assert split_dtypes(point) == narrowest


@pytest.mark.parametrize("point", [0, 7, 8, 15])
@pytest.mark.parametrize("dtypes", [("i8", "i16"), ("i16", "i8"), ("i8", "i8"), ("i16", "i16")])
def test_drains_never_truncates_a_part(point: int, dtypes: tuple[str, str]):
    x = np.array([[-32768, 32767, -1, 0, 1, 255, -256, 128]], np.int16)
    kit = Kit(Tiny(cores=1))
    dx, one = kit.put(x.T, "i16"), kit.put(np.ones((1, 1), np.int16), "i16")
    a, b, acc = (kit.tile("local", d, 8 * s) for d, s in (("i16", 2), ("i16", 2), ("acc", 6)))
    kit.emit("ld", t=a, d=dx, rows=8, cols=1)
    kit.emit("ld", t=b, d=one, rows=1, cols=1)
    kit.emit("mm", acc=acc, a=a, b=b, first=1)
    tiles = [kit.tile("local", dtype, 16) for dtype in dtypes]
    kit.emit("drains", ti=tiles[0], tf=tiles[1], acc=acc, point=point)
    outputs = [kit.tensor((8, 1), dtype) for dtype in dtypes]
    for d, t in zip(outputs, tiles):
        kit.emit("st", d=d, t=t)
    expected = fixed_point.split(x.T.astype(np.int64), point)
    ranges = {"i8": 128, "i16": 32768}
    if (point < 8 and dtypes[0] == "i8") or (point > 7 and dtypes[1] == "i8"):
        with pytest.raises(HeatcError, match=f"at point {point} a part needs i16"):
            kit.run()
        return
    kit.run()
    for d, part, dtype in zip(outputs, expected, dtypes):
        assert np.abs(part).max() <= ranges[dtype]
        np.testing.assert_array_equal(kit.get(d), part)


def test_accumulator_overflow_is_an_error():
    kit = Kit(Tiny(cores=1))
    depth = 1024
    d = kit.put(np.full((1, depth), -32768, np.int16), "i16")
    t, acc = kit.tile("local", "i16", 2 * depth), kit.tile("local", "acc", 6)
    kit.emit("ld", t=t, d=d, rows=1, cols=depth)
    kit.emit("mm", acc=acc, a=t, b=t, first=1, b_transposed=1)
    kit.emit("li", rd=2, imm=1000)
    kit.emit("loop", r=1, bound=2, step=1, skip=3)
    kit.emit("mm", acc=acc, a=t, b=t, b_transposed=1)
    kit.emit("end", back=2)
    with pytest.raises(HeatcError, match="beyond 48 bits"):
        kit.run()


# --- HDP attention ----------------------------------------------------------------------------


def _attention(
    kit: Kit,
    q: Any,
    k: Any,
    v: Any,
    points: tuple[int, int, int],
    scale: units.SoftmaxScale,
    *,
    heads: int = 1,
    rho: float = 0.0,
    tau: float = -1.0,
    pruned: str = "neginf",
    sparse: int = 1,
    columns: int = 1 << 14,
    masked_fetch: bool = False,
) -> int:
    """One round of attention on all heads, key columns in tiles of `columns`; returns do."""
    length, width = q.shape
    e = width // heads
    eye = kit.put(np.eye(e, dtype=np.int16), "i16")
    dq, dk, dv = (kit.put(x, "i16") for x in (q, k, v))
    do = kit.tensor((length, width), "i16")
    kit.emit("li", rd=60, imm=length)
    narrow = min(columns, length)
    blocks = -(-length // 2)

    def part(rows: int, narrowed: bool) -> int:
        """A tile of an integer or fraction part, as narrow as every part of this point allows."""
        width = 1 if narrowed else 2
        return kit.tile("local", {1: "i8", 2: "i16"}[width], rows * e * width)

    t = {
        "eye": kit.tile("local", "i16", e * e * 2),
        **{n: kit.tile("local", "i16", length * e * 2) for n in ("q", "o")},
        **{n: kit.tile("local", "i16", narrow * e * 2) for n in ("k", "v")},
        "qi": part(length, points[0] >= 8),
        "qf": part(length, points[0] < 8),
        "ki": part(narrow, points[1] >= 8),
        "kf": part(narrow, points[1] < 8),
        "theta": kit.tile("local", "acc", blocks * blocks * 6),
        "mask": kit.tile("local", "i8", blocks * -(-blocks // 8)),
        "a": kit.tile("local", "i32", length * length * 4),
        "s": kit.tile("local", "i32", length * length * 4),
        "p": kit.tile("local", "i16", length * length * 2),
        **{n: kit.tile("local", "acc", length * max(narrow, e) * 6) for n in ("f1", "f2", "acc")},
    }
    kit.emit("ld", t=t["eye"], d=eye, rows=e, cols=e)

    args = (kit, t, (dq, dk, dv, do), e, points, scale, heads, rho, tau, pruned, sparse)
    for first in range(0, heads, kit.hardware.cores):
        _round(*args, length, narrow, masked_fetch, first)
    return do


def _round(
    kit: Kit,
    t: dict[str, int],
    tensors: tuple[int, int, int, int],
    e: int,
    points: tuple[int, int, int],
    scale: units.SoftmaxScale,
    heads: int,
    rho: float,
    tau: float,
    pruned: str,
    sparse: int,
    length: int,
    narrow: int,
    masked_fetch: bool,
    first: int,
) -> None:
    """Attention of as many heads as there are cores."""
    dq, dk, dv, do = tensors
    pq, pk = points[:2]
    kit.emit("li", rd=5, imm=first)
    kit.emit("li", rd=7, imm=first * e)
    kit.emit("heads", rc=5, stride=1, limit=heads)

    def split(x: str, d: int, row: int, rows: int) -> None:
        kit.emit("li", rd=6, imm=row)
        kit.emit("ld", t=t[x], d=d, row_reg=6, col_reg=7, rows=rows, cols=e, core_cols=e)
        kit.emit("mm", acc=t["acc"], a=t[x], b=t["eye"], first=1)
        kit.emit("drains", ti=t[x + "i"], tf=t[x + "f"], acc=t["acc"], point=pq if x == "q" else pk)

    split("q", dq, 0, length)
    starts = range(0, length, narrow)
    for at in starts:
        split("k", dk, at, narrow)
        kit.emit("scores", a=t["a"], q=t["qi"], k=t["ki"], theta=t["theta"], col_reg=6)
    kit.emit("mask", m=t["mask"], theta=t["theta"], row_reg=0, rho=rho)
    kit.emit("gate", tau=tau)
    for at in starts:
        split("k", dk, at, narrow)
        parts = {n: t[n] for n in ("f1", "f2", "qi", "qf", "ki", "kf", "mask")}
        kit.emit("frac", **parts, row_reg=0, col_reg=6)
        kit.emit(
            "add",
            **{n: t[n] for n in ("s", "a", "f1", "f2", "mask")},
            row_reg=0,
            col_reg=6,
            pruned=pruned,
            point_q=pq,
            point_k=pk,
            point_s=points[2],
        )
    kit.emit(
        "softmax",
        p=t["p"],
        s=t["s"],
        multiplier=scale.multiplier,
        shift=scale.shift,
        point=points[2],
    )
    for at in starts:
        kit.emit("li", rd=6, imm=at)
        load = {"d": dv, "row_reg": 6, "col_reg": 7, "rows": narrow, "cols": e, "core_cols": e}
        if masked_fetch:
            kit.emit("ldm", t=t["v"], **load, mask=t["mask"], axis="key")
        else:
            kit.emit("ld", t=t["v"], **load)
        kit.emit(
            "pv",
            **{n: t[n] for n in ("acc", "p", "v", "mask")},
            row_reg=0,
            col_reg=6,
            first=int(at == 0),
            sparse=sparse,
        )
    kit.emit("drain", t=t["o"], acc=t["acc"], shift=14)
    kit.emit("st", d=do, t=t["o"], col_reg=7, core_cols=e)


@pytest.mark.parametrize("length", [16, 13, 2, 1])
@pytest.mark.parametrize("pruned", PRUNED_SCORES)
@pytest.mark.parametrize("columns", [1 << 14, 6])
def test_attention(length: int, pruned: str, columns: int):
    q, k, v = (codes((length, 12), seed, bound=4000) for seed in (1, 2, 3))
    points, scale = (9, 10, 8), units.SoftmaxScale.of(0.3)
    kit = Kit(Tiny(cores=4))
    sparse = int(pruned == "neginf")
    do = _attention(
        kit, q, k, v, points, scale, heads=3, rho=0.2, pruned=pruned, sparse=sparse, columns=columns
    )
    result = kit.run()
    out, kept = expected_attention(q, k, v, points, scale, 3, 0.2, -1.0, pruned)
    np.testing.assert_array_equal(kit.get(do), out)
    assert (result.blocks_kept, result.blocks_total) == (np.count_nonzero(kept), kept.size)
    assert (result.heads_kept, result.heads_total) == (3, 3)


@pytest.mark.parametrize("masked_fetch", [False, True])
def test_head_gate_skips_pruned_heads(masked_fetch: bool):
    q, k, v = (codes((10, 16), seed, bound=6000) for seed in (4, 5, 6))
    q[:, 4:12] //= 6
    points, scale = (9, 9, 8), units.SoftmaxScale.of(0.3)
    results: list[Any] = []
    for tau in (-1.0, 40.0, 1e9):
        kit = Kit(Tiny(cores=4))
        do = _attention(
            kit, q, k, v, points, scale, heads=4, rho=0.3, tau=tau, masked_fetch=masked_fetch
        )
        results.append(kit.run())
        out, _ = expected_attention(q, k, v, points, scale, 4, 0.3, tau, "neginf")
        np.testing.assert_array_equal(kit.get(do), out)
    everything, some, none = results
    assert (everything.heads_kept, some.heads_kept, none.heads_kept) == (4, 2, 0)
    assert everything.cycles >= some.cycles >= none.cycles
    assert everything.macs > some.macs > none.macs
    assert everything.dram_bytes_read > some.dram_bytes_read
    assert np.all(some.busy["pe"][1:3] < everything.busy["pe"][1:3])
    assert np.all(some.busy["pe"][[0, 3]] == everything.busy["pe"][[0, 3]])


def _gated_heads(kit: Kit, q: Any) -> tuple[int, int]:
    """Two heads of (4, 2), which leave if they have no scores; the tensor and a tile of the heads."""
    dq = kit.put(q, "i16")
    x, a, theta, mask = (
        kit.tile("local", dtype, nbytes)
        for dtype, nbytes in (("i16", 16), ("i32", 64), ("acc", 24), ("i8", 2))
    )
    kit.emit("li", rd=60, imm=4)
    kit.emit("heads", rc=0, stride=1, limit=2)
    kit.emit("ld", t=x, d=dq, rows=4, cols=2, core_cols=2)
    kit.emit("scores", a=a, q=x, k=x, theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=0.0)
    kit.emit("gate", tau=1.0)
    return dq, x


@pytest.mark.parametrize(
    ("space", "again"), [("local", True), ("local", False), ("shared", True), ("shared", False)]
)
def test_what_a_head_that_left_did_not_load_is_not_read(space: str, again: bool):
    """The head of core 0 has no scores and leaves; a tile of its own has nothing of what comes."""
    kit = Kit(Tiny(cores=2))
    q = codes((4, 4), 1, bound=50)
    q[:, :2] = 0
    dq, x = _gated_heads(kit, q)
    late, acc = kit.tile(space, "i16", 16), kit.tile("local", "acc", 96)
    kit.emit("ld", t=late, d=dq, rows=4, cols=2)
    if again:
        kit.emit("all")
    kit.emit("mm", acc=acc, a=x, b=late, first=1, b_transposed=1)
    if again and space == "local":
        with pytest.raises(HeatcError, match=f"t{late} is not written on every active core"):
            kit.run()
    else:
        assert kit.run().heads_kept == 1


def test_masks_of_more_heads_than_go_on():
    """Four heads have masks; rows are fetched for the two that are worked on then."""
    kit = Kit(Tiny(cores=4))
    dq, dv = kit.put(codes((6, 8), 1, bound=50), "i16"), kit.put(codes((6, 8), 2), "i16")
    x, v, a = (kit.tile("local", d, n) for d, n in (("i16", 24), ("i16", 24), ("i32", 144)))
    theta, mask = kit.tile("local", "acc", 54), kit.tile("local", "i8", 3)
    kit.emit("li", rd=60, imm=6)
    kit.emit("heads", rc=0, stride=1, limit=4)
    kit.emit("ld", t=x, d=dq, rows=6, cols=2, core_cols=2)
    kit.emit("scores", a=a, q=x, k=x, theta=theta)
    kit.emit("mask", m=mask, theta=theta, rho=0.9)
    kit.emit("heads", rc=0, stride=1, limit=2)
    pc = kit.emit("ldm", t=v, d=dv, rows=6, cols=2, core_cols=2, mask=mask, axis="key")
    kept: list[NDArray[Any]] = []

    def retire(at: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "mask":
            kept.append(state.tile(mask).read().array.astype(bool).any(axis=1))

    result = kit.run(retire)
    rows = np.repeat(kept[0], 2, axis=1).sum(axis=1)
    assert len(rows) == 4
    assert rows[:2].sum() < 12
    assert result.pc_bytes_read[kit.head + pc] == rows[:2].sum() * 2 * 2


@pytest.mark.parametrize(("space", "nbytes"), [("local", 0), ("shared", 16)])
def test_what_is_loaded_when_every_head_has_left(space: str, nbytes: int):
    """The shared buffer is everybody's: it is loaded for whoever comes next."""
    kit = Kit(Tiny(cores=2))
    dq, _ = _gated_heads(kit, np.zeros((4, 4), np.int16))
    pc = kit.emit("ld", t=kit.tile(space, "i16", 16), d=dq, rows=4, cols=2)
    result = kit.run()
    assert result.heads_kept == 0
    assert result.pc_bytes_read[kit.head + pc] == nbytes


@given(st.integers(0, 1000), st.integers(1, 7), st.integers(1, 5), st.floats(0, 30))
@settings(max_examples=40, deadline=None)
def test_rounds_of_heads(seed: int, heads: int, cores: int, tau: float):
    """More heads than cores, some pruned, the last round not full; also a single core."""
    q, k, v = (codes((7, heads * 2), seed + i, bound=5000) for i in range(3))
    points, scale = (10, 10, 9), units.SoftmaxScale.of(0.7)
    kit = Kit(Tiny(cores=cores))
    do = _attention(kit, q, k, v, points, scale, heads=heads, tau=tau, columns=4)
    result = kit.run()
    out, _ = expected_attention(q, k, v, points, scale, heads, 0.0, tau, "neginf")
    np.testing.assert_array_equal(kit.get(do), out)
    assert result.heads_total == heads


def test_shared_tiles_and_tensors():
    x = codes((6, 8), 1)
    kit = Kit(Tiny(cores=3))
    dx, dy, dz = kit.put(x, "i16"), kit.tensor((6, 8), "i16"), kit.tensor((6, 8), "i16")
    kit.emit("tensor", d=50, space="shared", dtype="i16", base=4096, rows_imm=6, cols=8)
    kit.emit("window", d=51, src=50, start_reg=0, rows_reg=3)
    kit.emit("li", rd=3, imm=3)
    kit.emit("window", d=51, src=50, start_reg=3, rows_reg=3)
    kit.emit("window", d=52, src=dz, start_reg=3, rows_reg=3)
    t, u, w = (
        kit.tile("shared", "i16", 96),
        kit.tile("local", "i16", 96),
        kit.tile("local", "i16", 96),
    )
    kit.emit("ld", t=t, d=dx, rows=6, cols=8, core_cols=3)
    kit.emit("st", d=50, t=t)
    kit.emit("ld", t=u, d=50, rows=6, cols=3, core_cols=3)
    kit.emit("st", d=dy, t=u, core_cols=3)
    kit.emit("ld", t=w, d=51, rows=9, cols=8)
    kit.emit("st", d=52, t=w)
    result = kit.run()
    np.testing.assert_array_equal(kit.get(dy), x)
    np.testing.assert_array_equal(kit.get(dz), np.concatenate([np.zeros_like(x[:3]), x[3:]]))
    assert result.dram_bytes_read == x.nbytes
    assert result.dram_bytes_written == x.nbytes + x.nbytes // 2


def test_fetch_upon_mask_reads_less():
    q, k, v = (codes((12, 4), seed, bound=6000) for seed in (7, 8, 9))
    k[4:8] = 0
    points, scale = (9, 9, 8), units.SoftmaxScale.of(0.3)
    read: list[int] = []
    for masked in (False, True):
        kit = Kit(Tiny(cores=2))
        do = _attention(kit, q, k, v, points, scale, rho=0.3, masked_fetch=masked)
        read.append(kit.run().dram_bytes_read)
        out, kept = expected_attention(q, k, v, points, scale, 1, 0.3, -1.0, "neginf")
        np.testing.assert_array_equal(kit.get(do), out)
        dropped = 2 * int(np.count_nonzero(~kept.any(axis=1)))
    assert read[0] - read[1] == dropped * 4 * 2 > 0


def test_published_example_shape():
    """Q 8x4, K 4x8, blocks 2x2: 4 x 4 block importances, one threshold for each block row."""
    q = np.arange(32, dtype=np.int16).reshape(8, 4) % 7 - 3
    k = np.arange(32, dtype=np.int16).reshape(8, 4) % 5 - 2
    kit = Kit(Tiny(cores=1))
    scale = units.SoftmaxScale.of(0.5)
    do = _attention(kit, q, k, k, (0, 0, 0), scale, rho=0.25, pruned="zero", sparse=0)
    seen: list[Any] = []

    def retire(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "mask":
            tile = state.tiles[int(instruction["theta"])]
            seen.append(tile.contents.array[0])
            seen.append(state.tiles[int(instruction["m"])].contents.array[0])

    kit.run(retire)
    scores = np.abs(_int64(q) @ _int64(k).T)
    theta = scores.reshape(4, 2, 4, 2).sum(axis=(1, 3))
    threshold = 0.25 * theta.max(axis=1) + 0.75 * theta.mean(axis=1)
    np.testing.assert_array_equal(seen[0], theta)
    np.testing.assert_array_equal(seen[1], theta >= threshold[:, None])
    out, _ = expected_attention(q, k, k, (0, 0, 0), scale, 1, 0.25, -1.0, "zero")
    np.testing.assert_array_equal(kit.get(do), out)


def test_adder_beyond_float64_agrees_with_the_unit():
    from heatc.machine import datapath

    rng = np.random.default_rng(0)
    shape = (2, 4, 6)
    parts = [rng.integers(-(1 << 45), 1 << 45, shape) for _ in range(3)]
    kept = rng.random(shape) < 0.5
    points = datapath.MergePoints(14, 11, -20)
    for rule in PRUNED_SCORES:
        expected = units.merge_scores(parts[0], parts[1], parts[2], kept, rule, points)
        real = tuple(part.astype(np.float64) for part in parts)
        mean = datapath.pruned_mean(real[0], kept, points.score)
        got, _ = datapath.merge(cast(Any, real), kept, points, rule, mean)
        np.testing.assert_array_equal(got, expected.codes)


# --- The host ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bits"), [("i8", 8), ("i16", 16), ("i32", 32), ("i64", 53)])
def test_what_the_host_writes_saturates(dtype: str, bits: int):
    """64-bit integers are written from float64, which holds 53 bits."""
    values = np.array([[-3e18, -2.5, 1.0, 1.5, 2.5, 3e18]], np.float32)
    kit = Kit(Tiny(cores=1))
    dx, dy = kit.put(values, "f32"), kit.tensor((1, 6), dtype)
    kit.emit("hget", h=0, d=dx, rows=1)
    pc = kit.emit("hput", d=dy, h=0)
    result = kit.run()
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    assert kit.get(dy).tolist() == [[least, -2, 1, 2, 2, most]]
    assert result.saturations == {pc: 2}


def test_packing_and_host_operators():
    mask = np.array([[0, 1, 1, 0], [1, 0, 1, 1], [0, 0, 0, 0]], np.int64)
    ids = np.arange(12, dtype=np.int64).reshape(12, 1) * 3 % 7
    table = np.random.default_rng(1).normal(size=(7, 6)).astype(np.float32)
    gamma, beta = table[:1] + 1, table[1:2]
    kit = Kit(Tiny(cores=1))
    dmask, dids = kit.put(mask, "i64"), kit.put(ids, "i64")
    dtable, dgamma, dbeta = (kit.put(x, "f32") for x in (table, gamma, beta))
    dpos, dinv, dtok = (kit.tensor((12, 1), "i64") for _ in range(3))
    dx, dy = kit.tensor((12, 6), "i16"), kit.tensor((12, 6), "f32")
    kit.emit("hpack", dpos=dpos, dinv=dinv, dmask=dmask, batch=3, length=4, has_mask=1)
    kit.emit("window", d=100, src=dpos, start_reg=0, rows_reg=63)
    kit.emit("window", d=101, src=dtok, start_reg=0, rows_reg=63)
    kit.emit("hidx", dst=101, src=dids, idx=100)
    kit.emit("hgeti", h=0, d=dtable, idx=101, rows=100)
    kit.emit("hln", h=0, gamma=dgamma, beta=dbeta, eps=1e-6)
    kit.emit("hput", d=dx, h=0, point=11)
    kit.emit("hget", h=1, d=dx, rows=5, point=11)
    for unary in ("hgelu", "htanh"):
        kit.emit(unary, h=1)
    kit.emit("hadd", h=1, g=1)
    kit.emit("hput", d=dx, h=1, point=12)
    kit.emit("hgeti", h=2, d=dx, idx=dinv, rows=12, point=12)
    kit.emit("hrelu", h=2)
    kit.emit("hput", d=dy, h=2)
    starts: list[tuple[int, int]] = []
    for b in range(3):
        kit.emit("li", rd=1, imm=b)
        kit.emit("seq", rb=1)

    def retire(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "seq":
            starts.append((state.registers[61], state.registers[60]))

    result = kit.run(retire)
    # Five rows of the table and five indices, whatever the table's size.
    assert result.pc_bytes_read[kit.head + 4] == 5 * 6 * 4 + 5 * 8
    assert starts == [(0, 2), (2, 3), (5, 0)]
    assert kit.get(dinv)[:, 0].tolist() == [-1, 0, 1, -1, 2, -1, 3, 4, -1, -1, -1, -1]
    x = table[ids[mask.reshape(-1) != 0, 0]].astype(np.float64)
    x = x - x.mean(axis=1, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=1, keepdims=True) + 1e-6) * gamma + beta
    x = np.rint(x * 2048) / 2048
    from math import erf

    gelu = 0.5 * x * (1 + np.vectorize(erf)(x / np.sqrt(2)))
    y = np.rint(2 * np.tanh(gelu) * 4096) / 4096
    expected = np.zeros((12, 6), np.float32)
    expected[mask.reshape(-1) != 0] = np.maximum(y, 0)
    np.testing.assert_array_equal(kit.get(dy), expected)
    assert result.busy["host"][0] > 0
    assert result.busy["pe"].sum() == 0


# --- Errors -----------------------------------------------------------------------------------

Emit = Callable[[Kit], Any]


def _two_tiles(kit: Kit) -> tuple[int, int]:
    d = kit.put(codes((4, 4), 1), "i16")
    first, second = kit.tile("local", "i16", 32), kit.tile("local", "i16", 32)
    kit.emit("ld", t=first, d=d, rows=4, cols=4)
    return first, second


def _unwritten(kit: Kit) -> None:
    first, second = _two_tiles(kit)
    acc = kit.tile("local", "acc", 96)
    kit.emit("mm", acc=acc, a=first, b=second, first=1)


def _overlap(kit: Kit) -> None:
    first, second = _two_tiles(kit)
    kit.emit("tile", t=second, space="local", dtype="i16", address=16, bytes=32)
    kit.emit("ld", t=second, d=0, rows=4, cols=4)
    kit.emit("mm", acc=kit.tile("local", "acc", 96), a=first, b=second, first=1)


def _no_room(kit: Kit) -> None:
    kit.emit(
        "ld", t=kit.tile("local", "i16", 30), d=kit.put(codes((4, 4), 1), "i16"), rows=4, cols=4
    )


def _read_only(kit: Kit) -> None:
    first, _ = _two_tiles(kit)
    kit.emit("st", d=0, t=first)


def _wrong_dtype(kit: Kit) -> None:
    kit.emit(
        "ld", t=kit.tile("local", "i32", 64), d=kit.put(codes((4, 4), 1), "i16"), rows=4, cols=4
    )


@pytest.mark.parametrize(
    ("start", "step", "fits"),
    [
        (-(1 << 63), 0, True),
        (-(1 << 63) + 1, -1, True),
        (-(1 << 63), -1, False),
        ((1 << 63) - 1, 0, True),
        ((1 << 63) - 2, 1, True),
        ((1 << 63) - 1, 1, False),
    ],
)
def test_a_register_has_64_bits(start: int, step: int, fits: bool):
    kit = Kit(Tiny(cores=1))
    kit.emit("li", rd=1, imm=start)
    kit.emit("addi", rd=2, ra=1, imm=step)
    if fits:
        kit.run()
        return
    with pytest.raises(HeatcError, match=f"{start + step} does not fit a register"):
        kit.run()


@pytest.mark.parametrize("weights", [np.zeros(4, np.int16), np.zeros((2, 2), np.uint8)])
def test_weights_are_a_row_of_bytes(weights: Any):
    with pytest.raises(HeatcError, match="weights must be a row of bytes"):
        Memory(weights, 8)


@pytest.mark.parametrize("at", [-1, 1, 3, 4, 8])
def test_values_of_columns_that_a_tile_does_not_have(at: int):
    """Four values for probabilities of six keys, from key `at` on."""
    kit = Kit(Tiny(cores=1))
    dp, dv = kit.put(codes((2, 6), 1), "i16"), kit.put(codes((4, 3), 2), "i16")
    p, v, acc = (kit.tile("local", dtype, 64) for dtype in ("i16", "i16", "acc"))
    kit.emit("ld", t=p, d=dp, rows=2, cols=6)
    kit.emit("ld", t=v, d=dv, rows=4, cols=3)
    kit.emit("li", rd=1, imm=at)
    kit.emit("pv", acc=acc, p=p, v=v, col_reg=1, first=1)
    if 0 <= at <= 2:
        assert kit.run().macs == 2 * 4 * 3
        return
    with pytest.raises(HeatcError, match=f"columns {at}..{at + 4} are outside of t0 with 6"):
        kit.run()


@pytest.mark.parametrize(("rows", "columns"), [(0, 3), (3, 0), (0, 0)])
def test_nothing_is_inside_of_any_memory(rows: int, columns: int):
    memory = Memory(np.zeros(4, np.uint8), 8)
    assert memory.view(8, "i64", rows, columns).shape == (rows, columns)


@pytest.mark.parametrize(
    ("positions", "rows"),
    [
        ([0], [2, 0, 4]),
        ([0, 3], [2, 0, 3, 4, 7]),
        ([0, 1, 2, 3], [2, 0, 1, 3, 4, 5, 6, 7]),
        ([0, 0], None),
        ([1, 1], None),
        ([2, 1], None),
        ([-1], None),
        ([4], None),
        ([0, 4], None),
    ],
)
def test_rows_of_masked_positions(positions: list[int], rows: list[int] | None):
    """Two sequences of four tokens, of which token 2 and token 0 are real."""
    kit = Kit(Tiny(cores=1))
    dmask = kit.put(np.array([[0, 0, 1, 0], [1, 0, 0, 0]], np.int64), "i64")
    dread = kit.put(np.array([positions], np.int64), "i64")
    dpos, dinv, dreal = (kit.tensor((8, 1), "i64") for _ in range(3))
    places = {"dpos": dpos, "dinv": dinv, "dreal": dreal, "dmask": dmask, "dread": dread}
    kit.emit("hrows", **places, batch=2, length=4)
    if rows is None:
        with pytest.raises(HeatcError, match="holds no ascending positions"):
            kit.run()
        return
    kit.run()
    assert kit.get(dpos)[: len(rows), 0].tolist() == rows
    of_place = [rows.index(place) if place in rows else -1 for place in range(8)]
    assert kit.get(dinv)[:, 0].tolist() == of_place
    assert kit.get(dreal)[:, 0].tolist() == [
        n if i in (2, 4) else -1 for i, n in enumerate(of_place)
    ]


def _outside(kit: Kit) -> None:
    kit.emit("tensor", d=9, space="dram", dtype="i16", base=1 << 30, rows_imm=4, cols=4)


def _window(kit: Kit) -> None:
    kit.put(codes((4, 4), 1), "i16")
    kit.emit("li", rd=1, imm=5)
    kit.emit("window", d=3, src=0, start_reg=0, rows_reg=1)


def _shapes(kit: Kit) -> None:
    first, second = _two_tiles(kit)
    kit.emit("ld", t=second, d=0, rows=3, cols=4)
    kit.emit("mm", acc=kit.tile("local", "acc", 96), a=first, b=second, first=1)


def _buffer(kit: Kit) -> None:
    kit.emit("tile", t=1, space="local", dtype="i16", address=0, bytes=1 << 20)


def _sequence(kit: Kit) -> None:
    kit.emit("seq", rb=0)


def _loop(kit: Kit) -> None:
    kit.emit("loop", r=1, bound=2, step=1, skip=2)


def _endless(kit: Kit) -> None:
    kit.emit("li", rd=2, imm=1)
    kit.emit("loop", r=1, bound=2, step=1, skip=3)
    kit.emit("li", rd=1, imm=-1)
    kit.emit("end", back=2)


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (_unwritten, HeatcError, "t1 is read before it is written"),
        (_overlap, HeatcError, "t0 was overwritten through t1"),
        (_no_room, InfeasibleError, "4x4 i16 need 32 bytes, t0 has 30"),
        (_read_only, HeatcError, "weights"),
        (_wrong_dtype, HeatcError, "t0 is i32, the tensor i16"),
        (_outside, HeatcError, "outside of the memory"),
        (_window, HeatcError, "rows 0..5 are outside of d0"),
        (_shapes, HeatcError, r"shape of t1 is \(3, 4\), expected \(4, 4\)"),
        (_buffer, InfeasibleError, "the local buffer has"),
        (_sequence, HeatcError, "sequence 0 is not one of 0"),
        (_loop, HeatcError, "has no end"),
        (_endless, HeatcError, "stopped after"),
    ],
)
def test_errors(build: Emit, kind: type[HeatcError], message: str):
    kit = Kit(Tiny())
    build(kit)
    with pytest.raises(HeatcError, match=message) as caught:
        kit.run(max_seconds=0.5)
    assert caught.type is kind
    assert caught.value.message.startswith("pc ")


def test_halt_is_needed():
    machine = Machine(Tiny(), Memory(np.zeros(0, np.uint8), 16))
    with pytest.raises(HeatcError, match="beyond its end"):
        machine.run([])


@given(
    st.integers(0, 1000),
    st.integers(-10, 20),
    st.integers(1, 1 << 31),
    st.floats(1e-3, 8.0),
    st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_fast_softmax_is_the_unit(seed: int, point: int, bound: int, scale: float, excluded: bool):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-bound, bound, (2, 3, int(rng.integers(1, 9))), np.int64)
    if excluded:
        scores[rng.random(scores.shape) < 0.4] = units.EXCLUDED
    constant = units.SoftmaxScale.of(scale)
    if not -14 <= point + constant.shift - units.EXP_BITS <= 62:
        return
    expected = units.softmax_unit(scores, point, constant)
    fast = datapath.softmax(scores.astype(np.int32), point, constant)
    np.testing.assert_array_equal(fast, expected)


@pytest.mark.parametrize("point", [3, 9, 14])
def test_gelu_by_table_is_gelu(point: int):
    """A register that holds codes takes GELU from a table, one that was changed computes it."""
    x = codes((40, 8), point, bound=32767)
    results: list[Any] = []
    for changed in (False, True):
        kit = Kit(Tiny())
        d, zero = kit.put(x, "i16"), kit.put(0 * x, "i16")
        y = kit.tensor(x.shape, "i16")
        kit.emit("hget", h=0, d=d, rows=40, point=point)
        if changed:
            kit.emit("hget", h=1, d=zero, rows=40, point=point)
            kit.emit("hadd", h=0, g=1)
        kit.emit("hgelu", h=0)
        kit.emit("hput", d=y, h=0, point=point)
        kit.run()
        results.append(kit.get(y))
    np.testing.assert_array_equal(*results)


def test_a_packing_beyond_its_tensors_takes_no_memory():
    """An instruction may say any batch and length: what it writes to bounds what is made for it."""
    kit = Kit(Tiny(cores=1))
    dpos, dinv = (kit.tensor((12, 1), "i64") for _ in range(2))
    kit.emit("hpack", dpos=dpos, dinv=dinv, dmask=0, batch=30_000, length=30_000, has_mask=0)
    tracemalloc.start()
    try:
        with pytest.raises(HeatcError, match="has 12 of 900000000 elements"):
            kit.run()
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()
