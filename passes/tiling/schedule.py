"""
Estimated cycles of an attention: its instructions, scheduled on the fullest core.

The order is that of `heatc.passes.tiling.attention`, the rules are those of the machine
(docs/design/machine.md): an engine works in program order, an instruction waits for what it reads
and for whoever still uses what it writes. What is not known at compile time is assumed:

* A pruning rule keeps `KEPT` of the blocks (`topk` its density), each by itself at random; where the fullest of some
  block rows decides, its expected fullness counts.
* No head is pruned, and every key has a query that wants it.
* An instruction takes `_ISSUE` cycles of the sequencer, with the declarations and registers that
  belong to it. After `_ROUNDS` rounds of heads (two, where one has more than `_SHORT` steps times
  parts of the keys) all others take as long as the last two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import accumulate
from math import comb
from typing import TYPE_CHECKING, NamedTuple

from heatc.hardware import Hardware
from heatc.hardware.costs import macs_per_pe
from heatc.isa.table import DTYPES, sorting_compares
from heatc.passes.tiling.packing import up

if TYPE_CHECKING:
    from heatc.passes.tiling.plan import AttentionPlan

KEPT = 0.5
"""The share of blocks that a pruning rule is taken to keep: a threshold near the mean."""

_ISSUE = 3
_ROUNDS, _SHORT = 4, 64


@cache
def fullest(blocks: int, rows: int, unit: int, share: float = KEPT) -> float:
    """
    The expected most units of kept blocks in a row, of `rows` rows of `blocks` blocks.

    `unit` blocks make a unit, begun ones count; a block is kept with probability `share`.
    """
    at_most = list(
        accumulate(comb(blocks, n) * share**n * (1 - share) ** (blocks - n) for n in range(blocks))
    )
    return sum(1 - min(1.0, at_most[n]) ** rows for n in range(0, blocks, unit))


class _Row(NamedTuple):
    """A row tile: its first query, the slot it works in, its head's turn and number of heads."""

    row: int
    slot: int
    turn: int
    heads: int


def scheduled_cycles(plan: AttentionPlan, hw: Hardware, length: int) -> float:
    """Estimated cycles of one sequence of `length` tokens."""
    return _Schedule(plan, hw, length).total()


class _Schedule:
    def __init__(self, plan: AttentionPlan, hw: Hardware, length: int):
        self.plan, self.hw, self.length = plan, hw, length
        self.shape = plan.shape
        self.clock = 0.0
        self.free: dict[str, float] = {}
        self.ready: dict[str, float] = {}
        self.busy: dict[str, float] = {}
        self.floor = 0.0
        self.moved = 0.0
        self.ranked = False

    # -- engines ---------------------------------------------------------------------------

    def _do(self, engine: str, cycles: float, reads: tuple[str, ...], *writes: str) -> None:
        self.clock += _ISSUE
        lane = engine if self.hw.stage_overlap or engine in ("load", "store") else "pe"
        start = max(self.clock, self.floor, self.free.get(lane, 0.0))
        for name in reads:
            start = max(start, self.ready.get(name, 0.0))
        for name in writes:
            start = max(start, self.ready.get(name, 0.0), self.busy.get(name, 0.0))
        end = self.free[lane] = start + cycles
        for name in reads:
            self.busy[name] = max(self.busy.get(name, 0.0), end)
        late = self.hw.dram_latency_cycles if engine == "load" else 0
        for name in writes:
            self.ready[name] = end + late

    def _move(self, engine: str, nbytes: int, reads: tuple[str, ...], *writes: str) -> None:
        cycles = nbytes / self.hw.dram_bytes_per_cycle
        self.moved += cycles
        self._do(engine, cycles, reads, *writes)

    def _fill(self, folds: float) -> float:
        return (1 if self.hw.fold_overlap else folds) * (self.hw.pe_rows + self.hw.pe_columns - 2)

    def _rows(self, row: int) -> int:
        return max(0, min(self.plan.rows, self.length - row))

    def _high(self, rows: int) -> int:
        return up(rows, self.hw.pe_rows)

    def _steps(self, a: str, b: str) -> int:
        """Cycles that a PE takes for a dot product of two planes."""
        widths = (8 * DTYPES[self.shape.dtype(name)] for name in (a, b))
        return up(self.shape.dim, macs_per_pe(*widths, self.hw.split_bits))

    def _fullest(self, rows: int, columns: int, unit: int) -> float:
        """Units of kept blocks in the fullest block row, summed over the folds of some rows."""
        high, wide = self.shape.block
        whole, last = divmod(rows, max(high, self.hw.pe_rows))
        groups = [max(high, self.hw.pe_rows)] * whole + [last] * (last > 0)
        cores = self.plan.parts  # The slowest core of a head holds up its next keys.
        each = (
            fullest(up(columns, wide), up(g, high) * cores, unit, self.shape.share) for g in groups
        )
        return up(high, self.hw.pe_rows) * sum(each)

    def _product(
        self, rows: int, columns: int, depth: int, reads: tuple[str, ...], out: str
    ) -> None:
        folds = self._high(rows) * up(columns, self.hw.pe_columns)
        self._do("pe", folds * depth + self._fill(folds), reads, out)

    def _sum(self, rows: int, tile: str, out: str) -> None:
        self._do("adder", up(rows * self.shape.dim, self.hw.adder_lanes), (tile,), out)

    def _drain(self, rows: int, columns: int, reads: tuple[str, ...], out: str) -> None:
        cycles = self._high(rows) * columns if self.hw.fold_overlap else 0
        self._do("pe", cycles, reads, out)

    def _low(self, rows: int, plane: str, tile: str, out: str) -> None:
        """Low-bit codes of some rows of a plane, each number once through the adder."""
        self._do(
            "adder", up(rows * self.shape.dim, self.hw.adder_lanes), (tile, f"{plane}.peak"), out
        )

    # -- transfers -------------------------------------------------------------------------

    def _load(self, name: str, tile: str, rows: int, heads: int, mask: str = "") -> None:
        """Rows of a plane for every head of a round; of a shared tile for the one."""
        nbytes = heads * self.shape.plane_bytes(name, min(rows, self.length))
        self._move("load", nbytes, (mask,) if mask else (), tile)

    def _queries(self, name: str, row: _Row) -> None:
        rows = min(self.plan.step, self.length - row.row)
        self._load(name, f"{name}.{row.slot}", rows, row.heads)

    def _load_keys(self, turn: int, heads: int) -> None:
        plan = self.plan
        if plan.shared:
            rows = self.length if self.shape.pruned else plan.part
            for i in range(0, self.length, rows):
                left = min(rows, self.length - i)
                self._load("k", self._shared_key(i, turn), left, heads)
        elif plan.resident:
            self._load("k", "k", self.length, heads)
        if self.shape.bits:
            self._find_peaks(turn, heads)
        if self.shape.row_sums:
            row = _Row(0, 0, turn, heads)
            for i, tile in self._keys("k", row, shared=True):
                if not plan.shared:
                    self._stream(("k",), row, i)
                keys = min(plan.part, self.length - i)
                self._sum(keys, tile, "k.sum")

    def _find_peaks(self, turn: int, heads: int) -> None:
        for plane in ("q", "k"):
            for at in range(0, self.length, self.plan.part):
                rows = min(self.plan.part, self.length - at)
                if plane == "q":
                    # Its tile lies where accumulators do.
                    nbytes = heads * self.shape.plane_bytes(plane, rows)
                    self._move("load", nbytes, (), "q.part", "scratch")
                elif not self.plan.resident:
                    self._load(plane, "k.part", rows, heads)
                tile = "k" if plane == "k" and self.plan.resident else f"{plane}.part"
                self._sum(rows, tile, f"{plane}.peak")
        for bits in self.shape.bits if self.plan.resident else ():
            self._low(self.length, "k", "k", f"k.low{bits}")

    def _shared_key(self, at: int, turn: int) -> str:
        return f"k.{0 if self.shape.pruned else at}.shared{turn}"

    def _load_values(self, turn: int, heads: int) -> None:
        plan = self.plan
        if plan.shared and not self.plan.picked:
            self._load("v", f"v.shared{turn}", self.length, heads)
        if not plan.resident or plan.chained:
            return
        if plan.shared and self.shape.pruned:
            self._load("k", "k", self.length, heads)
        for name in plan.local_planes:
            if name != "k":
                self._load(name, name, self.length, heads)

    def _keys(self, name: str, row: _Row, *, shared: bool = False) -> list[tuple[int, str]]:
        """
        First key and tile of each part of a plane; nothing is loaded yet where parts stream.

        With `shared` parts of the shared buffer count, else those of the local one.
        """
        plan = self.plan
        if shared and plan.shared:
            if self.shape.pruned:
                return [(0, self._shared_key(0, row.turn))]
            return [(i, self._shared_key(i, row.turn)) for i in range(0, self.length, plan.part)]
        if plan.resident and not plan.chained:
            return [(0, name)]
        parts = range(0, self.length, plan.part)
        first = row.slot if plan.key_parts == 1 else 0
        tile = plan.part_tile(name)
        return [(at, f"{tile}.part{(i + first) % 2}") for i, at in enumerate(parts)]

    def _stream(self, names: tuple[str, ...], row: _Row, at: int, mask: str = "") -> None:
        """Load a part of some planes, where they do not lie there already."""
        if self.plan.resident and not self.plan.chained:
            return
        index = at // self.plan.part + (row.slot if self.plan.key_parts == 1 else 0)
        for name in names:
            rows = min(self.plan.part, self.length - at)
            self._load(name, f"{self.plan.part_tile(name)}.part{index % 2}", rows, row.heads, mask)

    # -- stages ----------------------------------------------------------------------------

    def _mask(self, slot: int) -> str:
        return f"mask.{slot}" if self.plan.chained else "mask"

    def _scores(self, row: _Row) -> None:
        self._queries("q", row)
        rows, query = self._rows(row.row), f"q.{row.slot}"
        scores = f"a.{row.slot}" if not self.plan.in_place else f"s.{row.slot}"
        if self.shape.bits:
            self._predict(row, rows, query, scores)
            return
        streams = not self.plan.shared
        if self.shape.row_sums:
            self._do("pe", 2 * self._high(rows) * self.shape.dim, (query, "k.sum"), "scratch")
        for at, tile in self._keys("k", row, shared=True):
            if streams:
                self._stream(("k",), row, at)
            whole = self.plan.shared and self.shape.pruned
            keys = self.length - at if whole else min(self.plan.part, self.length - at)
            if self.plan.resident and not self.plan.chained and streams:
                keys = self.length
            if self.shape.pruned:
                self._product(rows, keys, self._steps("q", "k"), (query, tile), scores)
            else:
                self._product(rows, keys, self._steps("q", "k"), (query, tile), "scratch")
                self._drain(rows, keys, ("scratch",), scores)
        if self.shape.pruned and not self.ranked:
            high, wide = self.shape.block
            blocks = up(rows, high) * up(self.length, wide)
            if self.shape.density:
                blocks += up(rows, high) * sorting_compares(up(self.length, wide))
            self._do("se", up(blocks, self.hw.se_lanes), (scores,), self._mask(row.slot))
        if self.plan.chained:
            self._load_values(row.turn, row.heads)

    def _predict(self, row: _Row, rows: int, query: str, scores: str) -> None:
        """Rounds of low-bit scores and their masks."""
        last, mask = len(self.shape.bits) - 1, "mask"
        for i, bits in enumerate(self.shape.bits):
            self._low(rows, "q", query, "q.low")
            for at, tile in self._keys("k", row):
                self._stream(("k",), row, at, mask if i else "")
                keys, low = self._width(at), f"k.low{bits}" if self.plan.resident else "k.low"
                if not self.plan.resident:
                    self._low(keys, "k", tile, low)
                depth = up(self.shape.dim, macs_per_pe(bits, bits, self.hw.split_bits))
                if i:
                    self._pick(rows, keys, depth, ("q.low", low, mask), scores)
                else:
                    self._product(rows, keys, depth, ("q.low", low), "scratch")
                    self._drain(rows, keys, ("scratch",), scores)
            if self.shape.likely:
                cycles = (rows + 2) * self.length / self.hw.softmax_lanes
                self._do("softmax", cycles, (scores,), scores)
            mask = "mask" if i == last else "round"
            self._do("se", up(rows * self.length, self.hw.se_lanes), (scores,), mask)

    def _pick(self, rows: int, keys: int, depth: int, reads: tuple[str, ...], scores: str) -> None:
        """Scores of kept blocks, and their way out of the array."""
        folds = self._fullest(rows, keys, self.hw.pe_columns)
        self._do("pe", folds * depth + self._fill(folds), reads, "scratch")
        leaves = folds * self.hw.pe_columns if self.hw.fold_overlap else 0
        self._do("pe", leaves, ("scratch", reads[-1]), scores)

    def _softmax(self, row: _Row) -> None:
        rows, scores = self._rows(row.row), f"s.{row.slot}"
        if self.shape.pruned:
            self._merge(row)
        for at, tile in self._keys("k", row) if self.shape.bits else ():
            self._stream(("k",), row, at, "mask")
            reads = (f"q.{row.slot}", tile, "mask")
            self._pick(rows, self._width(at), self._steps("q", "k"), reads, scores)
        share = self.shape.share if self.shape.sparse or self.shape.constant else 1.0
        longest = float(self.length)
        if self.shape.sparse:
            high, wide = self.shape.block
            longest = wide * fullest(up(self.length, wide), up(rows, high), 1, self.shape.share)
        cycles = (share * rows * self.length + 2 * longest) / self.hw.softmax_lanes
        self._do("softmax", cycles, (scores,), scores)

    def _merge(self, row: _Row) -> None:
        rows, mask = self._rows(row.row), self._mask(row.slot)
        self._queries("q.fraction", row)
        integer = f"s.{row.slot}" if self.plan.in_place else f"a.{row.slot}"
        depth = self._steps("q.fraction", "k") + self._steps("q", "k.fraction")
        wide = self.shape.block[1]
        unit, each = max(1, self.hw.pe_columns // wide), up(wide, self.hw.pe_columns)
        share = self.shape.share if self.shape.sparse or self.shape.constant else 1.0
        for at, tile in self._keys("k", row):
            self._stream(("k",), row, at)
            self._stream(("k.fraction",), row, at, mask)
            fraction = tile.replace("k", "k.fraction", 1)
            keys = self._width(at)
            folds = each * self._fullest(rows, keys, unit)
            reads = (f"q.{row.slot}", f"q.fraction.{row.slot}", tile, fraction, mask)
            self._do("pe", folds * depth + self._fill(2 * folds), reads, "scratch")
            merged = share * rows * keys / self.hw.adder_lanes
            self._do("adder", merged, (integer, "scratch", mask), f"s.{row.slot}")

    def _width(self, at: int) -> int:
        """Keys of the part of local planes that begins there."""
        if self.plan.resident and not self.plan.chained:
            return self.length
        return min(self.plan.part, self.length - at)

    def _sum_values(self, row: _Row) -> None:
        """The sum of all values of a head, where it stands for those of pruned scores."""
        if not self.plan.summed:
            return
        for at, tile in self._keys("v", row):
            self._stream(("v",), row, at)
            self._sum(self._width(at), tile, "v.sum")

    def _values(self, row: _Row) -> None:
        rows, dim = self._rows(row.row), self.shape.dim
        local = "v" in self.plan.local_planes
        parts = self._keys("v", row) if local else [(0, f"v.shared{row.turn}")]
        whole = self.plan.chained and self.plan.key_parts == 1
        if self.plan.chained and not whole:
            self._sum_values(row)
        for at, tile in parts:
            mask = self._mask(row.slot) if self.plan.picked else ""
            if local:
                self._stream(("v",), row, at, "" if self.plan.summed and whole else mask)
            keys = self._width(at) if local else self.length
            if self.plan.summed and whole:
                self._sum(keys, tile, "v.sum")
            depth: float = self._high(rows) * keys
            if self.plan.picked:
                depth = self.shape.block[1] * self._fullest(rows, keys, 1)
            if self.plan.summed and at == 0:
                depth += 2 * self._high(rows)
            wide = up(dim, self.hw.pe_columns)
            reads = (f"s.{row.slot}", tile, "v.sum", *((mask,) if mask else ()))
            cycles = depth * wide + self._fill(self._high(rows) * wide)
            self._do("pe", cycles, reads, "scratch")
        self._drain(rows, dim, ("scratch",), f"o.{row.slot}")
        if self.shape.counted:
            self._sum(rows, f"o.{row.slot}", "head.sum")
        nbytes = row.heads * min(self.plan.step, self.length - row.row) * dim * DTYPES["i16"]
        self._move("store", nbytes, (f"o.{row.slot}",))

    # -- heads -----------------------------------------------------------------------------

    def total(self) -> float:
        """Cycles of all rounds: the first ones, and the others like the last two of these."""
        items = self.hw.cores // self.plan.parts
        rounds = up(self.shape.heads, items)
        ends = [0.0]
        old: _Row | None = None
        work = up(self.length, self.plan.step) * up(self.length, self.plan.part)
        most = _ROUNDS if work <= _SHORT else 2
        for i in range(min(rounds, most)):
            heads = min(items, self.shape.heads - i * items)
            if self.plan.chained:
                old = self._chained(i, heads, old)
            else:
                self._round(i % 2, heads)
            ends.append(max(self.free.values()))
        if old is not None:
            self._values(old)
        last = max(self.free.values())
        if rounds > most:
            last += (rounds - most) * (ends[-1] - ends[-3]) / 2
            self.moved *= rounds / most
        return max(last, self.moved)

    def _chained(self, index: int, heads: int, old: _Row | None) -> _Row:
        """Queries of a head, and the values of the one before between their stages."""
        new = _Row(0, index % 2, index % 2, heads)
        self._load_keys(new.turn, heads)
        if old is None:
            self._scores(new)
            self._softmax(new)
        else:
            self._overlap(old, new)
        return new

    def _overlap(self, old: _Row, new: _Row) -> None:
        stages: list[tuple[Callable[[_Row], None], _Row]] = [
            (self._scores, new),
            (self._softmax, new),
        ]
        stages.insert(1 if self.plan.picked else 2, (self._values, old))
        for stage, row in stages:
            stage(row)

    def _round(self, turn: int, heads: int) -> None:
        plan = self.plan
        rows = [
            _Row(row, i % 2 if plan.slots > 1 else 0, turn, heads)
            for i, row in enumerate(range(0, self.length, plan.step))
        ]
        self.ranked = False
        self._load_keys(turn, heads)
        if self.shape.gate:
            for row in rows:
                self._scores(row._replace(slot=0))
            self._do("se", 1, ("mask",))
            self.floor = self.free["se" if self.hw.stage_overlap else "pe"]
            self.ranked = True
        if plan.slots > 1:
            self._pipelined(rows)
        else:
            self._alone(rows)
        self.floor = 0.0

    def _alone(self, rows: list[_Row]) -> None:
        """`ranked` scores of a head of one step are there, and its values are loaded late."""
        single = self.plan.steps == 1
        if not single:
            self._load_values(rows[0].turn, rows[0].heads)
            self._sum_values(rows[0])
        for row in rows:
            if not (self.ranked and single):
                self._scores(row)
            if single:
                self._load_values(row.turn, row.heads)
            self._softmax(row)
            if single:
                self._sum_values(row)
            self._values(row)

    def _pipelined(self, rows: list[_Row]) -> None:
        first, *rest = rows
        self._scores(first)
        self._load_values(first.turn, first.heads)
        self._softmax(first)
        self._sum_values(first)
        for old, new in zip(rows, rest):
            self._overlap(old, new)
        self._values(rows[-1])
