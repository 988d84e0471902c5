"""The host's reductions and moves against plain loops, and what they refuse."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from host_kit import HostKit, matrix
from hypothesis import given, settings
from hypothesis import strategies as st
from machine_kit import Kit, Tiny
from numpy.testing import assert_allclose, assert_array_equal

from heatc.errors import HeatcError, InfeasibleError
from heatc.isa.table.host_reduce import GROUP_KINDS, KINDS
from heatc.machine.host_registers import HOST_ELEMENTS, SMALL_ELEMENTS

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(1, 6)

REDUCTIONS: dict[str, Callable[[Sequence[float]], float]] = {
    "sum": math.fsum,
    "mean": lambda row: math.fsum(row) / len(row),
    "max": max,
    "min": min,
    "any": lambda row: float(any(row)),
    "all": lambda row: float(all(row)),
    "prod": math.prod,
    "argmax": lambda row: float(list(row).index(max(row))),
}
"""Each reduction of a list, by Python."""


def _numbers(seed: int, rows: int, columns: int) -> np.ndarray:
    """Numbers of which some are equal, and some 0."""
    return np.rint(matrix(seed, rows, columns))


@pytest.mark.parametrize("kind", KINDS)
@given(SEEDS, SIDES, SIDES)
@settings(max_examples=10, deadline=None)
def test_reductions_of_rows(kind: str, seed: int, rows: int, columns: int):
    x = _numbers(seed, rows, columns)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hred", h=0, kind=kind)
    assert_allclose(kit.register(0), [[REDUCTIONS[kind](row)] for row in x.tolist()], rtol=1e-12)


@pytest.mark.parametrize("kind", GROUP_KINDS)
@given(SEEDS, SIDES, SIDES, st.integers(1, 4))
@settings(max_examples=10, deadline=None)
def test_reductions_of_groups(kind: str, seed: int, groups: int, columns: int, group: int):
    x = _numbers(seed, groups * group, columns)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hredr", h=0, group=group, kind=kind)
    expected = [
        [REDUCTIONS[kind](x[i * group : (i + 1) * group, j].tolist()) for j in range(columns)]
        for i in range(groups)
    ]
    assert_allclose(kit.register(0), expected, rtol=1e-12)


@pytest.mark.parametrize(("kind", "expected"), [("sum", 0), ("prod", 1), ("any", 0), ("all", 1)])
def test_reductions_of_nothing(kind: str, expected: float):
    kit = HostKit()
    kit.emit("hnum", h=0, rows=2, columns=0, value=1.0)
    kit.emit("hred", h=0, kind=kind)
    assert_array_equal(kit.register(0), [[expected]] * 2)


@pytest.mark.parametrize("kind", ["mean", "max", "min", "argmax"])
def test_nothing_has_no_greatest(kind: str):
    kit = HostKit()
    kit.emit("hnum", h=0, rows=2, columns=0, value=1.0)
    kit.emit("hred", h=0, kind=kind)
    with pytest.raises(HeatcError, match="h0 has no columns"):
        kit.run()


@pytest.mark.parametrize("group", [0, 2, 4])
def test_groups_divide_the_rows(group: int):
    kit = HostKit()
    kit.load(0, matrix(1, 3, 2))
    kit.emit("hredr", h=0, group=group, kind="sum")
    with pytest.raises(HeatcError, match=f"groups of {group} do not divide 3 rows of h0"):
        kit.run()


@given(SEEDS, SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_running_sums(seed: int, rows: int, columns: int):
    x = matrix(seed, rows, columns)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hscan", h=0)
    expected = [[math.fsum(row[: j + 1]) for j in range(columns)] for row in x.tolist()]
    assert_allclose(kit.register(0), expected, rtol=1e-12, atol=1e-14)


def test_numbers_and_counts():
    kit = HostKit()
    kit.emit("hnum", h=0, rows=2, columns=3, value=-math.inf)
    kit.emit("hiota", h=1, rows=2, columns=3, start=5, step=-2)
    kit.emit("hiota", h=2, rows=1, columns=1, start=-(2**31), step=2**31 - 1)
    found = kit.run()
    assert_array_equal(found[0], np.full((2, 3), -math.inf))
    assert_array_equal(found[1], [[5, 3, 1]] * 2)
    assert_array_equal(found[2], [[-(2**31)]])


def test_a_copy_is_another_register():
    x = matrix(1, 2, 3)
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hcopy", g=5, h=0)
    kit.emit("hfun", h=0, function="neg")
    found = kit.run()
    assert_array_equal(found[5], x)
    assert_array_equal(found[0], -x)


@given(SEEDS, SIDES, st.integers(1, 9), st.data())
@settings(max_examples=40, deadline=None)
def test_cuts(seed: int, rows: int, width: int, data: st.DataObject):
    x = matrix(seed, rows, width)
    places = data.draw(
        st.sampled_from(
            [
                range(a, b, s)
                for a in range(width)
                for b in range(-1, width + 1)
                for s in (-3, -1, 1, 2)
                if range(a, b, s)
            ]
        )
    )
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hcut", h=0, start=places.start, columns=len(places), step=places.step)
    assert_array_equal(kit.register(0), x[:, list(places)])


@pytest.mark.parametrize(
    ("start", "columns", "step", "message"),
    [
        (0, 2, 0, "the step is 0"),
        (3, 1, 1, r"columns 3\.\.3 are outside of h0 with 3"),
        (1, 3, 1, r"columns 1\.\.3 are outside of h0 with 3"),
        (1, 3, -1, r"columns 1\.\.-1 are outside of h0 with 3"),
    ],
)
def test_cuts_stay_inside(start: int, columns: int, step: int, message: str):
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.emit("hcut", h=0, start=start, columns=columns, step=step)
    with pytest.raises(HeatcError, match=message):
        kit.run()


def test_a_cut_of_nothing():
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.emit("hcut", h=0, start=7, columns=0, step=1)
    assert kit.register(0).shape == (2, 0)


@given(SEEDS, SIDES, SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_columns_behind_columns(seed: int, rows: int, m: int, n: int):
    x, y = matrix(seed, rows, m), matrix(seed + 1, rows, n)
    kit = HostKit()
    kit.load(0, x)
    kit.load(1, y)
    kit.emit("hcat", h=0, g=1)
    assert_array_equal(kit.register(0), [[*a, *b] for a, b in zip(x, y)])


def test_columns_of_other_rows_are_refused():
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.load(1, matrix(1, 1, 3))
    kit.emit("hcat", h=0, g=1)
    with pytest.raises(HeatcError, match=r"shape of h1 is \(1, 3\), expected \(2, 3\)"):
        kit.run()


@given(SEEDS, SIDES, SIDES, st.lists(st.integers(-1, 5), min_size=1, max_size=9))
@settings(max_examples=30, deadline=None)
def test_gathers_of_columns(seed: int, rows: int, columns: int, wanted: list[int]):
    x, indices = matrix(seed, rows, columns), [min(i, columns - 1) for i in wanted]
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hcols", h=0, idx=kit.kit.put(np.array(indices)[None], "i64"))
    expected = [[row[i] if i >= 0 else 0.0 for i in indices] for row in x]
    assert_array_equal(kit.register(0), expected)


@pytest.mark.parametrize("index", [-2, 3])
def test_gathers_stay_inside(index: int):
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.emit("hcols", h=0, idx=kit.kit.put(np.array([[0, index]]), "i64"))
    with pytest.raises(HeatcError, match=f"index {index} of d0 is outside of 3 columns"):
        kit.run()


@given(SEEDS, SIDES, SIDES, st.data())
@settings(max_examples=20, deadline=None)
def test_other_rows_of_the_same_elements(seed: int, rows: int, columns: int, data: st.DataObject):
    x = matrix(seed, rows, columns)
    divisors = [n for n in range(1, x.size + 1) if x.size % n == 0]
    width = data.draw(st.sampled_from(divisors))
    kit = HostKit()
    kit.load(0, x)
    kit.emit("hshape", h=0, columns=width)
    flat = [value for row in x.tolist() for value in row]
    assert_array_equal(kit.register(0), [flat[i : i + width] for i in range(0, x.size, width)])


@pytest.mark.parametrize("columns", [0, 4])
def test_columns_divide_the_elements(columns: int):
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.emit("hshape", h=0, columns=columns)
    with pytest.raises(HeatcError, match=f"{columns} columns do not divide the 6 elements of h0"):
        kit.run()


@pytest.mark.parametrize("dtype", ["i8", "i16", "i32", "i64", "f32"])
def test_writes_into_columns(dtype: str):
    """Two registers side by side, from a row on; the last row of the register is clipped."""
    x, y = matrix(1, 3, 2), matrix(2, 3, 3)
    kit = HostKit()
    d = kit.kit.tensor((4, 6), dtype)
    kit.load(0, x)
    kit.load(1, y)
    kit.emit("li", rd=1, imm=2)
    kit.emit("hputc", d=d, h=0, row_reg=1, column=0, point=4)
    kit.emit("hputc", d=d, h=1, row_reg=0, column=3, point=4)
    kit.run()
    expected = np.zeros((4, 6))
    expected[2:, :2], expected[:3, 3:] = x[:2], y
    codes = expected.astype(np.float32) if dtype == "f32" else np.rint(expected * 16)
    assert_array_equal(kit.kit.get(d), codes)


def test_writes_into_columns_stay_inside():
    kit = HostKit()
    kit.load(0, matrix(1, 2, 3))
    kit.emit("hputc", d=kit.kit.tensor((2, 4), "i16"), h=0, column=2, point=4)
    with pytest.raises(HeatcError, match=r"columns 2\.\.5 are outside of d0 with 4"):
        kit.run()


def test_residuals_of_32_bits_keep_them():
    """Codes of 32 bits are read and written as they are."""
    codes = np.array([[2**31 - 1, -(2**31), 12345677, 1]], np.int32)
    kit = HostKit()
    d = kit.kit.tensor((1, 4), "i32")
    kit.emit("hget", h=0, d=kit.kit.put(codes, "i32"), rows=1, point=20)
    kit.emit("hput", d=d, h=0, point=20)
    assert_array_equal(kit.register(0), codes / 2**20)
    assert_array_equal(kit.kit.get(d), codes)


def test_integers_beyond_float64_are_refused():
    for value in (2**53, -(2**53)):
        kit = HostKit()
        kit.emit("hget", h=0, d=kit.kit.put(np.array([[value]]), "i64"), rows=1)
        assert kit.register(0) == value
    for value in (2**53 + 1, -(2**53) - 2):
        kit = HostKit()
        kit.emit("hget", h=0, d=kit.kit.put(np.array([[7, value]]), "i64"), rows=1)
        with pytest.raises(HeatcError, match=rf"{value} is beyond 2\^53"):
            kit.run()


def test_integers_saturate_at_53_bits():
    kit = HostKit()
    d = kit.kit.tensor((1, 3), "i64")
    kit.load(0, np.array([[2.0**60, -(2.0**60), 2.0**52 - 1]]))
    kit.emit("hput", d=d, h=0)
    kit.run()
    assert_array_equal(kit.kit.get(d), [[2**52 - 1, -(2**52), 2**52 - 1]])
    assert kit.result is not None
    assert sum(kit.result.saturations.values()) == 2


@pytest.mark.parametrize(
    ("mnemonic", "operands"),
    [
        ("hop", {"h": 0, "g": 1, "operation": "add"}),
        ("hsel", {"h": 0, "g": 1, "f": 1}),
    ],
)
def test_a_product_of_sides_is_bounded(mnemonic: str, operands: dict[str, int]):
    """A column and a row of 2^20 numbers are 16 MiB, what they give is 8 TiB."""
    kit = HostKit()
    kit.emit("hnum", h=0, rows=1 << 20, columns=1, value=1.0)
    kit.emit("hnum", h=1, rows=1, columns=1 << 20, value=1.0)
    kit.emit(mnemonic, **operands)
    with pytest.raises(
        InfeasibleError, match=f"exceed the host registers' {SMALL_ELEMENTS} elements"
    ):
        kit.run()


@pytest.mark.parametrize(
    ("size", "limit"),
    [(1 << 20, SMALL_ELEMENTS), (1 << 25, 1 << 25), (1 << 29, HOST_ELEMENTS)],
)
def test_all_registers_together_are_bounded(size: int, limit: int):
    """As many elements as memory has bytes, within limits of its own."""
    kit = HostKit()
    kit.kit.size = size
    for h in range(4):
        kit.emit("hnum", h=h, rows=limit >> 12, columns=1 << 10, value=1.0)
    kit.run()
    kit.emit("hnum", h=4, rows=1, columns=1, value=1.0)
    with pytest.raises(InfeasibleError, match=f"1x1 float64 exceed the host registers' {limit}"):
        kit.run()


def test_a_large_gather_is_bounded():
    """A convolution's gather of more than fits is refused before it takes memory."""
    kit = Kit(Tiny(cores=1), size=1 << 25)
    idx, table = kit.tensor((1 << 10, 1 << 10), "i64"), kit.tensor((1, 1 << 10), "i16")
    kit.emit("hgeti", h=0, d=table, idx=idx, rows=1 << 20)
    with pytest.raises(InfeasibleError, match="1048576x1024 float64 exceed"):
        kit.run()
