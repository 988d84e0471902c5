"""The PE array: dense products of tiles."""

from __future__ import annotations

from collections.abc import Sequence

from heatc.fixed_point import Reals
from heatc.hardware.costs import macs_per_pe
from heatc.isa.table import BITS, DTYPES, Engine
from heatc.machine import datapath
from heatc.machine.array_work import macs_of, product_of, refetch
from heatc.machine.clocks import up
from heatc.machine.core_tiles import (
    FACTORS,
    NARROW,
    WIDE,
    accumulate,
    accumulators,
    block_work,
    by_size,
    expect_columns,
    expect_distinct,
    live_copies,
    local_tile,
    operand,
    over,
    put_columns,
    sequence_length,
    shaped,
    size_of,
    sum_cores,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.scoreboard import nonempty
from heatc.machine.state import Contents, Tile, Times, expect


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
    result = product_of(run, sizes.of("acc"), x, y, bool(b_transposed))
    bound = x.columns * FACTORS[left.dtype] * FACTORS[right.dtype]
    extents = Contents(result, rows_of=rows_of, columns_of=columns_of)
    accumulate(run, target, result, bound, first, extents)
    own = (size_of(state, m, rows_of), size_of(state, n, columns_of))
    k = size_of(state, sizes["k"], x.columns_of if depth_of is None else depth_of)
    macs = macs_of(run, left, right)
    cycles = run.board.cycles["mm"](m=own[0], n=own[1], k=k, macs=macs)
    cycles = nonempty(cycles, *own, k)
    _work_product(run, (left, right), first, (*own, k))
    run.pc_macs[run.pc] += sum_cores(state, own[0] * own[1] * k)
    after = 0
    if left.space == "local":
        after = _refetched(run, (left,), n, sum_cores(state, own[0]) * sizes["k"])
    run.core(cycles, after)


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


@executes("scores")
def scores(
    run: Execution,
    a: int,
    q: int,
    k: int,
    theta: int,
    col_reg: int,
    r: int,
    positive: int,
    plain: int,
) -> None:
    state = run.state
    target, sums = local_tile(state.tile(a), "i32", "acc"), local_tile(state.tile(theta), "acc")
    left, right = local_tile(state.tile(q), *NARROW), state.tile(k)
    expect_distinct(target, sums)
    expect(not (plain and positive), "importance is asked for, and none")
    x, y = operand(state, left, clipped="rows"), operand(state, right)
    row_sums = (local_tile(state.tile(r), "acc"),) if positive else ()
    above = {"r": accumulators(state, row_sums[0])} if row_sums else {}
    length, at = sequence_length(state), state.registers[col_reg]
    sizes = shaped(run, q=x, k=y, **above)
    m, n, k = sizes["m"], sizes["n"], sizes["k"]
    expect_columns(state, length, at, n)
    high, wide = state.block
    result = product_of(run, (m, n), x, y, True)
    importance = None if plain else _importances(run, result, above.get("r"), length)
    largest = float(high * wide) * k * NARROW[left.dtype] * NARROW[right.dtype]
    if importance is not None:
        run.values.bounded(importance, largest * 2 * length if positive else largest)
    scored = result
    if target.dtype == "i32":
        scored, saturated = run.values.codes(result.shape, lambda: datapath.integer_scores(result))
        run.saturated(live_copies(state, scored, saturated))
    put_columns(state, target, scored, sizes.of("a"), at, x.rows_of)
    own = size_of(state, m, x.rows_of)
    ranks = importance is not None and target.dtype != "acc"
    _work_scores(run, (left, right, target), own, (n, k), (positive, int(ranks)))
    if importance is not None:
        ranked = None if x.rows_of is None else -(-x.rows_of // high)
        put_columns(state, sums, importance, sizes.of("theta"), at // wide, ranked, state.block)
    run.pc_macs[run.pc] += sum_cores(state, own) * n * k
    _charge_scores(run, (left, right, *row_sums), (target, sums), own, (n, k), ranks=ranks)


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
    *,
    ranks: bool,
) -> None:
    """
    The integer pass: on the PE array, whose accumulators emit the block sums.

    Without `block_importance_in_array` the adder reads the scores again and sums them. Sums of
    scores in accumulators are those of a dense attention, which nobody wants.
    """
    board, hardware = run.board, run.hardware
    n, k = size
    cycles = board.cycles["scores"](m=m, n=n, k=k, macs=macs_of(run, operands[0], operands[1]))
    cycles = nonempty(cycles, m)
    rows = sum_cores(run.state, m)
    run.core(cycles, _refetched(run, operands[:1], n, rows * k))
    if not hardware.block_importance_in_array and ranks:
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
    return refetch(run, nbytes) if nbytes > 0 else 0


def _work_scores(
    run: Execution,
    tiles: tuple[Tile, Tile, Tile],
    m: Times,
    size: tuple[int, int],
    flags: tuple[int, int],
) -> None:
    """`flags`: importance is what lies above means; blocks are ranked."""
    (n, k), (positive, ranked) = size, flags
    a, b, t = (DTYPES[tile.dtype] for tile in tiles)
    for cores, once, rows in by_size(run.state, m):
        run.work(
            cores=cores,
            once=once,
            m=rows,
            n=n,
            k=k,
            ranked=ranked,
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
    result = product_of(run, sizes.of("r"), *factors, True)
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
