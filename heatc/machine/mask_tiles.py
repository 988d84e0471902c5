"""Rows of masks as the sparsity engine writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import numpy as np

from heatc.isa import units
from heatc.isa.table import R_EXTRA
from heatc.isa.units import Mask
from heatc.machine.core_tiles import (
    by_size,
    expect_begins,
    expect_blocks,
    expect_engine_blocks,
    expect_equal,
    live_sum,
    real_rows,
    row_of_part,
    sequence_length,
    shaped,
    size_of,
    sum_cores,
)
from heatc.machine.execution import Execution
from heatc.machine.state import Contents, Extent, MachineState, Tile, Times, Trap, expect


def place_rows(run: Execution, row: int, **operand: Contents) -> Extent:
    """
    The first block row of each active core's rows in the sequence, (active,).

    The instruction's `operand` is what is ranked, a row for each block row from query `row` of core 0
    on. A trap unless it is as wide as the sequence, begins a block and lies inside it, and the mask
    has room.
    """
    state = run.state
    expect_engine_blocks(run, state.block)
    length, high = sequence_length(state), state.block[0]
    most = state.registers[R_EXTRA] if state.extra else length
    expect_begins("row", row, high)
    _first_of_tile(state, row)
    shaped(run, **operand)
    (contents,) = operand.values()
    first = (row + state.part_rows * state.core_parts) // high
    real = np.full(state.active, contents.rows) if contents.rows_of is None else contents.rows_of
    if ((first + real) * (real > 0) > units.block_count(most, high)).any():
        raise Trap(f"block rows {row // high}..{int((first + real).max())} are outside of {most}")
    return first


def _first_of_tile(state: MachineState, row: int) -> int:
    """Where the rows of query `row` of core 0 begin in a core's mask tile."""
    return expect_begins("row of a part", row_of_part(state, row), state.block[0])


def write_rows(
    run: Execution,
    target: Tile,
    kept: Mask,
    row: int,
    rows_of: Extent | None,
    flags: Mapping[str, int] | None = None,
    compares: int | None = None,
    among: Mask | None = None,
) -> Times:
    """
    Append the live cores' mask rows (P, rows, blocks) and count them.

    `flags` are further variables of the work, `compares` comparisons of a row beside one a block,
    for instructions that sort (none if a row has a single block). Rows that are no keys are not
    counted among the kept and pruned blocks, nor is a block that is not `among` those ranked.
    Returns the blocks that were ranked on each core.
    """
    state, (rows, blocks) = run.state, kept.shape[1:]
    if rows_of is not None:
        kept = kept & state.take(real_rows(rows_of, rows))
    _append(state, target, kept, _first_of_tile(state, row))
    high = size_of(state, rows, rows_of)
    if not state.extra:
        if among is None:
            run.pc_blocks[run.pc] += sum_cores(state, high) * blocks
        else:
            ranked = np.count_nonzero(among, axis=(1, 2)).astype(np.int64)
            run.pc_blocks[run.pc] += live_sum(state, ranked)
        kept_blocks = np.count_nonzero(kept, axis=(1, 2)).astype(np.int64)
        run.pc_blocks_kept[run.pc] += live_sum(state, kept_blocks)
    for cores, _, count in by_size(state, high):
        sorted_rows = {} if compares is None else {"compares": count * compares}
        run.work(cores=cores, blocks=count * blocks, **sorted_rows, **(flags or {}))
    return high * blocks


def _append(state: MachineState, tile: Tile, kept: Mask, at: int) -> None:
    """Append mask rows; at = 0 begins new contents."""
    kept = cast(Mask, state.spread(kept))
    if at:
        before = state.read(tile)
        expect(before.is_mask, f"{tile.name} is not a mask")
        expect_blocks(state, tile, before)
        expect_equal(f"first unwritten row of {tile.name}", before.filled, at)
        expect_equal(f"width of {tile.name}", before.columns, kept.shape[2])
        upper = cast(Mask, before.array)
        cores = max(upper.shape[0], kept.shape[0])
        parts = [
            np.broadcast_to(part, (cores, *part.shape[1:]))
            if part.shape[0] == 1
            else part[: kept.shape[0]]
            for part in (upper, kept)
        ]
        kept = np.concatenate(parts, axis=1)
    state.put(tile, Contents(kept, filled=kept.shape[1], is_mask=True, block=state.block))
