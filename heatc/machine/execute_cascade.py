"""Importance of heads over layers, and the list of those that go on (rule `spatten`)."""

from __future__ import annotations

import numpy as np

from heatc.isa.table import DTYPES
from heatc.machine import datapath
from heatc.machine.core_tiles import (
    NARROW,
    accumulate,
    accumulators,
    by_size,
    local_tile,
    operand,
    over,
    real_rows,
    shaped,
    size_of,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.memory import Array
from heatc.machine.scoreboard import latest
from heatc.machine.state import ACC_LIMIT, Contents, MachineState, Tile, Trap, expect


@executes("magnitude")
def magnitude(run: Execution, t: int, x: int, row_reg: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "acc"), local_tile(state.tile(x), *NARROW)
    contents, row = operand(state, source, clipped="rows"), state.registers[row_reg]
    if row < 0:
        raise Trap(f"row {row} must not be negative")
    sizes = shaped(run, x=contents)
    m, n, first = sizes["m"], sizes["n"], int(row == 0)
    real = None if contents.rows_of is None else state.take(real_rows(contents.rows_of, m))
    values = state.take(contents.reals())
    result = run.values.array(
        over(sizes.of("t"), values), lambda: datapath.magnitudes(values, real)
    )
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
    before, listed = None, {}
    if not first:
        sums = local_tile(state.tile(s), "i64")
        listed = {"s": _row(state, sums)}
        before = _of_heads(state, sums.name, listed["s"].array, state.registers[head_reg])
    sizes = shaped(run, acc=contents, **listed)
    values = contents.reals()
    each = np.broadcast_to(values, (max(len(values), state.active), 1, 1))[: state.active]
    total = state.take(np.repeat(state.of_group(each).sum(axis=1), state.parts, axis=0))
    shape = over(sizes.of("t"), total)
    sum_ = run.values.array(shape, lambda: datapath.tallied(total, before, shift))
    run.values.bounded(sum_, ACC_LIMIT)
    result = run.values.array(shape, lambda: sum_.astype(np.int64))
    state.put(target, Contents(state.spread(result)))
    run.work(cores=state.live_count, k=state.parts, first=first)
    cycles = run.board.cycles["tally"](k=state.parts)
    # A group knows its head's sum when its last core has summed its rows.
    after = latest(source.ready) if state.parts > 1 else 0
    run.core(cycles, after)


def _of_heads(state: MachineState, name: str, array: Array, head: int) -> Array:
    """What a row of a number a head has for those of the live cores, (live, 1, 1)."""
    heads = state.heads_at(head + state.core_items)
    if heads.size and not (heads.min() >= 0 and heads.max() < array.shape[2]):
        raise Trap(f"{name} has no head {heads.max()}, it has {array.shape[2]}")
    cores = np.arange(state.active) if len(array) > 1 else np.zeros(state.active, np.int64)
    return state.take(array[cores, 0, heads][:, None, None])


def _row(state: MachineState, tile: Tile) -> Contents:
    """The contents of a tile that holds a number a head."""
    contents = state.whole(tile)
    expect(contents.complete, f"{tile.name} is not complete")
    return contents


@executes("cascade")
def cascade(run: Execution, s: int, keep: int) -> None:
    state = run.state
    source = local_tile(state.tile(s), "i64")
    contents = _row(state, source)
    expect(len(contents.array) == 1, f"{source.name} is not alike on all cores")
    heads = shaped(run, s=contents)["n"]
    expect(1 <= keep <= heads, f"keep {keep} is outside of 1..{heads}")
    expect(state.listed is None, "heads are listed already")
    kept = run.values.cascade(run.pc, contents.array[0, 0], keep)
    state.listed = np.concatenate([np.flatnonzero(kept), np.flatnonzero(~kept)])
    run.pc_heads_pruned[run.pc] += heads - keep
    run.work(cores=state.live_count, n=heads)
    cycles = run.board.cycles["cascade"](n=heads)
    known = run.core(cycles)
    run.board.kept_at = run.board.listed_at = latest(known)
