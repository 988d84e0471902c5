"""The softmax unit bit for bit, in Python's integers as docs/design/numerics.md writes it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from heatc.isa import units

Row = list[int]


def constant(scale: float) -> tuple[int, int]:
    """(C, shift) of a scale."""
    mantissa, exponent = math.frexp(scale * math.log2(math.e))
    c = round(Fraction(mantissa) * 2**16)
    if c == 2**16:
        c, exponent = 2**15, exponent + 1
    return c, 16 - exponent


def exponential(d: int) -> int:
    """E of a distance with 16 fraction bits."""
    z, f = d >> 16, d & 0xFFFF
    i = 43901 - ((11133 * f) >> 16)
    y = 65536 - ((i * f) >> 16)
    return y >> z if z <= 16 else 0


def reciprocal(total: int) -> tuple[int, int]:
    """(r, n) of a sum."""
    n = total.bit_length() - 1
    t = (total << (31 - n)) - 2**31
    j, rest = t >> 26, t & (2**26 - 1)
    table = [round(Fraction(2**16 * 32, 32 + at)) for at in range(33)]
    return table[j] - (((table[j] - table[j + 1]) * rest) >> 26), n


def softmax(row: Row, point: int, scale: float) -> Row:
    """P of one row."""
    c, shift = constant(scale)
    kept = [s for s in row if s != units.EXCLUDED]
    if not kept:
        return [0] * len(row)
    move = point + shift - 16
    products = [(max(kept) - s) * c for s in row]
    distances = [p >> move if move >= 0 else p << -move for p in products]
    found = [0 if s == units.EXCLUDED else exponential(d) for s, d in zip(row, distances)]
    r, n = reciprocal(sum(found))
    return [round(Fraction(e * r, 2 ** (n + 2))) for e in found]


@pytest.mark.parametrize("scale", [0.125, 1 / math.sqrt(32), 1.0, 7.3])
@pytest.mark.parametrize("point", [0, 3, 11, 20])
@pytest.mark.parametrize("length", [1, 2, 7, 130])
def test_rows(scale: float, point: int, length: int):
    rng = np.random.default_rng(length)
    scores = np.rint(rng.normal(0, 3, (5, length)) * 2.0**point).astype(np.int64)
    scores[4, :: 2 if length > 1 else 1] = units.EXCLUDED
    found = units.softmax_unit(scores, point, units.SoftmaxScale.of(scale))
    assert found.tolist() == [softmax(row, point, scale) for row in scores.tolist()]


def test_every_fraction():
    distances = np.arange(0, 3 << 16, 7)
    assert units.exp2_unit(distances).tolist() == [exponential(d) for d in distances.tolist()]


def test_reciprocals():
    totals = sorted(
        {*range(1, 3000), *(2**n + 2**n // 37 * k for n in range(5, 31) for k in (0, 1, 36))}
    )
    r, n = units.reciprocal_unit(np.array(totals))
    assert list(zip(r.tolist(), n.tolist())) == [reciprocal(total) for total in totals]


@pytest.mark.parametrize("mantissa", [0.5, 0.5 + 2**-17, 0.75, 1 - 2**-16, 1 - 2**-18, 1 - 2**-40])
@pytest.mark.parametrize("exponent", [-3, 0, 1, 2])
def test_scales(mantissa: float, exponent: int):
    """The greatest mantissas are rounded to the next power of two."""
    scale = mantissa * 2.0**exponent / math.log2(math.e)
    found = units.SoftmaxScale.of(scale)
    assert tuple(found) == constant(scale)
    assert found.multiplier < 2**16
