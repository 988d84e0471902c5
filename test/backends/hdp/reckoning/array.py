"""The engines of a core, and the products, drains and softmax of all attentions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reckoning.parts import BITS, BYTES, LENGTH, Mask, Tile, up
from reckoning.transfers import Transfers


class Array(Transfers):
    """Work of the cores; the array of PEs."""

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

    # -- what a mask keeps ---------------------------------------------------------------------

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

    # -- values and softmax ---------------------------------------------------------------------

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
