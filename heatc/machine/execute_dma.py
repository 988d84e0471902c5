"""Transfers between tensors and tiles."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from heatc.fixed_point import Codes
from heatc.isa.table import DTYPES, MASK_AXES
from heatc.isa.units import Mask
from heatc.machine.core_tiles import expect_blocks, over
from heatc.machine.execution import Execution, executes
from heatc.machine.memory import NUMPY_DTYPES, Array
from heatc.machine.scoreboard import Rows
from heatc.machine.state import Contents, Extent, Tensor, Tile, Trap, content_bytes, expect


class Part(NamedTuple):
    """Where the parts of the cores lie in a tensor: core 0's place, its size, and the strides."""

    row: int
    column: int
    rows: int
    columns: int
    core_rows: int
    core_columns: int
    parts: int = 1
    heads: tuple[int, ...] | None = None
    """How far the head of each item lies behind item 0's, None where they lie side by side"""

    @property
    def same(self) -> bool:
        """Whether all cores have the same part."""
        return not (self.core_rows or self.core_columns)

    def _row_of(self, core: Any) -> Any:
        return core % self.parts if self.parts > 1 else core

    def _column_of(self, core: Any) -> Any:
        item = core // self.parts
        return item if self.heads is None else np.asarray(self.heads)[item]

    def place(self, core: int) -> tuple[int, int]:
        """The first row and column of a core's part."""
        row = self.row + self.core_rows * self._row_of(core)
        return row, self.column + self.core_columns * self._column_of(core)

    def lowest(self, cores: int) -> int:
        """How far the rows of the last part lie below core 0's."""
        return self.core_rows * ((min(cores, self.parts) if self.parts > 1 else cores) - 1)

    def rows_of(self, tensor: Tensor, cores: int) -> Extent:
        """Rows of each core's part after clipping, (cores,)."""
        starts = self.row + self.core_rows * self._row_of(np.arange(cores))
        return _within(tensor.rows - starts, self.rows)

    def columns_of(self, tensor: Tensor, cores: int) -> Extent:
        """Columns of each core's part after clipping, (cores,)."""
        starts = self.column + self.core_columns * self._column_of(np.arange(cores))
        return _within(tensor.columns - starts, self.columns)

    def fits(self, tensor: Tensor, cores: int) -> bool:
        """Whether no core's part is clipped, but for those cut like core 0's."""
        last = max(0, cores - 1) // self.parts if self.heads is None else max(self.heads)
        return (
            self.row + self.rows + max(0, self.lowest(cores)) <= tensor.rows
            and self.column + self.columns + last * self.core_columns <= tensor.columns
        )

    def view(self, tensor: Tensor, cores: int) -> Array:
        """
        The parts of the first `cores` cores, none clipped: a (cores, rows, columns) view.

        Cores do not work in groups, on heads that lie side by side.
        """
        size = (cores, self.rows, self.columns)
        if self.core_columns == 0 and self.core_rows == self.rows:
            data = tensor.data[self.row : self.row + cores * self.rows]
            return data[:, self.column : self.column + self.columns].reshape(size)
        if self.core_rows == 0 and self.core_columns == self.columns:
            data = tensor.data[self.row : self.row + self.rows]
            data = data[:, self.column : self.column + cores * self.columns]
            return data.reshape(self.rows, cores, self.columns).transpose(1, 0, 2)
        data = tensor.data[self.row :, self.column :]
        row, column = tensor.data.strides
        return as_strided(
            data,
            (cores, self.rows, self.columns),
            (self.core_rows * row + self.core_columns * column, row, column),
            writeable=tensor.writable,
        )


def _within(sizes: Extent, most: int) -> Extent:
    """Sizes cut to 0..most; `np.clip` looks the limits of the dtype up each time."""
    return np.minimum(np.maximum(sizes, 0), most)


def _clip(part: Part, tensor: Tensor) -> Part:
    """Cut what no core has: the rows and columns beyond the tensor that do not move with cores."""
    rows = min(part.rows, tensor.rows - part.row)
    columns = min(part.columns, tensor.columns - part.column)
    return part._replace(rows=rows, columns=columns)


def _place(run: Execution, row_reg: int, col_reg: int) -> tuple[int, int]:
    row, column = run.state.registers[row_reg], run.state.registers[col_reg]
    if row < 0 or column < 0:
        raise Trap(f"row {row} and column {column} must not be negative")
    return row, column


def _listed(run: Execution, part: Part) -> Part:
    """The part of the heads at its places of the list, where heads are listed."""
    state = run.state
    if state.listed is None or not part.core_columns:
        return part
    place, rest = divmod(part.column, part.core_columns)
    if rest:
        raise Trap(f"column {part.column} is no place of a list of heads of {part.core_columns}")
    heads = state.heads_at(place + np.arange(max(1, state.active // part.parts)))
    behind = tuple(int(head) for head in heads - heads[0])
    return part._replace(
        column=int(heads[0]) * part.core_columns,
        heads=None if behind == tuple(range(len(behind))) else behind,
    )


def _of_core_0(part: Part) -> Part:
    """The part that a shared tile has."""
    return part._replace(core_rows=0, core_columns=0, heads=None)


def _source(
    run: Execution, tile: Tile, tensor: Tensor, place: tuple[int, int], size: tuple[int, ...]
) -> Part:
    expect(tile.dtype == tensor.dtype, f"{tile.name} is {tile.dtype}, the tensor {tensor.dtype}")
    rows, columns, core_rows, core_columns = size
    part = _listed(run, Part(*place, rows, columns, core_rows, core_columns, run.state.parts))
    part = _of_core_0(part) if tile.space == "shared" else part
    # Where heads are listed the part begins elsewhere than the register says.
    shapes = {"d": (tensor.rows, tensor.columns)}
    shape = run.sizes(shapes, row_reg=part.row, col_reg=part.column).of("t")
    part = part._replace(rows=shape[0], columns=shape[1])
    if part.rows <= 0 or part.columns <= 0:
        raise Trap(
            f"the part at ({part.row}, {part.column}) of {rows}x{columns} is empty",
            f"the tensor is {tensor.rows}x{tensor.columns}",
        )
    _expect_room(tile, part.rows, part.columns)
    return part


def _expect_room(tile: Tile, rows: int, columns: int) -> None:
    if rows * columns * DTYPES[tile.dtype] > tile.capacity:
        tile.put(Contents(np.broadcast_to(np.int8(0), (1, rows, columns))))


def _gather(run: Execution, tensor: Tensor, part: Part) -> Contents:
    """The active cores' parts; weights are not copied."""
    cores = 1 if part.same else run.state.active
    shape = (cores, part.rows, part.columns)
    fits = part.fits(tensor, cores)
    if fits and (cores == 1 or (part.parts == 1 and part.heads is None)):
        return Contents(run.values.array(shape, lambda: _read(tensor, part, cores)))
    rows_of, columns_of = part.rows_of(tensor, cores), part.columns_of(tensor, cores)
    return Contents(
        run.values.array(shape, lambda: _read_clipped(tensor, part, rows_of, columns_of)),
        rows_of=rows_of if part.core_rows and not fits else None,
        columns_of=columns_of if part.core_columns and not fits else None,
    )


def _read(tensor: Tensor, part: Part, cores: int) -> Array:
    array = part.view(tensor, cores)
    return array.copy(order="K") if tensor.writable else array


def _read_clipped(tensor: Tensor, part: Part, rows_of: Extent, columns_of: Extent) -> Array:
    """Each core's part, zero beyond what it really has."""
    array = np.zeros((rows_of.size, part.rows, part.columns), NUMPY_DTYPES[tensor.dtype])
    for core in np.flatnonzero((rows_of > 0) & (columns_of > 0)):
        row, column = part.place(int(core))
        source = tensor.data[row : row + part.rows, column : column + part.columns]
        array[core, : source.shape[0], : source.shape[1]] = source
    return array


def _alike(part: Part, active: int) -> int:
    """How many cores have the same part, which is fetched once for them: a group, or one of each."""
    if part.parts == 1 or part.same or (part.core_columns and part.core_rows):
        return 1
    return part.parts if part.core_columns else max(1, active // part.parts)


def _elements(run: Execution, contents: Contents, cores: int) -> int:
    """Elements that `cores` (all parts of the same size) or the live cores hold."""
    if contents.uniform or contents.array.shape[0] == 1:
        return cores * contents.rows * contents.columns
    return int(_product_of(contents)[run.state.select].sum())


def _product_of(contents: Contents) -> Codes:
    rows = contents.rows if contents.rows_of is None else contents.rows_of
    columns = contents.columns if contents.columns_of is None else contents.columns_of
    return np.asarray(rows) * np.asarray(columns)


def _rows(tensor: Tensor, part: Part, cores: int) -> Rows:
    count = part.rows + max(0, part.lowest(cores))
    return Rows(tensor, part.row, min(count, tensor.rows - part.row))


def _ends(tile: Tile, tensor: Tensor) -> dict[str, int]:
    """Where a transfer begins and ends, for the energy."""
    return {
        "from_dram": int(tensor.space == "dram"),
        "in_local": int(tile.space == "local"),
    }


@executes("ld")
def load(
    run: Execution,
    t: int,
    d: int,
    row_reg: int,
    col_reg: int,
    rows: int,
    cols: int,
    core_rows: int,
    core_cols: int,
) -> None:
    state = run.state
    tile, tensor = state.tile(t), state.tensor(d)
    place = _place(run, row_reg, col_reg)
    part = _source(run, tile, tensor, place, (rows, cols, core_rows, core_cols))
    contents = _gather(run, tensor, part)
    cores = 1 if tile.space == "shared" else state.live_count
    if part.same:
        cores = min(1, cores)
    alike = _alike(part, state.active)
    nbytes = _elements(run, contents, cores) // alike * DTYPES[tile.dtype]
    state.put(tile, contents)
    if cores:
        copies = state.live_count if part.same else alike
        run.work(nbytes=nbytes, copies=copies, **_ends(tile, tensor))
        run.board.transfer(run.pc, "ld", nbytes, _rows(tensor, part, state.active), tile)


@executes("ldm")
def load_masked(
    run: Execution,
    t: int,
    d: int,
    row_reg: int,
    col_reg: int,
    rows: int,
    cols: int,
    core_rows: int,
    core_cols: int,
    mask: int,
    axis: int,
) -> None:
    state = run.state
    tile, tensor, masks = state.tile(t), state.tensor(d), state.tile(mask)
    expect(tile.space == "local", f"{tile.name} is not a local tile")
    expect(tile is not masks, "a tile cannot be loaded upon itself")
    expect(core_rows == 0, "core_rows is not 0")
    place = _place(run, row_reg, col_reg)
    part = _source(run, tile, tensor, place, (rows, cols, core_rows, core_cols))
    contents = _gather(run, tensor, part)
    wanted = _wanted(run, masks, part, MASK_AXES[axis])
    array = contents.array
    if array.shape[0] < wanted.shape[0]:
        array = np.broadcast_to(array, (wanted.shape[0], *array.shape[1:]))
    chosen = run.values.array(
        over((contents.rows, contents.columns), array, wanted), lambda: _selected(array, wanted)
    )
    contents = Contents(chosen, columns_of=contents.columns_of)
    columns = contents.columns if contents.columns_of is None else contents.columns_of
    fetched = wanted if run.hardware.fetch_upon_mask else np.ones_like(wanted)
    each = np.asarray(fetched.sum(axis=1) * columns)
    alike = _alike(part, state.active)
    copies = state.live_count if each.shape[0] == 1 and state.cores > 1 and not part.same else 1
    nbytes = int(state.take(each).sum() if each.size else 0) * copies * DTYPES[tile.dtype]
    nbytes //= alike
    state.put(tile, contents)
    if state.live_count:
        mask_bytes = state.live_count * content_bytes(masks.dtype, state.read(masks))
        run.work(nbytes=nbytes, copies=alike, mask_bytes=mask_bytes, **_ends(tile, tensor))
        source = _rows(tensor, part, state.active)
        run.board.transfer(run.pc, "ldm", nbytes, source, tile, masks)


def _selected(array: Array, wanted: Mask) -> Array:
    """Loaded parts, their rows 0 where not wanted (P, rows)."""
    return np.where(wanted[:, :, None], array, np.zeros((), array.dtype))


def _wanted(run: Execution, tile: Tile, part: Part, axis: str) -> Mask:
    """(active, rows): the rows of the part that the mask asks for."""
    contents = run.state.read(tile)
    expect(contents.is_mask, f"{tile.name} is not a mask")
    expect_blocks(run.state, tile, contents)
    extent = run.state.block[1 if axis == "key" else 0]
    blocks = contents.array[:, : contents.filled].astype(np.bool_)
    kept: Mask = np.any(blocks, axis=1 if axis == "key" else 2)
    last = (part.row + part.rows - 1) // extent
    expect(
        last < blocks.shape[2 if axis == "key" else 1],
        f"{tile.name} has no {axis} blocks for these rows",
    )
    state = run.state
    if state.parts > 1:
        # A row that one core of a group wants comes for all of them.
        kept = np.repeat(state.of_group(kept).any(axis=1), state.parts, axis=0)
    tokens = np.repeat(kept, extent, axis=1)[:, part.row : part.row + part.rows]
    return tokens if tokens.shape[0] == 1 else tokens[: run.state.active]


@executes("st")
def store(
    run: Execution,
    d: int,
    t: int,
    row_reg: int,
    col_reg: int,
    core_rows: int,
    core_cols: int,
    leave: int,
) -> None:
    state = run.state
    tensor, tile = state.tensor(d), state.tile(t)
    expect(tensor.writable, f"d{d} lies among the weights")
    expect(tile.dtype == tensor.dtype, f"{tile.name} is {tile.dtype}, d{d} is {tensor.dtype}")
    contents = tile.read() if state.live_count == 0 else state.read(tile)
    expect(not contents.is_mask, f"{tile.name} is a mask")
    expect(contents.complete, f"{tile.name} is not complete")
    shared, place = tile.space == "shared", _place(run, row_reg, col_reg)
    part = Part(*place, contents.rows, contents.columns, core_rows, core_cols, state.parts)
    part = _of_core_0(_listed(run, part)) if shared else _listed(run, part)
    cores = min(1, 1 if shared else state.active) if part.same else state.active
    array = contents.array
    kept = state.kept if state.zeroed is None else state.zeroed
    only = None
    if not shared and kept is not None:
        array = _zero_pruned(array, kept[:cores])
        only = kept[:cores] if leave else None
    elements = _scatter(run, tensor, part, array, contents, cores, only)
    if cores:
        nbytes = elements * DTYPES[tile.dtype]
        run.work(nbytes=nbytes, **_ends(tile, tensor))
        run.board.transfer(run.pc, "st", nbytes, tile, _rows(tensor, _clip(part, tensor), cores))


@executes("strow")
def store_row(run: Execution, d: int, t: int, row_reg: int, col_reg: int, core_cols: int) -> None:
    state = run.state
    tensor, tile = state.tensor(d), state.tile(t)
    expect(tensor.writable, f"d{d} lies among the weights")
    expect(tile.dtype == tensor.dtype, f"{tile.name} is {tile.dtype}, d{d} is {tensor.dtype}")
    expect(tile.space == "local", f"{tile.name} is not a local tile")
    contents = state.read(tile) if state.live_count else tile.read()
    expect(contents.complete and not contents.is_mask, f"{tile.name} is not complete, or a mask")
    run.sizes({"t": (contents.rows, contents.columns)})
    place = _place(run, row_reg, col_reg)
    nbytes = _store_rows(run, tensor, place, contents, core_cols)
    if nbytes:
        run.work(nbytes=nbytes, **_ends(tile, tensor))
        rows = Rows(tensor, place[0], tensor.rows - place[0])
        run.board.transfer(run.pc, "strow", nbytes, tile, rows)


def _store_rows(
    run: Execution, tensor: Tensor, place: tuple[int, int], contents: Contents, core_cols: int
) -> int:
    """A row of each core in all rows from a place on; returns how many bytes."""
    state, (row, column) = run.state, place
    rows = max(0, tensor.rows - row)
    part = _listed(run, Part(row, column, rows, contents.columns, 0, core_cols, state.parts))
    wanted = np.arange(state.active) % state.parts == 0
    kept = state.kept if state.zeroed is None else state.zeroed
    if kept is not None:
        wanted &= kept
    if not wanted.any() or not rows:
        return 0
    array = np.broadcast_to(contents.array, (contents.array.shape[0], rows, contents.columns))
    elements = _scatter(run, tensor, part, array, contents, state.active, wanted)
    return elements * DTYPES[tensor.dtype]


@executes("stzero")
def store_zeros(
    run: Execution, d: int, row_reg: int, col_reg: int, cols: int, core_cols: int
) -> None:
    tensor = run.state.tensor(d)
    expect(tensor.writable, f"d{d} lies among the weights")
    place = _place(run, row_reg, col_reg)
    zeros = Contents(np.zeros((1, 1, cols), NUMPY_DTYPES[tensor.dtype]))
    nbytes = _store_rows(run, tensor, place, zeros, core_cols)
    if nbytes:
        run.work(nbytes=nbytes, from_dram=int(tensor.space == "dram"))
        # Zeros come from no tile: nothing has to be ready.
        nowhere = Tile("zeros", "local", tensor.dtype, 0, 0)
        rows = Rows(tensor, place[0], tensor.rows - place[0])
        run.board.transfer(run.pc, "stzero", nbytes, nowhere, rows)


def _zero_pruned(array: Array, kept: Mask) -> Array:
    full = np.zeros((kept.size, *array.shape[1:]), array.dtype)
    full[kept] = array if array.shape[0] == 1 else array[np.flatnonzero(kept)]
    return full


def _scatter(
    run: Execution,
    tensor: Tensor,
    part: Part,
    array: Array,
    contents: Contents,
    cores: int,
    only: Mask | None = None,
) -> int:
    """Write the parts of the first `cores` cores (of `only` these); returns how many elements."""
    if part.row >= tensor.rows or part.column >= tensor.columns:
        raise Trap(f"the part at ({part.row}, {part.column}) is outside of the tensor")
    alike = part.parts == 1 and part.heads is None and contents.uniform
    if alike and only is None and part.fits(tensor, cores):
        run.values.store(lambda: _write(tensor, part, array, cores))
        return cores * part.rows * part.columns
    rows_of, columns_of = part.rows_of(tensor, cores), part.columns_of(tensor, cores)
    if only is not None:
        rows_of = rows_of * only
    if contents.rows_of is not None:
        rows_of = np.minimum(rows_of, contents.rows_of[:cores])
    if contents.columns_of is not None:
        columns_of = np.minimum(columns_of, contents.columns_of[:cores])
    run.values.store(lambda: _write_clipped(tensor, part, array, rows_of, columns_of))
    return int((rows_of * columns_of).sum())


def _write(tensor: Tensor, part: Part, array: Array, cores: int) -> None:
    part.view(tensor, cores)[...] = array[: max(cores, 1)] if array.shape[0] > 1 else array


def _write_clipped(
    tensor: Tensor, part: Part, array: Array, rows_of: Extent, columns_of: Extent
) -> None:
    for core in np.flatnonzero((rows_of > 0) & (columns_of > 0)):
        row, column = part.place(int(core))
        m, n = int(rows_of[core]), int(columns_of[core])
        source = array[core if array.shape[0] > 1 else 0]
        tensor.data[row : row + m, column : column + n] = source[:m, :n]
