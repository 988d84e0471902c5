"""PE array, sparsity engine, adder and softmax unit: instructions on tiles of the live cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from heatc.backends.hdp import datapath
from heatc.backends.hdp.execution import Execution, executes
from heatc.backends.hdp.state import (
    ACC_LIMIT,
    Contents,
    Extent,
    MachineState,
    Tile,
    Times,
    Trap,
    expect,
)
from heatc.backends.hdp.timing import latest, nonempty
from heatc.errors import InfeasibleError
from heatc.fixed_point import Reals
from heatc.hardware.costs import macs_per_pe
from heatc.isa import units
from heatc.isa.table import BLOCK, DTYPES, PRUNED_SCORES, R_LENGTH, Engine, split_dtypes
from heatc.isa.units import Mask

_NARROW = {"i8": 128.0, "i16": 32768.0}
"""Greatest magnitudes of the PE array's operands."""


# --- Preconditions ----------------------------------------------------------------------------


def _operand(state: MachineState, tile: Tile, *, clipped: str = "") -> Contents:
    """A written operand of the PE array; some cores may have fewer "rows", or "any" less."""
    expect(tile.dtype in _NARROW, f"{tile.name} is {tile.dtype}, expected i8 or i16")
    read = {"": state.whole, "rows": state.wide, "any": state.read}[clipped]
    contents = read(tile)
    expect(not contents.is_mask, f"{tile.name} is a mask")
    return contents


def _local(tile: Tile, *dtypes: str) -> Tile:
    expect(tile.space == "local", f"{tile.name} is not a local tile")
    expect(tile.dtype in dtypes, f"{tile.name} is {tile.dtype}, expected {' or '.join(dtypes)}")
    return tile


def _distinct(*tiles: Tile) -> None:
    expect(len({id(tile) for tile in tiles}) == len(tiles), "the tiles must be different")


def _accumulators(state: MachineState, tile: Tile) -> Contents:
    expect(tile.dtype == "acc", f"{tile.name} is {tile.dtype}, expected acc")
    return state.read(tile)


def _agree(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Trap(f"{what} is {got}, expected {expected}")


def _length(state: MachineState) -> int:
    length = state.registers[R_LENGTH]
    expect(length >= 1, "r60, the sequence length, is not positive")
    return length


def _room(tile: Tile, rows: int, columns: int, *, is_mask: bool = False) -> None:
    """Trap before anything is allocated if contents of this size do not fit."""
    bits = -(-columns // 8) if is_mask else columns * DTYPES[tile.dtype]
    if rows * bits > tile.capacity:
        raise Trap(
            f"{rows}x{columns} {'blocks' if is_mask else tile.dtype} need {rows * bits} bytes, "
            f"{tile.name} has {tile.capacity}",
            "give the tile more bytes, or tile the operation smaller",
            error=InfeasibleError,
        )


def _even(name: str, value: int) -> int:
    if value < 0 or value % BLOCK[0]:
        raise Trap(f"{name} {value} does not begin a block")
    return value


# --- Accumulators -----------------------------------------------------------------------------


def _accumulate(
    run: Execution, tile: Tile, result: Reals, bound: float, first: int, extents: Contents
) -> None:
    """acc := (first ? 0 : acc) + result, with the true sizes of `extents`."""
    state = run.state
    if not first:
        before = _accumulators(state, tile)
        _agree(f"shape of {tile.name}", before.array.shape[1:], result.shape[1:])
        bound += before.peak
        result = run.values.plus(result, state.take(before.reals()))
    bound = run.values.bounded(result, bound)
    state.put(
        tile,
        Contents(
            state.spread(result),
            peak=bound,
            rows_of=extents.rows_of,
            columns_of=extents.columns_of,
        ),
    )


def _by_core(state: MachineState, values: NDArray[np.int64]) -> Times:
    """(live,) or (1,) numbers as a number, or as a (cores,) vector that is 0 elsewhere."""
    if values.shape[0] == 1 and state.cores > 1:
        return int(values[0])
    full = np.zeros(state.cores, np.int64)
    full[state.select] = values
    return full


def _wide(state: MachineState, values: Extent) -> Extent:
    """(P,) numbers as (cores,)."""
    full = np.zeros(state.cores, np.int64)
    full[: values.shape[0]] = values
    return full


@executes("mm")
def matmul(run: Execution, acc: int, a: int, b: int, first: int, b_transposed: int) -> None:
    state = run.state
    target, left, right = _local(state.tile(acc), "acc"), state.tile(a), state.tile(b)
    x, y = _operand(state, left, clipped="any"), _operand(state, right, clipped="any")
    depth = y.columns if b_transposed else y.rows
    _agree(f"depth of {right.name}", depth, x.columns)
    rows_of = x.rows_of
    columns_of, depth_of = (y.rows_of, y.columns_of) if b_transposed else (y.columns_of, y.rows_of)
    m, n = x.rows, y.rows if b_transposed else y.columns
    _room(target, m, n)
    result = run.values.product(state.take(x.reals()), state.take(y.reals()), bool(b_transposed))
    bound = x.columns * _NARROW[left.dtype] * _NARROW[right.dtype]
    extents = Contents(result, rows_of=rows_of, columns_of=columns_of)
    _accumulate(run, target, result, bound, first, extents)
    sizes = (_size(state, m, rows_of), _size(state, n, columns_of))
    k = _size(state, x.columns, x.columns_of if depth_of is None else depth_of)
    macs = _macs(run, left, right)
    cycles = run.board.cycles["mm"](m=sizes[0], n=sizes[1], k=k, macs=macs)
    cycles = nonempty(cycles, *sizes, k)
    _work_product(run, (left, right), first, (*sizes, k))
    run.pc_macs[run.pc] += _sum_cores(state, sizes[0] * sizes[1] * k)
    reads = (left, right) if first else (left, right, target)
    after = 0
    if left.space == "local":
        after = _refetched(run, (left,), n, _sum_cores(state, sizes[0]) * x.columns)
    run.board.core(run.pc, Engine.PE, cycles, reads, (target,), after)


def _macs(run: Execution, left: Tile, right: Tile) -> int:
    """Multiply-accumulates a PE and cycle at the widths of two operands."""
    a, b = 8 * DTYPES[left.dtype], 8 * DTYPES[right.dtype]
    return macs_per_pe(a, b, run.hardware.split_bits)


def _work_product(run: Execution, tiles: tuple[Tile, Tile], first: int, sizes: Sequence[Times]):
    left, right = tiles
    a, b = DTYPES[left.dtype], DTYPES[right.dtype]
    locals_ = (int(left.space == "local"), int(right.space == "local"))
    for cores, once, m, n, k in _by_size(run.state, *sizes):
        run.work(
            cores=cores,
            once=once,
            m=m,
            n=n,
            k=k,
            first=first,
            bits_a=8 * a,
            bits_b=8 * b,
            size_a=a,
            size_b=b,
            a_local=locals_[0],
            b_local=locals_[1],
        )


def _by_size(state: MachineState, *sizes: Times) -> Iterator[tuple[int, ...]]:
    """The live cores by the sizes of their parts: how many, 1 for the first of them, the sizes."""
    if all(isinstance(size, int) for size in sizes):
        yield (state.live_count, min(1, state.live_count), *cast("tuple[int, ...]", sizes))
        return
    columns = [np.broadcast_to(size, state.cores)[state.select].tolist() for size in sizes]
    for i, part in enumerate(zip(*columns)):
        yield (1, int(i == 0), *part)


def _size(state: MachineState, size: int, extent: Extent | None) -> Times:
    return size if extent is None else _wide(state, extent)


def _sum_cores(state: MachineState, values: Times) -> int:
    """Sum over the live cores of a number or of (cores,) numbers."""
    if isinstance(values, int):
        return values * state.live_count
    return int(values[state.select].sum())


# --- Drain ------------------------------------------------------------------------------------


def _biased(
    run: Execution, tile: Tile, bias: int, has_bias: int, bias_shift: int
) -> tuple[Reals, Contents, tuple[Tile, ...]]:
    """Accumulators plus bias of the live cores, and the tiles that were read."""
    state = run.state
    contents = _accumulators(state, tile)
    expect(contents.complete, f"{tile.name} is not complete")
    values = state.take(contents.reals())
    if not has_bias:
        return values, contents, (tile,)
    other = state.tile(bias)
    expect(other.dtype == "i32", f"{other.name} is {other.dtype}, expected i32")
    row = state.read(other)
    _agree(f"shape of {other.name}", row.array.shape[1:], (1, contents.columns))
    values = run.values.biased(values, state.take(row.reals()), bias_shift)
    run.values.bounded(values, contents.peak + 2.0 ** (31 + bias_shift))
    return values, contents, (tile, other)


def _charge_drain(run: Execution, contents: Contents, reads: tuple[Tile, ...], *writes: Tile):
    m = _size(run.state, contents.rows, contents.rows_of)
    n = _size(run.state, contents.columns, contents.columns_of)
    size = sum(DTYPES[tile.dtype] for tile in writes)
    for cores, _, rows, columns in _by_size(run.state, m, n):
        run.work(cores=cores, m=rows, n=columns, has_bias=len(reads) - 1, size_t=size)
    cycles = nonempty(run.board.cycles["drain"](m=m, n=n), m, n)
    run.board.core(run.pc, Engine.PE, cycles, reads, writes)


def _like(state: MachineState, array: NDArray[np.generic], contents: Contents) -> Contents:
    """Contents for the results of the live cores, with the true sizes of `contents`."""
    return Contents(state.spread(array), rows_of=contents.rows_of, columns_of=contents.columns_of)


@executes("drain")
def drain(
    run: Execution, t: int, acc: int, bias: int, has_bias: int, bias_shift: int, shift: int
) -> None:
    state = run.state
    target, source = _local(state.tile(t), "i8", "i16", "i32"), state.tile(acc)
    values, contents, reads = _biased(run, source, bias, has_bias, bias_shift)
    _room(target, contents.rows, contents.columns)
    codes, saturated = run.values.requantise(values, shift, target.dtype, owned=bool(has_bias))
    run.saturated(_live_copies(state, codes, saturated))
    state.put(target, _like(state, codes, contents))
    _charge_drain(run, contents, reads, target)


@executes("drainc")
def drain_columns(run: Execution, t: int, acc: int, col_reg: int, shift: int) -> None:
    state = run.state
    target, source = _local(state.tile(t), "i32"), state.tile(acc)
    contents = _accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    length, at = _length(state), state.registers[col_reg]
    _expect_columns(length, at, contents.columns)
    _room(target, contents.rows, length)
    values = state.take(contents.reals())
    codes, saturated = run.values.requantise(values, shift, target.dtype)
    run.saturated(_live_copies(state, codes, saturated))
    _put_columns(state, target, codes, length, at, contents.rows_of)
    _charge_drain(run, contents, (source,), target)


def _live_copies(state: MachineState, array: NDArray[np.generic], count: int) -> int:
    """A count in an array that all cores share is a count on every live core."""
    if array.shape[0] == 1 and state.cores > 1:
        return count * state.live_count
    return count


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
    whole, rest = (_local(state.tile(index), "i8", "i16") for index in (ti, tf))
    _distinct(whole, rest)
    expect(point >= 0, "point is negative")
    for tile, narrowest in zip((whole, rest), split_dtypes(point)):
        if DTYPES[tile.dtype] < DTYPES[narrowest]:
            raise Trap(f"{tile.name} is {tile.dtype}, at point {point} a part needs {narrowest}")
    values, contents, reads = _biased(run, state.tile(acc), bias, has_bias, bias_shift)
    for tile in (whole, rest):
        _room(tile, contents.rows, contents.columns)
    codes, saturated = run.values.requantise(values, shift, "i16", owned=bool(has_bias))
    run.saturated(_live_copies(state, codes, saturated))
    integer, fraction = run.values.split(codes, point, (whole.dtype, rest.dtype))
    state.put(whole, _like(state, integer, contents))
    state.put(rest, _like(state, fraction, contents))
    _charge_drain(run, contents, reads, whole, rest)


# --- Scores -----------------------------------------------------------------------------------


def _columns(
    state: MachineState, tile: Tile, shape: tuple[int, int], at: int, count: int
) -> NDArray[np.generic] | None:
    """
    The array into which columns [at, at + count) of (rows, width) contents are written.

    None stands for new contents (at = 0); columns come in ascending order without a gap.
    """
    if at == 0:
        return None
    contents = state.read(tile)
    _agree(f"shape of {tile.name}", (contents.rows, contents.columns), shape)
    _agree(f"first unwritten column of {tile.name}", contents.filled, at)
    expect(at + count <= shape[1], f"columns {at}..{at + count} are outside of {tile.name}")
    return contents.array


def _put_columns(
    state: MachineState,
    tile: Tile,
    part: NDArray[np.generic],
    width: int,
    at: int,
    rows_of: Extent | None = None,
) -> None:
    """Write columns of a tile that is `width` wide on the live cores, see `_columns`."""
    rows, count = part.shape[1:]
    before = _columns(state, tile, (rows, width), at, count)
    if before is None and count == width:
        state.put(tile, Contents(state.spread(part), peak=ACC_LIMIT, rows_of=rows_of))
        return
    part = state.spread(part)
    if before is None or before.shape[0] < part.shape[0]:
        full = np.zeros((part.shape[0], rows, width), part.dtype)
        if before is not None:
            full[:, :, :at] = before[:, :, :at]
    else:
        full = before
    cores = part.shape[0] if part.shape[0] > 1 else full.shape[0]
    full[:cores, :, at : at + count] = part
    state.put(tile, Contents(full, filled=at + count, peak=ACC_LIMIT, rows_of=rows_of))


def _expect_columns(length: int, at: int, count: int) -> None:
    _even("column", at)
    if at + count > length:
        raise Trap(f"columns {at}..{at + count} are outside of a sequence of {length}")
    if count % BLOCK[1] and at + count != length:
        raise Trap(f"{count} columns at {at} end inside a block")


@executes("scores")
def scores(
    run: Execution, a: int, q: int, k: int, theta: int, col_reg: int, r: int, positive: int
) -> None:
    state = run.state
    target, sums = _local(state.tile(a), "i32", "acc"), _local(state.tile(theta), "acc")
    left, right = _local(state.tile(q), *_NARROW), state.tile(k)
    _distinct(target, sums)
    x, y = _operand(state, left, clipped="rows"), _operand(state, right)
    _agree(f"depth of {right.name}", y.columns, x.columns)
    length, at = _length(state), state.registers[col_reg]
    _expect_columns(length, at, y.rows)
    blocks = units.block_count(length, BLOCK[1])
    _room(target, x.rows, length)
    _room(sums, units.block_count(x.rows, BLOCK[0]), blocks)
    result = run.values.product(state.take(x.reals()), state.take(y.reals()), True)
    largest = 4.0 * x.columns * _NARROW[left.dtype] * _NARROW[right.dtype]
    row_sums: tuple[Tile, ...] = ()
    if positive:
        row_sums = (_local(state.tile(r), "acc"),)
        sums_of_rows = _accumulators(state, row_sums[0])
        _agree(f"shape of {row_sums[0].name}", sums_of_rows.array.shape[1:], (x.rows, 1))
        above = (state.take(sums_of_rows.reals()), length)
        importance = run.values.block_sums(result, above)
        largest *= 2 * length
    else:
        importance = run.values.block_sums(result, None)
    run.values.bounded(importance, largest)
    if target.dtype == "i32":
        codes, saturated = run.values.integer_scores(result)
        run.saturated(_live_copies(state, codes, saturated))
        _put_columns(state, target, codes, length, at, x.rows_of)
    else:
        _put_columns(state, target, result, length, at, x.rows_of)
    m = _size(state, x.rows, x.rows_of)
    _work_scores(run, (left, right, target), m, (y.rows, x.columns), positive)
    ranked = None if x.rows_of is None else -(-x.rows_of // BLOCK[0])
    _put_columns(state, sums, importance, blocks, at // BLOCK[1], ranked)
    run.pc_macs[run.pc] += _sum_cores(state, m) * y.rows * x.columns
    operands = (left, right, *row_sums)
    _charge_scores(run, operands, (target, sums), m, (y.rows, x.columns))


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
    rows = _sum_cores(run.state, m)
    after = _refetched(run, operands[:1], n, rows * k)
    board.core(run.pc, Engine.PE, cycles, operands, results, after)
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
    for cores, once, rows in _by_size(run.state, m):
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
        )


_WIDE = float(1 << 31)
"""Sums that a wide product takes are below this."""
_HALVES = 2
"""Products of 16 bits that a factor of 32 bits takes."""


@executes("wide")
def wide_product(run: Execution, r: int, x: int, t: int, as_row: int) -> None:
    state = run.state
    target, left = _local(state.tile(r), "acc"), _local(state.tile(x), *_NARROW)
    right = _local(state.tile(t), "acc")
    _distinct(target, right)
    contents, sums = _operand(state, left, clipped="rows"), _accumulators(state, right)
    m, k = contents.rows, contents.columns
    _agree(f"shape of {right.name}", sums.array.shape[1:], (1, k))
    expect(sums.peak < _WIDE, f"{right.name} may exceed 32 bits")
    _room(target, m, 1)
    x_of, t_of = state.take(contents.reals()), state.take(sums.reals())
    left_of, right_of = (t_of, x_of) if as_row else (x_of, t_of)
    result = run.values.product(left_of, right_of, True)
    bound = k * _NARROW[left.dtype] * sums.peak
    extents = Contents(
        result,
        rows_of=None if as_row else contents.rows_of,
        columns_of=contents.rows_of if as_row else None,
    )
    _accumulate(run, target, result, bound, 1, extents)
    size, rows = DTYPES[left.dtype], _size(state, m, contents.rows_of)
    for cores, _, own in _by_size(state, rows):
        run.work(cores=cores, m=own, k=k, bits_a=8 * size, bits_b=16, size_a=size)
    run.pc_macs[run.pc] += 2 * _sum_cores(state, rows) * k
    steps = macs_per_pe(8 * size, 16, run.hardware.split_bits)
    cycles = nonempty(run.board.cycles["wide"](m=rows, k=k, macs=steps), rows)
    run.board.core(run.pc, Engine.PE, cycles, (left, right), (target,))


def _blocks(
    state: MachineState,
    tile: Tile,
    row: int,
    column: int,
    rows: int,
    columns: int,
    rows_of: Extent | None = None,
) -> tuple[Mask, Mask]:
    """
    The live cores' mask of the scores [row, row + rows) x [column, column + columns).

    Returns the blocks (P, rows / 2, columns / 2) and the scores (P, rows, columns), none beyond the
    rows that a core really has.
    """
    contents = state.read(tile)
    expect(contents.is_mask, f"{tile.name} is not a mask")
    row = _row_of_part(state, row)
    top, left = _even("row", row) // BLOCK[0], _even("column", column) // BLOCK[1]
    bottom, right = -(-(row + rows) // BLOCK[0]), -(-(column + columns) // BLOCK[1])
    if bottom > contents.filled or right > contents.columns:
        raise Trap(
            f"{tile.name} has {contents.filled}x{contents.columns} blocks, "
            f"expected {bottom}x{right}"
        )
    if contents.expanded is None:
        kept = np.repeat(np.repeat(cast(Mask, contents.array), BLOCK[0], 1), BLOCK[1], 2)
        contents.expanded = kept
    blocks = cast(Mask, contents.array)[:, top:bottom, left:right]
    kept = contents.expanded[:, row : row + rows, column : column + columns]
    if rows_of is not None:
        kept = kept & _real_rows(rows_of, rows)
    return state.take(blocks), state.take(kept)


def _row_of_part(state: MachineState, row: int) -> int:
    """Where a row of core 0 lies among the rows that a core of a group has."""
    expect(row % state.parts == 0, f"row {row} is none that {state.parts} parts begin with")
    return row // state.parts


def _real_rows(rows_of: Extent, rows: int) -> Mask:
    """(P, rows, 1): which rows a core really has."""
    return (np.arange(rows) < rows_of[:, None])[:, :, None]


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
    by_q, by_k = _local(state.tile(f1), "acc"), _local(state.tile(f2), "acc")
    _distinct(by_q, by_k)
    tiles = tuple(state.tile(index) for index in (qi, qf, ki, kf))
    q_int, q_frac = (_operand(state, tile, clipped="rows") for tile in tiles[:2])
    k_int, k_frac = (_operand(state, _local(tile, *_NARROW)) for tile in tiles[2:])
    _agree(f"shape of {tiles[1].name}", q_frac.array.shape[1:], q_int.array.shape[1:])
    _agree(f"shape of {tiles[3].name}", k_frac.array.shape[1:], k_int.array.shape[1:])
    _agree(f"depth of {tiles[2].name}", k_int.columns, q_int.columns)
    m, n, k = q_int.rows, k_int.rows, q_int.columns
    for tile in (by_q, by_k):
        _room(tile, m, n)
    selected = state.tile(mask)
    place = (state.registers[row_reg], state.registers[col_reg])
    blocks, kept = _blocks(state, selected, *place, m, n, q_int.rows_of)
    take = state.take
    pairs = ((by_q, q_frac, k_int, 1, 2), (by_k, q_int, k_frac, 0, 3))
    for target, x, y, i, j in pairs:
        result = run.values.product(take(x.reals()), take(y.reals()), True)
        result = run.values.masked(result, kept)
        peak = run.values.bounded(result, k * _NARROW[tiles[i].dtype] * _NARROW[tiles[j].dtype])
        state.put(target, Contents(state.spread(result), peak=peak, rows_of=q_int.rows_of))
    folds = _folds(run, blocks)
    macs = {f"macs_f{i + 1}": _macs(run, tiles[p[3]], tiles[p[4]]) for i, p in enumerate(pairs)}
    cycles = nonempty(run.board.cycles["frac"](folds=folds, k=k, **macs), folds)
    scores_kept = np.count_nonzero(kept, axis=(1, 2)).astype(np.int64)
    for _, _, _, i, j in pairs:
        _work_masked(run, (tiles[i], tiles[j]), (m, n, k), _live_sum(state, scores_kept), folds)
    run.pc_macs[run.pc] += 2 * k * _live_sum(state, scores_kept)
    after = _refetched_folds(run, tiles[:2], folds, m, k)
    run.board.core(run.pc, Engine.PE, cycles, (*tiles, selected), (by_q, by_k), after)


def _refetched_folds(
    run: Execution, tiles: tuple[Tile, ...], folds: Times, rows: int, depth: int
) -> int:
    """As `_refetched`, for masked products: a fold takes the rows of one group of queries."""
    if run.hardware.local_a_stationary:
        return 0
    high = run.hardware.pe_rows
    groups = -(-rows // high)
    beyond = max(folds - groups, 0) if isinstance(folds, int) else np.maximum(folds - groups, 0)
    again = _sum_cores(run.state, beyond)
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
        folds=_sum_cores(run.state, folds),
        bits_a=8 * a,
        bits_b=8 * b,
        size_a=a,
        size_b=b,
    )


def _live_sum(state: MachineState, values: NDArray[np.int64]) -> int:
    """Sum over the live cores of (live,) or (1,) numbers."""
    if values.shape[0] == 1 and state.cores > 1:
        return int(values[0]) * state.live_count
    return int(values.sum())


def _folds(run: Execution, blocks: Mask) -> Times:
    """Folds of masked products: kept blocks, packed row by row."""
    hardware = run.hardware
    wide = max(1, hardware.pe_columns // BLOCK[1])
    folds = -(-blocks.sum(axis=2, dtype=np.int64) // wide)
    return _by_core(run.state, datapath.group_peaks(folds, hardware.pe_rows))


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
    target, left, right = _local(state.tile(acc), "acc"), state.tile(p), state.tile(v)
    x, y = _operand(state, left, clipped="rows"), _operand(state, right)
    expect(x.complete, f"{left.name} is not complete")
    expect(
        bool(sparse) or not constant, "constant stands for pruned blocks, none are with sparse 0"
    )
    row, at, m, n, e = state.registers[row_reg], state.registers[col_reg], x.rows, y.rows, y.columns
    if at < 0 or at + n > x.columns:
        raise Trap(f"columns {at}..{at + n} are outside of {left.name} with {x.columns}")
    _room(target, m, e)
    part = state.take(x.reals())[:, :, at : at + n]
    reads: tuple[Tile, ...] = (left, right) if first else (left, right, target)
    rows = _size(state, m, x.rows_of)
    steps = _macs(run, left, right)
    depth: Times = -(-n // steps) * -(-rows // run.hardware.pe_rows)
    kept_scores = _sum_cores(state, rows) * n
    bound = n * _NARROW[left.dtype] * _NARROW[right.dtype]
    rest = None
    if sparse:
        expect(right.space == "local", f"{right.name} is shared: no core can pick rows of its own")
        selected = state.tile(mask)
        blocks, kept = _blocks(state, selected, row, at, m, n, x.rows_of)
        if constant:
            expect(right.dtype == "i16", f"{right.name} is {right.dtype}, expected i16")
            _, every = _blocks(state, selected, row, 0, m, x.columns, x.rows_of)
            rest = run.values.pruned_probability(state.take(x.reals()), every)
            part, bound = run.values.less(part, rest), 2 * bound
        part = run.values.masked(part, kept)
        keys = datapath.kept_keys(blocks, n)
        depth = _by_core(state, datapath.group_peaks(keys, run.hardware.pe_rows, steps))
        kept_scores = _live_sum(state, np.count_nonzero(kept, axis=(1, 2)).astype(np.int64))
        reads = (*reads, selected)
    macs = kept_scores * e
    result = run.values.product(part, state.take(y.reals()), False)
    if rest is not None and first:
        source = _local(state.tile(total), "acc")
        _distinct(source, target)
        sums = _accumulators(state, source)
        _agree(f"shape of {source.name}", sums.array.shape[1:], (1, e))
        expect(sums.peak < _WIDE, f"{source.name} may exceed 32 bits")
        reads = (*reads, source)
        result = run.values.plus_outer(result, rest, state.take(sums.reals()))
        bound += _NARROW[left.dtype] * sums.peak
        depth = depth + _HALVES * -(-rows // run.hardware.pe_rows)
        macs += _HALVES * _sum_cores(state, rows) * e
    _accumulate(run, target, result, bound, first, Contents(result, rows_of=x.rows_of))
    cycles = nonempty(run.board.cycles["pv"](depth=depth, m=rows, n=e), depth)
    _work_values(run, (left, right), (rows, e, n), kept_scores, (first, sparse, constant))
    run.pc_macs[run.pc] += macs
    run.board.core(run.pc, Engine.PE, cycles, reads, (target,))


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
    for cores, once, m in _by_size(run.state, rows):
        dense = cores * k * -(-m // run.hardware.pe_rows)
        run.work(
            cores=cores,
            once=once,
            m=m,
            n=n,
            k=k,
            kept=kept * once,
            streamed=-(-kept * once // BLOCK[0]) if sparse else dense,
            first=first,
            sparse=sparse,
            constant=constant,
            bits_a=8 * a,
            bits_b=8 * b,
            size_a=a,
            size_b=b,
            b_local=int(tiles[1].space == "local"),
        )


# --- Sparsity engine --------------------------------------------------------------------------


@executes("mask")
def mask(run: Execution, m: int, theta: int, row_reg: int, rho: float, own: int) -> None:
    state = run.state
    target, source = _local(state.tile(m), "i8"), state.tile(theta)
    importance = _accumulators(state, source)
    expect(importance.complete, f"{source.name} is not complete")
    expect(np.isfinite(rho), "rho is not finite")
    length = _length(state)
    blocks = units.block_count(length, BLOCK[1])
    _agree(f"width of {source.name}", importance.columns, blocks)
    row, rows = _even("row", state.registers[row_reg]), importance.rows
    at = _even("row of a part", _row_of_part(state, row)) // BLOCK[0]
    first = (row + state.part_rows * state.core_parts) // BLOCK[0]
    real = np.full(state.active, rows) if importance.rows_of is None else importance.rows_of
    if ((first + real) * (real > 0) > units.block_count(length, BLOCK[0])).any():
        raise Trap(f"block rows {row // 2}..{int((first + real).max())} are outside of {length}")
    _room(target, at + rows, blocks, is_mask=True)
    ranked = state.take(importance.reals())
    ratio = state.take(state.parameter("rho"))[:, None] if own else rho
    kept, totals = run.values.mask(run.pc, state, ranked, ratio, first)
    if importance.rows_of is not None:
        kept = kept & state.take(_real_rows(importance.rows_of, rows))
    _put_rows(state, target, kept, at)
    state.theta_head[state.select] += totals
    ranks = _size(state, rows, importance.rows_of) * blocks
    run.pc_blocks[run.pc] += _sum_cores(state, ranks)
    kept_blocks = np.count_nonzero(kept, axis=(1, 2)).astype(np.int64)
    run.pc_blocks_kept[run.pc] += _live_sum(state, kept_blocks)
    for cores, _, count in _by_size(state, ranks):
        run.work(cores=cores, blocks=count)
    cycles = run.board.cycles["mask"](blocks=ranks)
    run.board.core(run.pc, Engine.SE, cycles, (source,), (target,))


def _put_rows(state: MachineState, tile: Tile, kept: Mask, at: int) -> None:
    """Append mask rows; at = 0 begins new contents."""
    kept = cast(Mask, state.spread(kept))
    if at:
        before = state.read(tile)
        expect(before.is_mask, f"{tile.name} is not a mask")
        _agree(f"first unwritten row of {tile.name}", before.filled, at)
        _agree(f"width of {tile.name}", before.columns, kept.shape[2])
        upper = cast(Mask, before.array)
        cores = max(upper.shape[0], kept.shape[0])
        parts = [
            np.broadcast_to(part, (cores, *part.shape[1:]))
            if part.shape[0] == 1
            else part[: kept.shape[0]]
            for part in (upper, kept)
        ]
        kept = np.concatenate(parts, axis=1)
    state.put(tile, Contents(kept, filled=kept.shape[1], is_mask=True))


@executes("gate")
def gate(run: Execution, tau: float, own: int, positive: int) -> None:
    state = run.state
    length = _length(state)
    expect(length < 1 << (17 if positive else 26), "r60, the sequence length, is too large")
    run.work(cores=state.live_count)
    if state.parts > 1:
        totals = state.of_group(state.theta_head[: state.active]).sum(axis=1)
        state.theta_head[: state.active] = np.repeat(totals, state.parts)
    threshold = state.parameter("tau") if own else tau
    kept = run.values.gate(run.pc, state, threshold, "positive" if positive else "abs")
    if state.parts > 1:
        # A head has one decision, whoever gives it.
        kept = np.repeat(state.of_group(kept)[:, 0], state.parts)
    if state.kept is not None:
        kept = kept & state.kept
    elif state.zeroed is not None:
        kept = kept & state.zeroed
    before = state.live_count if state.zeroed is None else int(state.zeroed.sum())
    known = run.board.core(run.pc, Engine.SE, run.board.cycles["gate"](), (), ())
    # A group knows its head's importance when its last core has ranked its rows.
    run.board.kept_at = known if state.parts == 1 else latest(known)
    state.keep(kept, leave=run.hardware.early_head_exit)
    run.pc_heads_pruned[run.pc] += (before - int(kept.sum())) // state.parts


# --- Adder and softmax ------------------------------------------------------------------------


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
) -> None:
    state = run.state
    target, source = _local(state.tile(s), "i32"), state.tile(a)
    tiles = (state.tile(f1), state.tile(f2))
    expect(source.dtype in ("i32", "acc"), f"{source.name} is {source.dtype}")
    points = _points(point_q, point_k, point_s)
    integer = state.wide(source)
    length, at = _length(state), state.registers[col_reg]
    _expect_integers(source, integer, at, in_place=target is source)
    by_q, by_k = (_accumulators(state, tile) for tile in tiles)
    m, n = by_q.rows, by_q.columns
    _agree(f"shape of {tiles[1].name}", (by_k.rows, by_k.columns), (m, n))
    _agree(f"rows of {source.name}", integer.rows, m)
    rule, in_place = PRUNED_SCORES[pruned], target is source
    expect(
        not in_place or rule != "mean" or n == length,
        f"{source.name} is overwritten before the mean of its rows is complete",
    )
    _agree(f"width of {source.name}", integer.columns, length)
    _expect_columns(length, at, n)
    _room(target, m, length)
    selected, row = state.tile(mask), state.registers[row_reg]
    _, kept = _blocks(state, selected, row, at, m, n, integer.rows_of)
    whole = state.take(integer.reals())
    expect(
        not constant or rule in ("zero", "mean"), f"a pruned score that is {rule} is no constant"
    )
    sums: tuple[Tile, ...] = (state.tile(r),) if constant and rule == "mean" else ()
    for tile in sums:
        _agree(f"shape of {tile.name}", _accumulators(state, tile).array.shape[1:], (m, 1))

    def mean() -> Reals:
        _, every = _blocks(state, selected, row, 0, m, length, integer.rows_of)
        if not sums:
            return datapath.pruned_mean(whole, every, points.score)
        total = state.take(_accumulators(state, sums[0]).reals())
        return datapath.rest_mean(whole, every, points.score, total)

    parts = (
        whole[:, :, at : at + n],
        state.take(by_q.reals()),
        state.take(by_k.reals()),
    )
    rows = _size(state, m, integer.rows_of)
    taken = np.count_nonzero(kept, axis=2).astype(np.int64)
    marked = _live_sum(state, taken.sum(axis=1))
    if constant and at == 0:
        taken = taken + _constants(state, m, integer.rows_of)
    packed = constant or rule == "neginf"
    merged = _by_core(state, taken.sum(axis=1)) if packed else rows * n
    _work_merge(run, rows, n, (marked, _sum_cores(state, merged)), DTYPES[source.dtype])
    codes, saturated = run.values.merge(parts, kept, points, rule, mean)
    run.saturated(_live_copies(state, codes, saturated))
    before = None if at == 0 else state.read(target).taken
    if in_place:
        _merge_columns(state, target, codes, at)
    else:
        _put_columns(state, target, codes, length, at, integer.rows_of)
    if packed:
        target.read().taken = taken if before is None else before + taken
    cycles = run.board.cycles["add"](merged=merged)
    run.board.core(run.pc, Engine.ADDER, cycles, (source, *tiles, *sums, selected), (target,))


def _constants(state: MachineState, rows: int, rows_of: Extent | None) -> NDArray[np.int64]:
    """One for each of the rows that the live cores really have, (live or 1, rows)."""
    if rows_of is None:
        return np.ones((1, rows), np.int64)
    return (np.arange(rows) < state.take(rows_of)[:, None]).astype(np.int64)


def _expect_integers(tile: Tile, contents: Contents, at: int, *, in_place: bool) -> None:
    """Trap unless a tile holds all integer scores from column `at` on, and no more in place."""
    if contents.merging or in_place:
        merged = contents.filled if contents.merging else 0
        _agree(f"first column of {tile.name} that is not merged", merged, at)
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
    for cores, once, m in _by_size(run.state, rows):
        run.work(cores=cores, m=m, n=n, kept=kept * once, merged=merged * once, size_a=size_a)


def _points(q: int, k: int, score: int) -> datapath.MergePoints:
    expect(0 <= q <= 40 and 0 <= k <= 40, "point_q and point_k must be 0..40")
    expect(-40 <= score <= 40, "point_s must be -40..40")
    return datapath.MergePoints(q, k, score)


@executes("divide")
def divide(run: Execution, t: int, acc: int, col_reg: int, wide: int, shift: int) -> None:
    state = run.state
    target, source = _local(state.tile(t), "i16", "i32"), state.tile(acc)
    contents = _accumulators(state, source)
    expect(contents.complete, f"{source.name} is not complete")
    length, at = _length(state), state.registers[col_reg]
    m, n = contents.rows, contents.columns
    _agree(f"size of {source.name} on every core", contents.uniform, True)
    if wide:
        _expect_columns(length, at, n)
    _room(target, m, length if wide else n)
    codes, saturated = run.values.divided(state.take(contents.reals()), length, shift, target.dtype)
    run.saturated(_live_copies(state, codes, saturated))
    if wide:
        _put_columns(state, target, codes, length, at)
    else:
        state.put(target, Contents(state.spread(codes)))
    run.work(cores=state.live_count, m=m, n=n, size_t=DTYPES[target.dtype])
    cycles = run.board.cycles["divide"](m=m, n=n)
    run.board.core(run.pc, Engine.ADDER, cycles, (source,), (target,))


@executes("colsum")
def column_sums(run: Execution, t: int, x: int, first: int) -> None:
    state = run.state
    target, source = _local(state.tile(t), "acc"), state.tile(x)
    contents = _operand(state, source)
    k, n = contents.rows, contents.columns
    _room(target, 1, n)
    result = run.values.column_sums(state.take(contents.reals()))
    _accumulate(run, target, result, k * _NARROW[source.dtype], first, Contents(result))
    expect(state.read(target).peak < _WIDE, f"{target.name} may exceed 32 bits")
    size = DTYPES[source.dtype]
    live, b_local = state.live_count, int(source.space == "local")
    run.work(cores=live, once=min(1, live), n=n, k=k, first=first, b_local=b_local, size_b=size)
    cycles = run.board.cycles["colsum"](n=n, k=k)
    reads = (source,) if first else (source, target)
    run.board.core(run.pc, Engine.ADDER, cycles, reads, (target,))


@executes("softmax")
def softmax(run: Execution, p: int, s: int, multiplier: int, shift: int, point: int) -> None:
    state = run.state
    target, source = _local(state.tile(p), "i16"), state.tile(s)
    expect(source.dtype == "i32", f"{source.name} is {source.dtype}, expected i32")
    contents = state.wide(source)
    expect(contents.complete, f"{source.name} is not complete")
    drop = point + shift - units.EXP_BITS
    expect(-14 <= drop <= 62, "point + shift - 16 must be -14..62")
    m, n = contents.rows, contents.columns
    expect(n < 1 << 15, "rows are longer than the unit's 32767")
    _room(target, m, n)
    rows = _size(state, m, contents.rows_of)
    taken, longest = rows * n, n
    if contents.taken is not None:
        # Excluded scores have no part: a row streams what is left of it.
        taken = _by_core(state, contents.taken.sum(axis=1))
        longest = _by_core(state, contents.taken.max(axis=1, initial=0))
    each = _sum_cores(state, taken)
    for cores, once, own in _by_size(state, rows):
        run.work(cores=cores, m=own, n=n, taken=each * once)
    result = run.values.softmax(state.take(contents.array), point, multiplier, shift)
    state.put(target, Contents(state.spread(result), rows_of=contents.rows_of))
    cycles = nonempty(run.board.cycles["softmax"](taken=taken, longest=longest), rows)
    run.board.core(run.pc, Engine.SOFTMAX, cycles, (source,), (target,), in_place=True)
