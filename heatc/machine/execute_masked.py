"""The PE array: products on kept blocks, and probabilities times values."""

from __future__ import annotations

import numpy as np

from heatc.fixed_point import Reals
from heatc.isa.table import BITS, DTYPES
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.array_work import macs_of, masked_folds, product_of, refetch
from heatc.machine.core_tiles import (
    FACTORS,
    NARROW,
    WIDE,
    accumulate,
    accumulators,
    block_work,
    by_core,
    by_size,
    expect_distinct,
    live_sum,
    local_tile,
    masked_blocks,
    operand,
    over,
    shaped,
    size_of,
    sum_cores,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.scoreboard import nonempty
from heatc.machine.state import Contents, Tile, Times, Trap, expect

_HALVES = 2
"""Products of 16 bits that a factor of 32 bits takes."""


@executes("frac")
def fractions(
    run: Execution,
    f1: int,
    f2: int,
    qi: int,
    qf: int,
    ki: int,
    kf: int,
    mask: int,
    row_reg: int,
    col_reg: int,
) -> None:
    state = run.state
    by_q, by_k = local_tile(state.tile(f1), "acc"), local_tile(state.tile(f2), "acc")
    expect_distinct(by_q, by_k)
    tiles = tuple(state.tile(index) for index in (qi, qf, ki, kf))
    q_int, q_frac = (operand(state, tile, clipped="rows") for tile in tiles[:2])
    k_int, k_frac = (operand(state, local_tile(tile, *NARROW)) for tile in tiles[2:])
    sizes = shaped(run, qi=q_int, qf=q_frac, ki=k_int, kf=k_frac)
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    selected = state.tile(mask)
    place = (state.registers[row_reg], state.registers[col_reg])
    blocks, kept = masked_blocks(state, selected, *place, m, n, q_int.rows_of)
    pairs = ((by_q, q_frac, k_int, 1, 2), (by_k, q_int, k_frac, 0, 3))
    for target, x, y, i, j in pairs:
        result = product_of(run, (m, n), x, y, True, kept)
        peak = run.values.bounded(result, k * NARROW[tiles[i].dtype] * NARROW[tiles[j].dtype])
        state.put(target, Contents(state.spread(result), peak=peak, rows_of=q_int.rows_of))
    folds = masked_folds(run, blocks)
    macs = {f"macs_f{i + 1}": macs_of(run, tiles[p[3]], tiles[p[4]]) for i, p in enumerate(pairs)}
    cycles = nonempty(run.board.cycles["frac"](folds=folds, k=k, **macs), folds)
    scores_kept = np.count_nonzero(kept, axis=(1, 2)).astype(np.int64)
    for _, _, _, i, j in pairs:
        _work_masked(run, (tiles[i], tiles[j]), (m, n, k), live_sum(state, scores_kept), folds)
    run.pc_macs[run.pc] += 2 * k * live_sum(state, scores_kept)
    after = _refetched_folds(run, tiles[:2], folds, m, k)
    run.core(cycles, after)


def _refetched_folds(
    run: Execution, tiles: tuple[Tile, ...], folds: Times, rows: int, depth: int
) -> int:
    """As `_refetched`, for masked products: a fold takes the rows of one group of queries."""
    if run.hardware.local_a_stationary:
        return 0
    high = run.hardware.pe_rows
    groups = -(-rows // high)
    beyond = max(folds - groups, 0) if isinstance(folds, int) else np.maximum(folds - groups, 0)
    again = sum_cores(run.state, beyond)
    each = min(rows, high) * depth * sum(DTYPES[tile.dtype] for tile in tiles)
    return refetch(run, again * each) if again > 0 else 0


def _work_masked(
    run: Execution, tiles: tuple[Tile, Tile], size: tuple[int, int, int], kept: int, folds: Times
) -> None:
    a, b = (DTYPES[tile.dtype] for tile in tiles)
    m, n, k = size
    run.work(
        cores=run.state.live_count,
        m=m,
        n=n,
        k=k,
        kept=kept,
        folds=sum_cores(run.state, folds),
        bits_a=BITS[tiles[0].dtype],
        bits_b=BITS[tiles[1].dtype],
        size_a=a,
        size_b=b,
        **block_work(run.state),
    )


@executes("pick")
def picked_scores(
    run: Execution, acc: int, q: int, k: int, mask: int, row_reg: int, col_reg: int
) -> None:
    state, registers = run.state, run.state.registers
    target, selected = local_tile(state.tile(acc), "acc"), state.tile(mask)
    left, right = (local_tile(state.tile(index), *FACTORS) for index in (q, k))
    x = operand(state, left, clipped="rows", dtypes=FACTORS)
    y = operand(state, right, dtypes=FACTORS)
    sizes = shaped(run, q=x, k=y)
    m, n, depth = sizes["m"], sizes["n"], sizes["k"]
    place = (registers[row_reg], registers[col_reg])
    blocks, kept = masked_blocks(state, selected, *place, m, n, x.rows_of)
    result = product_of(run, sizes.of("acc"), x, y, True, kept)
    bound = depth * FACTORS[left.dtype] * FACTORS[right.dtype]
    accumulate(run, target, result, bound, 1, Contents(result, rows_of=x.rows_of))
    folds = masked_folds(run, blocks)
    cycles = run.board.cycles["pick"](folds=folds, k=depth, macs=macs_of(run, left, right))
    kept_scores = live_sum(state, np.count_nonzero(kept, axis=(1, 2)).astype(np.int64))
    _work_masked(run, (left, right), (m, n, depth), kept_scores, folds)
    run.pc_macs[run.pc] += depth * kept_scores
    after = _refetched_folds(run, (left,), folds, m, depth)
    run.core(nonempty(cycles, folds), after)


@executes("pv")
def values(
    run: Execution,
    acc: int,
    p: int,
    v: int,
    mask: int,
    row_reg: int,
    col_reg: int,
    first: int,
    sparse: int,
    total: int,
    constant: int,
) -> None:
    state = run.state
    target, left, right = local_tile(state.tile(acc), "acc"), state.tile(p), state.tile(v)
    x, y = operand(state, left, clipped="rows"), operand(state, right)
    expect(x.complete, f"{left.name} is not complete")
    expect(
        bool(sparse) or not constant, "constant stands for pruned blocks, none are with sparse 0"
    )
    totals = {"total": _total(run, total, target)} if constant and first else {}
    sizes = shaped(run, p=x, v=y, **totals)
    row, at = state.registers[row_reg], state.registers[col_reg]
    m, n, e = sizes["m"], sizes["n"], sizes["e"]
    if at < 0 or at + n > x.columns:
        raise Trap(f"columns {at}..{at + n} are outside of {left.name} with {x.columns}")
    whole, factors = state.take(x.reals()), state.take(y.reals())
    part = whole[:, :, at : at + n]
    rows = size_of(state, m, x.rows_of)
    steps = macs_of(run, left, right)
    depth: Times = -(-n // steps) * -(-rows // run.hardware.pe_rows)
    kept_scores = sum_cores(state, rows) * n
    bound = n * NARROW[left.dtype] * NARROW[right.dtype]
    rest = None
    if sparse:
        expect(right.space == "local", f"{right.name} is shared: no core can pick rows of its own")
        selected = state.tile(mask)
        blocks, kept = masked_blocks(state, selected, row, at, m, n, x.rows_of)
        if constant:
            expect(right.dtype == "i16", f"{right.name} is {right.dtype}, expected i16")
            _, every = masked_blocks(state, selected, row, 0, m, x.columns, x.rows_of)
            rest, part = _beside_pruned(run, whole, every, at, n)
            bound *= 2
        part = _masked(run, part, kept)
        high, wide = state.block
        keys = datapath.kept_keys(blocks, n, wide)
        depth = by_core(state, datapath.group_peaks(keys, run.hardware.pe_rows, high, steps))
        kept_scores = live_sum(state, np.count_nonzero(kept, axis=(1, 2)).astype(np.int64))
    macs = kept_scores * e
    result = run.values.array(
        over((m, e), part, factors), lambda: datapath.product(part, factors, False)
    )
    if rest is not None and first:
        sums = totals["total"]
        result = _plus_outer(run, result, rest, state.take(sums.reals()))
        bound += NARROW[left.dtype] * sums.peak
        depth = depth + _HALVES * -(-rows // run.hardware.pe_rows)
        macs += _HALVES * sum_cores(state, rows) * e
    accumulate(run, target, result, bound, first, Contents(result, rows_of=x.rows_of))
    cycles = nonempty(run.board.cycles["pv"](depth=depth, m=rows, n=e), depth)
    _work_values(run, (left, right), (rows, e, n), kept_scores, (first, sparse, constant))
    run.pc_macs[run.pc] += macs
    run.core(cycles)


def _total(run: Execution, total: int, target: Tile) -> Contents:
    """The sums of all values, which stand for those of pruned blocks."""
    source = local_tile(run.state.tile(total), "acc")
    expect_distinct(source, target)
    sums = accumulators(run.state, source)
    expect(sums.peak < WIDE, f"{source.name} may exceed 32 bits")
    return sums


def _masked(run: Execution, array: Reals, kept: Mask) -> Reals:
    shape = over((array.shape[1], array.shape[2]), array, kept)
    return run.values.array(shape, lambda: array * kept)


def _beside_pruned(
    run: Execution, p: Reals, kept: Mask, at: int, count: int
) -> tuple[Reals, Reals]:
    """What a row's pruned probabilities are, (P, m, 1), and some columns less that."""
    rest = run.values.array(
        over((p.shape[1], 1), p, kept), lambda: datapath.pruned_probability(p, kept)
    )
    part = run.values.array(
        over((p.shape[1], count), p, rest), lambda: p[:, :, at : at + count] - rest
    )
    return rest, part


def _plus_outer(run: Execution, array: Reals, column: Reals, row: Reals) -> Reals:
    """The array (P, m, n) plus the product of a column (P, m, 1) and a row (P, 1, n)."""
    shape = over((array.shape[1], array.shape[2]), array, column, row)
    return run.values.array(shape, lambda: array + column * row)


def _work_values(
    run: Execution,
    tiles: tuple[Tile, Tile],
    size: tuple[Times, int, int],
    kept: int,
    flags: tuple[int, int, int],
) -> None:
    """
    A block row of the mask streams its own rows of v; without a mask a fold of rows does.

    `kept` are those of all cores; where the cores' sizes differ they are counted with the first.
    """
    a, b = (DTYPES[tile.dtype] for tile in tiles)
    (rows, n, k), (first, sparse, constant) = size, flags
    for cores, once, m in by_size(run.state, rows):
        dense = cores * k * -(-m // run.hardware.pe_rows)
        run.work(
            cores=cores,
            once=once,
            m=m,
            n=n,
            k=k,
            kept=kept * once,
            streamed=-(-kept * once // run.state.block[0]) if sparse else dense,
            first=first,
            sparse=sparse,
            constant=constant,
            bits_a=8 * a,
            bits_b=8 * b,
            size_a=a,
            size_b=b,
            b_local=int(tiles[1].space == "local"),
            **block_work(run.state),
        )
