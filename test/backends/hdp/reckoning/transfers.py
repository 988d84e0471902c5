"""The DMA engine, and the memory that it reads and writes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from reckoning.control import Control
from reckoning.parts import BYTES, PAGE, Buffer, Place, Tensor, Tile


class Transfers(Control):
    """Loads and stores."""

    # -- memory ------------------------------------------------------------------------------

    def _pages(self, tensor: Tensor, row: int, rows: int) -> list[tuple[str, int]]:
        if not tensor.writable:
            return []
        low = tensor.base + row * tensor.pitch
        high = low + max(1, rows * tensor.pitch)
        return [(tensor.space, page) for page in range(low // PAGE, (high - 1) // PAGE + 1)]

    def _known(self, pages: list[tuple[str, int]]) -> int:
        return max((self.page_written[page] for page in pages), default=0)

    def _unused(self, pages: list[tuple[str, int]]) -> int:
        return max((self.page_read[page] for page in pages), default=0)

    def _mark(self, times: dict[tuple[str, int], int], pages: list[Any], time: int) -> None:
        for page in pages:
            times[page] = max(times[page], time)

    def _width(self, space: str) -> Fraction:
        """Bytes a cycle."""
        if space == "shared":
            return Fraction(self.hw.shared_bytes_per_cycle)
        return Fraction(self.hw.dram_bytes_per_second, self.hw.clock_hz)

    def _latency(self, space: str) -> int:
        return self.hw.dram_latency_cycles if space == "dram" else 0

    def _buffers(self, tile: Tile, cores: Sequence[int]) -> list[Buffer]:
        return [self.shared] if tile.space == "shared" else [self.local[c] for c in cores]

    # -- DMA ---------------------------------------------------------------------------------

    def _columns(self, column: int, core_cols: int) -> list[int]:
        """The first column of each item; with listed heads that of the head at its place."""
        items = range(max(1, self.active // self.parts))
        if self.listed is None or not core_cols:
            return [column + item * core_cols for item in items]
        return [self.listed[column // core_cols + item] * core_cols for item in items]

    def _places(self, row: int, column: int, core_rows: int, core_cols: int) -> list[Place]:
        """The first row and column of the part of each core of the machine."""
        columns, found = self._columns(column, core_cols), list[Place]()
        for core in range(self.hw.cores):
            part, item = (core % self.parts, core // self.parts) if self.parts > 1 else (core, core)
            found.append((row + part * core_rows, columns[min(item, len(columns) - 1)]))
        return found

    def _ld(
        self,
        t: int,
        d: int,
        row_reg: int,
        col_reg: int,
        rows: int,
        cols: int,
        core_rows: int,
        core_cols: int,
        mask: int = -1,
        axis: str = "",
    ) -> None:
        tile, tensor = self.tiles[t], self.tensors[d]
        row, column = self.registers[row_reg], self.registers[col_reg]
        if tile.space == "shared":
            core_rows = core_cols = 0
        places = self._places(row, column, core_rows, core_cols)
        tile.rows, tile.columns, tile.mask, tile.taken = [], [], [], []
        first = min(rows, tensor.rows - row), min(cols, tensor.columns - column)
        for top, left in places:
            tile.rows.append(min(first[0], max(0, tensor.rows - top)))
            tile.columns.append(min(first[1], max(0, tensor.columns - left)))
        cores = range(self.active) if tile.space == "shared" else self._cores()
        if not cores:
            return
        # The same part of several cores comes once.
        fetched: dict[tuple[Place, int], int] = {}
        for core in cores:
            height = tile.rows[core]
            if mask >= 0 and self.hw.fetch_upon_mask:
                height = self._wanted(self.tiles[mask], core, row, height, axis)
            part = places[core], (core // self.parts if core_rows and core_cols else 0)
            fetched[part] = height * tile.columns[core]
        nbytes = sum(fetched.values()) * BYTES[tile.dtype]
        most = max(top for top, _ in places[: self.active]) - row + first[0]
        pages = self._pages(tensor, row, min(most, tensor.rows - row))
        buffers = self._buffers(tile, range(self.hw.cores))
        start = max(self.issued, self.queue_free["load"], self._known(pages), max(self.held))
        start = max(start, *(buffer.free(tile) for buffer in buffers))
        masks = [] if mask < 0 else self._buffers(self.tiles[mask], cores)
        start = max(start, *(buffer.there(self.tiles[mask]) for buffer in masks), 0)
        moved = self._move("load", tensor.space, start, nbytes)
        done = moved + self._latency(tensor.space)
        self._mark(self.page_read, pages, moved)
        for buffer in buffers:
            buffer.write(tile, done)
        for buffer in self.local if masks else ():
            buffer.use(self.tiles[mask], moved)
        self.last = max(self.last, done)
        self.read += nbytes if tensor.space == "dram" else 0

    def _ldm(self, **fields: Any) -> None:
        self._ld(**fields)

    def _ldb(
        self,
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
        also: int = 0,
    ) -> None:
        """A part of a mask in padded coordinates: what several cores have in common comes once."""
        tile, tensor, row = self.tiles[t], self.tensors[d], self.registers[row_reg]
        queries, keys = self.tensors[dq].rows, self.tensors[dk].rows
        count = min(rows, queries - row)
        places = self._places(row, 0, core_rows, 0)
        tile.rows = [min(count, max(0, queries - top)) for top, _ in places]
        tile.columns, tile.mask, tile.taken = [keys] * self.hw.cores, [], []
        if not self._cores():
            return
        fetched: dict[tuple[int, int], int] = {}
        for core in self._cores():
            item = core // self.parts if by_head else 0
            height = tile.rows[core] if by_row else min(1, tile.rows[core])
            fetched[places[core][0] if by_row else 0, item] = height
        nbytes = sum(fetched.values()) * keys * BYTES[tensor.dtype]
        # The positions of rows and keys come with it.
        nbytes += BYTES["i64"] * (keys + count)
        pages = self._pages(tensor, 0, tensor.rows)
        buffers = self._buffers(tile, range(self.hw.cores))
        start = max(self.issued, self.queue_free["load"], self._known(pages), max(self.held))
        start = max(start, *(buffer.free(tile) for buffer in buffers))
        moved = self._move("load", tensor.space, start, nbytes)
        done = moved + self._latency(tensor.space)
        self._mark(self.page_read, pages, moved)
        for buffer in buffers:
            buffer.write(tile, done)
        self.last = max(self.last, done)
        self.read += nbytes if tensor.space == "dram" else 0

    def _ldv(self, **fields: Any) -> None:
        self._ldb(**fields)

    def _wanted(self, masks: Tile, core: int, row: int, rows: int, axis: str) -> int:
        """Rows that a mask asks for; what one core of a group wants comes for all of them."""
        group = core // self.parts * self.parts
        cores = range(group, group + self.parts)
        if axis == "key":
            blocks = np.any([masks.mask[c].any(axis=0) for c in cores], axis=0)
            extent = self.block[1]
        else:
            blocks = np.any([masks.mask[c].any(axis=1) for c in cores], axis=0)
            extent = self.block[0]
        return sum(bool(blocks[i // extent]) for i in range(row, row + rows))

    def _st(
        self,
        d: int,
        t: int,
        row_reg: int,
        col_reg: int,
        core_rows: int,
        core_cols: int,
        leave: int,
    ) -> None:
        tile, tensor = self.tiles[t], self.tensors[d]
        row, column = self.registers[row_reg], self.registers[col_reg]
        cores = range(self.active)
        if tile.space == "shared":
            core_rows = core_cols = 0
        if core_rows == core_cols == 0:
            cores = cores[:1]
        places = self._places(row, column, core_rows, core_cols)
        nbytes, kept = 0, self.kept if self.stores is None else self.stores
        for core in cores:
            top, left = places[core]
            if leave and kept is not None and not kept[core]:
                continue
            height = min(tile.rows[core], max(0, tensor.rows - top))
            nbytes += height * min(tile.columns[core], max(0, tensor.columns - left))
        most = max((places[core][0] for core in cores), default=row) - row
        self._store(tile, tensor, row, most + max(tile.rows), nbytes, bool(cores))

    def _strow(self, d: int, t: int, row_reg: int, col_reg: int, core_cols: int) -> None:
        tile = self.tiles[t]
        self._rows_of_zeros_or(tile, d, row_reg, col_reg, tile.columns[0], core_cols)

    def _stzero(self, d: int, row_reg: int, col_reg: int, cols: int, core_cols: int) -> None:
        self._rows_of_zeros_or(None, d, row_reg, col_reg, cols, core_cols)

    def _rows_of_zeros_or(
        self, tile: Tile | None, d: int, row_reg: int, col_reg: int, cols: int, core_cols: int
    ) -> None:
        """All rows of a tensor from one on: of the cores that share a head one stores."""
        tensor, row, column = self.tensors[d], self.registers[row_reg], self.registers[col_reg]
        kept, elements, rows = self.kept if self.stores is None else self.stores, 0, 0
        for core, (_, left) in enumerate(self._places(row, column, 0, core_cols)):
            if core < self.active and core % self.parts == 0 and (kept is None or kept[core]):
                rows = tensor.rows - row
                elements += rows * min(cols, max(0, tensor.columns - left))
        self._store(tile, tensor, row, rows, elements, rows > 0)

    def _store(
        self, tile: Tile | None, tensor: Tensor, row: int, rows: int, elements: int, moves: bool
    ) -> None:
        """Elements of a tile, or zeros, to some rows of a tensor."""
        if not moves:
            return
        nbytes = elements * BYTES[tensor.dtype]
        pages = self._pages(tensor, row, min(rows, tensor.rows - row))
        start = max(self.issued, self.queue_free["store"], self._known(pages), self._unused(pages))
        start = max(start, *self.held)
        if tile is not None:
            start = max(start, *(b.there(tile) for b in self._buffers(tile, self._cores())), 0)
        moved = self._move("store", tensor.space, start, nbytes)
        done = moved + self._latency(tensor.space)
        self._mark(self.page_written, pages, done)
        if tile is not None:
            for buffer in self._buffers(tile, range(self.hw.cores)):
                buffer.use(tile, moved)
        self.last = max(self.last, done)
        self.written += nbytes if tensor.space == "dram" else 0

    def _move(self, queue: str, space: str, start: int, nbytes: int) -> int:
        cycles = math.ceil(nbytes / self._width(space))
        self.busy["dma"] += cycles
        self.queue_free[queue] = start + cycles
        return start + cycles
