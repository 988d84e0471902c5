"""The adder of a core."""

from __future__ import annotations

from collections.abc import Sequence

from reckoning.parts import LENGTH, Tile, up
from reckoning.pruning import Pruning


class Adder(Pruning):
    """Sums, peaks, narrow codes and the importance of heads."""

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
        hides: int,
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
        if hides or (constant and pruned == "mean"):
            reads.append(self.tiles[r])
        self._add_up(merged, reads, target)

    def _weigh(self, theta: int, a: int, v: int, positive: int) -> None:
        target, source, (high, wide) = self.tiles[theta], self.tiles[a], self.block
        target.rows = [up(m, high) for m in source.rows]
        target.columns = [up(n, wide) for n in source.columns]
        counts = [m * n * (1 + positive) for m, n in zip(source.rows, source.columns)]
        self._add_up(counts, (source, self.tiles[v]), target)

    def _offset(
        self,
        s: int,
        b: int,
        v: int,
        has_bias: int,
        has_visible: int,
        shift: int,
        keyless: str,
    ) -> None:
        target = self.tiles[s]
        reads = [target]
        reads += [self.tiles[b]] if has_bias else []
        reads += [self.tiles[v]] if has_visible else []
        self._add_up([m * n for m, n in zip(target.rows, target.columns)], reads, target)

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
