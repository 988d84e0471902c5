"""Fixed-point arithmetic against exact fractions and Python integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heatc.fixed_point import (
    decode,
    encode,
    limits,
    matmul,
    point_for,
    requantize,
    round_shift,
    saturate,
    split,
    storage_dtype,
)

seeded = settings(max_examples=200, derandomize=True, deadline=None)
codes48 = st.integers(-(1 << 47), (1 << 47) - 1)
finite = st.floats(-1e12, 1e12, allow_subnormal=False)


def array(*values: int) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def clip(value: int, width: int) -> int:
    low, high = limits(width)
    return min(max(value, low), high)


@seeded
@given(codes48, st.integers(-15, 70))
@example(3, 1)
@example(-3, 1)
@example(5, 1)
@example(-(1 << 47), 62)
@example((1 << 47) - 1, 63)
def test_round_shift(code: int, shift: int):
    # Python rounds fractions half to even.
    assert round_shift(array(code), shift)[0] == round(code * Fraction(2) ** -shift)


@seeded
@given(st.lists(st.tuples(codes48, st.integers(1, 62)), min_size=1, max_size=4))
def test_round_shift_by_element(pairs: list[tuple[int, int]]):
    codes, shifts = (array(*column) for column in zip(*pairs))
    expected = [round(Fraction(c, 1 << s)) for c, s in pairs]
    assert round_shift(codes, shifts).tolist() == expected


@seeded
@given(codes48, st.integers(-8, 40), st.integers(-8, 40), st.sampled_from([8, 16, 32, 48]))
def test_requantize(code: int, point: int, to_point: int, width: int):
    to_point = min(to_point, point + 15)
    exact = round(code * Fraction(2) ** (to_point - point))
    result = requantize(array(code), point, to_point, width)
    assert result.codes[0] == clip(exact, width)
    assert result.saturated == int(exact != clip(exact, width))


@seeded
@given(finite, st.integers(-20, 40), st.sampled_from([8, 16, 32, 48]))
@example(0.5, 0, 16)
@example(1.5, 0, 16)
@example(-2.5, 0, 16)
def test_encode(value: float, point: int, width: int):
    exact = round(Fraction(value) * Fraction(2) ** point)
    result = encode(np.array([value]), point, width)
    assert result.codes[0] == clip(exact, width)
    assert result.saturated == int(exact != clip(exact, width))


@seeded
@given(st.floats(width=32, allow_nan=False), st.integers(-200, 200), st.sampled_from([8, 16, 32]))
@example(1e-45, 126, 16)
@example(1e-45, 127, 16)
@example(3e38, -126, 16)
@example(3e38, 126, 8)
@example(2.0**31, 0, 32)
@example(0.5, 0, 16)
@example(1.5, 0, 16)
@example(float("inf"), 0, 16)
@example(float("-inf"), 150, 8)
def test_encode_rounds_float32_as_it_does_float64(value: float, point: int, width: int):
    narrow = encode(np.array([value, 0.0], np.float32), point, width)
    wide = encode(np.array([value, 0.0], np.float64), point, width)
    assert (narrow.codes == wide.codes).all()
    assert narrow.saturated == wide.saturated


def test_encode_of_what_is_no_number():
    assert encode(np.array([np.inf, -np.inf]), 3, 16).codes.tolist() == list(limits(16))[::-1]
    for dtype in (np.float32, np.float64):
        with pytest.raises(FloatingPointError, match="NaN"):
            encode(np.array([1.0, np.nan], dtype), 3, 16)


@pytest.mark.parametrize(
    ("a", "b", "result"),
    [
        ((2, 0), (0, 3), (2, 3)),
        ((0, 3), (5, 2, 3, 4), (5, 2, 0, 4)),
        ((5, 1, 0, 3), (2, 3, 4), (5, 2, 0, 4)),
        ((2, 3), (5, 3, 0), (5, 2, 0)),
    ],
)
def test_products_of_nothing(a: tuple[int, ...], b: tuple[int, ...], result: tuple[int, ...]):
    found = matmul(np.ones(a, np.int16), np.ones(b, np.int64))
    assert found.shape == result
    assert not found.any()


@seeded
@given(codes48, st.integers(-20, 40))
def test_decode_is_exact_and_encode_its_inverse(code: int, point: int):
    value = decode(array(code), point)
    assert Fraction(float(value[0])) == code * Fraction(2) ** -point
    assert encode(value, point, 48) == (array(code), 0)


@seeded
@given(st.integers(-(1 << 15), (1 << 15) - 1), st.integers(-10, 20))
@example(-(1 << 15), 14)
@example(-1, 3)
def test_split(code: int, point: int):
    integer, fraction = (int(part[0]) for part in split(array(code), point))
    value = code * Fraction(2) ** -point
    assert integer == int(value)
    assert fraction * Fraction(2) ** -max(point, 0) == value - integer
    assert abs(fraction) < 1 << max(point, 0)
    assert fraction * code >= 0


@seeded
@given(st.integers(-(1 << 15), (1 << 15) - 1), st.integers(0, 14), st.integers(0, 14))
def test_split_at_a_finer_point(code: int, point: int, finer: int):
    """Truncated toward zero at that point."""
    at = min(finer, point)
    integer, fraction = (int(part[0]) for part in split(array(code), point, at))
    value = code * Fraction(2) ** -point
    assert integer == int(value * 2**at)
    assert Fraction(integer, 2**at) + Fraction(fraction, 2**point) == value


@seeded
@given(st.floats(1e-9, 1e9), st.sampled_from([8, 16, 32, 48]))
@example(1.0, 16)
@example(32767.4, 16)
@example(32767.5, 16)
def test_point_for_is_the_finest_that_fits(bound: float, width: int):
    point = point_for(bound, width)
    high = limits(width)[1]
    assert round(Fraction(bound) * Fraction(2) ** point) <= high
    assert encode(np.array([bound, -bound]), point, width).saturated == 0
    finer = Fraction(bound) * Fraction(2) ** (point + 1)
    assert point == 40 or finer >= (high + Fraction(1, 2)) * (1 - Fraction(1, 1 << 40))


def test_point_for_zero():
    assert [point_for(0.0, width) for width in (8, 16)] == [7, 15]


def test_saturate_counts():
    result = saturate(array(-40000, -32768, 5, 32767, 32768), 16)
    assert result.codes.tolist() == [-32768, -32768, 5, 32767, 32767]
    assert result.saturated == 2


@pytest.mark.parametrize("width", [8, 16, 32, 48])
def test_storage_holds_the_limits(width: int):
    info = np.iinfo(storage_dtype(width))
    assert info.min <= limits(width)[0]
    assert info.max >= limits(width)[1]


def exact_product(a: NDArray[np.generic], b: NDArray[np.generic]) -> list[list[int]]:
    columns = list(zip(*b.tolist()))
    return [[sum(x * y for x, y in zip(row, col)) for col in columns] for row in a.tolist()]


@pytest.mark.parametrize(("wide", "other"), [(15, 15), (31, 15), (15, 31), (44, 8), (8, 44)])
def test_matmul(wide: int, other: int):
    rng = np.random.default_rng(wide)
    for depth in (1, 7, 64):
        a = rng.integers(-(1 << wide), 1 << wide, (3, depth))
        b = rng.integers(-(1 << other), 1 << other, (depth, 2))
        a[0], b[:, 0] = -(1 << wide), (1 << other) - 1
        assert matmul(a, b).tolist() == exact_product(a, b)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32])
def test_matmul_of_least_codes(dtype: type[np.signedinteger]):
    """The least code of a narrow dtype has no absolute value in it."""
    least = np.full((2, 1), np.iinfo(dtype).min, dtype)
    odd = least.T + np.array([[1, 0]], dtype)
    assert matmul(least, odd).tolist() == exact_product(least, odd)


def test_matmul_stacks_and_empties():
    rng = np.random.default_rng(0)
    a, b = rng.integers(-9, 9, (4, 3, 5)), rng.integers(-9, 9, (5, 2))
    assert np.array_equal(matmul(a, b), a @ b)
    assert matmul(a[:, :, :0], b[:0]).tolist() == np.zeros((4, 3, 2)).tolist()
    assert matmul(a[:0], b).shape == (0, 3, 2)
    assert matmul(a, b).dtype == np.int64
