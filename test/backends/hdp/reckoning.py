"""
A second reckoning of the machine's time, written from docs/isa.md and docs/design/machine.md.

It is slow and plain: every core by itself, every byte of a buffer by itself, no expression of the
instruction table. It shares the decoding of words with heatc, and nothing else. What pruning decides
is given, in the order in which a program asks.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.hardware import Hardware
from heatc.isa.words import Inst

Mask = NDArray[np.bool_]

BYTES = {"i4": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4, "acc": 6}
BITS = {"i4": 4, "i8": 8, "i16": 16}
PAGE = 4096

HOST_OPERATIONS = {
    **{"hpack": 2, "hrows": 3, "hidx": 1, "hget": 1, "hgeti": 1, "hadd": 1, "hln": 8},
    **{"hgelu": 20, "htanh": 20, "hrelu": 1, "hput": 4, "htest": 1},
}
VECTOR_PASSES = {"hget": 1, "hgeti": 1, "hadd": 1, "hln": 2, "hgelu": 1, "hput": 1, "hrelu": 1}
VECTOR_PASSES["htanh"] = 1

TOKENS, BATCH, START, LENGTH, EXTRA_START, EXTRA = 63, 62, 61, 60, 59, 58


@dataclass
class Tensor:
    """Bytes of DRAM or of the shared buffer, as rows."""

    space: str
    dtype: str
    base: int
    rows: int
    columns: int
    writable: bool

    @property
    def pitch(self) -> int:
        return self.columns * BYTES[self.dtype]


@dataclass
class Tile:
    """
    Bytes of a buffer, and the rows and columns that each core has in them.

    `mask` are the kept blocks of each core, `taken` the scores of each row that are not excluded.
    """

    space: str
    dtype: str
    low: int
    high: int
    rows: list[int] = field(default_factory=list[int])
    columns: list[int] = field(default_factory=list[int])
    mask: list[Mask] = field(default_factory=list[Mask])
    taken: list[list[int]] = field(default_factory=list[list[int]])


class Buffer:
    """When each byte was last written, and last read."""

    def __init__(self, size: int):
        self.written = np.zeros(size, np.int64)
        self.read = np.zeros(size, np.int64)

    def free(self, tile: Tile) -> int:
        """When nobody writes or reads the bytes any more."""
        part = slice(tile.low, tile.high)
        return int(max(self.written[part].max(initial=0), self.read[part].max(initial=0)))

    def there(self, tile: Tile) -> int:
        """When the bytes are written."""
        return int(self.written[tile.low : tile.high].max(initial=0))

    def write(self, tile: Tile, time: int) -> None:
        part = self.written[tile.low : tile.high]
        np.maximum(part, time, out=part)

    def use(self, tile: Tile, time: int) -> None:
        part = self.read[tile.low : tile.high]
        np.maximum(part, time, out=part)


Place = tuple[int, int]


def up(x: int, y: int) -> int:
    return (x + y - 1) // y


def sorting(count: int) -> int:
    """Compare-exchanges of a bitonic network for so many numbers, filled up to a power of two."""
    steps = 0
    while 1 << steps < count:
        steps += 1
    return (1 << steps) // 2 * (steps * (steps + 1) // 2)


class Reckoning:
    """
    One run of a program on sequences of some lengths; `decided` are masks and gates, as asked for.

    `extras` are the rows of each sequence that are no keys. After it: `cycles`, `busy` by engine summed over cores, `read` and `written` bytes of DRAM.
    """

    def __init__(
        self,
        hw: Hardware,
        program: Sequence[Inst],
        lengths: Sequence[int],
        weights: int,
        decided: Sequence[Mask] = (),
        extras: Sequence[int] = (),
    ):
        self.extras = [*extras, *[0] * (len(lengths) - len(extras))]
        self.hw, self.program, self.lengths, self.weights = hw, program, lengths, weights
        self.decided = iter(decided)
        self.registers = [0] * 64
        self.tensors: dict[int, Tensor] = {}
        self.tiles: dict[int, Tile] = {}
        self.host_sizes: dict[int, tuple[int, int]] = {}
        self.local = [Buffer(hw.local_buffer_bytes) for _ in range(hw.cores)]
        self.shared = Buffer(hw.shared_buffer_bytes)
        self.page_written: dict[tuple[str, int], int] = defaultdict(int)
        self.page_read: dict[tuple[str, int], int] = defaultdict(int)
        self.engine_free: dict[tuple[str, int], int] = defaultdict(int)
        self.queue_free = {"load": 0, "store": 0}
        self.busy: dict[str, int] = defaultdict(int)
        self.active, self.parts, self.part_rows = hw.cores, 1, 0
        self.block = (2, 2)
        self.kept: list[bool] | None = None
        self.stores: list[bool] | None = None
        """Whose stores are not zeros; those of all cores at work, if None."""
        self.held = [0] * hw.cores
        self.known_list = 0
        self.listed: list[int] | None = None
        self.issued = self.last = self.read = self.written = 0
        self._run()
        last = max(self.last, self.issued, *self.engine_free.values())
        self.cycles = max(last, self.busy["dma"])

    def _run(self) -> None:
        pc, opened = 0, list[int]()
        while True:
            one = self.program[pc]
            fields = dict(zip([f.name for f in one.instruction.fields], one.operands))
            self.issued += 1
            if one.mnemonic == "halt":
                return
            if one.mnemonic == "loop":
                self.registers[int(fields["r"])] = 0
                if self.registers[int(fields["bound"])] <= 0:
                    pc += int(fields["skip"])
                    continue
                opened.append(pc)
            elif one.mnemonic == "end":
                begin = self.program[opened[-1]]
                self.registers[int(begin["r"])] += int(begin["step"])
                if self.registers[int(begin["r"])] < self.registers[int(begin["bound"])]:
                    pc = opened[-1] + 1
                    continue
                opened.pop()
            else:
                self.issued -= 1
                self._names(one, fields)
                getattr(self, f"_{one.mnemonic}")(**fields)
                self.issued += 1
            pc += 1

    def _names(self, one: Inst, fields: dict[str, Any]) -> None:
        """Enumerations by name."""
        for entry in one.instruction.fields:
            if entry.choices:
                fields[entry.name] = entry.choices[int(fields[entry.name])]

    # -- control -----------------------------------------------------------------------------

    def _set(self, register: int, value: int) -> None:
        if register:
            self.registers[register] = value

    def _li(self, rd: int, imm: int) -> None:
        self._set(rd, imm)

    def _addi(self, rd: int, ra: int, imm: int) -> None:
        self._set(rd, self.registers[ra] + imm)

    def _span(self, rd: int, ra: int, rb: int, limit: int, scale: int) -> None:
        left = max(0, self.registers[ra] - self.registers[rb])
        self._set(rd, min(left, limit) * scale)

    def _seq(self, rb: int) -> None:
        index = self.registers[rb]
        self.registers[START] = sum(self.lengths[:index]) + sum(self.extras[:index])
        self.registers[LENGTH] = self.lengths[index]
        self.registers[EXTRA_START] = self.registers[START] + self.lengths[index]
        self.registers[EXTRA] = self.extras[index]

    def _extra(self) -> None:
        """Which rows are worked on is no matter of time."""

    def _all(self) -> None:
        self.active, self.parts, self.part_rows = self.hw.cores, 1, 0
        self.block, self.listed, self.known_list = (2, 2), None, 0
        self._activate(0)

    def _group(self, parts: int, rows: int) -> None:
        self.parts, self.part_rows = parts, rows

    def _blocks(self, rows: int, columns: int) -> None:
        self.block = (rows, columns)

    def _heads(self, rc: int, stride: int, limit: int) -> None:
        first = self.registers[rc]
        items = [i for i in range(self.hw.cores // self.parts) if first + i * stride < limit]
        self.active = len(items) * self.parts
        self._activate(self.known_list)

    def _activate(self, since: int) -> None:
        """All active cores work, from a time on."""
        self.kept = self.stores = None
        self.held = [since] * self.hw.cores

    def _param(self, which: str, head: int, value: float) -> None:
        """A threshold: what it decides is given."""

    def _cores(self) -> list[int]:
        """The cores at work: active, and not pruned."""
        return [c for c in range(self.active) if self.kept is None or self.kept[c]]

    def _gate(self, tau: float, own: int, positive: int) -> None:
        kept = next(self.decided).tolist()
        # The cores of a head share its decision.
        kept = [kept[core // self.parts * self.parts] for core in range(self.active)]
        before = self.stores if self.kept is None else self.kept
        if before is not None:
            kept = [a and b for a, b in zip(kept, before)]
        ends = self._work("se", [1] * self.hw.cores, (), ())
        if self.parts > 1:
            self.held = [max(ends.values(), default=0)] * self.hw.cores
        else:
            self.held = [ends.get(core, 0) for core in range(self.hw.cores)]
        self._keep(kept)

    def _pruned(self) -> None:
        kept = self.kept if self.stores is None else self.stores
        others = [False] * self.active if kept is None else [not k for k in kept]
        if self.hw.early_head_exit:
            self.kept = others
        else:
            self.stores = others

    def _keep(self, kept: list[bool]) -> None:
        if all(kept):
            return
        if self.hw.early_head_exit:
            self.kept = kept
        else:
            self.stores = kept

    def _tensor(
        self, d: int, space: str, dtype: str, base: int, rows_imm: int, rows_reg: int, cols: int
    ) -> None:
        rows = self.registers[rows_reg] if rows_reg else rows_imm
        writable = space != "dram" or base >= self.weights
        self.tensors[d] = Tensor(space, dtype, base, rows, cols, writable)

    def _window(self, d: int, src: int, start_reg: int, rows_reg: int) -> None:
        source = self.tensors[src]
        base = source.base + self.registers[start_reg] * source.pitch
        rows = self.registers[rows_reg]
        self.tensors[d] = Tensor(
            source.space, source.dtype, base, rows, source.columns, source.writable
        )

    def _tile(self, t: int, space: str, dtype: str, address: int, bytes: int) -> None:
        self.tiles[t] = Tile(space, dtype, address, address + bytes)

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

    # -- engines of a core -------------------------------------------------------------------

    def _work(
        self,
        engine: str,
        cycles: list[int],
        reads: Sequence[Tile],
        writes: Sequence[Tile],
        after: int = 0,
    ) -> dict[int, int]:
        """An instruction of the cores at work, not before `after`; returns when each is done."""
        clock, ends = engine if self.hw.stage_overlap else "core", dict[int, int]()
        for core in self._cores():
            start = max(after, self.issued, self.engine_free[clock, core], self.held[core])
            for tile in reads:
                (buffer,) = self._buffers(tile, (core,))
                start = max(start, buffer.there(tile))
            for tile in writes:
                start = max(start, self.local[core].free(tile))
            end = ends[core] = start + cycles[core]
            self.engine_free[clock, core] = end
            self.busy[engine] += cycles[core]
            for tile in reads:
                (buffer,) = self._buffers(tile, (core,))
                buffer.use(tile, end)
            for tile in writes:
                self.local[core].write(tile, end)
        return ends

    def _fill(self, folds: int) -> int:
        passes = min(folds, 1) if self.hw.fold_overlap else folds
        return passes * (self.hw.pe_rows + self.hw.pe_columns - 2)

    def _fetch_again(self, elements: int, tiles: Sequence[Tile]) -> int:
        """Queries that do not stay come again from DRAM; returns when they are there."""
        nbytes = elements * sum(BYTES[tile.dtype] for tile in tiles)
        if self.hw.local_a_stationary or nbytes <= 0:
            return 0
        start = max(self.issued, self.queue_free["load"], *self.held)
        done = self._move("load", "dram", start, nbytes) + self._latency("dram")
        self.read += nbytes
        self.last = max(self.last, done)
        return done

    def _again(self, left: Tile, keys: int) -> int:
        """Every fold of key columns beyond the first one takes all rows of a local tile again."""
        folds = up(keys, self.hw.pe_columns) - 1 if left.space == "local" else 0
        each = sum(left.rows[core] * left.columns[core] for core in self._cores())
        return self._fetch_again(folds * each, (left,))

    def _again_masked(self, tiles: Sequence[Tile], folds: list[int]) -> int:
        """A fold beyond the first one of a group of rows takes the rows of the group again."""
        rows, depth = max(tiles[0].rows), max(tiles[0].columns)
        groups = up(rows, self.hw.pe_rows)
        beyond = sum(max(0, folds[core] - groups) for core in self._cores())
        return self._fetch_again(beyond * min(rows, self.hw.pe_rows) * depth, tiles)

    def _macs(self, left: Tile, right: Tile) -> int:
        """Products of a PE and cycle: a multiplier splits down to the narrowest that it has."""
        each = 1
        for tile in (left, right):
            each *= 16 // max(BITS[tile.dtype], self.hw.split_bits)
        return each

    def _mm(self, acc: int, a: int, b: int, first: int, b_transposed: int) -> None:
        target, left, right = self.tiles[acc], self.tiles[a], self.tiles[b]
        width, depth = (right.rows, right.columns) if b_transposed else (right.columns, right.rows)
        cycles: list[int] = []
        for m, n, k, other in zip(left.rows, width, left.columns, depth):
            folds = up(m, self.hw.pe_rows) * up(n, self.hw.pe_columns)
            steps = up(min(k, other), self._macs(left, right))
            empty = not (m and n and min(k, other))
            cycles.append(0 if empty else folds * steps + self._fill(folds))
        target.rows, target.columns = list(left.rows), list(width)
        reads = (left, right) if first else (left, right, target)
        self._work("pe", cycles, reads, (target,), self._again(left, max(width)))

    def _leave(self, source: Tile, bias: Tile | None, targets: Sequence[Tile]) -> None:
        cycles = [
            up(m, self.hw.pe_rows) * n if self.hw.fold_overlap else 0
            for m, n in zip(source.rows, source.columns)
        ]
        self._work("pe", cycles, (source,) if bias is None else (source, bias), targets)

    def _drain(
        self, t: int, acc: int, bias: int, has_bias: int, bias_shift: int, shift: int
    ) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        target.rows, target.columns = list(source.rows), list(source.columns)
        self._leave(source, self.tiles[bias] if has_bias else None, (target,))

    def _drains(
        self,
        ti: int,
        tf: int,
        acc: int,
        bias: int,
        has_bias: int,
        bias_shift: int,
        shift: int,
        point: int,
    ) -> None:
        targets, source = (self.tiles[ti], self.tiles[tf]), self.tiles[acc]
        for target in targets:
            target.rows, target.columns = list(source.rows), list(source.columns)
        self._leave(source, self.tiles[bias] if has_bias else None, targets)

    def _drainc(self, t: int, acc: int, col_reg: int, shift: int) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        target.rows, target.taken = list(source.rows), []
        target.columns = [self.registers[LENGTH]] * self.hw.cores
        self._leave(source, None, (target,))

    def _pv(
        self,
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
        target, left, right = self.tiles[acc], self.tiles[p], self.tiles[v]
        reads = [left, right] if first else [left, right, target]
        macs, cycles = self._macs(left, right), list[int]()
        for core, (m, keys, n) in enumerate(zip(left.rows, right.rows, right.columns)):
            groups, wide = up(m, self.hw.pe_rows), up(n, self.hw.pe_columns)
            depth = groups * up(keys, macs)
            if sparse and core in self._cores():
                kept = self._kept(mask, core, row_reg, col_reg, left, right)
                depth = self._peaks([int(row.sum()) for row in kept], m, macs)
            if constant and first:
                depth += 2 * groups
            cycles.append(depth * wide + self._fill(groups * wide) if depth else 0)
        if sparse:
            reads.append(self.tiles[mask])
        if constant and first:
            reads.append(self.tiles[total])
        target.rows, target.columns = list(left.rows), list(right.columns)
        self._work("pe", cycles, reads, (target,))

    def _softmax(self, p: int, s: int, multiplier: int, shift: int, point: int) -> None:
        target, source, lanes = self.tiles[p], self.tiles[s], self.hw.softmax_lanes
        cycles: list[int] = []
        for core, (m, n) in enumerate(zip(source.rows, source.columns)):
            taken = source.taken[core] if source.taken else [n] * m
            each = up(sum(taken), lanes) + 2 * up(max(taken, default=0), lanes)
            cycles.append(each if m else 0)
        target.rows, target.columns = list(source.rows), list(source.columns)
        self._work("softmax", cycles, (source,), (target,))

    # -- masks -------------------------------------------------------------------------------

    def _part_row(self, row_reg: int) -> int:
        """Where a row of core 0 lies among the rows of a core."""
        return self.registers[row_reg] // self.parts

    def _kept(
        self, mask: int, core: int, row_reg: int, col_reg: int, left: Tile, right: Tile
    ) -> Mask:
        """The kept scores of a core's rows and of as many key columns as `right` has rows."""
        (high, wide), blocks = self.block, self.tiles[mask].mask[core]
        scores = np.repeat(np.repeat(blocks, high, axis=0), wide, axis=1)
        row, column = self._part_row(row_reg), self.registers[col_reg]
        rows, columns = left.rows[core], right.rows[core]
        return scores[row : row + rows, column : column + columns]

    def _kept_blocks(
        self, mask: int, core: int, row_reg: int, col_reg: int, left: Tile, right: Tile
    ) -> list[int]:
        """How many blocks of each block row are kept, of the same rows and columns."""
        (high, wide), blocks = self.block, self.tiles[mask].mask[core]
        row, column = self._part_row(row_reg), self.registers[col_reg]
        bottom, end = row + left.rows[core], column + right.rows[core]
        part = blocks[row // high : up(bottom, high), column // wide : up(end, wide)]
        return [int(one.sum()) for one in part]

    def _peaks(self, values: list[int], rows: int, each: int = 1) -> int:
        """The greatest value of the rows of each fold, in steps of `each`, summed over folds."""
        high = self.hw.pe_rows
        return sum(
            up(max(values[i : i + high], default=0), each)
            for i in range(0, min(rows, len(values)), high)
        )

    def _folds(self, mask: int, row_reg: int, col_reg: int, left: Tile, right: Tile) -> list[int]:
        """Folds of a masked product: kept blocks, packed row by row."""
        high, wide = self.block
        found = [0] * self.hw.cores
        for core in self._cores():
            kept = self._kept_blocks(mask, core, row_reg, col_reg, left, right)
            if wide > self.hw.pe_columns:
                folds = [n * up(wide, self.hw.pe_columns) for n in kept]
            else:
                folds = [up(n, self.hw.pe_columns // wide) for n in kept]
            together = max(1, self.hw.pe_rows // high)
            peaks = [max(folds[i : i + together]) for i in range(0, len(folds), together)]
            found[core] = sum(peaks) * max(1, up(high, self.hw.pe_rows))
        return found

    def _rank(self, m: int, source: Tile, row_reg: int, sorts: bool, reads: Sequence[Tile]) -> None:
        """Mask rows of block rows that a tile holds, one after the other in a core's mask tile."""
        target, given = self.tiles[m], next(self.decided)
        at, cycles = self._part_row(row_reg) // self.block[0], [0] * self.hw.cores
        if at == 0:
            target.mask = [np.zeros((0, 0), np.bool_)] * self.hw.cores
        for core in range(self.active):
            rows, columns = source.rows[core], source.columns[core]
            kept = given[core if len(given) > 1 else 0].copy()
            kept[rows:] = False
            before = target.mask[core][:at]
            target.mask[core] = np.concatenate([before, kept]) if at else kept
            compares = rows * sorting(columns) if sorts else 0
            cycles[core] = up(rows * columns + compares, self.hw.se_lanes)
        target.rows, target.columns = list(source.rows), list(source.columns)
        self._work("se", cycles, reads, (target,))

    def _mask(self, m: int, theta: int, row_reg: int, rho: float, own: int) -> None:
        source = self.tiles[theta]
        self._rank(m, source, row_reg, False, (source,))

    def _topk(self, m: int, theta: int, row_reg: int, density: float) -> None:
        source = self.tiles[theta]
        self._rank(m, source, row_reg, True, (source,))

    def _filter(self, m: int, s: int, among: int, row_reg: int, rho: float, has_among: int) -> None:
        source = self.tiles[s]
        reads = (source, self.tiles[among]) if has_among else (source,)
        self._rank(m, source, row_reg, False, reads)

    def _likely(self, m: int, p: int, row_reg: int, code: int) -> None:
        source = self.tiles[p]
        self._rank(m, source, row_reg, False, (source,))

    # -- pruned products and scores -------------------------------------------------------------

    def _scores(
        self, a: int, q: int, k: int, theta: int, col_reg: int, r: int, positive: int
    ) -> None:
        left, right, target, sums = (self.tiles[t] for t in (q, k, a, theta))
        reads = [left, right, self.tiles[r]] if positive else [left, right]
        cycles, length, (high, wide) = list[int](), self.registers[LENGTH], self.block
        for m, n, depth in zip(left.rows, right.rows, left.columns):
            folds = up(m, self.hw.pe_rows) * up(n, self.hw.pe_columns)
            steps = up(depth, self._macs(left, right))
            cycles.append(folds * steps + self._fill(folds) if m else 0)
        target.rows, target.columns, target.taken = list(left.rows), [length] * self.hw.cores, []
        sums.rows = [up(m, high) for m in left.rows]
        sums.columns = [up(length, wide)] * self.hw.cores
        self._work("pe", cycles, reads, (target, sums), self._again(left, max(right.rows)))
        if not self.hw.block_importance_in_array and target.dtype != "acc":
            again = [up(m * n, self.hw.adder_lanes) for m, n in zip(left.rows, right.rows)]
            self._work("adder", again, (target, *reads[2:]), (sums,))

    def _frac(
        self,
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
        q, q_rest, k, k_rest = (self.tiles[t] for t in (qi, qf, ki, kf))
        cycles, every = list[int](), self._folds(mask, row_reg, col_reg, q, k)
        for depth, folds in zip(q.columns, every):
            steps = up(depth, self._macs(q_rest, k)) + up(depth, self._macs(q, k_rest))
            cycles.append(folds * steps + self._fill(2 * folds) if folds else 0)
        targets = self.tiles[f1], self.tiles[f2]
        for target in targets:
            target.rows, target.columns = list(q.rows), list(k.rows)
        reads = (q, q_rest, k, k_rest, self.tiles[mask])
        self._work("pe", cycles, reads, targets, self._again_masked((q, q_rest), every))

    def _pick(self, acc: int, q: int, k: int, mask: int, row_reg: int, col_reg: int) -> None:
        target, left, right = self.tiles[acc], self.tiles[q], self.tiles[k]
        cycles, every = list[int](), self._folds(mask, row_reg, col_reg, left, right)
        for depth, folds in zip(left.columns, every):
            steps = up(depth, self._macs(left, right))
            cycles.append(folds * steps + self._fill(folds) if folds else 0)
        target.rows, target.columns = list(left.rows), list(right.rows)
        reads = (left, right, self.tiles[mask])
        self._work("pe", cycles, reads, (target,), self._again_masked((left,), every))

    def _drainm(self, t: int, acc: int, mask: int, row_reg: int, col_reg: int, shift: int) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        # As many keys as the accumulators have columns.
        keys = Tile("local", "i16", 0, 0, list(source.columns), [])
        folds = self._folds(mask, row_reg, col_reg, source, keys)
        leave = self.hw.pe_columns if self.hw.fold_overlap else 0
        self._take(target, mask, row_reg, col_reg, source, keys)
        target.rows = list(source.rows)
        target.columns = [self.registers[LENGTH]] * self.hw.cores
        reads = (source, self.tiles[mask])
        self._work("pe", [n * leave for n in folds], reads, (target,))

    def _take(
        self,
        target: Tile,
        mask: int,
        row_reg: int,
        col_reg: int,
        rows: Tile,
        keys: Tile,
        constant: int = 0,
    ) -> list[int]:
        """Scores of each row that are not excluded; returns how many come in now, by core."""
        begins = self.registers[col_reg] == 0
        if begins or not target.taken:
            target.taken = [[0] * rows.rows[core] for core in range(self.hw.cores)]
        found = [0] * self.hw.cores
        for core in self._cores():
            kept = self._kept(mask, core, row_reg, col_reg, rows, keys).sum(axis=1)
            each = [int(n) + (constant if begins else 0) for n in kept]
            target.taken[core] = [a + b for a, b in zip(target.taken[core], each)]
            found[core] = sum(each)
        return found

    def _drainp(self, t: int, acc: int, q_peak: int, k_peak: int, col_reg: int, shift: int) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        target.rows, target.taken = list(source.rows), []
        target.columns = [self.registers[LENGTH]] * self.hw.cores
        cycles = [
            up(m, self.hw.pe_rows) * n if self.hw.fold_overlap else 0
            for m, n in zip(source.rows, source.columns)
        ]
        self._work("pe", cycles, (source, self.tiles[q_peak], self.tiles[k_peak]), (target,))

    def _wide(self, r: int, x: int, t: int, as_row: int) -> None:
        target, left, right = self.tiles[r], self.tiles[x], self.tiles[t]
        split = 16 // max(BITS[left.dtype], self.hw.split_bits)
        cycles: list[int] = []
        for m, depth in zip(left.rows, left.columns):
            folds = up(m, self.hw.pe_rows)
            cycles.append(folds * 2 * up(depth, split) + self._fill(2 * folds) if m else 0)
        ones = [1] * self.hw.cores
        target.rows = ones if as_row else list(left.rows)
        target.columns = list(left.rows) if as_row else ones
        self._work("pe", cycles, (left, right), (target,))

    # -- the adder -----------------------------------------------------------------------------

    def _add_up(self, counts: Sequence[int], reads: Sequence[Tile], target: Tile) -> None:
        self._work("adder", [up(n, self.hw.adder_lanes) for n in counts], reads, (target,))

    def _add(
        self,
        s: int,
        a: int,
        f1: int,
        f2: int,
        mask: int,
        row_reg: int,
        col_reg: int,
        pruned: str,
        point_q: int,
        point_k: int,
        point_s: int,
        r: int,
        constant: int,
    ) -> None:
        target, source, by_q, by_k = (self.tiles[t] for t in (s, a, f1, f2))
        keys = Tile("local", "i16", 0, 0, list(by_q.columns), [])
        merged = [m * n for m, n in zip(source.rows, by_q.columns)]
        if pruned == "neginf" or constant:
            merged = self._take(target, mask, row_reg, col_reg, source, keys, constant)
        else:
            target.taken = []
        target.rows, target.columns = list(source.rows), [self.registers[LENGTH]] * self.hw.cores
        reads = [source, by_q, by_k, self.tiles[mask]]
        if constant and pruned == "mean":
            reads.append(self.tiles[r])
        self._add_up(merged, reads, target)

    def _sum(self, t: int, x: int, first: int, columns: int) -> None:
        """All elements of a tile pass the adder; `columns` of the result, 0 for those of `x`."""
        target, source = self.tiles[t], self.tiles[x]
        target.rows = [1] * self.hw.cores
        target.columns = [columns or n for n in source.columns]
        counts = [m * n for m, n in zip(source.rows, source.columns)]
        self._add_up(counts, (source,) if first else (source, target), target)

    def _colsum(self, t: int, x: int, first: int) -> None:
        self._sum(t, x, first, 0)

    def _peak(self, t: int, x: int, first: int) -> None:
        self._sum(t, x, first, 1)

    def _magnitude(self, t: int, x: int, row_reg: int) -> None:
        self._sum(t, x, self.registers[row_reg] == 0, 1)

    def _low(self, t: int, x: int, peak: int, bits: int) -> None:
        target, source = self.tiles[t], self.tiles[x]
        target.rows, target.columns = list(source.rows), list(source.columns)
        counts = [m * n for m, n in zip(source.rows, source.columns)]
        self._add_up(counts, (source, self.tiles[peak]), target)

    def _divide(self, t: int, acc: int, col_reg: int, wide: int, shift: int) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        target.rows, target.taken = list(source.rows), []
        target.columns = [self.registers[LENGTH] if wide else n for n in source.columns]
        counts = [m * n for m, n in zip(source.rows, source.columns)]
        self._add_up(counts, (source,), target)

    def _tally(self, t: int, acc: int, s: int, first: int, head_reg: int, shift: int) -> None:
        target, source = self.tiles[t], self.tiles[acc]
        target.rows = target.columns = [1] * self.hw.cores
        reads = (source,) if first else (source, self.tiles[s])
        # A head's sum needs those of all cores that share it.
        shared = range(self.hw.cores) if self.parts > 1 else ()
        there = max((self.local[core].there(source) for core in shared), default=0)
        cycles = [up(self.parts + 1, self.hw.adder_lanes)] * self.hw.cores
        self._work("adder", cycles, reads, (target,), there)

    def _cascade(self, s: int, keep: int) -> None:
        source, kept = self.tiles[s], next(self.decided).tolist()
        heads = range(len(kept))
        self.listed = [h for h in heads if kept[h]] + [h for h in heads if not kept[h]]
        cycles = [up(len(kept) ** 2, self.hw.se_lanes)] * self.hw.cores
        ends = self._work("se", cycles, (source,), ())
        self.known_list = max(ends.values())
        self.held = [self.known_list] * self.hw.cores

    # -- the host and the vector units ---------------------------------------------------------

    def _host(
        self,
        name: str,
        elements: int,
        nbytes: int,
        reads: Sequence[tuple[Tensor, int, int, int]] = (),
        writes: Sequence[tuple[Tensor, int, int, int]] = (),
    ) -> int:
        """`reads` and `writes`: a tensor, the first row, how many rows, how many of them move."""
        vector = self.hw.vector_lanes > 0 and name in VECTOR_PASSES
        engine = "vector" if vector else "host"
        start = max(self.issued, self.engine_free[engine, 0])
        for tensor, row, rows, _ in (*reads, *writes):
            start = max(start, self._known(self._pages(tensor, row, rows)))
        for tensor, row, rows, _ in writes:
            start = max(start, self._unused(self._pages(tensor, row, rows)))
        space = (*reads, *writes)[0][0].space if reads or writes else "dram"
        if vector:
            lanes = self.hw.cores * self.hw.vector_lanes
            moved = math.ceil(nbytes / self._width(space))
            cycles = max(VECTOR_PASSES[name] * up(elements, lanes), moved)
            cycles += self._latency(space) if reads else 0
            queue = "store" if writes else "load"
            self.queue_free[queue] = max(self.queue_free[queue], self.issued) + moved
            self.busy["dma"] += moved
        else:
            seconds = Fraction(HOST_OPERATIONS[name] * elements, self.hw.host_ops_per_second)
            seconds += Fraction(nbytes, self.hw.host_bytes_per_second)
            cycles = math.ceil(self.hw.host_call_cycles + seconds * self.hw.clock_hz)
        end = start + cycles
        self.engine_free[engine, 0] = end
        self.busy[engine] += cycles
        self.last = max(self.last, end)
        for tensor, row, rows, moves in reads:
            self._mark(self.page_read, self._pages(tensor, row, rows), end)
            self.read += moves * tensor.pitch if tensor.space == "dram" else 0
        for tensor, row, rows, moves in writes:
            self._mark(self.page_written, self._pages(tensor, row, rows), end)
            self.written += moves * tensor.pitch if tensor.space == "dram" else 0
        return end

    def _whole(self, d: int) -> tuple[Tensor, int, int, int]:
        tensor = self.tensors[d]
        return tensor, 0, tensor.rows, tensor.rows

    def _hpack(
        self, dpos: int, dinv: int, dmask: int, batch: int, length: int, has_mask: int
    ) -> None:
        reads = [self._whole(dmask)] if has_mask else []
        self._list("hpack", batch, length, reads, [self._whole(dpos), self._whole(dinv)])

    def _hrows(
        self,
        dpos: int,
        dinv: int,
        dreal: int,
        dmask: int,
        dread: int,
        batch: int,
        length: int,
    ) -> None:
        reads = [self._whole(dmask), self._whole(dread)]
        writes = [self._whole(d) for d in (dpos, dinv, dreal)]
        self._list("hrows", batch, length, reads, writes)

    def _list(
        self, name: str, batch: int, length: int, reads: list[Any], writes: list[Any]
    ) -> None:
        missing = [0] * (batch - len(self.lengths))
        self.lengths, self.extras = [*self.lengths, *missing], [*self.extras, *missing]
        self.registers[TOKENS] = sum(self.lengths) + sum(self.extras)
        self.registers[BATCH], count = batch, batch * length
        end = self._host(name, count, (1 + len(writes)) * 8 * count, reads, writes)
        # What follows needs the registers.
        self.issued = max(self.issued, end)

    def _htest(self, dst: int, src: int, compare: str, value: float) -> None:
        target, source = self.tensors[dst], self.tensors[src]
        count = source.rows * source.columns
        nbytes = count * (BYTES[source.dtype] + BYTES[target.dtype])
        self._host("htest", count, nbytes, [self._whole(src)], [self._whole(dst)])

    def _hidx(self, dst: int, src: int, idx: int) -> None:
        tensors = [self.tensors[d] for d in (dst, src, idx)]
        count = tensors[0].rows * tensors[0].columns
        nbytes = sum(count * BYTES[tensor.dtype] for tensor in tensors)
        reads = [self._whole(src), self._whole(idx)]
        self._host("hidx", count, nbytes, reads, [self._whole(dst)])

    def _hget(self, h: int, d: int, row_reg: int, rows: int, point: int) -> None:
        tensor, row = self.tensors[d], self.registers[row_reg]
        count = min(rows, tensor.rows - row)
        self.host_sizes[h] = (count, tensor.columns)
        reads = [(tensor, row, count, count)]
        self._host("hget", count * tensor.columns, count * tensor.pitch, reads)

    def _hgeti(self, h: int, d: int, idx: int, row_reg: int, rows: int, point: int) -> None:
        tensor, index = self.tensors[d], self.tensors[idx]
        count = min(rows, index.rows * index.columns - self.registers[row_reg])
        self.host_sizes[h] = (count, tensor.columns)
        nbytes = count * tensor.pitch + count * BYTES[index.dtype]
        reads = [(tensor, 0, tensor.rows, count), self._whole(idx)]
        self._host("hgeti", count * tensor.columns, nbytes, reads)

    def _in_place(self, name: str, h: int, reads: Sequence[Any] = (), nbytes: int = 0) -> None:
        rows, columns = self.host_sizes[h]
        self._host(name, rows * columns, nbytes, reads)

    def _hadd(self, h: int, g: int) -> None:
        self._in_place("hadd", h)

    def _hgelu(self, h: int) -> None:
        self._in_place("hgelu", h)

    def _htanh(self, h: int) -> None:
        self._in_place("htanh", h)

    def _hrelu(self, h: int) -> None:
        self._in_place("hrelu", h)

    def _hln(self, h: int, gamma: int, beta: int, eps: float) -> None:
        tensors = self.tensors[gamma], self.tensors[beta]
        nbytes = sum(tensor.rows * tensor.pitch for tensor in tensors)
        self._in_place("hln", h, [self._whole(gamma), self._whole(beta)], nbytes)

    def _hput(self, d: int, h: int, row_reg: int, point: int) -> None:
        tensor, row = self.tensors[d], self.registers[row_reg]
        rows, columns = self.host_sizes[h]
        count = min(rows, tensor.rows - row)
        writes = [(tensor, row, count, count)]
        self._host("hput", count * columns, count * tensor.pitch, (), writes)
