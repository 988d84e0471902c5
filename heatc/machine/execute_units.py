"""Sparsity engine, adder and softmax unit: instructions on the scores of the live cores."""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.isa import units
from heatc.isa.table import DTYPES, PRUNED_SCORES, sorting_compares
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.core_tiles import (
    NARROW,
    WIDE,
    accumulate,
    accumulators,
    block_work,
    by_core,
    by_size,
    expect_blocks,
    expect_columns,
    expect_equal,
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
from heatc.machine.execute_score_masks import visible_of
from heatc.machine.execution import Execution, executes
from heatc.machine.mask_tiles import place_rows, write_rows
from heatc.machine.memory import Array
from heatc.machine.scoreboard import latest, nonempty
from heatc.machine.state import (
    ACC_LIMIT,
    Contents,
    Extent,
    MachineState,
    Tile,
    Times,
    expect,
)


@executes("mask")
def mask(run: Execution, m: int, theta: int, row_reg: int, rho: float, own: int) -> None:
    state, row = run.state, run.state.registers[row_reg]
    target, source = local_tile(state.tile(m), "i8"), state.tile(theta)
    importance = _importance(state, source)
    expect(np.isfinite(rho), "rho is not finite")
    first = place_rows(run, row, theta=importance)
    ranked = state.take(importance.reals())
    ratio = state.take(state.parameter("rho"))[:, None] if own else rho
    among = _counted(state, importance)
    kept, totals = run.values.mask(run.pc, state, ranked, ratio, first, among)
    ranks = write_rows(run, target, kept, row, importance.rows_of, among=among)
    if not state.extra:
        state.theta_head[state.select] += totals
    cycles = run.board.cycles["mask"](blocks=ranks)
    run.core(cycles)


def _importance(state: MachineState, tile: Tile) -> Contents:
    """Complete importances of blocks of the size that the program works with."""
    contents = accumulators(state, tile)
    expect(contents.complete, f"{tile.name} is not complete")
    expect_blocks(state, tile, contents)
    return contents


def _counted(state: MachineState, importance: Contents) -> Mask | None:
    """The live cores' blocks that have a visible score, None where all have."""
    return None if importance.counted is None else state.take(importance.counted)


@executes("topk")
def greatest(run: Execution, m: int, theta: int, row_reg: int, density: float) -> None:
    state, row = run.state, run.state.registers[row_reg]
    target, source = local_tile(state.tile(m), "i8"), state.tile(theta)
    importance = _importance(state, source)
    expect(0.0 < density <= 1.0, f"density {density} is outside of (0, 1]")
    first = place_rows(run, row, theta=importance)
    ranked, among = state.take(importance.reals()), _counted(state, importance)
    kept = run.values.decided(
        run.pc,
        state,
        first,
        ranked.shape[1:],
        lambda: units.topk_mask(ranked.astype(np.int64), density, among),
    )
    each = sorting_compares(importance.columns)
    ranks = write_rows(run, target, kept, row, importance.rows_of, compares=each, among=among)
    compares = size_of(state, importance.rows, importance.rows_of) * each
    cycles = run.board.cycles["topk"](blocks=ranks, compares=compares)
    run.core(cycles)


@executes("gate")
def gate(run: Execution, tau: float, own: int, positive: int, visible: int) -> None:
    state = run.state
    length = sequence_length(state)
    expect(length < 1 << (17 if positive else 26), "r60, the sequence length, is too large")
    run.work(cores=state.live_count)
    if state.parts > 1:
        totals = state.of_group(state.theta_head[: state.active]).sum(axis=1)
        state.theta_head[: state.active] = np.repeat(totals, state.parts)
        seen = state.of_group(state.seen_head[: state.active]).sum(axis=1)
        state.seen_head[: state.active] = np.repeat(seen, state.parts)
    threshold = state.parameter("tau") if own else tau
    number = np.maximum(state.seen_head[: state.active], 1) if visible else None
    importance = "positive" if positive else "abs"
    kept = run.values.gate(run.pc, state, threshold, importance, number)
    if state.parts > 1:
        # A head has one decision, whoever gives it.
        kept = np.repeat(state.of_group(kept)[:, 0], state.parts)
    if state.kept is not None:
        kept = kept & state.kept
    elif state.zeroed is not None:
        kept = kept & state.zeroed
    before = state.live_count if state.zeroed is None else int(state.zeroed.sum())
    known = run.core(run.board.cycles["gate"]())
    # A group knows its head's importance when its last core has ranked its rows.
    run.board.kept_at = known if state.parts == 1 else latest(known)
    state.keep(kept, leave=run.hardware.early_head_exit)
    run.pc_heads_pruned[run.pc] += (before - int(kept.sum())) // state.parts


@executes("add")
def add(
    run: Execution,
    s: int,
    a: int,
    f1: int,
    f2: int,
    mask: int,
    row_reg: int,
    col_reg: int,
    pruned: int,
    point_q: int,
    point_k: int,
    point_s: int,
    r: int,
    constant: int,
    hides: int,
) -> None:
    state = run.state
    target, source = local_tile(state.tile(s), "i32"), state.tile(a)
    tiles = (state.tile(f1), state.tile(f2))
    expect(source.dtype in ("i32", "acc"), f"{source.name} is {source.dtype}")
    points = _points(point_q, point_k, point_s)
    integer = state.wide(source)
    length, at = sequence_length(state), state.registers[col_reg]
    _expect_integers(source, integer, at, in_place=target is source)
    by_q, by_k = (accumulators(state, tile) for tile in tiles)
    rule, in_place = PRUNED_SCORES[pruned], target is source
    sums = state.tile(r) if constant and rule == "mean" else None
    of_rows = {} if sums is None else {"r": accumulators(state, sums)}
    if hides:
        of_rows["r"] = visible_of(state, state.tile(r))
    sizes = shaped(run, f1=by_q, f2=by_k, a=integer, **of_rows)
    m, n = sizes["m"], sizes["n"]
    expect(
        not in_place or rule != "mean" or n == length,
        f"{source.name} is overwritten before the mean of its rows is complete",
    )
    expect_columns(state, length, at, n)
    selected, row = state.tile(mask), state.registers[row_reg]
    _, kept = masked_blocks(state, selected, row, at, m, n, integer.rows_of)
    whole = state.take(integer.reals())
    expect(
        not constant or rule in ("zero", "mean"), f"a pruned score that is {rule} is no constant"
    )

    expect(
        not hides or (rule == "mean" and not constant), "only means of pruned scores leave some out"
    )

    seen = cast(Mask, state.take(of_rows["r"].array)) if hides else None

    def mean() -> Reals:
        _, every = masked_blocks(state, selected, row, 0, m, length, integer.rows_of)
        if sums is None:
            return datapath.pruned_mean(whole, every, points.score, seen)
        total = state.take(of_rows["r"].reals())
        return datapath.rest_mean(whole, every, points.score, total)

    parts = (
        whole[:, :, at : at + n],
        state.take(by_q.reals()),
        state.take(by_k.reals()),
    )

    def merged_codes() -> tuple[Array, int]:
        return datapath.merge(parts, kept, points, rule, mean() if rule == "mean" else None)

    rows = size_of(state, m, integer.rows_of)
    taken = np.count_nonzero(kept, axis=2).astype(np.int64)
    marked = live_sum(state, taken.sum(axis=1))
    if constant and at == 0:
        taken = taken + _constants(state, m, integer.rows_of)
    packed = constant or rule == "neginf"
    merged = by_core(state, taken.sum(axis=1)) if packed else rows * n
    _work_merge(run, rows, n, (marked, sum_cores(state, merged)), DTYPES[source.dtype])
    codes, saturated = run.values.codes(over((m, n), *parts, kept), merged_codes)
    run.saturated(live_copies(state, codes, saturated))
    before = None if at == 0 else state.read(target).taken
    if in_place:
        _merge_columns(state, target, codes, at)
    else:
        put_columns(state, target, codes, sizes.of("s"), at, integer.rows_of)
    if packed:
        target.read().taken = taken if before is None else before + taken
    cycles = run.board.cycles["add"](merged=merged)
    run.core(cycles)


def _constants(state: MachineState, rows: int, rows_of: Extent | None) -> NDArray[np.int64]:
    """One for each of the rows that the live cores really have, (live or 1, rows)."""
    if rows_of is None:
        return np.ones((1, rows), np.int64)
    return (np.arange(rows) < state.take(rows_of)[:, None]).astype(np.int64)


def _expect_integers(tile: Tile, contents: Contents, at: int, *, in_place: bool) -> None:
    """Trap unless a tile holds all integer scores from column `at` on, and no more in place."""
    if contents.merging or in_place:
        merged = contents.filled if contents.merging else 0
        expect_equal(f"first column of {tile.name} that is not merged", merged, at)
    if not contents.merging:
        expect(contents.complete, f"{tile.name} is not complete")


def _merge_columns(state: MachineState, tile: Tile, part: NDArray[np.generic], at: int) -> None:
    """Merged scores take the place of integer ones: columns of a tile that is read and written."""
    before = state.read(tile)
    array = np.array(before.array)
    end = at + part.shape[2]
    array[: state.active if array.shape[0] > 1 else 1, :, at:end] = state.spread(part)
    contents = Contents(array, filled=end, peak=ACC_LIMIT, rows_of=before.rows_of)
    contents.merging = end < array.shape[2]
    contents.taken = before.taken
    state.put(tile, contents)


def _work_merge(run: Execution, rows: Times, n: int, counts: tuple[int, int], size_a: int) -> None:
    """`counts` are kept and merged scores of all cores, counted with the first."""
    kept, merged = counts
    for cores, once, m in by_size(run.state, rows):
        counts_of = {"kept": kept * once, "merged": merged * once, **block_work(run.state)}
        run.work(cores=cores, m=m, n=n, size_a=size_a, **counts_of)


def _points(q: int, k: int, score: int) -> datapath.MergePoints:
    expect(0 <= q <= 40 and 0 <= k <= 40, "point_q and point_k must be 0..40")
    expect(-40 <= score <= 40, "point_s must be -40..40")
    return datapath.MergePoints(q, k, score)


@executes("divide")
def divide(run: Execution, t: int, acc: int, col_reg: int, wide: int, shift: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "i16", "i32"), state.tile(acc)
    contents = accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    length, at = sequence_length(state), state.registers[col_reg]
    sizes = shaped(run, acc=contents)
    m, n = sizes.of("acc")
    expect_equal(f"size of {source.name} on every core", contents.uniform, True)
    if wide:
        expect_columns(state, length, at, n)
    sums = state.take(contents.reals())
    codes, saturated = run.values.codes(
        sums.shape,
        lambda: datapath.requantised(sums / length, shift, target.dtype, owned=True),
    )
    run.saturated(live_copies(state, codes, saturated))
    if wide:
        put_columns(state, target, codes, sizes.of("t"), at)
    else:
        state.put(target, Contents(state.spread(codes)))
    run.work(cores=state.live_count, m=m, n=n, size_t=DTYPES[target.dtype])
    cycles = run.board.cycles["divide"](m=m, n=n)
    run.core(cycles)


@executes("colsum")
def column_sums(run: Execution, t: int, x: int, first: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "acc"), state.tile(x)
    contents = operand(state, source)
    sizes = shaped(run, x=contents)
    k, n = sizes.of("x")
    values = state.take(contents.reals())
    result = run.values.array(
        over(sizes.of("t"), values), lambda: values.sum(axis=1, keepdims=True)
    )
    accumulate(run, target, result, k * NARROW[source.dtype], first, Contents(result))
    expect(state.read(target).peak < WIDE, f"{target.name} may exceed 32 bits")
    size = DTYPES[source.dtype]
    live, b_local = state.live_count, int(source.space == "local")
    run.work(cores=live, once=min(1, live), n=n, k=k, first=first, b_local=b_local, size_b=size)
    cycles = run.board.cycles["colsum"](n=n, k=k)
    run.core(cycles)


@executes("softmax")
def softmax(run: Execution, p: int, s: int, multiplier: int, shift: int, point: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(p), "i16"), state.tile(s)
    expect(source.dtype == "i32", f"{source.name} is {source.dtype}, expected i32")
    contents = state.wide(source)
    expect(contents.complete, f"{source.name} is not complete")
    drop = point + shift - units.EXP_BITS
    expect(-14 <= drop <= 62, "point + shift - 16 must be -14..62")
    sizes = shaped(run, s=contents)
    m, n = sizes.of("p")
    expect(n < 1 << 15, "rows are longer than the unit's 32767")
    rows = size_of(state, m, contents.rows_of)
    taken, longest = rows * n, n
    if contents.taken is not None:
        # Excluded scores have no part: a row streams what is left of it.
        taken = by_core(state, contents.taken.sum(axis=1))
        longest = by_core(state, contents.taken.max(axis=1, initial=0))
    each = sum_cores(state, taken)
    for cores, once, own in by_size(state, rows):
        run.work(cores=cores, m=own, n=n, taken=each * once)
    codes = cast("NDArray[np.int32]", state.take(contents.array))
    scale = units.SoftmaxScale(multiplier, shift)
    result = run.values.array(
        over(sizes.of("p"), codes), lambda: datapath.softmax(codes, point, scale)
    )
    state.put(target, Contents(state.spread(result), rows_of=contents.rows_of))
    cycles = nonempty(run.board.cycles["softmax"](taken=taken, longest=longest), rows)
    run.core(cycles)
