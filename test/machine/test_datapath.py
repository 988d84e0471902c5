"""Counts of the datapath, by a loop over numbers or blocks: what saturates, what folds take."""

from __future__ import annotations

import numpy as np
import pytest

from heatc.fixed_point import encode
from heatc.machine import datapath


@pytest.mark.parametrize(
    "codes",
    [[-128, 0, 127], [-129, 5], [5, 128], [-128, 128], [-129, 127], [-1000, -128, 127, 1000], []],
)
def test_what_is_outside_is_counted(codes: list[int]):
    expected = [min(max(code, -128), 127) for code in codes]
    outside = sum(code != kept for code, kept in zip(codes, expected))
    found, count = datapath.saturate(np.array(codes, np.float64), 8)
    assert (found.tolist(), count) == (expected, outside)
    if codes:
        rounded = encode(np.array(codes, np.float64), 0, 8)
        assert (rounded.codes.tolist(), rounded.saturated) == (expected, outside)


@pytest.mark.parametrize("columns", [1, 4, 7, 12])
@pytest.mark.parametrize("wide", [1, 2, 3, 5])
def test_keys_of_kept_blocks(columns: int, wide: int):
    count = -(-columns // wide)
    blocks = np.random.default_rng(columns).random((2, 3, count)) < 0.6
    found = datapath.kept_keys(blocks, columns, wide)
    for core, row in np.ndindex(2, 3):
        keys = [key for key in range(columns) if blocks[core, row, key // wide]]
        assert found[core, row] == len(keys)


@pytest.mark.parametrize("wide", [1, 2, 4, 6, 16])
@pytest.mark.parametrize("columns", [4, 8])
def test_folds_of_kept_blocks(wide: int, columns: int):
    """Blocks that are narrower than the array share a fold, wider ones take several each."""
    blocks = np.random.default_rng(wide).random((2, 3, 9)) < 0.6
    found = datapath.block_folds(blocks, wide, columns)
    for core, row in np.ndindex(2, 3):
        folds, room = 0, 0
        for _ in range(int(blocks[core, row].sum())):
            if wide > columns:
                folds += -(-wide // columns)
            elif room < wide:
                folds, room = folds + 1, columns - wide
            else:
                room -= wide
        assert found[core, row] == folds


@pytest.mark.parametrize(("rows", "high"), [(4, 2), (16, 2), (4, 8), (6, 4)])
@pytest.mark.parametrize("macs", [1, 3])
def test_the_fullest_block_row_of_a_fold_decides(rows: int, high: int, macs: int):
    values = np.random.default_rng(rows).integers(0, 20, (2, 7))
    found = datapath.group_peaks(values, rows, high, macs)
    group = max(1, rows // high)
    for core in range(2):
        peaks = [max(values[core, at : at + group].tolist()) for at in range(0, 7, group)]
        assert found[core] == max(1, -(-high // rows)) * sum(-(-peak // macs) for peak in peaks)
