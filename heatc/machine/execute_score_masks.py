"""The model's own masks: parts of them, hidden scores, biases, and importance of what is visible."""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.isa import units
from heatc.isa.table import DTYPES, KEYLESS_ROWS
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.clocks import up
from heatc.machine.core_tiles import (
    block_work,
    by_size,
    live_copies,
    local_tile,
    over,
    real_rows,
    shaped,
    size_of,
)
from heatc.machine.execution import Execution, executes
from heatc.machine.memory import Array
from heatc.machine.scoreboard import Rows, nonempty
from heatc.machine.state import Contents, Extent, MachineState, Tensor, Tile, Times, Trap, expect

SINGLE = (1, 1)
"""The block of a mask of visible scores."""


class Spread(NamedTuple):
    """Along which axes a mask in padded coordinates changes; `heads` are those that it has."""

    heads: int
    by_batch: int
    by_head: int
    by_row: int

    def rows(self, batch: int, length: int) -> int:
        """Rows of a tensor for so many sequences."""
        number = batch if self.by_batch else 1
        number *= self.heads if self.by_head else 1
        return number * (length if self.by_row else 1)

    def row(self, positions: NDArray[np.int64], length: int, head: int) -> NDArray[np.int64]:
        """The rows of the tensor that flat query positions have, of a head."""
        batch, at = positions // length, positions % length
        found = batch * self.by_batch
        if self.by_head:
            found = found * self.heads + head
        return found * length + at if self.by_row else found


class Gathered(NamedTuple):
    """A part of a mask for each core, (P, rows, keys), their true rows, and the bytes that come."""

    array: Array
    rows_of: Extent | None
    nbytes: int


def _positions(run: Execution, index: int) -> NDArray[np.int64]:
    tensor = run.state.tensor(index)
    expect(tensor.dtype == "i64", f"d{index} is {tensor.dtype}, expected i64")
    expect(tensor.columns == 1, f"d{index} is no column of positions")
    positions = tensor.data.reshape(-1).astype(np.int64)
    expect(bool((positions >= 0).all()), f"d{index} holds a position below 0")
    return positions


def _gather(
    run: Execution, tensor: Tensor, at: tuple[int, int, int, int], spread: Spread
) -> Gathered:
    """`at`: descriptors of query and key positions, first row, rows between cores."""
    state, (dq, dk, row, core_rows) = run.state, at
    run.values.expect_known(tensor)
    queries, keys = _positions(run, dq), _positions(run, dk)
    expect(row >= 0, f"row {row} is negative")
    sizes = run.sizes({"dq": (len(queries), 1), "dk": (len(keys), 1)})
    count, length = sizes.of("t")[0], tensor.columns
    if count <= 0:
        raise Trap(f"no query stands from row {row} on, d{dq} has {len(queries)}")
    most = int(max(queries.max(), keys.max())) // length + 1
    expect(tensor.rows >= spread.rows(most, length), "the mask has fewer rows than its axes say")
    heads = _heads(state, spread)
    cores = 1 if not core_rows and not spread.by_head else state.active
    parts = state.core_parts[:cores] if state.parts > 1 else np.arange(cores)
    starts = row + core_rows * parts
    rows_of = np.clip(len(queries) - starts, 0, count)
    array = np.zeros((cores, count, len(keys)), tensor.data.dtype)
    for core in range(cores):
        own = queries[starts[core] : starts[core] + rows_of[core]]
        where = spread.row(own, length, int(heads[core]))
        array[core, : len(own)] = tensor.data[where[:, None], (keys % length)[None]]
    moved = _moved(run, starts, rows_of, heads, spread)
    elements = moved * len(keys)
    nbytes = elements * DTYPES[tensor.dtype] + 8 * (len(keys) + count)
    uniform = bool((rows_of == count).all())
    return Gathered(array, None if uniform else rows_of, nbytes)


def _heads(state: MachineState, spread: Spread) -> NDArray[np.int64]:
    """The head of each active core."""
    if not spread.by_head:
        return np.zeros(max(1, state.active), np.int64)
    if state.round is None:
        raise Trap("no round of heads has begun, whose mask is it?")
    head, stride = state.round
    heads = state.heads_at(head + stride * state.core_items)
    expect(not heads.size or int(heads.max()) < spread.heads, "the mask has fewer heads")
    return heads


def _moved(
    run: Execution, starts: Extent, rows_of: Extent, heads: NDArray[np.int64], spread: Spread
) -> int:
    """Rows of the mask that are fetched: those of several cores once."""
    state = run.state
    live = range(state.active) if state.kept is None else np.flatnonzero(state.kept)
    found: dict[tuple[int, int], int] = {}
    for core in live:
        one = min(int(core), len(starts) - 1)
        part = int(starts[one]) if spread.by_row else 0
        rows = int(rows_of[one])
        found[part, int(heads[core])] = rows if spread.by_row else min(rows, 1)
    return sum(found.values())


def _charge(run: Execution, tile: Tile, tensor: Tensor, part: Gathered, **variables: int) -> None:
    state, name = run.state, run.program[run.pc].mnemonic
    if not state.live_count:
        return
    m, n = size_of(state, part.array.shape[1], part.rows_of), part.array.shape[2]
    if part.array.shape[0] == 1:
        m = part.array.shape[1]
    for cores, once, rows in by_size(state, m):
        run.work(
            cores=cores,
            m=rows,
            n=n,
            nbytes=part.nbytes * once,
            from_dram=int(tensor.space == "dram"),
            **variables,
        )
    run.board.transfer(run.pc, name, part.nbytes, Rows(tensor), tile)


@executes("ldv")
def load_visible(
    run: Execution,
    t: int,
    d: int,
    dq: int,
    dk: int,
    row_reg: int,
    rows: int,
    core_rows: int,
    heads: int,
    by_batch: int,
    by_head: int,
    by_row: int,
    also: int,
) -> None:
    state = run.state
    tile, tensor = local_tile(state.tile(t), "i8"), state.tensor(d)
    expect(tensor.dtype == "i8", f"d{d} is {tensor.dtype}, expected i8")
    at = (dq, dk, state.registers[row_reg], core_rows)
    part = _gather(run, tensor, at, Spread(heads, by_batch, by_head, by_row))
    kept: Mask = part.array != 0
    if part.rows_of is not None:
        kept = kept & real_rows(part.rows_of, kept.shape[1])
    if also:
        before = visible_of(state, tile).array
        expect(before.shape[1:] == kept.shape[1:], f"{tile.name} is what other rows see")
        kept = kept & cast(Mask, before)
    contents = Contents(
        kept, filled=kept.shape[1], is_mask=True, block=SINGLE, rows_of=part.rows_of
    )
    state.put(tile, contents)
    _charge(run, tile, tensor, part, first=1 - also)


@executes("ldb")
def load_bias(
    run: Execution,
    t: int,
    d: int,
    dq: int,
    dk: int,
    row_reg: int,
    rows: int,
    core_rows: int,
    heads: int,
    by_batch: int,
    by_head: int,
    by_row: int,
) -> None:
    state = run.state
    tile, tensor = local_tile(state.tile(t), "i16", "i32"), state.tensor(d)
    expect(tile.dtype == tensor.dtype, f"{tile.name} is {tile.dtype}, d{d} is {tensor.dtype}")
    at = (dq, dk, state.registers[row_reg], core_rows)
    part = _gather(run, tensor, at, Spread(heads, by_batch, by_head, by_row))
    state.put(tile, Contents(part.array, rows_of=part.rows_of))
    _charge(run, tile, tensor, part, size_t=DTYPES[tile.dtype])


def visible_of(state: MachineState, tile: Tile) -> Contents:
    """What rows see, as `ldv` wrote it."""
    contents = state.read(tile)
    expect(
        contents.is_mask and contents.block == SINGLE and contents.complete,
        f"{tile.name} is not what rows see",
    )
    return contents


@executes("weigh")
def weigh(run: Execution, theta: int, a: int, v: int, positive: int) -> None:
    state = run.state
    target, source = local_tile(state.tile(theta), "acc"), local_tile(state.tile(a), "i32")
    integer = state.wide(source)
    expect(integer.complete and not integer.merging, f"{source.name} is not complete")
    visible = visible_of(state, state.tile(v))
    sizes = shaped(run, a=integer, v=visible)
    m, n = sizes.of("a")
    values, kept = state.take(integer.reals()), cast(Mask, state.take(visible.array))
    if integer.rows_of is not None:
        kept = kept & state.take(real_rows(integer.rows_of, m))
    name = "positive" if positive else "abs"
    block, shape = state.block, sizes.of("theta")
    sums = run.values.array(
        over(shape, values, kept),
        lambda: units.block_importance(values.astype(np.int64), block, name, kept).astype(
            np.float64
        ),
    )
    run.values.bounded(sums, _most(values, block, n if positive else 0))
    counted = units.block_sums(kept.astype(np.int64), block) > 0
    contents = Contents(state.spread(sums), block=block, rows_of=_block_rows(integer, block[0]))
    contents.counted = cast(Mask, state.spread(counted))
    state.put(target, contents)
    if not state.extra:
        seen = kept.sum(axis=2)
        number = (seen * seen if positive else seen).sum(axis=1)
        state.seen_head[state.select] += number
    rows = size_of(state, m, integer.rows_of)
    for cores, _, own in by_size(state, rows):
        run.work(
            cores=cores, m=own, n=n, positive=positive, bits_a=16, bits_b=16, **block_work(state)
        )
    run.core(nonempty(run.board.cycles["weigh"](elements=rows * n * (1 + positive)), rows))


def _block_rows(contents: Contents, high: int) -> Extent | None:
    return None if contents.rows_of is None else cast(Extent, up(contents.rows_of, high))


def _most(values: Reals, block: tuple[int, int], length: int) -> float:
    """A bound of the importance of a block."""
    most = float(np.abs(values).max(initial=0.0)) * block[0] * block[1]
    return most * 2 * length if length else most


@executes("offset")
def offset(
    run: Execution,
    s: int,
    b: int,
    v: int,
    has_bias: int,
    has_visible: int,
    shift: int,
    keyless: int,
) -> None:
    state = run.state
    target = local_tile(state.tile(s), "i32")
    expect(bool(has_bias or has_visible), "there is neither a bias nor a mask")
    expect(-40 <= shift <= 40, "shift must be -40..40")
    scores = state.wide(target)
    expect(scores.complete and not scores.merging, f"{target.name} is not complete")
    operands = {"s": scores}
    bias = visible = None
    size_b = 0
    if has_bias:
        source = state.tile(b)
        expect(source.dtype in ("i16", "i32"), f"{source.name} is {source.dtype}")
        bias, size_b = state.wide(source), DTYPES[source.dtype]
        expect(bias.complete, f"{source.name} is not complete")
        operands["b"] = bias
    if has_visible:
        visible = visible_of(state, state.tile(v))
        operands["v"] = visible
    sizes = shaped(run, **operands)
    m, n = sizes.of("s")
    codes = cast("NDArray[np.int32]", state.take(scores.array))
    added = None if bias is None else state.take(bias.reals())
    seen = None if visible is None else cast(Mask, state.take(visible.array))
    others = [x for x in (added, seen) if x is not None]
    real = None if scores.rows_of is None else state.take(real_rows(scores.rows_of, m))
    result, saturated = run.values.codes(
        over((m, n), codes, *others),
        lambda: datapath.masked_scores(codes, (added, shift), seen, KEYLESS_ROWS[keyless], real),
    )
    run.saturated(live_copies(state, result, saturated))
    contents = Contents(state.spread(result), rows_of=scores.rows_of)
    contents.taken = scores.taken
    state.put(target, contents)
    rows: Times = size_of(state, m, scores.rows_of)
    for cores, _, own in by_size(state, rows):
        run.work(cores=cores, m=own, n=n, bias_rows=has_bias, size_b=size_b, sparse=has_visible)
    run.core(nonempty(run.board.cycles["offset"](m=rows, n=n), rows))
