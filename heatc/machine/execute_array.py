"""The PE array: products of tiles, and accumulators that leave it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.hardware.costs import macs_per_pe
from heatc.isa import units
from heatc.isa.shapes import Shape
from heatc.isa.table import BITS, DTYPES, Engine, split_dtypes
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.clocks import up
from heatc.machine.core_tiles import (
    FACTORS,
    NARROW,
    WIDE,
    accumulate,
    accumulators,
    block_work,
    by_core,
    by_size,
    expect_columns,
    expect_distinct,
    live_copies,
    live_sum,
    local_tile,
    masked_blocks,
    operand,
    over,
    put_columns,
    sequence_length,
    shaped,
    size_of,
    sum_cores,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.memory import Array
from heatc.machine.scoreboard import nonempty
from heatc.machine.state import Contents, MachineState, Tile, Times, Trap, expect

_HALVES = 2
"""Products of 16 bits that a factor of 32 bits takes."""


@executes("mm")
def matmul(run: Execution, acc: int, a: int, b: int, first: int, b_transposed: int) -> None:
    state = run.state
    target, left, right = local_tile(state.tile(acc), "acc"), state.tile(a), state.tile(b)
    x = operand(state, left, clipped="any", dtypes=FACTORS)
    y = operand(state, right, clipped="any", dtypes=FACTORS)
    sizes = shaped(run, a=x, b=y)
    rows_of = x.rows_of
    columns_of, depth_of = (y.rows_of, y.columns_of) if b_transposed else (y.columns_of, y.rows_of)
    m, n = sizes.of("acc")
    result = _product(run, sizes.of("acc"), x, y, bool(b_transposed))
    bound = x.columns * FACTORS[left.dtype] * FACTORS[right.dtype]
    extents = Contents(result, rows_of=rows_of, columns_of=columns_of)
    accumulate(run, target, result, bound, first, extents)
    own = (size_of(state, m, rows_of), size_of(state, n, columns_of))
    k = size_of(state, sizes["k"], x.columns_of if depth_of is None else depth_of)
    macs = _macs(run, left, right)
    cycles = run.board.cycles["mm"](m=own[0], n=own[1], k=k, macs=macs)
    cycles = nonempty(cycles, *own, k)
    _work_product(run, (left, right), first, (*own, k))
    run.pc_macs[run.pc] += sum_cores(state, own[0] * own[1] * k)
    after = 0
    if left.space == "local":
        after = _refetched(run, (left,), n, sum_cores(state, own[0]) * sizes["k"])
    run.core(cycles, after)


def _product(
    run: Execution,
    shape: Shape,
    x: Contents,
    y: Contents,
    transposed: bool,
    kept: Mask | None = None,
) -> Reals:
    """x y or x y^T of the live cores, 0 where not `kept`."""
    a, b = run.state.take(x.reals()), run.state.take(y.reals())
    if kept is None:
        return run.values.array(over(shape, a, b), lambda: datapath.product(a, b, transposed))
    return run.values.array(
        over(shape, a, b, kept), lambda: datapath.product(a, b, transposed) * kept
    )


def _macs(run: Execution, left: Tile, right: Tile) -> int:
    """Multiply-accumulates a PE and cycle at the widths of two operands."""
    return macs_per_pe(BITS[left.dtype], BITS[right.dtype], run.hardware.split_bits)


def _work_product(run: Execution, tiles: tuple[Tile, Tile], first: int, sizes: Sequence[Times]):
    left, right = tiles
    a, b = DTYPES[left.dtype], DTYPES[right.dtype]
    locals_ = (int(left.space == "local"), int(right.space == "local"))
    for cores, once, m, n, k in by_size(run.state, *sizes):
        run.work(
            cores=cores,
            once=once,
            m=m,
            n=n,
            k=k,
            first=first,
            bits_a=BITS[left.dtype],
            bits_b=BITS[right.dtype],
            size_a=a,
            size_b=b,
            a_local=locals_[0],
            b_local=locals_[1],
        )


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


def _requantised(
    run: Execution, values: Reals, shift: int, dtype: str, *, owned: bool = False
) -> Array:
    """Codes of accumulators of the live cores, which have their shape; saturated ones are counted."""
    codes, saturated = run.values.codes(
        values.shape, lambda: datapath.requantised(values, shift, dtype, owned=owned)
    )
    run.saturated(live_copies(run.state, codes, saturated))
    return codes


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
    codes = _requantised(run, values, shift, target.dtype, owned=bool(has_bias))
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
    codes = _requantised(run, state.take(contents.reals()), shift, target.dtype)
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
    codes = _requantised(run, values, shift, "i16", owned=bool(has_bias))
    dtypes = (whole.dtype, rest.dtype)
    parts = run.values.pair(codes.shape, lambda: datapath.split_codes(codes, point, dtypes))
    for tile, part in zip((whole, rest), parts):
        state.put(tile, _like(state, part, contents))
    _charge_drain(run, contents, whole, rest, bias_rows=bias_rows)


@executes("scores")
def scores(
    run: Execution, a: int, q: int, k: int, theta: int, col_reg: int, r: int, positive: int
) -> None:
    state = run.state
    target, sums = local_tile(state.tile(a), "i32", "acc"), local_tile(state.tile(theta), "acc")
    left, right = local_tile(state.tile(q), *NARROW), state.tile(k)
    expect_distinct(target, sums)
    x, y = operand(state, left, clipped="rows"), operand(state, right)
    row_sums = (local_tile(state.tile(r), "acc"),) if positive else ()
    above = {"r": accumulators(state, row_sums[0])} if row_sums else {}
    length, at = sequence_length(state), state.registers[col_reg]
    sizes = shaped(run, q=x, k=y, **above)
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    expect_columns(state, length, at, n)
    high, wide = state.block
    result = _product(run, (m, n), x, y, True)
    importance = _importances(run, result, above.get("r"), length)
    largest = float(high * wide) * k * NARROW[left.dtype] * NARROW[right.dtype]
    run.values.bounded(importance, largest * 2 * length if positive else largest)
    scored = result
    if target.dtype == "i32":
        scored, saturated = run.values.codes(result.shape, lambda: datapath.integer_scores(result))
        run.saturated(live_copies(state, scored, saturated))
    put_columns(state, target, scored, sizes.of("a"), at, x.rows_of)
    own = size_of(state, m, x.rows_of)
    _work_scores(run, (left, right, target), own, (n, k), positive)
    ranked = None if x.rows_of is None else -(-x.rows_of // high)
    put_columns(state, sums, importance, sizes.of("theta"), at // wide, ranked, state.block)
    run.pc_macs[run.pc] += sum_cores(state, own) * n * k
    _charge_scores(run, (left, right, *row_sums), (target, sums), own, (n, k))


def _importances(run: Execution, scored: Reals, sums: Contents | None, length: int) -> Reals:
    """Importances of the blocks of some key columns, above the means of rows with these `sums`."""
    block = run.state.block
    shape = (up(scored.shape[1], block[0]), up(scored.shape[2], block[1]))
    if sums is None:
        return run.values.array(
            over(shape, scored), lambda: datapath.importances(scored, None, block)
        )
    rows = run.state.take(sums.reals())
    return run.values.array(
        over(shape, scored, rows), lambda: datapath.importances(scored, (rows, length), block)
    )


def _charge_scores(
    run: Execution,
    operands: tuple[Tile, ...],
    results: tuple[Tile, Tile],
    m: Times,
    size: tuple[int, int],
) -> None:
    """
    The integer pass: on the PE array, whose accumulators emit the block sums.

    Without `block_importance_in_array` the adder reads the scores again and sums them. Sums of
    scores in accumulators are those of a dense attention, which nobody wants.
    """
    board, hardware = run.board, run.hardware
    n, k = size
    cycles = board.cycles["scores"](m=m, n=n, k=k, macs=_macs(run, operands[0], operands[1]))
    cycles = nonempty(cycles, m)
    rows = sum_cores(run.state, m)
    run.core(cycles, _refetched(run, operands[:1], n, rows * k))
    if not hardware.block_importance_in_array and results[0].dtype != "acc":
        run.works.act(run.pc, "local_read", rows * n * DTYPES["i32"])
        reads = (results[0], *operands[2:])
        board.core(run.pc, Engine.ADDER, board.cycles["add"](merged=m * n), reads, results[1:])


def _refetched(run: Execution, tiles: tuple[Tile, ...], keys: int, elements: int) -> int:
    """
    When queries that do not stay local are there for their last fold of `keys` key columns.

    With `local_a_stationary` they stay: 0. Else every fold beyond the first one fetches the
    `elements` of each tile again, those of all live cores.
    """
    if run.hardware.local_a_stationary:
        return 0
    folds = -(-keys // run.hardware.pe_columns) - 1
    each = elements * sum(DTYPES[tile.dtype] for tile in tiles)
    nbytes = folds * each
    return _refetch(run, nbytes) if nbytes > 0 else 0


def _refetch(run: Execution, nbytes: int) -> int:
    for action in ("dma", "dram_read", "local_write"):
        run.works.act(run.pc, action, nbytes)
    return run.board.refetch(run.pc, nbytes)


def _work_scores(
    run: Execution,
    tiles: tuple[Tile, Tile, Tile],
    m: Times,
    size: tuple[int, int],
    positive: int,
) -> None:
    n, k = size
    a, b, t = (DTYPES[tile.dtype] for tile in tiles)
    for cores, once, rows in by_size(run.state, m):
        run.work(
            cores=cores,
            once=once,
            m=rows,
            n=n,
            k=k,
            ranked=int(tiles[2].dtype != "acc"),
            positive=positive,
            bits_a=8 * a,
            bits_b=8 * b,
            size_a=a,
            size_b=b,
            size_t=t,
            b_local=int(tiles[1].space == "local"),
            **block_work(run.state),
        )


@executes("wide")
def wide_product(run: Execution, r: int, x: int, t: int, as_row: int) -> None:
    state = run.state
    target, left = local_tile(state.tile(r), "acc"), local_tile(state.tile(x), *NARROW)
    right = local_tile(state.tile(t), "acc")
    expect_distinct(target, right)
    contents, sums = operand(state, left, clipped="rows"), accumulators(state, right)
    sizes = shaped(run, x=contents, t=sums)
    m, k = sizes["m"], sizes["k"]
    expect(sums.peak < WIDE, f"{right.name} may exceed 32 bits")
    factors = (sums, contents) if as_row else (contents, sums)
    result = _product(run, sizes.of("r"), *factors, True)
    bound = k * NARROW[left.dtype] * sums.peak
    extents = Contents(
        result,
        rows_of=None if as_row else contents.rows_of,
        columns_of=contents.rows_of if as_row else None,
    )
    accumulate(run, target, result, bound, 1, extents)
    size, rows = DTYPES[left.dtype], size_of(state, m, contents.rows_of)
    for cores, _, own in by_size(state, rows):
        run.work(cores=cores, m=own, k=k, bits_a=8 * size, bits_b=16, size_a=size)
    run.pc_macs[run.pc] += 2 * sum_cores(state, rows) * k
    steps = macs_per_pe(8 * size, 16, run.hardware.split_bits)
    cycles = nonempty(run.board.cycles["wide"](m=rows, k=k, macs=steps), rows)
    run.core(cycles)


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
        result = _product(run, (m, n), x, y, True, kept)
        peak = run.values.bounded(result, k * NARROW[tiles[i].dtype] * NARROW[tiles[j].dtype])
        state.put(target, Contents(state.spread(result), peak=peak, rows_of=q_int.rows_of))
    folds = _folds(run, blocks)
    macs = {f"macs_f{i + 1}": _macs(run, tiles[p[3]], tiles[p[4]]) for i, p in enumerate(pairs)}
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
    return _refetch(run, again * each) if again > 0 else 0


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


def _folds(run: Execution, blocks: Mask) -> Times:
    """Folds of masked products: kept blocks, packed row by row."""
    hardware, (high, wide) = run.hardware, run.state.block
    folds = datapath.block_folds(blocks, wide, hardware.pe_columns)
    return by_core(run.state, datapath.group_peaks(folds, hardware.pe_rows, high))


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
    result = _product(run, sizes.of("acc"), x, y, True, kept)
    bound = depth * FACTORS[left.dtype] * FACTORS[right.dtype]
    accumulate(run, target, result, bound, 1, Contents(result, rows_of=x.rows_of))
    folds = _folds(run, blocks)
    cycles = run.board.cycles["pick"](folds=folds, k=depth, macs=_macs(run, left, right))
    kept_scores = live_sum(state, np.count_nonzero(kept, axis=(1, 2)).astype(np.int64))
    _work_masked(run, (left, right), (m, n, depth), kept_scores, folds)
    run.pc_macs[run.pc] += depth * kept_scores
    after = _refetched_folds(run, (left,), folds, m, depth)
    run.core(nonempty(cycles, folds), after)


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
    codes = _requantised(run, values, shift, target.dtype, owned=True)
    marked = run.values.array(values.shape, lambda: np.where(kept, codes, np.int32(units.EXCLUDED)))
    taken = np.count_nonzero(kept, axis=2).astype(np.int64)
    before = None if at == 0 else state.read(target).taken
    put_columns(state, target, marked, sizes.of("t"), at, contents.rows_of)
    target.read().taken = taken if before is None else before + taken
    counts = {"kept": live_sum(state, taken.sum(axis=1)), "size_t": DTYPES[target.dtype]}
    run.work(cores=state.live_count, m=m, n=n, **counts, **block_work(state))
    cycles = run.board.cycles["drainm"](folds=_folds(run, blocks))
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
    codes = _requantised(run, scaled, shift, target.dtype, owned=True)
    put_columns(state, target, codes, sizes.of("t"), at, contents.rows_of)
    _charge_drain(run, contents, target)


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
    steps = _macs(run, left, right)
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
