"""Cores that share a head, scores by column parts, and what is computed in place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes, expected_attention

from heatc import fixed_point
from heatc.errors import HeatcError
from heatc.isa import units
from heatc.isa.words import Inst, inst
from heatc.machine.machine import RunResult

POINTS = (9, 10, 8)
SCALE = units.SoftmaxScale.of(0.3)
DIM, ROWS = 6, 4

Array = np.ndarray[Any, Any]


def up(x: Any, y: int) -> Any:
    return -(-x // y)


@dataclass(frozen=True)
class Case:
    """Heads of `parts` cores of 4; `gate` in a first pass; `keys` at a time."""

    length: int
    parts: int
    heads: int = 2
    gate: float = -1.0
    keys: int = 1 << 10
    in_place: bool = True
    pruned: str = "neginf"


class Grouped:
    """Attention on planes that are split already, all tiles of 4 cores of 4x4 PEs."""

    def __init__(self, case: Case, no_keys: slice = slice(0, 0)):
        self.case = case
        self.q, self.k, self.v = (
            codes((case.length, case.heads * DIM), seed, bound=4000) for seed in (1, 2, 3)
        )
        self.k[no_keys] = 0
        self.kit = kit = Kit(Tiny())
        length, keys = case.length, min(case.keys, case.length)
        planes = [*fixed_point.split(self.q.astype(np.int64), POINTS[0])]
        planes += [*fixed_point.split(self.k.astype(np.int64), POINTS[1])]
        names = ("qi", "qf", "ki", "kf")
        self.tensors = {
            name: kit.put(plane.astype(np.int16), "i16") for name, plane in zip(names, planes)
        }
        self.tensors["v"] = kit.put(self.v, "i16")
        self.output = kit.tensor((length, case.heads * DIM), "i16")
        blocks, steps = up(length, 2), up(length, case.parts * ROWS)
        local = {n: ("i16", 2 * ROWS * DIM) for n in ("qi", "qf", "o")}
        local |= {n: ("i16", 2 * keys * DIM) for n in ("ki", "kf", "v")}
        local |= {n: ("acc", 6 * ROWS * keys) for n in ("f1", "f2")}
        local |= {
            "acc": ("acc", 6 * ROWS * DIM),
            "theta": ("acc", 6 * up(ROWS, 2) * blocks),
            "mask": ("i8", steps * up(ROWS, 2) * up(blocks, 8)),
            "s": ("i32", 4 * ROWS * length),
        }
        self.t = {name: kit.tile("local", *size) for name, size in local.items()}
        if case.in_place:
            self.t |= {"a": self.t["s"], "p": kit.over(self.t["s"], "i16", 2 * ROWS * length)}
        else:
            self.t |= {n: kit.tile("local", "i32", 4 * ROWS * length) for n in ("a",)}
            self.t["p"] = kit.tile("local", "i16", 2 * ROWS * length)
        self.pcs: dict[str, list[int]] = {}
        self._emit_all()

    def _do(self, mnemonic: str, **fields: float | str) -> None:
        self.pcs.setdefault(mnemonic, []).append(self.kit.emit(mnemonic, **fields))

    def _emit_all(self) -> None:
        case = self.case
        self.kit.emit("li", rd=60, imm=case.length)
        self.kit.emit("group", parts=case.parts, rows=ROWS)
        items = 4 // case.parts
        for first in range(0, case.heads, items):
            self.kit.emit("li", rd=5, imm=first)
            self.kit.emit("li", rd=7, imm=first * DIM)
            self.kit.emit("heads", rc=5, stride=1, limit=case.heads)
            self._head()
        self.kit.emit("all")

    def _head(self) -> None:
        starts = range(0, self.case.length, self.case.parts * ROWS)
        if self.case.gate > 0:
            for row in starts:
                self._scores(row, ranked=False)
            self._do("gate", tau=self.case.gate)
        for row in starts:
            self._scores(row, ranked=self.case.gate > 0)
            self._rest(row)

    def _load(self, name: str, row: int) -> None:
        self.kit.emit("li", rd=6, imm=row)
        queries = name.startswith("q")
        rows = ROWS if queries else min(self.case.keys, self.case.length)
        dealt = ROWS if queries and self.case.parts > 1 else 0
        size = {"rows": rows, "cols": DIM, "core_cols": DIM, "core_rows": dealt}
        self._do("ld", t=self.t[name], d=self.tensors[name], row_reg=6, col_reg=7, **size)

    def _scores(self, row: int, *, ranked: bool) -> None:
        t = self.t
        self._load("qi", row)
        for key in range(0, self.case.length, self.case.keys):
            self._load("ki", key)
            self._do("scores", a=t["a"], q=t["qi"], k=t["ki"], theta=t["theta"], col_reg=6)
        if not ranked:
            self.kit.emit("li", rd=8, imm=row)
            self._do("mask", m=t["mask"], theta=t["theta"], row_reg=8, rho=0.2)

    def _rest(self, row: int) -> None:
        t, case = self.t, self.case
        self._load("qf", row)
        self.kit.emit("li", rd=8, imm=row)
        place = {"mask": t["mask"], "row_reg": 8, "col_reg": 6}
        points = dict(zip(("point_q", "point_k", "point_s"), POINTS))
        for key in range(0, case.length, case.keys):
            self._load("kf", key)
            self._load("ki", key)
            tiles = {n: t[n] for n in ("f1", "f2", "qi", "qf", "ki", "kf")}
            self._do("frac", **tiles, **place)
            tiles = {n: t[n] for n in ("s", "a", "f1", "f2")}
            self._do("add", **tiles, **place, pruned=case.pruned, **points)
        fields = {"multiplier": SCALE.multiplier, "shift": SCALE.shift, "point": POINTS[2]}
        self._do("softmax", p=t["p"], s=t["s"], **fields)
        for key in range(0, case.length, case.keys):
            self._load("v", key)
            tiles = {n: t[n] for n in ("acc", "p", "v")}
            sparse = int(case.pruned == "neginf")
            self._do("pv", **tiles, **place, first=int(key == 0), sparse=sparse)
        self._do("drain", t=t["o"], acc=t["acc"], shift=14)
        dealt = ROWS if case.parts > 1 else 0
        fields = {"row_reg": 8, "col_reg": 7, "core_rows": dealt, "core_cols": DIM}
        self._do("st", d=self.output, t=t["o"], **fields)

    def expected(self) -> tuple[Array, Array]:
        """Output codes and block masks (heads, blocks, blocks)."""
        case = self.case
        operands = (self.q, self.k, self.v, POINTS, SCALE, case.heads, 0.2, case.gate, case.pruned)
        return expected_attention(*operands)

    def check(self) -> RunResult:
        """Run; values and counts must be those of the formulas."""
        result = self.kit.run()
        out, kept = self.expected()
        np.testing.assert_array_equal(self.kit.get(self.output), out)
        assert (result.blocks_kept, result.blocks_total) == (np.count_nonzero(kept), kept.size)
        assert result.heads_total == self.case.heads
        return result

    def rows_of(self, row: int) -> Array:
        """The queries of each core's part of a step, (4,)."""
        starts = row + ROWS * (np.arange(4) % self.case.parts)
        return np.clip(self.case.length - starts, 0, ROWS)

    def busy(self, result: RunResult, mnemonic: str, engine: str) -> list[int]:
        """Busy cycles of each instruction of a kind, summed over the cores."""
        pcs = [pc + self.kit.head for pc in self.pcs[mnemonic]]
        return [result.pc_busy[engine][pc] for pc in pcs]


@pytest.mark.parametrize("parts", [1, 2, 4])
@pytest.mark.parametrize("length", [16, 15, 13, 7, 2, 1])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_group_computes_a_head(parts: int, length: int, in_place: bool):
    """Rows that do not come out even, cores without any; keys of 6 at a time or all at once."""
    for keys in (6, 1 << 10):
        Grouped(Case(length, parts, heads=3, keys=keys, in_place=in_place)).check()


@pytest.mark.parametrize("pruned", ["zero", "neginf", "int", "mean"])
def test_merged_scores_take_the_place_of_integer_ones(pruned: str):
    """`add` with s = a, `softmax` with p where s begins: as with tiles of their own."""
    runs = [Grouped(Case(14, 2, pruned=pruned, in_place=p)).check() for p in (True, False)]
    assert runs[0].macs == runs[1].macs
    assert runs[0].busy["adder"].tolist() == runs[1].busy["adder"].tolist()


@pytest.mark.parametrize("parts", [2, 4])
def test_the_gate_sums_over_the_group(parts: int):
    """A head is kept for the blocks of all of its cores, where those of each would be too few."""
    case = Case(15, parts, heads=3)
    run = Grouped(case)
    scores = [
        (fixed_point.split(x.astype(np.int64), p)[0].reshape(15, 3, DIM).swapaxes(0, 1))
        for x, p in ((run.q, POINTS[0]), (run.k, POINTS[1]))
    ]
    theta = units.block_importance(scores[0] @ scores[1].swapaxes(1, 2), (2, 2))
    sums = theta.sum(axis=(1, 2)) / 15**2
    largest_part = max(
        theta[:, up(start, 2) : up(start + ROWS, 2)].sum(axis=(1, 2)).max()
        for start in range(0, 15, ROWS)
    )
    for tau in (float(np.sort(sums)[0]), float(np.sort(sums)[1]), float(sums.max()) + 1):
        gated = Grouped(Case(15, parts, heads=3, gate=tau))
        result = gated.kit.run()
        np.testing.assert_array_equal(gated.kit.get(gated.output), gated.expected()[0])
        assert result.heads_kept == np.count_nonzero(sums >= tau)
    # No core alone would have kept a head at the least of these thresholds.
    assert largest_part / 15**2 < np.sort(sums)[0]


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_what_a_group_reads_alike_is_fetched_once(parts: int):
    """Keys have core_rows = 0: one part a head; queries are dealt out, a row once."""
    case = Case(14, parts, heads=4 // parts)
    run = Grouped(case)
    result = run.check()
    steps = up(case.length, parts * ROWS)
    keys = 4 * steps * case.length  # ki twice, kf and v in each step
    queries = 2 * case.length
    assert result.dram_bytes_read == case.heads * DIM * 2 * (keys + queries)
    loads = run.busy(result, "ld", "dma")
    # Bytes over 8 a cycle: queries of the first step, then the keys of a head.
    assert loads[0] == up(case.heads * min(case.length, parts * ROWS) * DIM * 2, 8)
    assert loads[1] == up(case.heads * case.length * DIM * 2, 8)
    assert result.dram_bytes_written == case.heads * case.length * DIM * 2


@pytest.mark.parametrize("parts", [2, 4])
def test_cycles_of_ragged_parts(parts: int):
    """Each core pays for the rows that it has: 4x4 PEs, 2 importances, 4 sums, 2 scores a cycle."""
    case = Case(13, parts, heads=4 // parts)
    run = Grouped(case)
    result = run.check()
    starts = range(0, case.length, parts * ROWS)
    folds = up(case.length, 4)
    rows = [run.rows_of(row) for row in starts]
    dense = [up(r, 4) * folds * DIM + 6 * (r > 0) for r in rows]
    assert run.busy(result, "scores", "pe") == [int(d.sum()) for d in dense]
    blocks = [up(up(r, 2) * up(case.length, 2), 2) for r in rows]
    assert run.busy(result, "mask", "se") == [int(b.sum()) for b in blocks]
    assert run.busy(result, "drain", "pe") == [int((up(r, 4) * DIM).sum()) for r in rows]
    kept = units.expand_mask(run.expected()[1], (2, 2), (case.length, case.length))
    adder, softmax = [], []
    for row in starts:
        places = [row + ROWS * part for part in range(parts)]
        each = [kept[head, p : p + ROWS].sum(axis=1) for head in range(case.heads) for p in places]
        adder.append(sum(int(up(e.sum(), 4)) for e in each))
        softmax.append(sum(int(up(e.sum(), 2) + 2 * up(e.max(), 2)) for e in each if e.size))
    assert run.busy(result, "add", "adder") == adder
    assert run.busy(result, "softmax", "softmax") == softmax


@pytest.mark.parametrize("pruned", ["zero", "int", "mean"])
def test_all_scores_pass_the_adder_unless_they_are_excluded(pruned: str):
    """14 rows of 14 scores on 4 cores of 4 rows: as dense, whatever was pruned."""
    run = Grouped(Case(14, 4, heads=1, pruned=pruned))
    result = run.check()
    rows = run.rows_of(0)
    assert run.busy(result, "add", "adder") == [int(up(rows * 14, 4).sum())]
    assert run.busy(result, "softmax", "softmax") == [int((up(rows * 14, 2) + 14).sum())]


def test_a_masked_load_brings_what_one_core_of_the_group_wants():
    """`ldm` by key: a row comes once for the group, if any block of any core's rows is kept."""
    case = Case(16, 4, heads=1)
    run = Grouped(case, no_keys=slice(4, 10))
    run.kit.code = [i for i in run.kit.code if i.mnemonic != "all"]
    size = {"rows": 16, "cols": DIM, "core_cols": DIM, "mask": run.t["mask"], "axis": "key"}
    run.kit.emit("li", rd=6, imm=0)
    tile = run.kit.tile("local", "i16", 16 * DIM * 2)
    pc = run.kit.emit("ldm", t=tile, d=run.tensors["v"], row_reg=6, col_reg=6, **size)
    result = run.kit.run()
    kept = run.expected()[1][0].any(axis=0)
    assert 0 < kept.sum() < kept.size
    assert result.pc_bytes_read[pc + run.kit.head] == int(kept.sum()) * 2 * DIM * 2


# --- drainc -----------------------------------------------------------------------------------


def _dense_scores(parts: tuple[int, ...], shift: int) -> tuple[Kit, int, Array, list[int]]:
    q, k = codes((5, 6), 1), codes((9, 6), 2)
    kit = Kit(Tiny(cores=1))
    kit.emit("li", rd=60, imm=9)
    dq, dk, out = kit.put(q, "i16"), kit.put(k, "i16"), kit.tensor((5, 9), "i32")
    tq, tk = kit.tile("local", "i16", 60), kit.tile("local", "i16", 108)
    acc, s = kit.tile("local", "acc", 5 * 9 * 6), kit.tile("local", "i32", 5 * 9 * 4)
    kit.emit("ld", t=tq, d=dq, rows=5, cols=6)
    pcs: list[int] = []
    at = 0
    for rows in parts:
        kit.emit("li", rd=6, imm=at)
        kit.emit("ld", t=tk, d=dk, row_reg=6, rows=rows, cols=6)
        kit.emit("mm", acc=acc, a=tq, b=tk, first=1, b_transposed=1)
        pcs.append(kit.emit("drainc", t=s, acc=acc, col_reg=6, shift=shift))
        at += rows
    kit.emit("st", d=out, t=s)
    return kit, out, q.astype(np.int64) @ k.astype(np.int64).T, pcs


@pytest.mark.parametrize("parts", [(9,), (4, 5), (2, 6, 1)])
@pytest.mark.parametrize("shift", [7, 0, -6])
def test_drainc_writes_columns(parts: tuple[int, ...], shift: int):
    """Half to even, saturated to 32 bits and counted; 2 folds of rows leave by columns."""
    kit, out, exact, pcs = _dense_scores(parts, shift)
    result = kit.run()
    rounded = fixed_point.round_shift(exact, shift) if shift > 0 else exact << -shift
    np.testing.assert_array_equal(kit.get(out), np.clip(rounded, -(1 << 31), (1 << 31) - 1))
    beyond = (rounded >= 1 << 31) | (rounded < -(1 << 31))
    assert bool(beyond.any()) == (shift < 0)
    assert sum(result.saturations.values()) == np.count_nonzero(beyond)
    assert set(result.saturations) <= set(pcs)
    cycles = [result.pc_busy["pe"][pc + kit.head] for pc in pcs]
    assert cycles == [2 * columns for columns in parts]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((4,), "t3 is not complete"),
        ((3, 6), "3 columns at 0 end inside a block"),
    ],
)
def test_drainc_refuses_columns(parts: tuple[int, ...], message: str):
    kit, *_ = _dense_scores(parts, 0)
    with pytest.raises(HeatcError, match=message):
        kit.run()


def test_drainc_refuses_a_gap():
    """Columns 4 to 8 without those before them; 6 to 8 without 2 to 5."""
    kit, *_ = _dense_scores((4, 5), 0)
    kit.code.pop(_first(kit, "drainc"))
    with pytest.raises(HeatcError, match="t3 is read before it is written"):
        kit.run()
    kit, *_ = _dense_scores((2, 4, 3), 0)
    kit.code.pop(_first(kit, "drainc", 1))
    with pytest.raises(HeatcError, match="first unwritten column of t3 is 2, expected 6"):
        kit.run()


def test_drainc_refuses_a_narrow_tile():
    kit, *_ = _dense_scores((9,), 0)
    kit.code.insert(_first(kit, "ld"), Inst("tile", (3, 2, 1, 1024, 400)))
    with pytest.raises(HeatcError, match="t3 is i16, expected i32"):
        kit.run()


def _first(kit: Kit, mnemonic: str, skipped: int = 0) -> int:
    return [i for i, x in enumerate(kit.code) if x.mnemonic == mnemonic][skipped]


# --- What the machine refuses -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "rows", "message"),
    [
        (3, 4, "3 parts do not divide the cores"),
        (8, 4, "8 parts do not divide the cores"),
        (0, 4, "0 parts do not divide the cores"),
        (2, 3, "3 rows of a part do not end with a block"),
        (2, 0, "the parts of a group have no rows"),
    ],
)
def test_group_refuses(parts: int, rows: int, message: str):
    kit = Kit(Tiny())
    kit.emit("group", parts=parts, rows=rows)
    with pytest.raises(HeatcError, match=message):
        kit.run()


def test_rows_of_a_group_begin_with_all_of_its_parts():
    """The mask row of core 0's first query counts the rows of all parts before it."""
    run = Grouped(Case(16, 4, heads=1))
    place = max(i for i, x in enumerate(run.kit.code) if x.mnemonic == "mask")
    run.kit.code.insert(place, inst("li", rd=8, imm=2))
    with pytest.raises(HeatcError, match="row 2 is none that 4 parts begin with"):
        run.kit.run()


def _softmax_over(offset: int) -> Kit:
    kit = Kit(Tiny(cores=1))
    d = kit.put(codes((4, 6), 1, "i32", 1000), "i32")
    s = kit.tile("local", "i32", 96)
    kit.tile("local", "i32", 96)
    p = kit.over(s, "i16", 48, offset)
    kit.emit("ld", t=s, d=d, rows=4, cols=6)
    kit.emit("softmax", p=p, s=s, multiplier=40000, shift=16, point=4)
    return kit


def test_softmax_begins_where_its_scores_do():
    """A row is read before it is written, at the same address only."""
    _softmax_over(0).run()
    _softmax_over(96).run()
    for offset in (2, 48, 94):
        with pytest.raises(HeatcError, match="t2 shares bytes with t0, which is read"):
            _softmax_over(offset).run()


def test_merged_scores_lie_where_the_integer_ones_do_or_elsewhere():
    """`add` into a tile that only overlaps `a`."""
    run = Grouped(Case(8, 2, heads=2, in_place=False))
    place = next(i for i in run.kit.code if i.mnemonic == "tile" and i["t"] == run.t["a"])
    _, space, dtype, address, nbytes = place.operands
    moved = Inst("tile", (run.t["s"], space, dtype, int(address) + 8, nbytes))
    run.kit.code.insert(_first(run.kit, "ld"), moved)
    with pytest.raises(HeatcError, match="shares bytes with"):
        run.kit.run()


def test_a_result_does_not_take_the_place_of_an_operand():
    """Accumulators over the queries, which are still read."""
    kit = Kit(Tiny(cores=1))
    x = kit.put(codes((4, 4), 1), "i16")
    a = kit.tile("local", "i16", 32)
    kit.tile("local", "i16", 96)
    acc = kit.over(a, "acc", 96)
    kit.emit("ld", t=a, d=x, rows=4, cols=4)
    kit.emit("mm", acc=acc, a=a, b=a, first=1)
    with pytest.raises(HeatcError, match="t2 shares bytes with t0, which is read"):
        kit.run()


def test_a_mean_needs_all_scores_of_a_row():
    """In place, the first columns would be gone when the mean of the last ones is taken."""
    run = Grouped(Case(14, 2, pruned="mean", keys=6))
    with pytest.raises(HeatcError, match="is overwritten before the mean of its rows is complete"):
        run.kit.run()
    Grouped(Case(14, 2, pruned="mean", keys=6, in_place=False)).check()


def test_scores_that_are_merged_in_part_are_no_integer_scores():
    """Columns in ascending order, and no softmax before the last."""
    run = Grouped(Case(14, 2, keys=6))
    run.kit.code.pop(_first(run.kit, "add"))
    with pytest.raises(HeatcError, match="that is not merged is 0, expected 6"):
        run.kit.run()
    run = Grouped(Case(14, 2, keys=6))
    run.kit.code.pop(_first(run.kit, "add", 2))
    with pytest.raises(HeatcError, match="is not complete"):
        run.kit.run()
