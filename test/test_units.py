"""The special units against their definitions and their stated errors."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from heatc.isa import units

seeded = settings(max_examples=100, derandomize=True, deadline=None)
sizes = st.tuples(st.integers(1, 7), st.integers(1, 7))
blocks = st.tuples(st.integers(1, 3), st.integers(1, 4))


def random_codes(shape: tuple[int, ...], high: int = 1000) -> NDArray[np.int64]:
    return np.random.default_rng(sum(shape)).integers(-high, high, shape)


@seeded
@given(sizes, blocks)
def test_block_sums(size: tuple[int, int], block: tuple[int, int]):
    values = random_codes((2, *size))
    rows, columns = (units.block_count(n, b) for n, b in zip(size, block))
    expected = [
        [
            [
                int(v[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]].sum())
                for j in range(columns)
            ]
            for i in range(rows)
        ]
        for v in values
    ]
    assert units.block_sums(values, block).tolist() == expected
    assert (units.block_importance(-values, block) == units.block_sums(abs(values), block)).all()


@seeded
@given(sizes, blocks)
def test_expand_mask(size: tuple[int, int], block: tuple[int, int]):
    shape = tuple(units.block_count(n, b) for n, b in zip(size, block))
    mask = random_codes((2, *shape)) > 0
    wide = units.expand_mask(mask, block, size)
    assert wide.shape == (2, *size)
    for h, i, j in np.ndindex(wide.shape):
        assert wide[h, i, j] == mask[h, i // block[0], j // block[1]]


@seeded
@given(
    st.lists(st.integers(0, 1 << 40), min_size=1, max_size=9),
    st.floats(-0.99, 0.99).map(lambda x: round(x, 3)),
)
def test_block_mask(theta: list[int], rho: float):
    edge = max(theta) if rho >= 0 else min(theta)
    exact = Fraction(abs(rho)) * edge + (1 - Fraction(abs(rho))) * Fraction(sum(theta), len(theta))
    kept = units.block_mask(np.array([theta]), rho)[0]
    for value, is_kept in zip(theta, kept):
        # Decided in float64: only a value at the threshold itself may fall to either side.
        if abs(value - exact) > Fraction(1, 1 << 48) * max(exact, 1):
            assert is_kept == (value >= exact)


def test_block_mask_keeps_at_the_threshold():
    theta = np.array([[1, 2, 3]])
    assert units.block_mask(theta, 0.0).tolist() == [[False, True, True]]
    assert units.block_mask(theta, 0.5).tolist() == [[False, False, True]]
    assert units.block_mask(theta, -0.5).tolist() == [[False, True, True]]
    assert units.block_mask(np.array([[0, 0]]), 0.25).tolist() == [[True, True]]


def test_head_gate_keeps_at_the_threshold():
    assert units.head_gate(np.array([17, 18, 19]), 3, 2.0).tolist() == [False, True, True]


@seeded
@given(st.integers(0, 14), st.integers(0, 14), st.integers(0, 28), st.sampled_from(range(4)))
def test_merge_scores(pq: int, pk: int, ps: int, kind: int):
    """Against fractions: integer score, both products, every replacement."""
    rng = np.random.default_rng(pq * 15 + pk)
    integer, fq, fk = (rng.integers(-50000, 50000, (3, 4)) for _ in range(3))
    kept = rng.random((3, 4)) < 0.5
    pruned = ("zero", "neginf", "int", "mean")[kind]
    result = units.merge_scores(integer, fq, fk, kept, pruned, units.Points(pq, pk, ps))
    saturated = 0
    for i, j in np.ndindex(3, 4):
        exact = Fraction(int(integer[i, j]))
        if kept[i, j]:
            exact += Fraction(int(fq[i, j]), 1 << pq) + Fraction(int(fk[i, j]), 1 << pk)
        elif pruned in ("zero", "neginf"):
            exact = Fraction(0)
        elif pruned == "mean":
            others = [int(a) for a, k in zip(integer[i], kept[i]) if not k]
            exact = Fraction(sum(others) / len(others))
        code = round(exact * (1 << ps))
        clipped = min(max(code, -(1 << 31)), (1 << 31) - 1)
        if pruned == "neginf" and not kept[i, j]:
            assert result.codes[i, j] == units.EXCLUDED
        else:
            assert result.codes[i, j] == clipped
            saturated += code != clipped
    if pruned != "neginf":
        assert result.saturated == saturated


def test_exp2_relative_error():
    """Below 0.3 % over all fractions."""
    fractions = np.arange(1 << 16)
    error = units.exp2_unit(fractions) / 65536 / np.exp2(-fractions / 65536) - 1
    assert np.abs(error).max() < 0.003
    assert units.exp2_unit(np.array([0])).tolist() == [65536]


def test_exp2_of_large_distances():
    distances = np.array([1, 2, 15, 16, 17, 62, 63, 64, 1 << 40]) << units.EXP_BITS
    assert units.exp2_unit(distances).tolist() == [32768, 16384, 2, 1, 0, 0, 0, 0, 0]


def test_exp2_falls():
    values = units.exp2_unit(np.arange(0, 20 << 16, 37))
    assert (np.diff(values) <= 0).all()


def test_reciprocal_relative_error():
    """The chord of 32 segments is at most 2**-11 above 1 / x, and a code below it."""
    totals = np.unique(
        np.concatenate([np.arange(1, 1 << 17), np.logspace(5, 9.3, 100000, dtype=np.int64)])
    )
    r, n = units.reciprocal_unit(totals)
    error = r * totals.astype(np.float64) * np.exp2(-(16.0 + n)) - 1
    assert error.max() < 2**-11
    assert error.min() > -(2**-15)


def test_reciprocal_of_powers_of_two_is_exact():
    exponents = np.arange(31)
    r, n = units.reciprocal_unit(np.int64(1) << exponents)
    assert (r == 65536).all()
    assert (n == exponents).all()


@pytest.mark.parametrize("scale", [1e-3, 0.125, 1 / math.sqrt(32), 0.5, 1.0, 7.3, math.log(2)])
def test_softmax_scale(scale: float):
    constant = units.SoftmaxScale.of(scale)
    assert 1 << 15 <= constant.multiplier < 1 << 16
    exact = scale * math.log2(math.e)
    assert abs(constant.multiplier * 2.0**-constant.shift / exact - 1) <= 2**-16 * 1.01


@pytest.mark.parametrize("scale", [0.125, 1 / math.sqrt(32), 1.0])
@pytest.mark.parametrize("point", [0, 4, 12, 20, 27])
@pytest.mark.parametrize("length", [1, 2, 7, 128])
def test_softmax(scale: float, point: int, length: int):
    """Within 0.5 % of the largest probability, and each row sums to 1 within its rounding."""
    rng = np.random.default_rng(length)
    scores = rng.normal(0, 3, (4, length, length))
    codes = np.rint(scores * 2.0**point).astype(np.int64)
    found = units.softmax_unit(codes, point, units.SoftmaxScale.of(scale)) / 2**14
    exact = np.exp(scale * np.ldexp(codes.astype(np.float64), -point))
    exact /= exact.sum(-1, keepdims=True)
    assert np.abs(found - exact).max() < 0.005
    assert found.min() >= 0
    assert found.sum(-1).max() <= 1 + 2**-11 + length * 2**-15
    assert found.sum(-1).min() >= 1 - 2**-15 - length * 2**-15


def test_softmax_skips_excluded():
    scale = units.SoftmaxScale.of(1.0)
    row = np.array([[5, units.EXCLUDED, 5, -20]])
    assert units.softmax_unit(row, 0, scale).tolist() == [[8192, 0, 8192, 0]]
    nothing = np.full((1, 3), units.EXCLUDED)
    assert units.softmax_unit(nothing, 0, scale).tolist() == [[0, 0, 0]]


def test_softmax_of_the_widest_scores():
    """The largest distance of two int32 codes does not overflow."""
    row = np.array([[(1 << 31) - 1, -(1 << 31) + 1, 0]])
    for point in (0, 31):
        found = units.softmax_unit(row, point, units.SoftmaxScale.of(8.0))
        assert found[0, 0] > found[0, 2] >= found[0, 1] >= 0
