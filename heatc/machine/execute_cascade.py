"""Importance of heads over layers, and the list of those that go on (rule `spatten`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatc.isa.table import DTYPES
from heatc.machine.core_tiles import (
    NARROW,
    accumulate,
    accumulators,
    by_size,
    expect_equal,
    expect_room,
    local_tile,
    operand,
    real_rows,
    size_of,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.scoreboard import latest
from heatc.machine.state import Contents, MachineState, Tile, Trap, expect


@executes("magnitude")
def magnitude(run: Execution, t: int, x: int, row_reg: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "acc"), local_tile(state.tile(x), *NARROW)
    contents, row = operand(state, source, clipped="rows"), state.registers[row_reg]
    if row < 0:
        raise Trap(f"row {row} must not be negative")
    m, n, first = contents.rows, contents.columns, int(row == 0)
    expect_room(target, 1, 1)
    real = None if contents.rows_of is None else state.take(real_rows(contents.rows_of, m))
    result = run.values.magnitudes(state.take(contents.reals()), real)
    accumulate(run, target, result, m * n * NARROW[source.dtype], first, Contents(result))
    rows = size_of(state, m, contents.rows_of)
    for cores, _, own in by_size(state, rows):
        run.work(cores=cores, m=own, n=n, first=first, size_a=DTYPES[source.dtype])
    cycles = run.board.cycles["magnitude"](m=rows, n=n)
    run.core(cycles)


@executes("tally")
def tally(run: Execution, t: int, acc: int, s: int, first: int, head_reg: int, shift: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "i64"), local_tile(state.tile(acc), "acc")
    contents = accumulators(state, source)
    expect_equal(f"shape of {source.name}", contents.array.shape[1:], (1, 1))
    expect_room(target, 1, 1)
    before = None
    if not first:
        sums = local_tile(state.tile(s), "i64")
        before = _of_heads(state, sums, state.registers[head_reg])
    values = contents.reals()
    each = np.broadcast_to(values, (max(len(values), state.active), 1, 1))[: state.active]
    total = np.repeat(state.of_group(each).sum(axis=1), state.parts, axis=0)
    result = run.values.tallied(state.take(total), before, shift)
    state.put(target, Contents(state.spread(result)))
    run.work(cores=state.live_count, k=state.parts, first=first)
    cycles = run.board.cycles["tally"](k=state.parts)
    # A group knows its head's sum when its last core has summed its rows.
    after = latest(source.ready) if state.parts > 1 else 0
    run.core(cycles, after)


def _of_heads(state: MachineState, tile: Tile, head: int) -> NDArray[np.generic]:
    """What a row of a number a head has for those of the live cores, (live, 1, 1)."""
    array = _row(state, tile).array
    heads = state.heads_at(head + state.core_items)
    if heads.size and not (heads.min() >= 0 and heads.max() < array.shape[2]):
        raise Trap(f"{tile.name} has no head {heads.max()}, it has {array.shape[2]}")
    cores = np.arange(state.active) if len(array) > 1 else np.zeros(state.active, np.int64)
    return state.take(array[cores, 0, heads][:, None, None])


def _row(state: MachineState, tile: Tile) -> Contents:
    """The contents of a tile that holds a number a head."""
    contents = state.whole(tile)
    expect_equal(f"rows of {tile.name}", contents.rows, 1)
    expect(contents.complete, f"{tile.name} is not complete")
    return contents


@executes("cascade")
def cascade(run: Execution, s: int, keep: int) -> None:
    state = run.state
    source = local_tile(state.tile(s), "i64")
    contents = _row(state, source)
    expect(len(contents.array) == 1, f"{source.name} is not alike on all cores")
    heads = contents.columns
    expect(1 <= keep <= heads, f"keep {keep} is outside of 1..{heads}")
    expect(state.listed is None, "heads are listed already")
    kept = run.values.cascade(run.pc, contents.array[0, 0], keep)
    state.listed = np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)])
    run.pc_heads_pruned[run.pc] += heads - keep
    run.work(cores=state.live_count, n=heads)
    cycles = run.board.cycles["cascade"](n=heads)
    known = run.core(cycles)
    run.board.kept_at = run.board.listed_at = latest(known)
