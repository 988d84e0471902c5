"""The softmax unit bit for bit against the oracle's, written from docs/design/numerics.md alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from heatc.isa import units
from oracle import bert as oracle

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("scale", [0.125, 1 / math.sqrt(32), 1.0, 7.3])
@pytest.mark.parametrize("point", [0, 3, 11, 20])
@pytest.mark.parametrize("length", [1, 2, 7, 130])
def test_rows(scale: float, point: int, length: int):
    rng = np.random.default_rng(length)
    scores = np.rint(rng.normal(0, 3, (5, length)) * 2.0**point).astype(np.int64)
    included = np.ones(scores.shape, np.bool_)
    included[4, :: 2 if length > 1 else 1] = False
    expected = oracle.softmax(
        torch.from_numpy(scores), point, scale, torch.from_numpy(included)
    ).tolist()
    codes = np.where(included, scores, units.EXCLUDED)
    assert units.softmax_unit(codes, point, units.SoftmaxScale.of(scale)).tolist() == expected


def test_every_fraction():
    distances = np.arange(0, 3 << 16, 7)
    expected = oracle.exponential(torch.from_numpy(distances)).tolist()
    assert units.exp2_unit(distances).tolist() == expected


def test_reciprocals():
    wide = (2**n + 2**n // 37 * k for n in range(5, 31) for k in (0, 1, 36))
    totals = np.array(sorted({*range(1, 3000), *wide}))
    expected = [x.tolist() for x in oracle.reciprocal(torch.from_numpy(totals))]
    assert [x.tolist() for x in units.reciprocal_unit(totals)] == expected


@pytest.mark.parametrize("mantissa", [0.5, 0.5 + 2**-17, 0.75, 1 - 2**-16, 1 - 2**-18, 1 - 2**-40])
@pytest.mark.parametrize("exponent", [-3, 0, 1, 2])
def test_scales(mantissa: float, exponent: int):
    """The greatest mantissas are rounded to the next power of two."""
    scale = mantissa * 2.0**exponent / math.log2(math.e)
    found = units.SoftmaxScale.of(scale)
    assert tuple(found) == oracle.scale_constant(scale)
    assert found.multiplier < 2**16
