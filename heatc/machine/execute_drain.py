"""The PE array: accumulators that leave it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.isa import units
from heatc.isa.table import DTYPES, split_dtypes
from heatc.machine import datapath
from heatc.machine.array_work import masked_folds, requantised
from heatc.machine.core_tiles import (
    accumulators,
    block_work,
    by_size,
    expect_columns,
    expect_distinct,
    live_sum,
    local_tile,
    masked_blocks,
    over,
    put_columns,
    sequence_length,
    shaped,
    size_of,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.scoreboard import nonempty
from heatc.machine.state import Contents, MachineState, Tile, Trap, expect


def _biased(
    run: Execution, tile: Tile, bias: int, has_bias: int, bias_shift: int
) -> tuple[Reals, Contents, int]:
    """Accumulators plus bias of the live cores, what the accumulators hold, and rows of the bias."""
    state = run.state
    contents = accumulators(state, tile)
    expect(contents.complete, f"{tile.name} is not complete")
    values = state.take(contents.reals())
    if not has_bias:
        shaped(run, acc=contents)
        return values, contents, 0
    other = state.tile(bias)
    expect(other.dtype == "i32", f"{other.name} is {other.dtype}, expected i32")
    rows = state.read(other)
    shape = shaped(run, acc=contents, bias=rows).of("acc")
    if rows.rows > contents.rows:
        raise Trap(f"{other.name} has {rows.rows} rows, the accumulators {contents.rows}")
    addend = state.take(rows.reals())
    if rows.rows > 1:
        addend = addend[:, np.arange(contents.rows) % rows.rows]
    biased = run.values.array(
        over(shape, values, addend), lambda: values + addend * 2.0**bias_shift
    )
    run.values.bounded(biased, contents.peak + 2.0 ** (31 + bias_shift))
    return biased, contents, rows.rows


def _charge_drain(run: Execution, contents: Contents, *targets: Tile, bias_rows: int = 0) -> None:
    m = size_of(run.state, contents.rows, contents.rows_of)
    n = size_of(run.state, contents.columns, contents.columns_of)
    size = sum(DTYPES[tile.dtype] for tile in targets)
    for cores, _, rows, columns in by_size(run.state, m, n):
        run.work(cores=cores, m=rows, n=columns, bias_rows=bias_rows, size_t=size)
    run.core(nonempty(run.board.cycles["drain"](m=m, n=n), m, n))


def _like(state: MachineState, array: NDArray[np.generic], contents: Contents) -> Contents:
    """Contents for the results of the live cores, with the true sizes of `contents`."""
    return Contents(state.spread(array), rows_of=contents.rows_of, columns_of=contents.columns_of)


@executes("drain")
def drain(
    run: Execution, t: int, acc: int, bias: int, has_bias: int, bias_shift: int, shift: int
) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "i8", "i16", "i32"), state.tile(acc)
    values, contents, bias_rows = _biased(run, source, bias, has_bias, bias_shift)
    codes = requantised(run, values, shift, target.dtype, owned=bool(has_bias))
    state.put(target, _like(state, codes, contents))
    _charge_drain(run, contents, target, bias_rows=bias_rows)


@executes("drainc")
def drain_columns(run: Execution, t: int, acc: int, col_reg: int, shift: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "i32"), state.tile(acc)
    contents = accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    length, at = sequence_length(state), state.registers[col_reg]
    expect_columns(state, length, at, contents.columns)
    sizes = shaped(run, acc=contents)
    codes = requantised(run, state.take(contents.reals()), shift, target.dtype)
    put_columns(state, target, codes, sizes.of("t"), at, contents.rows_of)
    _charge_drain(run, contents, target)


@executes("drains")
def drain_split(
    run: Execution,
    ti: int,
    tf: int,
    acc: int,
    bias: int,
    has_bias: int,
    bias_shift: int,
    shift: int,
    point: int,
) -> None:
    state = run.state
    whole, rest = (local_tile(state.tile(index), "i8", "i16") for index in (ti, tf))
    expect_distinct(whole, rest)
    expect(point >= 0, "point is negative")
    for tile, narrowest in zip((whole, rest), split_dtypes(point)):
        if DTYPES[tile.dtype] < DTYPES[narrowest]:
            raise Trap(f"{tile.name} is {tile.dtype}, at point {point} a part needs {narrowest}")
    values, contents, bias_rows = _biased(run, state.tile(acc), bias, has_bias, bias_shift)
    codes = requantised(run, values, shift, "i16", owned=bool(has_bias))
    dtypes = (whole.dtype, rest.dtype)
    parts = run.values.pair(codes.shape, lambda: datapath.split_codes(codes, point, dtypes))
    for tile, part in zip((whole, rest), parts):
        state.put(tile, _like(state, part, contents))
    _charge_drain(run, contents, whole, rest, bias_rows=bias_rows)


@executes("drainm")
def drain_masked(
    run: Execution, t: int, acc: int, mask: int, row_reg: int, col_reg: int, shift: int
) -> None:
    state, registers = run.state, run.state.registers
    target, source, selected = local_tile(state.tile(t), "i32"), state.tile(acc), state.tile(mask)
    contents = accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    length, at, sizes = sequence_length(state), registers[col_reg], shaped(run, acc=contents)
    m, n = sizes.of("acc")
    expect_columns(state, length, at, n)
    blocks, kept = masked_blocks(state, selected, registers[row_reg], at, m, n, contents.rows_of)
    sums = state.take(contents.reals())
    values = run.values.array(over((m, n), sums, kept), lambda: sums * kept)
    codes = requantised(run, values, shift, target.dtype, owned=True)
    marked = run.values.array(values.shape, lambda: np.where(kept, codes, np.int32(units.EXCLUDED)))
    taken = np.count_nonzero(kept, axis=2).astype(np.int64)
    before = None if at == 0 else state.read(target).taken
    put_columns(state, target, marked, sizes.of("t"), at, contents.rows_of)
    target.read().taken = taken if before is None else before + taken
    counts = {"kept": live_sum(state, taken.sum(axis=1)), "size_t": DTYPES[target.dtype]}
    run.work(cores=state.live_count, m=m, n=n, **counts, **block_work(state))
    cycles = run.board.cycles["drainm"](folds=masked_folds(run, blocks))
    run.core(cycles)


@executes("drainp")
def drain_predicted(
    run: Execution, t: int, acc: int, q_peak: int, k_peak: int, col_reg: int, shift: int
) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "i32"), state.tile(acc)
    contents = accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    of_q, of_k = (accumulators(state, state.tile(index)) for index in (q_peak, k_peak))
    sizes = shaped(run, acc=contents, q_peak=of_q, k_peak=of_k)
    length, at = sequence_length(state), state.registers[col_reg]
    expect_columns(state, length, at, contents.columns)
    sums, *peaks = (state.take(read.reals()) for read in (contents, of_q, of_k))
    scaled = run.values.array(
        over(sizes.of("acc"), sums, *peaks),
        lambda: np.ldexp(sums, sum(datapath.bit_lengths(peak) for peak in peaks)),
    )
    codes = requantised(run, scaled, shift, target.dtype, owned=True)
    put_columns(state, target, codes, sizes.of("t"), at, contents.rows_of)
    _charge_drain(run, contents, target)
