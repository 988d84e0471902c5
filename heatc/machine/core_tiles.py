"""What instructions of the core engines share: preconditions of tiles, and the parts of the live cores."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from heatc.errors import InfeasibleError
from heatc.fixed_point import Reals
from heatc.isa.shapes import Shape
from heatc.isa.table import DTYPES, R_LENGTH
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.execution import Execution, Sizes
from heatc.machine.state import (
    ACC_LIMIT,
    Contents,
    Extent,
    MachineState,
    Tile,
    Times,
    Trap,
    expect,
)

NARROW = {"i8": 128.0, "i16": 32768.0}
"""Greatest magnitudes of the PE array's operands."""
FACTORS = {**NARROW, "i4": 8.0}
"""The same, with the low-bit codes that only some instructions multiply."""
WIDE = float(1 << 31)
"""Sums that a wide product takes are below this."""


def operand(
    state: MachineState, tile: Tile, *, clipped: str = "", dtypes: Collection[str] = tuple(NARROW)
) -> Contents:
    """A written operand of the PE array; some cores may have fewer "rows", or "any" less."""
    expect(tile.dtype in dtypes, f"{tile.name} is {tile.dtype}, expected {' or '.join(dtypes)}")
    read = {"": state.whole, "rows": state.wide, "any": state.read}[clipped]
    contents = read(tile)
    expect(not contents.is_mask, f"{tile.name} is a mask")
    return contents


def local_tile(tile: Tile, *dtypes: str) -> Tile:
    expect(tile.space == "local", f"{tile.name} is not a local tile")
    expect(tile.dtype in dtypes, f"{tile.name} is {tile.dtype}, expected {' or '.join(dtypes)}")
    return tile


def expect_distinct(*tiles: Tile) -> None:
    expect(len({id(tile) for tile in tiles}) == len(tiles), "the tiles must be different")


def accumulators(state: MachineState, tile: Tile) -> Contents:
    expect(tile.dtype == "acc", f"{tile.name} is {tile.dtype}, expected acc")
    return state.read(tile)


def peak_of(state: MachineState, tile: Tile) -> Contents:
    """A greatest magnitude, one for each core."""
    contents = accumulators(state, tile)
    expect_equal(f"shape of {tile.name}", (contents.rows, contents.columns), (1, 1))
    return contents


def expect_equal(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise Trap(f"{what} is {got}, expected {expected}")


def sequence_length(state: MachineState) -> int:
    length = state.registers[R_LENGTH]
    expect(length >= 1, "r60, the sequence length, is not positive")
    return length


def expect_room(tile: Tile, rows: int, columns: int, *, is_mask: bool = False) -> None:
    """Trap before anything is allocated if contents of this size do not fit."""
    bits = -(-columns // 8) if is_mask else columns * DTYPES[tile.dtype]
    if rows * bits > tile.capacity:
        raise Trap(
            f"{rows}x{columns} {'blocks' if is_mask else tile.dtype} need {rows * bits} bytes, "
            f"{tile.name} has {tile.capacity}",
            "give the tile more bytes, or tile the operation smaller",
            error=InfeasibleError,
        )


def shaped(run: Execution, **contents: Contents) -> Sizes:
    """
    The sizes of an instruction that reads these contents, by its shape rule.

    A trap where they do not agree, or what is written has no room in its tile.
    """
    inst = run.program[run.pc]
    sizes = run.sizes({name: (read.rows, read.columns) for name, read in contents.items()})
    row = inst.instruction
    for field in row.results:
        tile = run.state.tile(int(inst.operands[row.field_index(field)]))
        expect_room(tile, *sizes.of(field), is_mask=row.decides == "mask")
    return sizes


def over(shape: Shape, *operands: NDArray[Any]) -> tuple[int, int, int]:
    """The shape (P, m, n) of what is computed from operands, each of one core or of all live ones."""
    counts = [len(operand) for operand in operands]
    return (min(counts) if 0 in counts else max(counts), *shape)


def expect_begins(name: str, value: int, extent: int) -> int:
    """The block of `extent` tokens that a row or column begins; a trap if it does not."""
    if value < 0 or value % extent:
        raise Trap(f"{name} {value} does not begin a block")
    return value // extent


def expect_engine_blocks(run: Execution, block: tuple[int, int]) -> None:
    """Trap unless the sparsity engine has blocks of this size."""
    if block not in run.hardware.blocks:
        raise Trap(
            f"the sparsity engine of {run.hardware.name} has no blocks of {block[0]}x{block[1]}",
            f"sparsity_engine.blocks: {', '.join(f'{r}x{c}' for r, c in run.hardware.blocks)}",
            error=InfeasibleError,
        )


def accumulate(
    run: Execution, tile: Tile, result: Reals, bound: float, first: int, extents: Contents
) -> None:
    """acc := (first ? 0 : acc) + result, with the true sizes of `extents`."""
    state = run.state
    if not first:
        before = accumulators(state, tile)
        shape = (result.shape[1], result.shape[2])
        expect_equal(f"shape of {tile.name}", (before.rows, before.columns), shape)
        bound += before.peak
        product, sums = result, state.take(before.reals())
        result = run.values.array(over(shape, product, sums), lambda: datapath.plus(product, sums))
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


def by_core(state: MachineState, values: NDArray[np.int64]) -> Times:
    """(live,) or (1,) numbers as a number, or as a (cores,) vector that is 0 elsewhere."""
    if values.shape[0] == 1 and state.cores > 1:
        return int(values[0])
    full = np.zeros(state.cores, np.int64)
    full[state.select] = values
    return full


def wide_extent(state: MachineState, values: Extent) -> Extent:
    """(P,) numbers as (cores,)."""
    full = np.zeros(state.cores, np.int64)
    full[: values.shape[0]] = values
    return full


def by_size(state: MachineState, *sizes: Times) -> Iterator[tuple[int, ...]]:
    """The live cores by the sizes of their parts: how many, 1 for the first of them, the sizes."""
    if all(isinstance(size, int) for size in sizes):
        yield (state.live_count, min(1, state.live_count), *cast("tuple[int, ...]", sizes))
        return
    columns = [np.broadcast_to(size, state.cores)[state.select].tolist() for size in sizes]
    for i, part in enumerate(zip(*columns)):
        yield (1, int(i == 0), *part)


def size_of(state: MachineState, size: int, extent: Extent | None) -> Times:
    return size if extent is None else wide_extent(state, extent)


def sum_cores(state: MachineState, values: Times) -> int:
    """Sum over the live cores of a number or of (cores,) numbers."""
    if isinstance(values, int):
        return values * state.live_count
    return int(values[state.select].sum())


def live_copies(state: MachineState, array: NDArray[np.generic], count: int) -> int:
    """A count in an array that all cores share is a count on every live core."""
    if array.shape[0] == 1 and state.cores > 1:
        return count * state.live_count
    return count


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
    expect_equal(f"shape of {tile.name}", (contents.rows, contents.columns), shape)
    expect_equal(f"first unwritten column of {tile.name}", contents.filled, at)
    expect(at + count <= shape[1], f"columns {at}..{at + count} are outside of {tile.name}")
    return contents.array


def put_columns(
    state: MachineState,
    tile: Tile,
    part: NDArray[np.generic],
    shape: Shape,
    at: int,
    rows_of: Extent | None = None,
    block: tuple[int, int] | None = None,
) -> None:
    """
    Write columns of a tile of this shape on the live cores, see `_columns`.

    `block` is the size of the blocks whose importances they are.
    """
    (rows, width), count = shape, part.shape[2]
    before = _columns(state, tile, shape, at, count)
    if before is None and count == width:
        whole = Contents(state.spread(part), peak=ACC_LIMIT, rows_of=rows_of, block=block)
        state.put(tile, whole)
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
    state.put(tile, Contents(full, filled=at + count, peak=ACC_LIMIT, rows_of=rows_of, block=block))


def expect_columns(state: MachineState, length: int, at: int, count: int) -> None:
    expect_begins("column", at, state.block[1])
    if at + count > length:
        raise Trap(f"columns {at}..{at + count} are outside of a sequence of {length}")
    if count % state.block[1] and at + count != length:
        raise Trap(f"{count} columns at {at} end inside a block")


def masked_blocks(
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

    Returns the blocks and the scores (P, rows, columns), none beyond the rows that a core really has.
    """
    contents = state.read(tile)
    expect(contents.is_mask, f"{tile.name} is not a mask")
    expect_blocks(state, tile, contents)
    high, wide = state.block
    row = row_of_part(state, row)
    top, left = expect_begins("row", row, high), expect_begins("column", column, wide)
    bottom, right = -(-(row + rows) // high), -(-(column + columns) // wide)
    if bottom > contents.filled or right > contents.columns:
        raise Trap(
            f"{tile.name} has {contents.filled}x{contents.columns} blocks, "
            f"expected {bottom}x{right}"
        )
    if contents.expanded is None:
        kept = np.repeat(np.repeat(cast(Mask, contents.array), high, 1), wide, 2)
        contents.expanded = kept
    blocks = cast(Mask, contents.array)[:, top:bottom, left:right]
    kept = contents.expanded[:, row : row + rows, column : column + columns]
    if rows_of is not None:
        kept = kept & real_rows(rows_of, rows)
    return state.take(blocks), state.take(kept)


def block_work(state: MachineState) -> dict[str, int]:
    """The size of a block, as variables of work."""
    return {"block_rows": state.block[0], "block_columns": state.block[1]}


def expect_blocks(state: MachineState, tile: Tile, contents: Contents) -> None:
    """Trap unless contents are of blocks of the size that the program works with."""
    if contents.block != state.block:
        (high, wide), own = state.block, contents.block
        text = "no blocks" if own is None else f"blocks of {own[0]}x{own[1]}"
        raise Trap(f"{tile.name} has {text}, expected {high}x{wide}")


def row_of_part(state: MachineState, row: int) -> int:
    """Where a row of core 0 lies among the rows that a core of a group has."""
    expect(row % state.parts == 0, f"row {row} is none that {state.parts} parts begin with")
    return row // state.parts


def real_rows(rows_of: Extent, rows: int) -> Mask:
    """(P, rows, 1): which rows a core really has."""
    return (np.arange(rows) < rows_of[:, None])[:, :, None]


def live_sum(state: MachineState, values: NDArray[np.int64]) -> int:
    """Sum over the live cores of (live,) or (1,) numbers."""
    if values.shape[0] == 1 and state.cores > 1:
        return int(values[0]) * state.live_count
    return int(values.sum())
