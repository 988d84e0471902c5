"""
Estimated cycles of an attention: its kernel run on a sink that counts, on the fullest core.

An engine works in program order, an instruction waits for what it reads and for whoever still uses
what it writes (docs/design/machine.md). What is not known at compile time is assumed:

* A pruning rule keeps `KEPT` of the blocks (`topk` its density), each by itself at random; where the
  fullest of some block rows decides, its expected fullness counts.
* No head is pruned, no sequence has rows that are no keys, and every key has a query that wants it.
* An instruction takes `_ISSUE` cycles of the sequencer, with the declarations and registers that
  belong to it. After `_ROUNDS` rounds of heads (two, where one has more than `_SHORT` steps times
  parts of the keys) all others take as long as the last two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import accumulate
from math import comb
from typing import Any, NamedTuple

from heatc.hardware import Hardware
from heatc.hardware.costs import macs_per_pe
from heatc.isa.table import DTYPES, sorting_compares
from heatc.passes.tiling.attention import Kernel
from heatc.passes.tiling.attention_parts import Prediction, Pruning
from heatc.passes.tiling.attention_plan import KEPT, AttentionPlan, AttentionShape
from heatc.passes.tiling.attention_sink import PLAIN, About
from heatc.passes.tiling.attention_stages import Attention
from heatc.passes.tiling.head_sums import Sums
from heatc.passes.tiling.packing import TileSpec, up

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


class _Beyond(Exception):
    """More cycles than anybody wants to know."""


def counted_cycles(
    plan: AttentionPlan, hw: Hardware, length: int, limit: float = math.inf
) -> float:
    """
    Estimated cycles of one sequence of `length` tokens: the first rounds, the others like them.

    Infinity once they are more than `limit`: the rest is not counted.
    """
    try:
        return _counted_cycles(plan, hw, length, limit)
    except _Beyond:
        return math.inf


def _counted_cycles(plan: AttentionPlan, hw: Hardware, length: int, limit: float) -> float:
    items = hw.cores // plan.parts
    rounds = up(plan.shape.heads, items)
    work = up(length, plan.step) * up(length, plan.part)
    most = min(rounds, _ROUNDS if work <= _SHORT else 2)
    heads = min(plan.shape.heads, most * items)
    sink = _Count(plan, hw, length, limit)
    sums = _Magnitudes(sink) if plan.shape.counted else None
    Kernel(sink, _unnamed(plan.shape), plan, items, heads, sums).run()
    last, ends = max(sink.free.values()), sink.ends
    if rounds == most:
        return max(last, sink.moved)
    last += (rounds - most) * (ends[-1] - ends[-3]) / 2
    return max(last, sink.moved * rounds / most)


@lru_cache(maxsize=64)
def _unnamed(shape: AttentionShape) -> Attention:
    """An attention of which only the shape is known: no cycle depends on its thresholds or points."""
    pruning = prediction = None
    if shape.pruned:
        pruning = Pruning((0.0,), (0.0,), shape.score, None, None, density=shape.density)
    if shape.bits:
        ratios = () if shape.likely else (0.0,) * len(shape.bits)
        prediction = Prediction(shape.bits, ratios, (None,) * len(shape.bits))
    points, shifts = dict.fromkeys("qkvso", 0), (0,) * len(shape.biases)
    return Attention(shape, 1.0, points, pruning, prediction, shifts=shifts)


class _Tile(NamedTuple):
    """
    A tile: the names that instructions wait for, and the slot of its row tile (-1 for none).

    Accumulators of a stage have one name, since they take each other's place.
    """

    names: tuple[str, ...]
    slot: int = -1


_ACCUMULATORS = "accumulators"


class _Count:
    """
    Counts the cycles of an attention's instructions; a method of its own for each that takes any.

    Raises `_Beyond` at the first engine that is busy after cycle `limit`.

    Attributes:
        free: the cycle from which on an engine is free.
        ends: the cycle at which the engines have done each round of heads, 0 first.
        moved: cycles of all transfers.
    """

    def __init__(self, plan: AttentionPlan, hw: Hardware, length: int, limit: float):
        self.plan, self.hw, self.length = plan, hw, length
        self._limit = limit
        self.shape = plan.shape
        self.free: dict[str, float] = {}
        self.ends = [0.0]
        self.moved = 0.0
        self._clock = self._floor = 0.0
        self._ready: dict[str, float] = {}
        self._busy: dict[str, float] = {}
        self._units = self._all_units()
        self._overlaps = hw.stage_overlap
        names = self.shape.plane_names
        self._row_bytes = {name: self.shape.plane_bytes(name, 1) for name in names}
        self._score_steps = self._steps("q", "k")
        self._fraction_steps = 0
        if self.shape.pruned:
            self._fraction_steps = self._steps("q.fraction", "k") + self._steps("q", "k.fraction")
        self._heads = 1
        self._declared = 0
        # What the instructions before say of the operands of the next.
        self._rows = [0] * plan.slots
        self._slot = 0
        self._keys: dict[_Tile, int] = {}
        self._bits: dict[_Tile, int] = {}
        self._sparse: dict[_Tile, bool] = {}
        self._scores = _Tile(())
        self._columns = 0
        self._folds = 0.0

    # -- what a kernel asks of a sink ------------------------------------------------------

    def constant(self, value: int) -> int:
        """Itself."""
        return value

    def add(self, number: int, amount: int) -> int:
        """The sum."""
        return number + amount

    def special(self, name: str) -> int:
        """One sequence of `length` tokens."""
        return {"batch": 1, "length": self.length}.get(name, 0)

    def window(self, name: str, start: int, rows: int, suffix: str = "") -> _Tile:
        """A plane."""
        return _Tile((name,))

    def tensor(self, name: str) -> _Tile:
        """A mask."""
        return _Tile((name,))

    def tiles(self, specs: Sequence[TileSpec], space: str = "local") -> dict[str, _Tile]:
        """Tiles of one declaration; those of a row tile lie over scores or have a place of their own."""
        number, self._declared = self._declared, self._declared + 1
        slot = number - 1 if 0 < number <= self.plan.slots else -1
        return {spec.name: _Tile((f"{spec.over or spec.name}.{number}",), slot) for spec in specs}

    def stage_tiles(self, specs: Sequence[TileSpec]) -> dict[str, _Tile]:
        """Accumulators lie where those of other stages do, as do queries whose peak is looked for."""
        found = {spec.name: _Tile((spec.name,)) for spec in specs}
        for spec in specs:
            if spec.dtype == "acc":
                found[spec.name] = _Tile((_ACCUMULATORS,))
            elif spec.name == "q.part":
                found[spec.name] = _Tile((spec.name, _ACCUMULATORS))
        return found

    def repeat(self, bound: int, step: int, body: Callable[[int], None]) -> None:
        """Run the body."""
        for number in range(0, bound, step):
            body(number)

    def repeat_strided(
        self,
        bound: int,
        step: int,
        stride: int,
        body: Callable[[int, int], None],
        start: int | None = None,
    ) -> None:
        """Run the body."""
        other = start or 0
        for number in range(0, bound, step):
            body(number, other)
            other += stride

    def begin_heads(self, head: int, limit: int = 0) -> None:
        """The last round may have fewer heads."""
        self._heads = min(self.hw.cores // self.plan.parts, self.shape.heads - head)

    def end_heads(self) -> None:
        """Note the time."""
        self._floor = 0.0
        self.ends.append(max(self.free.values()))

    def of_pruned_heads(self, emit: Callable[[], None]) -> None:
        """No head is pruned."""

    def do(self, mnemonic: str, about: About = PLAIN, /, **fields: Any) -> None:
        """Count an instruction, if an engine works on it."""
        unit = self._units.get(mnemonic)
        if unit is not None:
            unit(**fields)

    def _all_units(self) -> dict[str, Callable[..., None]]:
        """What counts the instructions that an engine works on."""
        return {
            "ld": self._load,
            "ldm": self._load_wanted,
            "ldv": self._load_mask,
            "ldb": self._load_mask,
            "st": self._store,
            "mm": self._all_scores,
            "drainc": self._leave_scores,
            "drainp": self._leave_scores,
            "scores": self._integer_scores,
            "wide": self._row_sums,
            "pick": self._kept_scores,
            "drainm": self._leave_kept_scores,
            "frac": self._fractions,
            "add": self._merge,
            "pv": self._weighted_values,
            "drain": self._leave_values,
            "colsum": self._sum_keys,
            "peak": self._sum,
            "magnitude": self._sum,
            "low": self._low,
            "mask": self._decide_blocks,
            "topk": self._decide_blocks,
            "filter": self._decide_scores,
            "likely": self._decide_scores,
            "gate": self._gate,
            "softmax": self._softmax,
            "weigh": self._weigh,
            "offset": self._offset,
        }

    # -- engines ---------------------------------------------------------------------------

    def _take(self, engine: str, cycles: float, reads: Sequence[_Tile], *writes: _Tile) -> None:
        self._clock += _ISSUE
        lane = engine if self._overlaps or engine in ("load", "store") else "pe"
        start = max(self._clock, self._floor, self.free.get(lane, 0.0))
        ready, busy = self._ready, self._busy
        for tile in reads:
            for name in tile.names:
                if name in ready and ready[name] > start:
                    start = ready[name]
        for tile in writes:
            for name in tile.names:
                start = max(start, ready.get(name, 0.0), busy.get(name, 0.0))
        end = self.free[lane] = start + cycles
        if end > self._limit:
            raise _Beyond
        for tile in reads:
            for name in tile.names:
                if busy.get(name, 0.0) < end:
                    busy[name] = end
        late = end + self.hw.dram_latency_cycles if engine == "load" else end
        for tile in writes:
            for name in tile.names:
                ready[name] = late

    def _move(self, engine: str, nbytes: int, reads: Sequence[_Tile], *writes: _Tile) -> None:
        cycles = nbytes / self.hw.dram_bytes_per_cycle
        self.moved += cycles
        self._take(engine, cycles, reads, *writes)

    def _fill(self, folds: float) -> float:
        return (1 if self.hw.fold_overlap else folds) * (self.hw.pe_rows + self.hw.pe_columns - 2)

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

    def _rows_of(self, tile: _Tile) -> int:
        """Rows that a tile holds on the fullest core: queries, or keys."""
        return self._keys[tile] if tile.slot < 0 else self._rows[tile.slot]

    # -- transfers -------------------------------------------------------------------------

    def _load(
        self,
        t: _Tile,
        d: _Tile,
        row_reg: int,
        rows: int,
        core_rows: int,
        reads: Sequence[_Tile] = (),
        **_: Any,
    ) -> None:
        """Rows of a plane for every head of a round; of a shared tile for the one."""
        left = min(self.plan.step if core_rows else rows, self.length - row_reg)
        if t.slot < 0:
            self._keys[t] = left
        else:
            self._slot = t.slot
            self._rows[t.slot] = max(0, min(self.plan.rows, self.length - row_reg))
        self._move("load", self._heads * left * self._row_bytes[d.names[0]], reads, t)

    def _load_wanted(self, mask: _Tile, **fields: Any) -> None:
        """Keys that stay are loaded when the gate, which waits for all masks, is through."""
        stay = self.plan.resident and not self.plan.chained
        self._load(**fields, reads=() if stay else (mask,))

    def _load_mask(
        self, t: _Tile, d: _Tile, row_reg: int, by_head: int, by_row: int, **_: Any
    ) -> None:
        """A part of a mask: of each head of a round, or one for all of them."""
        which, number = d.names[0].split(".")
        shape = self.shape
        least = () if shape.least is None else (shape.least,)
        shapes = {"visible": shape.visible, "bias": shape.biases, "least": least}[which]
        rows = min(self.plan.step, self.length - row_reg) if by_row else 1
        heads = self._heads if by_head else 1
        nbytes = heads * rows * self.length * DTYPES[shapes[int(number)].dtype]
        self._move("load", nbytes, (), t)

    def _store(self, t: _Tile, row_reg: int, **_: Any) -> None:
        rows = min(self.plan.step, self.length - row_reg)
        nbytes = self._heads * rows * self.shape.dim * DTYPES["i16"]
        self._move("store", nbytes, (t,))

    # -- the PE array ----------------------------------------------------------------------

    def _depth(self, keys: _Tile) -> int:
        """Cycles of a score: of codes of few bits, or of all bits."""
        bits = self._bits.get(keys)
        if bits is None:
            return self._score_steps
        return up(self.shape.dim, macs_per_pe(bits, bits, self.hw.split_bits))

    def _product(self, depth: int, reads: tuple[_Tile, _Tile], out: _Tile) -> None:
        """A product of the last queries that were loaded with some keys."""
        self._columns = self._keys[reads[1]]
        folds = self._high(self._rows[self._slot]) * up(self._columns, self.hw.pe_columns)
        self._take("pe", folds * depth + self._fill(folds), reads, out)

    def _drain(self, t: _Tile, acc: _Tile, columns: int) -> None:
        cycles = self._high(self._rows[t.slot]) * columns if self.hw.fold_overlap else 0
        self._take("pe", cycles, (acc,), t)

    def _all_scores(self, acc: _Tile, a: _Tile, b: _Tile, **_: Any) -> None:
        self._product(self._depth(b), (a, b), acc)

    def _leave_scores(self, t: _Tile, acc: _Tile, **_: Any) -> None:
        self._sparse[t] = False
        self._drain(t, acc, self._columns)

    def _integer_scores(self, a: _Tile, q: _Tile, k: _Tile, **_: Any) -> None:
        self._scores = a
        self._product(self._score_steps, (q, k), a)

    def _row_sums(self, r: _Tile, x: _Tile, t: _Tile, **_: Any) -> None:
        # As if `r` lay where the accumulators do: that is what plans were chosen by so far.
        cycles = 2 * self._high(self._rows_of(x)) * self.shape.dim
        self._take("pe", cycles, (x, t), _Tile((_ACCUMULATORS,)))

    def _kept_scores(self, acc: _Tile, q: _Tile, k: _Tile, mask: _Tile, **_: Any) -> None:
        rows = self._rows[self._slot]
        self._folds = self._fullest(rows, self._keys[k], self.hw.pe_columns)
        cycles = self._folds * self._depth(k) + self._fill(self._folds)
        self._take("pe", cycles, (q, k, mask), acc)

    def _leave_kept_scores(self, t: _Tile, acc: _Tile, mask: _Tile, **_: Any) -> None:
        self._sparse[t] = True
        leaves = self._folds * self.hw.pe_columns if self.hw.fold_overlap else 0
        self._take("pe", leaves, (acc, mask), t)

    def _fractions(
        self, f1: _Tile, qi: _Tile, qf: _Tile, ki: _Tile, kf: _Tile, mask: _Tile, **_: Any
    ) -> None:
        wide = self.shape.block[1]
        unit, each = max(1, self.hw.pe_columns // wide), up(wide, self.hw.pe_columns)
        self._columns = self._keys[ki]
        folds = each * self._fullest(self._rows_of(qi), self._columns, unit)
        self._take(
            "pe", folds * self._fraction_steps + self._fill(2 * folds), (qi, qf, ki, kf, mask), f1
        )

    def _weighted_values(
        self,
        acc: _Tile,
        p: _Tile,
        v: _Tile,
        mask: _Tile,
        total: _Tile,
        first: bool,
        **_: Any,
    ) -> None:
        rows, keys = self._rows_of(p), self._keys[v]
        depth: float = self._high(rows) * keys
        if self.plan.picked:
            depth = self.shape.block[1] * self._fullest(rows, keys, 1)
        if self.plan.summed and first:
            depth += 2 * self._high(rows)
        wide = up(self.shape.dim, self.hw.pe_columns)
        reads = (p, v, mask, total) if self.plan.summed else (p, v, mask)
        self._take("pe", depth * wide + self._fill(self._high(rows) * wide), reads, acc)

    def _leave_values(self, t: _Tile, acc: _Tile, **_: Any) -> None:
        self._drain(t, acc, self.shape.dim)

    # -- adder, softmax unit, sparsity engine ----------------------------------------------

    def _sum(self, t: _Tile, x: _Tile, **_: Any) -> None:
        self._take("adder", up(self._rows_of(x) * self.shape.dim, self.hw.adder_lanes), (x,), t)

    def _sum_keys(self, t: _Tile, x: _Tile, **_: Any) -> None:
        # Of keys in the shared buffer one part counts: that is what plans were chosen by so far.
        rows = min(self.plan.part, self._rows_of(x))
        self._take("adder", up(rows * self.shape.dim, self.hw.adder_lanes), (x,), t)

    def _low(self, t: _Tile, x: _Tile, peak: _Tile, bits: int) -> None:
        """Codes of few bits, each number once through the adder."""
        rows = self._rows_of(x)
        self._bits[t], self._keys[t] = bits, rows
        self._take("adder", up(rows * self.shape.dim, self.hw.adder_lanes), (x, peak), t)

    def _merge(self, s: _Tile, a: _Tile, f1: _Tile, mask: _Tile, **_: Any) -> None:
        self._sparse[s] = self.shape.sparse
        share = self.shape.share if self.shape.sparse or self.shape.constant else 1.0
        cycles = share * self._rows_of(s) * self._columns / self.hw.adder_lanes
        self._take("adder", cycles, (a, f1, mask), s)

    def _weigh(self, theta: _Tile, a: _Tile, v: _Tile, positive: bool, **_: Any) -> None:
        cells = self._rows_of(a) * self.length * (1 + positive)
        self._take("adder", up(cells, self.hw.adder_lanes), (a, v), theta)

    def _offset(self, s: _Tile, b: _Tile, v: _Tile, **_: Any) -> None:
        cells = self._rows_of(s) * self.length
        self._take("adder", up(cells, self.hw.adder_lanes), (b, v), s)

    def _decide_blocks(self, m: _Tile, **_: Any) -> None:
        high, wide = self.shape.block
        rows, columns = up(self._rows_of(self._scores), high), up(self.length, wide)
        blocks = rows * columns
        if self.shape.density:
            blocks += rows * sorting_compares(columns)
        self._take("se", up(blocks, self.hw.se_lanes), (self._scores,), m)

    def _decide_scores(
        self, m: _Tile, s: _Tile | None = None, p: _Tile | None = None, **_: Any
    ) -> None:
        scores = s or p
        assert scores is not None
        cells = self._rows_of(scores) * self.length
        self._take("se", up(cells, self.hw.se_lanes), (scores,), m)

    def _gate(self, **_: Any) -> None:
        self._take("se", 1, ())
        self._floor = self.free["se" if self.hw.stage_overlap else "pe"]

    def _softmax(self, p: _Tile, s: _Tile, **_: Any) -> None:
        rows, sparse = self._rows_of(s), self._sparse[s]
        share = self.shape.share if sparse or self.shape.constant else 1.0
        longest = float(self.length)
        if sparse:
            high, wide = self.shape.block
            longest = wide * fullest(up(self.length, wide), up(rows, high), 1, self.shape.share)
        cycles = (share * rows * self.length + 2 * longest) / self.hw.softmax_lanes
        self._take("softmax", cycles, (s,), p)


class _Magnitudes(Sums[int, _Tile]):
    """The importance of heads: outputs are summed, what is known of them takes no time."""

    def __init__(self, sink: _Count):
        self.sink = sink
        self.total = _Tile(("head.sum",))

    def begin(
        self, sequence: int, head: dict[str, _Tile], output: _Tile, extra: _Tile | None
    ) -> None:
        """Nothing."""

    def add(self, output: _Tile, row: int) -> None:
        """Every output through the adder."""
        self.sink.do("magnitude", t=self.total, x=output)

    def end(self, head: int) -> None:
        """Nothing."""
