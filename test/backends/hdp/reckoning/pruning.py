"""Heads that are gated, masks, and products upon them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from reckoning.array import Array
from reckoning.parts import BITS, LENGTH, Tile, sorting, up


class Pruning(Array):
    """The sparsity engine, and what the array does upon masks."""

    # -- heads -------------------------------------------------------------------------------

    def _gate(self, tau: float, own: int, positive: int, visible: int) -> None:
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

    # -- masks -------------------------------------------------------------------------------

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
        self,
        a: int,
        q: int,
        k: int,
        theta: int,
        col_reg: int,
        r: int,
        positive: int,
        plain: int,
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
        if not self.hw.block_importance_in_array and target.dtype != "acc" and not plain:
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
