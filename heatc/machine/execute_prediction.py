"""Rules that predict with low-bit codes: the codes, and masks of single scores."""

from __future__ import annotations

import numpy as np

from heatc.isa import units
from heatc.isa.table import DTYPES
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.core_tiles import (
    NARROW,
    accumulate,
    accumulators,
    by_size,
    expect_equal,
    local_tile,
    masked_blocks,
    operand,
    over,
    peak_of,
    shaped,
    size_of,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.mask_tiles import place_rows, write_rows
from heatc.machine.scoreboard import nonempty
from heatc.machine.state import Contents, MachineState, Tile, expect


@executes("peak")
def peak(run: Execution, t: int, x: int, first: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(t), "acc"), state.tile(x)
    contents = operand(state, source)
    sizes = shaped(run, x=contents)
    k, n = sizes.of("x")
    operands = [state.take(contents.reals())]
    if not first:
        operands.append(state.take(peak_of(state, target).reals()))
    result = run.values.array(over(sizes.of("t"), *operands), lambda: datapath.peak(*operands))
    accumulate(run, target, result, NARROW[source.dtype], 1, Contents(result))
    live, size = state.live_count, DTYPES[source.dtype]
    b_local = int(source.space == "local")
    run.work(cores=live, once=min(1, live), n=n, k=k, first=first, b_local=b_local, size_b=size)
    run.core(run.board.cycles["peak"](n=n, k=k))


@executes("low")
def low_bits(run: Execution, t: int, x: int, peak: int, bits: int) -> None:
    state = run.state
    target, source, greatest = (
        local_tile(state.tile(t), "i8", "i4"),
        state.tile(x),
        state.tile(peak),
    )
    expect(2 <= bits <= 8, f"bits {bits} are outside of 2..8")
    expect(bits <= 4 or target.dtype == "i8", f"{target.name} is i4, too narrow for {bits} bits")
    contents, peaks = operand(state, source, clipped="rows"), accumulators(state, greatest)
    sizes = shaped(run, x=contents, peak=peaks)
    m, n = sizes.of("t")
    values, known = state.take(contents.reals()), state.take(peaks.reals())
    codes = run.values.array(
        over((m, n), values, known),
        lambda: datapath.low_codes(values, known, bits, target.dtype),
    )
    state.put(target, Contents(state.spread(codes), rows_of=contents.rows_of))
    rows = size_of(state, m, contents.rows_of)
    sizes = {"size_b": DTYPES[source.dtype], "size_t": DTYPES[target.dtype]}
    b_local = int(source.space == "local")
    for cores, once, own in by_size(state, rows):
        run.work(cores=cores, once=once, m=own, n=n, b_local=b_local, **sizes)
    cycles = nonempty(run.board.cycles["low"](m=rows, n=n), rows)
    run.core(cycles)


def _single(state: MachineState, tile: Tile, dtype: str) -> Contents:
    """Complete rows of single scores or probabilities."""
    expect_equal("size of a block", state.block, (1, 1))
    local_tile(tile, dtype)
    contents = state.wide(tile)
    expect(contents.complete, f"{tile.name} is not complete")
    return contents


@executes("filter")
def mean_filter(
    run: Execution, m: int, s: int, among: int, row_reg: int, rho: float, has_among: int
) -> None:
    state, row = run.state, run.state.registers[row_reg]
    target, source = local_tile(state.tile(m), "i8"), state.tile(s)
    scores = _single(state, source, "i32")
    expect(-1.0 < rho < 1.0, f"rho {rho} is outside of (-1, 1)")
    expect(bool(has_among) or scores.taken is None, f"{source.name} has excluded scores")
    first = place_rows(run, row, s=scores)
    seen: Mask | None = None
    if has_among:
        size = (scores.rows, scores.columns)
        _, seen = masked_blocks(state, state.tile(among), row, 0, *size, scores.rows_of)
    codes = state.take(scores.array)

    def decide() -> Mask:
        if seen is not None:
            expect(not (seen & (codes == units.EXCLUDED)).any(), "among keeps an excluded score")
        return units.block_mask(codes.astype(np.int64), rho, seen)

    kept = run.values.decided(run.pc, state, first, codes.shape[1:], decide)
    ranks = write_rows(run, target, kept, row, scores.rows_of, {"sparse": has_among})
    cycles = run.board.cycles["filter"](blocks=ranks)
    run.core(cycles)


@executes("likely")
def likely(run: Execution, m: int, p: int, row_reg: int, code: int) -> None:
    state, row = run.state, run.state.registers[row_reg]
    target, source = local_tile(state.tile(m), "i8"), state.tile(p)
    probabilities = _single(state, source, "i16")
    first = place_rows(run, row, p=probabilities)
    codes = state.take(probabilities.array)

    def decide() -> Mask:
        return units.probability_mask(codes.astype(np.int64), code)

    kept = run.values.decided(run.pc, state, first, codes.shape[1:], decide)
    ranks = write_rows(run, target, kept, row, probabilities.rows_of)
    cycles = run.board.cycles["likely"](blocks=ranks)
    run.core(cycles)
