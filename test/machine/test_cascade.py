"""The instructions of cascaded head pruning, one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny, codes

from heatc.errors import HeatcError
from heatc.isa.words import Inst, inst
from heatc.machine.state import MachineState

SUMS = np.array([[5, 9, 9, 2, 9, 0]], np.int64)


def _int64(array: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.asarray(array).astype(np.int64)


class Heads(Kit):
    """Four cores, six heads of width 2 in an (5, 12) tensor, and a row of sums on every core."""

    def __init__(self, sums: Any = SUMS, **hardware: Any):
        super().__init__(Tiny(**hardware))
        self.x = codes((5, 12), 1)
        self.dx, self.out = self.put(self.x, "i16"), self.tensor((5, 12), "i16")
        self.dsums = self.put(np.asarray(sums, np.int64), "i64")
        self.sums = self.tile("local", "i64", 64)
        self.emit("ld", t=self.sums, d=self.dsums, rows=1, cols=SUMS.shape[1])

    def part(self, place: int, tile: int, **fields: int) -> int:
        """Load and store the heads at some places of the list."""
        self.emit("li", rd=1, imm=2 * place)
        self.emit("ld", t=tile, d=self.dx, col_reg=1, rows=5, cols=2, core_cols=2, **fields)
        return self.emit("st", d=self.out, t=tile, col_reg=1, core_cols=2, **fields)

    def fails(self, message: str) -> None:
        """The run traps."""
        with pytest.raises(HeatcError, match=message):
            self.run()


# ---- cascade ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keep", "listed"),
    [
        (1, [1, 0, 2, 3, 4, 5]),
        (2, [1, 2, 0, 3, 4, 5]),
        (4, [0, 1, 2, 4, 3, 5]),
        (6, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_greatest_sums_stand_first(keep: int, listed: list[int]):
    """Of equal ones the first; both parts of the list ascend."""
    kit, seen = Heads(), list[list[int]]()
    kit.emit("cascade", s=kit.sums, keep=keep)
    kit.emit("all")

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "cascade":
            seen.append(state.listed.tolist())
        assert instruction.mnemonic != "all" or state.listed is None

    result = kit.run(watch)
    assert seen == [listed]
    # Each sum is compared with each, two a cycle, on every core.
    assert result.busy["se"].tolist() == [18] * 4
    assert result.heads_kept == keep - 6


def test_places_stand_for_heads():
    """Three kept heads lie apart: a round of two and one of one take what belongs to them."""
    kit = Heads(cores=2)
    tile = kit.tile("local", "i16", 20)
    kit.emit("cascade", s=kit.sums, keep=3)
    for place in (0, 2):
        kit.emit("li", rd=2, imm=place)
        kit.emit("heads", rc=2, stride=1, limit=3)
        kit.part(place, tile)
    result = kit.run()
    expected = np.zeros((5, 12), np.int16)
    for head in (1, 2, 4):
        expected[:, 2 * head : 2 * head + 2] = kit.x[:, 2 * head : 2 * head + 2]
    np.testing.assert_array_equal(kit.get(kit.out), expected)
    assert result.dram_bytes_read == 6 * 8 + 3 * 20
    assert result.dram_bytes_written == 3 * 20


@pytest.mark.parametrize("groups", [True, False])
def test_heads_apart_from_each_other(groups: bool):
    """Four places at once, or two of two cores each; a head of a group is fetched once."""
    kit = Heads([[5, 0, 9, 2, 9, 7]])
    kit.emit("cascade", s=kit.sums, keep=4)
    if groups:
        kit.emit("group", parts=2, rows=4)
    rows = 4 if groups else 5
    kit.emit("heads", rc=0, stride=1, limit=4)
    tile = kit.tile("local", "i16", 20)
    kit.emit("ld", t=tile, d=kit.dx, rows=rows, cols=2, core_rows=4 * groups, core_cols=2)
    kit.emit("st", d=kit.out, t=tile, core_rows=4 * groups, core_cols=2)
    result = kit.run()
    expected = np.zeros((5, 12), np.int16)
    for head in (0, 2) if groups else (0, 2, 4, 5):
        expected[:, 2 * head : 2 * head + 2] = kit.x[:, 2 * head : 2 * head + 2]
    np.testing.assert_array_equal(kit.get(kit.out), expected)
    assert result.dram_bytes_read == 6 * 8 + np.count_nonzero(expected.any(axis=0)) * 10


def test_a_shared_tile_takes_the_head_at_its_place():
    kit = Heads()
    kit.emit("cascade", s=kit.sums, keep=3)
    kit.emit("group", parts=4, rows=2)
    kit.emit("li", rd=2, imm=2)
    kit.emit("heads", rc=2, stride=1, limit=3)
    tile = kit.tile("shared", "i16", 20)
    kit.part(2, tile)
    kit.run()
    expected = np.zeros((5, 12), np.int16)
    expected[:, 8:10] = kit.x[:, 8:10]
    np.testing.assert_array_equal(kit.get(kit.out), expected)


def test_a_part_without_core_strides_stays_where_it_is():
    kit = Heads(cores=1)
    tile = kit.tile("local", "i16", 20)
    kit.emit("cascade", s=kit.sums, keep=3)
    kit.emit("heads", rc=0, stride=1, limit=3)
    kit.emit("li", rd=1, imm=6)
    kit.emit("ld", t=tile, d=kit.dx, col_reg=1, rows=5, cols=2)
    kit.emit("st", d=kit.out, t=tile, core_cols=2)
    kit.run()
    np.testing.assert_array_equal(kit.get(kit.out)[:, 2:4], kit.x[:, 6:8])


def test_rounds_and_transfers_wait_for_the_list():
    """The same load, before and after the sparsity engine has listed the heads."""
    ends: list[int] = []
    for lanes in (1, 36):
        kit = Heads(cores=1, se_lanes=lanes)
        kit.emit("cascade", s=kit.sums, keep=3)
        kit.emit("heads", rc=0, stride=1, limit=3)
        kit.part(0, kit.tile("local", "i16", 20))
        ends.append(kit.run().cycles)
    assert ends[0] - ends[1] == 35


@pytest.mark.parametrize("keep", [0, 7])
def test_keep_is_a_number_of_heads(keep: int):
    kit = Heads()
    kit.emit("cascade", s=kit.sums, keep=keep)
    kit.fails(f"keep {keep} is outside of 1..6")


def test_heads_are_listed_once():
    kit = Heads()
    kit.emit("cascade", s=kit.sums, keep=2)
    kit.emit("cascade", s=kit.sums, keep=1)
    kit.fails("heads are listed already")


def test_all_cores_list_the_same():
    kit = Heads()
    own = kit.tile("local", "i64", 8)
    kit.emit("ld", t=own, d=kit.dsums, rows=1, cols=1, core_cols=1)
    kit.emit("cascade", s=own, keep=1)
    kit.fails("is not alike on all cores")


@pytest.mark.parametrize(("dtype", "rows"), [("i64", 2), ("i16", 1)])
def test_sums_are_a_row_of_integers(dtype: str, rows: int):
    kit = Heads()
    x = kit.put(np.ones((2, 3), np.int64 if dtype == "i64" else np.int16), dtype)
    tile = kit.tile("local", dtype, 64)
    kit.emit("ld", t=tile, d=x, rows=rows, cols=3)
    kit.emit("cascade", s=tile, keep=1)
    kit.fails(r"is \(2, 3\), expected \(1, 3\)" if rows == 2 else "is i16, expected i64")


@pytest.mark.parametrize(
    ("column", "message"),
    [(3, "column 3 is no place of a list of heads of 2"), (8, "place 7 is outside of a list of 6")],
)
def test_columns_are_places(column: int, message: str):
    kit = Heads()
    tile = kit.tile("local", "i16", 20)
    kit.emit("cascade", s=kit.sums, keep=2)
    kit.emit("li", rd=1, imm=column)
    kit.emit("ld", t=tile, d=kit.dx, col_reg=1, rows=5, cols=2, core_cols=2)
    kit.fails(message)


def test_parameters_are_those_of_listed_heads():
    """The second place holds head 2, which a threshold prunes."""
    kit = Heads(cores=2)
    ones = kit.put(np.ones((1, 4), np.int64), "i64")
    kit.emit("hpack", dpos=kit.tensor((1, 4), "i64"), dinv=kit.tensor((1, 4), "i64"), dmask=ones,
             batch=1, length=4, has_mask=1)  # fmt: skip
    kit.emit("seq", rb=0)
    kit.emit("param", which="tau", head=2, value=1.0)
    kit.emit("cascade", s=kit.sums, keep=2)
    kit.emit("heads", rc=0, stride=1, limit=2)
    kit.emit("gate", tau=0.0, own=1)
    kept: list[Any] = []

    def watch(pc: int, instruction: Any, state: Any) -> None:
        if instruction.mnemonic == "gate":
            kept.append(state.kept.tolist())

    kit.run(watch)
    assert kept == [[True, False]]


# ---- magnitude and tally ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["i8", "i16"])
def test_magnitudes_of_rows_that_a_core_has(dtype: str):
    """Two row tiles of three rows each: the second one of core 1 is cut to nothing."""
    kit = Kit(Tiny(cores=2))
    x = codes((8, 3), 4, dtype)
    x[0, 0] = np.iinfo(x.dtype).min
    dx, out = kit.put(x, dtype), kit.tensor((2, 1), "i32")
    tile, total = kit.tile("local", dtype, 24), kit.tile("local", "acc", 6)
    result = kit.tile("local", "i32", 4)
    for row in (0, 6):
        kit.emit("li", rd=1, imm=row)
        kit.emit("ld", t=tile, d=dx, row_reg=1, rows=3, cols=3, core_rows=3)
        kit.emit("magnitude", t=total, x=tile, row_reg=1)
    kit.emit("drain", t=result, acc=total, bias=total, shift=0)
    kit.emit("st", d=out, t=result, core_rows=1)
    run = kit.run()
    sums = np.abs(_int64(x)).sum(axis=1)
    expected = [sums[:3].sum() + sums[6:].sum(), sums[3:6].sum()]
    np.testing.assert_array_equal(kit.get(out)[:, 0], expected)
    # Nine elements, then six and none, four a cycle.
    assert run.busy["adder"].tolist() == [3 + 2, 3]


def _greatest(kit: Kit, mnemonic: str, tile: int) -> tuple[float, float]:
    """What an instruction leaves in a tile, the greatest of it, and the bound that is kept."""
    seen: list[tuple[float, float]] = []

    def retire(pc: int, instruction: Inst, state: MachineState) -> None:
        if instruction.mnemonic == mnemonic:
            contents = state.tile(tile).read()
            seen.append((float(contents.array.max()), contents.peak))

    kit.run(retire)
    return seen[0]


def test_the_bound_of_magnitudes_holds_for_the_greatest():
    kit = Kit(Tiny(cores=1))
    x = np.full((4, 6), -(1 << 15), np.int16)
    dx, tile, total = kit.put(x, "i16"), kit.tile("local", "i16", 48), kit.tile("local", "acc", 6)
    kit.emit("ld", t=tile, d=dx, rows=4, cols=6)
    kit.emit("magnitude", t=total, x=tile)
    sum_, bound = _greatest(kit, "magnitude", total)
    assert sum_ == 4 * 6 * (1 << 15) <= bound


@pytest.mark.parametrize(("depth", "fits"), [((1 << 15) - 1, True), (1 << 15, False)])
def test_block_sums_beyond_48_bits_trap(depth: int, fits: bool):
    """Blocks of 2 x 2 products of the greatest magnitude, 2^30 each."""
    kit = Kit(Tiny(cores=1, local_buffer_bytes=1 << 18))
    dx = kit.put(np.full((2, depth), -(1 << 15), np.int16), "i16")
    tile = kit.tile("local", "i16", 4 * depth)
    a, theta = kit.tile("local", "acc", 24), kit.tile("local", "acc", 6)
    kit.emit("li", rd=60, imm=2)
    kit.emit("ld", t=tile, d=dx, rows=2, cols=depth)
    kit.emit("scores", a=a, q=tile, k=tile, theta=theta)
    if fits:
        assert _greatest(kit, "scores", theta)[0] == 4 * depth * (1 << 30)
        return
    with pytest.raises(HeatcError, match=r"an accumulator reaches 1\.40737e\+14, beyond 48 bits"):
        kit.run()


def test_magnitudes_begin_at_row_0():
    kit = Kit(Tiny())
    x = kit.put(codes((2, 2), 1), "i16")
    tile, total = kit.tile("local", "i16", 8), kit.tile("local", "acc", 6)
    kit.emit("ld", t=tile, d=x, rows=2, cols=2)
    kit.emit("li", rd=1, imm=2)
    kit.emit("magnitude", t=total, x=tile, row_reg=1)
    with pytest.raises(HeatcError, match="is read before it is written"):
        kit.run()


@pytest.mark.parametrize(
    ("space", "dtype", "row", "message"),
    [
        ("shared", "i16", 0, "t0 is not a local tile"),
        ("local", "i32", 0, "t0 is i32, expected i8 or i16"),
        ("local", "i16", -2, "row -2 must not be negative"),
    ],
)
def test_magnitudes_are_refused(space: str, dtype: str, row: int, message: str):
    kit = Kit(Tiny())
    x = kit.put(codes((2, 2), 1, dtype), dtype)
    tile, total = kit.tile(space, dtype, 16), kit.tile("local", "acc", 6)
    kit.emit("ld", t=tile, d=x, rows=2, cols=2)
    kit.emit("li", rd=1, imm=row)
    kit.emit("magnitude", t=total, x=tile, row_reg=1)
    with pytest.raises(HeatcError, match=message):
        kit.run()


def _magnitudes(kit: Heads, parts: int, first: int = 2) -> tuple[int, int]:
    """The sums of magnitudes of each core's rows of the heads from `first` to 3, and a tile for a sum."""
    tile, total = kit.tile("local", "i16", 20), kit.tile("local", "acc", 6)
    if parts > 1:
        kit.emit("group", parts=parts, rows=2)
    kit.emit("li", rd=2, imm=first)
    kit.emit("heads", rc=2, stride=1, limit=4)
    kit.emit("li", rd=1, imm=2 * first)
    rows = {"rows": 2, "core_rows": 2} if parts > 1 else {"rows": 5}
    kit.emit("ld", t=tile, d=kit.dx, col_reg=1, cols=2, core_cols=2, **rows)
    kit.emit("magnitude", t=total, x=tile)
    return total, kit.tile("local", "i64", 8)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("parts", [1, 2, 4])
def test_sums_of_a_head_come_from_all_of_its_cores(parts: int, first: int):
    """Heads 2 and 3 by one core or two each; with four cores head 2 alone, the last part empty."""
    kit = Heads()
    total, result = _magnitudes(kit, parts)
    kit.emit("tally", t=result, acc=total, s=kit.sums, first=first, head_reg=2, shift=3)
    new = kit.tensor((1, 6), "i64")
    pc = kit.emit("strow", d=new, t=result, col_reg=2, core_cols=1)
    run = kit.run()
    rows = 4 if parts == 2 else 5
    sums = np.abs(_int64(kit.x[:rows])).sum(axis=0).reshape(6, 2).sum(axis=1)
    expected = np.zeros(6, np.int64)
    heads = [2] if parts == 4 else [2, 3]
    for head in heads:
        expected[head] = (0 if first else SUMS[0, head]) + 8 * sums[head]
    np.testing.assert_array_equal(kit.get(new)[0], expected)
    # A head's sum is stored once, whoever has it.
    assert run.pc_bytes_written[pc + kit.head] == 8 * len(heads)
    assert run.pc_busy["adder"][pc + kit.head - 1] == len(heads) * parts * -(-(parts + 1) // 4)


def test_sums_of_heads_that_begin_at_an_odd_one():
    kit = Heads()
    total, result = _magnitudes(kit, 1, first=1)
    kit.emit("tally", t=result, acc=total, s=kit.sums, head_reg=2, shift=3)
    new = kit.tensor((1, 6), "i64")
    kit.emit("strow", d=new, t=result, col_reg=2, core_cols=1)
    kit.run()
    sums = np.abs(_int64(kit.x)).sum(axis=0).reshape(6, 2).sum(axis=1)
    expected = [0, *(SUMS[0, 1:4] + 8 * sums[1:4]), 0, 0]
    np.testing.assert_array_equal(kit.get(new)[0], expected)


@pytest.mark.parametrize("head", [-1, 5])
def test_sums_of_heads_that_are_not_there(head: int):
    kit = Heads()
    total, result = _magnitudes(kit, 1)
    kit.emit("li", rd=3, imm=head)
    kit.emit("tally", t=result, acc=total, s=kit.sums, head_reg=3)
    kit.fails("has no head")


def test_a_group_waits_for_its_last_core():
    """The first core has no second row tile: its sum is complete with the others'."""
    ends: dict[bool, int] = {}
    for late in (False, True):
        kit = Heads(cores=2)
        total, result = _magnitudes(kit, 2)
        if late:
            long = kit.tile("local", "i16", 4000)
            rest = kit.put(codes((502, 4), 2), "i16")
            kit.emit("ld", t=long, d=rest, rows=500, cols=4, core_rows=500)
            kit.emit("magnitude", t=total, x=long)
        kit.emit("tally", t=result, acc=total, s=kit.sums, head_reg=2)
        out = kit.tensor((1, 6), "i64")
        kit.emit("strow", d=out, t=result, col_reg=2, core_cols=1)
        ends[late] = kit.run().cycles
    assert ends[True] > ends[False] + 500


def test_sums_follow_the_list():
    """Head 4 stands at place 2: it adds to its own sum, and leaves it in its own column."""
    kit = Heads(cores=1)
    kit.emit("cascade", s=kit.sums, keep=3)
    total, result = _magnitudes(kit, 1)
    kit.emit("tally", t=result, acc=total, s=kit.sums, head_reg=2)
    new = kit.tensor((1, 6), "i64")
    kit.emit("strow", d=new, t=result, col_reg=2, core_cols=1)
    kit.run()
    expected = [0, 0, 0, 0, 9 + np.abs(_int64(kit.x[:, 8:10])).sum(), 0]
    np.testing.assert_array_equal(kit.get(new)[0], expected)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"shift": 40}, "an accumulator reaches .*, beyond 48 bits"),
        ({"head_reg": 3}, "has no head 7, it has 6"),
    ],
)
def test_tallies_are_refused(fields: dict[str, int], message: str):
    kit = Heads()
    total, result = _magnitudes(kit, 1)
    kit.emit("li", rd=3, imm=6)
    kit.emit("tally", **{"t": result, "acc": total, "s": kit.sums, "head_reg": 2} | fields)
    kit.fails(message)


def test_a_tally_takes_one_number():
    kit = Heads()
    _, result = _magnitudes(kit, 1)
    x, wide = kit.tile("local", "i16", 20), kit.tile("local", "acc", 12)
    kit.emit("ld", t=x, d=kit.dx, rows=2, cols=2)
    kit.emit("colsum", t=wide, x=x, first=1)
    kit.emit("tally", t=result, acc=wide, s=kit.sums, head_reg=2)
    kit.fails(r"is \(1, 2\), expected \(1, 1\)")


# ---- stzero -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
def test_pruned_heads_put_out_zeros(parts: int):
    """The heads behind the kept ones, as many as there are groups; once a group."""
    kit = Heads()
    tile = kit.tile("local", "i16", 120)
    kit.emit("ld", t=tile, d=kit.dx, rows=5, cols=12)
    kit.emit("st", d=kit.out, t=tile)
    kit.emit("cascade", s=kit.sums, keep=3)
    kit.emit("group", parts=parts, rows=4 * (parts > 1))
    kit.emit("li", rd=2, imm=3)
    kit.emit("heads", rc=2, stride=1, limit=6)
    kit.emit("li", rd=1, imm=6)
    kit.emit("li", rd=3, imm=1)
    pc = kit.emit("stzero", d=kit.out, row_reg=3, col_reg=1, cols=2, core_cols=2)
    result = kit.run()
    expected = kit.x.copy()
    cleared = (0, 3, 5)[: 4 // parts]
    for head in cleared:
        expected[1:, 2 * head : 2 * head + 2] = 0
    np.testing.assert_array_equal(kit.get(kit.out), expected)
    nbytes = len(cleared) * 4 * 2 * 2
    assert result.pc_bytes_written[pc + kit.head] == nbytes
    assert result.pc_busy["dma"][pc + kit.head] == nbytes / 8


def test_weights_are_not_cleared():
    kit = Heads()
    kit.emit("stzero", d=kit.dx, cols=2, core_cols=2)
    kit.fails("lies among the weights")


def test_zeros_lie_inside():
    kit = Heads()
    kit.emit("li", rd=1, imm=12)
    kit.emit("stzero", d=kit.out, col_reg=1, cols=2, core_cols=2)
    kit.fails("is outside of the tensor")


def test_words_of_these_instructions():
    """Text and back, with their fields by name."""
    from heatc.isa.words import decode, encode, from_text, to_text

    for instruction in (
        inst("cascade", s=3, keep=9),
        inst("magnitude", t=1, x=2, row_reg=60),
        inst("tally", t=1, acc=2, s=3, first=1, head_reg=5, shift=63),
        inst("stzero", d=1023, row_reg=1, col_reg=2, cols=64, core_cols=64),
    ):
        assert decode(encode(instruction)) == instruction
        assert from_text(to_text(instruction)) == instruction
