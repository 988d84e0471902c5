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
    assert units.head_gate(np.array([17, 18, 19]), 9, 2.0).tolist() == [False, True, True]


def test_block_mask_of_heads_is_that_of_each_head():
    theta = random_codes((3, 4, 5)) + 1000
    rho = np.array([-0.5, 0.0, 0.4])
    kept = units.block_mask(theta, rho[:, None])
    for head, one in zip(kept, [units.block_mask(t, r) for t, r in zip(theta, rho)]):
        assert head.tolist() == one.tolist()


@seeded
@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=9),
    st.integers(0, 511),
    st.floats(-0.99, 0.99).map(lambda x: round(x, 3)),
)
def test_block_mask_among_some(values: list[int], bits: int, rho: float):
    """As if the others were not there; signed values, rows without any."""
    among = np.array([bits >> i & 1 == 1 for i in range(len(values))])
    theta = np.array(values)
    kept = units.block_mask(theta[None], rho, among[None])[0]
    assert not kept[~among].any()
    if among.any():
        assert kept[among].tolist() == units.block_mask(theta[among][None], rho)[0].tolist()


@seeded
@given(st.lists(st.integers(0, 6), min_size=1, max_size=9), st.integers(1, 20))
def test_topk_mask(values: list[int], twentieths: int):
    density = twentieths / 20
    count = max(1, math.ceil(density * len(values)))
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    kept = units.topk_mask(np.array([values]), density)[0]
    assert sorted(ranked[:count]) == np.flatnonzero(kept).tolist()


@seeded
@given(st.integers(1, 6), st.integers(1, 6))
def test_positive_importance(rows: int, length: int):
    """L times the part above the mean of the row."""
    scores = random_codes((rows, length))
    found = units.score_importance(scores, "positive")
    for i, j in np.ndindex(rows, length):
        mean = Fraction(int(scores[i].sum()), length)
        assert found[i, j] == length * max(int(scores[i, j]) - mean, 0)


def test_head_gate_of_positive_importance():
    """Over L^3, and the point of the scores taken off."""
    total = np.array([8 * 27 - 1, 8 * 27])
    kept = units.head_gate(total, 27, np.array([2.0, 2.0]), 2)
    assert kept.tolist() == [False, True]
    assert units.head_gate(total, 27, np.array([2.0, 1.9]), 2).tolist() == [False, True]


@seeded
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=6), st.sampled_from([2, 4, 8]))
def test_low_bits(values: list[int], bits: int):
    """Against fractions: the greatest magnitude's power of two, half to even, symmetric limits."""
    codes, length = units.low_bits(np.array([values]).T, bits)
    n = max(abs(v) for v in values).bit_length()
    assert int(length) == n
    limit = 2 ** (bits - 1) - 1
    for value, code in zip(values, codes[:, 0]):
        exact = Fraction(value) * Fraction(2) ** (bits - 1 - n)
        assert code == min(max(round(exact), -limit), limit)


def test_low_bits_of_each_head():
    codes, length = units.low_bits(np.array([[[0, 0]], [[5, -3]], [[1, -1024]]]), 4)
    assert length.tolist() == [0, 3, 11]
    assert codes.tolist() == [[[0, 0]], [[5, -3]], [[0, -4]]]


def test_probability_mask_keeps_the_first_greatest():
    p = np.array([[5, 5, 1], [0, 0, 0], [1, 9, 8]])
    assert units.probability_mask(p, 5).astype(int).tolist() == [[1, 0, 0], [1, 0, 0], [0, 1, 1]]
    assert units.probability_code(0.002) == 32
    assert units.probability_code(1 / 16384) == 1


def test_head_ranking():
    importance = np.array([[3.0, 1.0, 3.0, 2.0], [9.0, 1.0, 1.0, 1.0]])
    among = np.array([[True, True, True, True], [False, True, True, True]])
    kept = units.head_ranking(importance, 2, among)
    assert kept.astype(int).tolist() == [[1, 0, 1, 0], [0, 1, 1, 0]]


@seeded
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=9), st.integers(-3, 5))
def test_values_mean(values: list[int], finer: int):
    found = units.values_mean(np.array([values]).T, 4, 4 + finer)
    exact = Fraction(sum(values) / len(values)) * Fraction(2) ** finer
    assert found.tolist() == [[min(max(round(exact), -32768), 32767)]]


def test_mean_query():
    """The mean of each column, half to even."""
    scores = np.array([[1, 2, -6, 1 << 30], [2, 4, -5, 1 << 30]])
    assert units.mean_query(scores, 2, 2).tolist() == [[2, 3, -6, 1 << 30]]
    assert units.mean_query(scores, 2, 3).tolist() == [[3, 6, -11, (1 << 31) - 1]]


points = st.integers(0, 14)


@seeded
@given(points, points, st.integers(0, 28), st.sampled_from(range(4)), points, points)
def test_merge_scores(pq: int, pk: int, ps: int, kind: int, bq: int, bk: int):
    """Against fractions: integer score, both products, every replacement."""
    rng = np.random.default_rng(pq * 15 + pk)
    bq, bk = min(bq, pq), min(bk, pk)
    integer, fq, fk = (rng.integers(-50000, 50000, (3, 4)) for _ in range(3))
    kept = rng.random((3, 4)) < 0.5
    pruned = ("zero", "neginf", "int", "mean")[kind]
    result = units.merge_scores(integer, fq, fk, kept, pruned, units.Points(pq, pk, ps, bq, bk))
    saturated = 0
    for i, j in np.ndindex(3, 4):
        exact = Fraction(int(integer[i, j]), 1 << (bq + bk))
        if kept[i, j]:
            exact += Fraction(int(fq[i, j]), 1 << (pq + bk))
            exact += Fraction(int(fk[i, j]), 1 << (bq + pk))
        elif pruned in ("zero", "neginf"):
            exact = Fraction(0)
        elif pruned == "mean":
            others = [int(a) for a, k in zip(integer[i], kept[i]) if not k]
            exact = Fraction(sum(others) / len(others)) / (1 << (bq + bk))
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
