"""Numbers exactly between two codes: each rounding of the machine goes to the even one."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from heatc.fixed_point import requantize, round_shift
from heatc.isa import units
from heatc.machine import datapath
from heatc.machine.datapath import MergePoints

ODD = np.array([[1, 3, 5, 7, -1, -3, -5, -7]], np.int64)
EVEN = np.array([[round(Fraction(int(code), 2)) for code in ODD[0]]])
"""Halves of the odd numbers, as Python rounds them"""


def test_requantised_codes():
    assert EVEN.tolist() == [[0, 2, 2, 4, 0, -2, -2, -4]]
    codes, saturated = datapath.requantise(ODD.astype(np.float64), 1, 16)
    assert (codes.tolist(), saturated) == (EVEN.tolist(), 0)
    assert round_shift(ODD, 1).tolist() == EVEN.tolist()
    assert requantize(ODD, 1, 0, 16).codes.tolist() == EVEN.tolist()


def test_low_codes():
    """Codes of 4 magnitude bits in 4 bits: half of each number."""
    assert units.low_codes(ODD, np.array(4), 4).tolist() == EVEN.tolist()


def test_means_of_two_rows():
    rows = np.concatenate([ODD, np.zeros_like(ODD)])
    assert units.values_mean(rows, 3, 3).tolist() == EVEN.tolist()
    assert units.mean_query(rows, 3, 3).tolist() == EVEN.tolist()


@pytest.mark.parametrize("pruned", ["zero", "int", "mean"])
@pytest.mark.parametrize("kept", [True, False])
def test_merged_scores(pruned: str, kept: bool):
    """Scores whose point is 1 below that of the integers, merged in both ways."""
    none, mask = np.zeros_like(ODD), np.full(ODD.shape, kept)
    row = ODD.T if pruned == "mean" else ODD
    none, mask = none.reshape(row.shape), mask.reshape(row.shape)
    expected = EVEN.reshape(row.shape) * (kept or pruned != "zero")
    points = units.Points(0, 0, -1)
    assert units.merge_scores(row, none, none, mask, pruned, points).codes.tolist() == (
        expected.tolist()
    )
    parts: Any = (row.astype(np.float64)[None], none.astype(np.float64)[None], none * 0.0)
    mean = datapath.pruned_mean(parts[0], mask[None], -1)
    codes, _ = datapath.merge(parts, mask[None], MergePoints(0, 0, -1), pruned, mean)
    assert codes[0].tolist() == expected.tolist()


def test_means_of_pruned_scores():
    """One kept score and two pruned ones, whose mean is half of an odd number."""
    rows = np.stack([np.full(8, 9.0), ODD[0], np.zeros(8)], axis=1)[None]
    kept = np.broadcast_to(np.array([True, False, False]), rows.shape)
    total = rows.sum(axis=-1, keepdims=True)
    expected = EVEN[0].tolist()
    assert datapath.pruned_mean(rows, kept, 0)[0, :, 0].tolist() == expected
    assert datapath.rest_mean(rows, kept, 0, total)[0, :, 0].tolist() == expected


@pytest.mark.parametrize(
    ("power", "total", "expected"), [(65536, 31, 0), (49152, 29, 2), (40960, 28, 2), (57344, 28, 4)]
)
def test_probabilities(power: int, total: int, expected: int):
    """An entry of this power in a row that adds up to 2^total: its probability is n + 1/2."""
    scale = units.SoftmaxScale.of(math.log(2))
    fractions = units.exp2_unit(np.arange(1 << units.EXP_BITS)).astype(np.int64)
    others = 2**total - power
    distances = [0] * (others >> 16)
    distances += [
        whole << units.EXP_BITS for whole in (1, 2, 3) if others % 2**16 & (1 << 16 - whole)
    ]
    distances.append(int(np.argmax(fractions == power)))
    codes = -np.array([[distances]], np.int32)
    assert power * 2.0 ** (14 - total) % 1 == 0.5
    assert datapath.softmax(codes, units.EXP_BITS, scale)[0, 0, -1] == expected
    assert units.softmax_unit(codes.astype(np.int64), units.EXP_BITS, scale)[0, 0, -1] == expected
