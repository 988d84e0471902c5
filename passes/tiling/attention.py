"""
Attention on the cores: heads and queries dealt out, a tile of queries at a time.

A row tile goes through three stages: its first scores (with their mask), what is left of the scores
and the softmax, the values. With two slots they take turns between two row tiles, so that the PE
array works on one while adder and softmax unit work on the other. Engines work in program order:
the order of the stages in a loop's body is the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from xdsl.dialects.builtin import IntegerAttr, StringAttr, UnitAttr, i64
from xdsl.ir import Operation, SSAValue

from heatc.dialects import hdp
from heatc.isa.table import BLOCK
from heatc.isa.units import PROBABILITY_POINT, SoftmaxScale
from heatc.passes.tiling.attention_parts import Prediction, Pruning
from heatc.passes.tiling.cascade import Cascade, HeadSums
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.packing import TileSpec
from heatc.passes.tiling.plan import AttentionPlan, AttentionShape


@dataclass(frozen=True)
class Attention:
    """
    One attention on tensors: `planes` are q, k, v, or q, k and their fractions, and v.

    Points are those of q, k, v, of the scores and of the output, q and k's above those of their
    integer parts and the scores' above that of the integer scores. What instructions decide or
    round is reported under `symbol`.
    """

    symbol: str
    shape: AttentionShape
    planes: dict[str, SSAValue]
    output: SSAValue
    scale: float
    points: dict[str, int]
    pruning: Pruning | None
    cascade: Cascade | None = None
    prediction: Prediction | None = None
    padded: bool = False
    """Whether sequences may have rows that are no keys."""


def emit_attention(emitter: Emitter, attention: Attention, plan: AttentionPlan, cores: int) -> None:
    """Loops over sequences, heads, and tiles of queries."""
    _Kernel(emitter, attention, plan, cores).run()


_OF_QUERIES = ("q", "q.fraction", "o")
"""Tensors that have rows of queries; all others are read by key."""


class _Row(NamedTuple):
    """A row tile: the first query of core 0, the slot it works in, and where its head lies."""

    row: SSAValue
    slot: int
    column: SSAValue


class _Kernel:
    def __init__(self, emitter: Emitter, attention: Attention, plan: AttentionPlan, cores: int):
        self.e = emitter
        self.attention = attention
        self.cores = cores
        self.shape = attention.shape
        self.plan = plan
        self.windows: dict[str, SSAValue] = {}
        self.extra_windows: dict[str, SSAValue] = {}
        """Those of rows that are no keys, where there may be any."""
        self.head: Tiles = {}
        self.shared: list[Tiles] = []
        self.slots: list[Tiles] = []
        self.ranked = False
        """Whether masks are there: of a gated head, whose first pass is done."""
        cascade = attention.cascade
        self.sums = None if cascade is None else HeadSums(emitter, cascade, self._begin_heads)

    def run(self) -> None:
        e, plan = self.e, self.plan
        self._parameters()
        with e.loop(e.special("batch"), 1) as sequence:
            e.do("seq", rb=sequence)
            start, self.length = e.special("start"), e.special("length")
            self._open_windows(start)
            # Once, unless the sequence has no token.
            with e.loop(self.length, self.shape.length):
                if self.sums is not None:
                    # The heads of the sequence before may be listed, and leave cores without work.
                    e.do("all")
                if self.shape.block != BLOCK:
                    rows, columns = self.shape.block
                    self._report(e.do("blocks", rows=rows, columns=columns))
                if plan.parts > 1:
                    e.do("group", parts=plan.parts, rows=plan.rows)
                self._declare()
                self._begin_sums(sequence)
                if plan.chained:
                    self._chain()
                    self._chain_extra()
                else:
                    self._rounds()
        e.do("all")

    def _parameters(self) -> None:
        """The thresholds of heads that differ."""
        pruning = self.attention.pruning
        if pruning is None:
            return
        scaled = tuple(math.ldexp(tau, pruning.point) for tau in pruning.tau_h)
        for which, values in (("rho", pruning.rho_b), ("tau", scaled)):
            for head, value in enumerate(values if len(values) > 1 else ()):
                self.e.do("param", which=which, head=head, value=value)

    def _report(self, op: Operation) -> None:
        """Name the attention on an op that debug information or points are read from."""
        op.attributes["attention"] = StringAttr(self.attention.symbol)

    def _open_windows(self, start: SSAValue) -> None:
        tensors = {**self.attention.planes, "o": self.attention.output}
        for name, tensor in tensors.items():
            self.windows[name] = self._window(name, tensor, start, self.length)
        if not self.attention.padded:
            return
        first, self.extra = self.e.special("extra_start"), self.e.special("extra")
        for name, tensor in tensors.items():
            if name in _OF_QUERIES:
                self.extra_windows[name] = self._window(f"{name}.extra", tensor, first, self.extra)

    def _window(self, name: str, tensor: SSAValue, start: SSAValue, rows: SSAValue) -> SSAValue:
        window = self.e.emit(hdp.WindowOp(tensor, start, rows))
        window.name_hint = f"{name.replace('.', '_')}_rows"
        return window

    def _declare(self) -> None:
        """The tiles that last; keys in the shared buffer take turns from head to head."""
        e, plan = self.e, self.plan
        self.head = e.tiles(plan.head_tiles)
        self.slots = [e.tiles(plan.slot_tiles) for _ in range(plan.slots)]
        self.shared = [e.tiles(plan.shared_tiles, "shared") for _ in range(2)]

    # -- heads -----------------------------------------------------------------------------

    def _begin_heads(self, head: SSAValue, limit: int = 0) -> hdp.InstructionOp:
        op = self.e.do("heads", rc=head, stride=1, limit=limit or self.shape.heads)
        op.attributes["dim"] = IntegerAttr(self.shape.dim, i64)
        self._report(op)
        return op

    def _begin_sums(self, sequence: SSAValue) -> None:
        """The importance of heads so far, and what those put out that it prunes."""
        if self.sums is None:
            return
        listing = self.sums.begin(sequence, self.head)
        if listing is not None:
            self._report(listing)
            items = self.cores // self.plan.parts
            for windows in (self.windows, self.extra_windows):
                if "o" in windows:
                    self.sums.clear(windows["o"], items, self.shape.dim)

    def _end_sums(self, head: SSAValue) -> None:
        if self.sums is not None:
            self.sums.end(head)

    def _chain(self) -> None:
        """One head after the other on all cores: the next one's scores before this one's values."""
        e, heads, dim = self.e, self.shape.heads, self.shape.dim
        zero = e.constant(0)

        def tile(head: SSAValue, column: SSAValue, ahead: int) -> tuple[SSAValue, _Row]:
            head = e.add(head, ahead) if ahead else head
            column = e.add(column, ahead * dim) if ahead else column
            return head, _Row(zero, ahead % 2, column)

        def step(head: SSAValue, column: SSAValue, ahead: int) -> None:
            """Values of the head before `ahead` between the stages of `ahead`."""
            done, old = tile(head, column, ahead - 1)
            number, new = tile(head, column, ahead)
            self._begin_heads(number)
            self._load_keys(ahead % 2, new.column)
            self._overlap(old, new)
            self._end_sums(done)

        self._begin_heads(zero)
        self._load_keys(0, zero)
        self._scores(_Row(zero, 0, zero))
        self._softmax(_Row(zero, 0, zero))
        pairs = (heads - 1) // 2
        if pairs:
            with e.strided_loop(e.constant(2 * pairs), 2, 2 * dim) as (head, column):
                step(head, column, 1)
                step(head, column, 2)
        last, column = e.constant(2 * pairs), e.constant(2 * pairs * dim)
        if heads % 2 == 0:
            step(last, column, 1)
        done, row = tile(last, column, (heads - 1) % 2)
        self._values(row)
        self._end_sums(done)

    def _rounds(self) -> None:
        """As many heads at a time as there are groups of cores."""
        e, shape = self.e, self.shape
        items = self.cores // self.plan.parts
        if not self.plan.shared:
            with e.strided_loop(e.constant(shape.heads), items, items * shape.dim) as at:
                self._round(*at, 0)
            return
        pairs = shape.heads // 2
        if pairs:
            with e.strided_loop(e.constant(2 * pairs), 2, 2 * shape.dim) as (head, column):
                self._round(head, column, 0)
                self._round(e.add(head, 1), e.add(column, shape.dim), 1)
        if shape.heads % 2:
            self._round(e.constant(2 * pairs), e.constant(2 * pairs * shape.dim), 0)

    def _round(self, head: SSAValue, column: SSAValue, turn: int) -> None:
        """The heads that the cores work on at the same time; `turn`: of the shared tiles."""
        self._begin_heads(head)
        self.ranked = False
        self._load_keys(turn, column)
        if self.shape.gate:
            self._rank(column)
        self._kept_heads(turn, column)
        self._extra_rows(column)
        if self.shape.gate and self.shape.gated != "zero":
            self._pruned_heads(column)
        self._end_sums(head)

    def _kept_heads(self, turn: int, column: SSAValue) -> None:
        """All row tiles of the heads that were not pruned."""
        zero = self.e.constant(0)
        first = _Row(zero, 0, column)
        if self.plan.slots == 1:
            # A head of one step has its scores from the first pass.
            self._alone(column)
            return
        self._scores(first)
        self._load_values(turn, column)
        self._softmax(first)
        self._sum_values(first)
        self._pipeline(column)

    def _extra_rows(self, column: SSAValue) -> None:
        """
        The rows of the heads at hand that are no keys, one row tile after the other.

        They begin row tiles and blocks of their own. Heads were decided on without them, and their
        magnitudes are not added up.
        """
        if not self.attention.padded:
            return
        e, windows, sums = self.e, self.windows, self.sums
        ranked, self.ranked = self.ranked, False
        self.windows, self.sums = {**windows, **self.extra_windows}, None
        with e.loop(self.extra, self.plan.step) as row:
            e.do("extra")
            self._finish(_Row(row, 0, column), values=True)
        self.windows, self.sums, self.ranked = windows, sums, ranked

    def _chain_extra(self) -> None:
        """The rows that are no keys of one head after the other, where a sequence has any."""
        if not self.attention.padded:
            return
        e, dim = self.e, self.shape.dim
        with e.loop(self.extra, self.shape.length):
            heads = e.constant(self.shape.heads)
            with e.strided_loop(heads, 1, dim) as (head, column):
                self._begin_heads(head)
                self._load_keys(0, column)
                self._extra_rows(column)

    def _rank(self, column: SSAValue) -> None:
        """The first pass of a gated head: masks and head importance."""
        if self.plan.steps == 1:
            self._scores(_Row(self.e.constant(0), 0, column))
        else:
            with self.e.loop(self.length, self.plan.step) as row:
                self._scores(_Row(row, 0, column))
        self._gate()
        self.ranked = True

    def _alone(self, column: SSAValue) -> None:
        """One row tile after the other."""
        e, plan = self.e, self.plan
        if plan.steps == 1:
            self._finish(_Row(e.constant(0), 0, column), values=True)
            return
        self._load_values(self.turn, column)
        self._sum_values(_Row(e.constant(0), 0, column))
        with e.loop(self.length, plan.step) as row:
            self._finish(_Row(row, 0, column), values=False)

    def _finish(self, row: _Row, *, values: bool) -> None:
        """All stages of a row tile but those that the first pass has done."""
        if not (self.ranked and self.plan.steps == 1):
            self._scores(row)
        if values:
            self._load_values(self.turn, row.column)
        self._softmax(row)
        if values:
            self._sum_values(row)
        self._values(row)

    def _pipeline(self, column: SSAValue) -> None:
        """Row tiles in two slots; the first one's scores are there."""
        e, step = self.e, self.plan.step
        with e.strided_loop(self.length, 2 * step, -2 * step, self.length) as (row, left):
            more, further = e.add(left, -step), e.add(left, -2 * step)
            following = e.add(row, step)
            one, two = _Row(row, 0, column), _Row(following, 1, column)
            three = _Row(e.add(row, 2 * step), 0, column)
            self._overlap(one, two, more)
            # What stands last needs no successor.
            with e.loop(more, self.shape.length):
                self._overlap(two, three, further)

    def _overlap(self, old: _Row, new: _Row, left: SSAValue | None = None) -> None:
        """
        Values of a row tile, and the stages before of the next one, if tokens are `left`.

        The values wait for a softmax that works while the next scores are computed. Where pruned
        scores take none of its time that is enough, and the next mask comes meanwhile.
        """

        def emit(*stages: Callable[[_Row], None]) -> None:
            if left is None:
                for stage in stages:
                    stage(new)
                return
            with self.e.loop(left, self.shape.length):
                for stage in stages:
                    stage(new)

        if self.plan.picked:
            emit(self._scores)
            self._values(old)
            emit(self._softmax)
        else:
            emit(self._scores, self._softmax)
            self._values(old)

    # -- pruned heads ----------------------------------------------------------------------

    def _pruned_heads(self, column: SSAValue) -> None:
        """One row for all tokens of a head: the mean of its values, or those of its mean query."""
        e, points = self.e, self.attention.points
        e.do("pruned")
        tiles, zero = e.tiles(self.plan.tail_tiles), e.constant(0)
        if self.shape.gated == "mean":
            self._sum_parts(tiles, "v", column)
            shift = points["v"] - points["o"]
            fields = {"t": tiles["o.row"], "acc": tiles["v.sum"]}
            e.do("divide", **fields, col_reg=zero, wide=0, shift=shift)
        else:
            self._mean_query(tiles, column)
        place = {"row_reg": zero, "col_reg": column, "core_cols": self.shape.dim}
        e.do("strow", d=self.windows["o"], t=tiles["o.row"], **place)
        if self.attention.padded:
            e.do("strow", d=self.extra_windows["o"], t=tiles["o.row"], **place)

    def _mean_query(self, tiles: Tiles, column: SSAValue) -> None:
        """The row of the mean query: its scores, softmax and values."""
        e, points, pruning = self.e, self.attention.points, self.attention.pruning
        assert pruning is not None
        self._sum_parts(tiles, "q", column)

        def scores(key: SSAValue, first: bool) -> None:
            e.do("wide", r=tiles["c"], x=tiles["k.part"], t=tiles["q.sum"], as_row=1)
            shift = pruning.point - points["s"]
            e.do("divide", t=tiles["s.row"], acc=tiles["c"], col_reg=key, wide=1, shift=shift)

        def values(key: SSAValue, first: bool) -> None:
            operands = {"acc": tiles["acc.row"], "p": tiles["p.row"], "v": tiles["v.part"]}
            place = {"mask": tiles["p.row"], "row_reg": e.constant(0), "col_reg": key}
            e.do("pv", **operands, **place, first=first, total=tiles["acc.row"])

        self._by_parts(tiles, "k", column, scores)
        self._emit_softmax(tiles["p.row"], tiles["s.row"])
        self._by_parts(tiles, "v", column, values)
        acc = tiles["acc.row"]
        shift = PROBABILITY_POINT + points["v"] - points["o"]
        e.do("drain", t=tiles["o.row"], acc=acc, bias=acc, shift=shift)

    def _sum_parts(self, tiles: Tiles, name: str, column: SSAValue) -> None:
        """The sum of all rows of a plane."""

        def emit(row: SSAValue, first: bool) -> None:
            self.e.do("colsum", t=tiles[f"{name}.sum"], x=tiles[f"{name}.part"], first=first)

        self._by_parts(tiles, name, column, emit)

    def _by_parts(
        self,
        tiles: Tiles,
        name: str,
        column: SSAValue,
        emit: Callable[[SSAValue, bool], None],
    ) -> None:
        """Load all rows of a plane part by part; `emit` takes the first row, and whether it is 0."""
        e, size = self.e, self.plan.part
        dim, tile, zero = self.shape.dim, tiles[f"{name}.part"], e.constant(0)

        def part(row: SSAValue, first: bool) -> None:
            place = {"row_reg": row, "col_reg": column, "rows": size, "cols": dim}
            e.do("ld", t=tile, d=self.windows[name], **place, core_rows=0, core_cols=dim)
            emit(row, first)

        part(zero, True)
        if self.plan.key_parts > 1:
            with e.loop(e.add(self.length, -size), size) as offset:
                part(e.add(offset, size), False)

    # -- transfers -------------------------------------------------------------------------

    def _load(
        self,
        tile: SSAValue,
        name: str,
        place: tuple[SSAValue, SSAValue],
        rows: int,
        mask: SSAValue | None = None,
    ) -> None:
        """Some rows of each core's head; queries (`name` begins with q) are dealt out to its cores."""
        dim, row = self.shape.dim, self.plan.rows
        fields = {
            "t": tile,
            "d": self.windows[name],
            "row_reg": place[0],
            "col_reg": place[1],
            "rows": rows,
            "cols": dim,
            "core_rows": row if name.startswith("q") and self.plan.parts > 1 else 0,
            "core_cols": dim,
        }
        if mask is not None:
            self.e.do("ldm", mask=mask, axis="key", **fields)
        else:
            self.e.do("ld", **fields)

    def _load_keys(self, turn: int, column: SSAValue) -> None:
        """What the first scores of a head need; `turn`: of the shared tiles."""
        e, plan = self.e, self.plan
        self.turn = turn
        if plan.shared:
            for i, spec in enumerate(plan.shared_keys):
                rows = spec.nbytes // self.shape.plane_bytes("k", 1)

                def load(i: int = i, spec: TileSpec = spec, rows: int = rows) -> None:
                    place = (e.constant(i * rows), column)
                    self._load(self.shared[turn][spec.name], "k", place, rows)

                self._where(i * rows, load)
        elif plan.resident:
            self._load(self.head["k"], "k", (e.constant(0), column), plan.keys)
        if self.shape.row_sums:
            self._sum_keys(column)
        if self.shape.bits:
            self._find_peaks(column)

    def _sum_keys(self, column: SSAValue) -> None:
        """The sum of the integer parts of all keys."""
        total = self.head["k.sum"]

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            self.e.do("colsum", t=total, x=planes["k"], first=first)

        zero = self.e.constant(0)
        if self.plan.shared:
            emit(self.shared[self.turn], zero, True)
        else:
            self._over_keys(("k",), _Row(zero, 0, column), emit)

    def _load_values(self, turn: int, column: SSAValue) -> None:
        """What the other stages of a head need."""
        e, plan = self.e, self.plan
        place = (e.constant(0), column)
        if plan.shared and not self.plan.picked:
            self._load(self.shared[turn]["v"], "v", place, self.shape.length)
        if not plan.resident or plan.chained:
            return
        if plan.shared and self.shape.pruned:
            self._load(self.head["k"], "k", place, plan.keys)
        for name in plan.local_planes:
            if name != "k":
                upon = self.ranked and (name != "v" or self.shape.sparse)
                self._load(self.head[name], name, place, plan.keys, self._mask(0) if upon else None)

    def _sum_values(self, row: _Row) -> None:
        """The sum of all values of a head, which stands for those of pruned scores."""
        if self.plan.summed:
            self._over_keys(("v",), row, self._add_values, whole=True)

    def _add_values(self, planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
        self.e.do("colsum", t=self.head["v.sum"], x=planes["v"], first=first)

    def _where(self, tokens: int, emit: Callable[[], None]) -> None:
        """Only where a sequence has more tokens than that."""
        if not tokens:
            emit()
            return
        with self.e.loop(self.e.add(self.length, -tokens), self.shape.length):
            emit()

    def _over_keys(
        self,
        names: tuple[str, ...],
        row: _Row,
        emit: Callable[[dict[str, SSAValue], SSAValue, bool], None],
        *,
        whole: bool = False,
        keys: SSAValue | None = None,
    ) -> None:
        """
        What is computed with local keys or values: at once, or on one part after the other.

        `emit` takes the tiles of the planes `names`, the first key column, and whether it is 0.
        Parts take turns in two tiles each. `whole`: all values are needed, whatever the mask says.
        `keys` is a mask that says which keys are needed, if not all of them.
        """
        e, plan = self.e, self.plan
        zero = e.constant(0)
        if plan.resident and not plan.chained:
            emit({name: self.head[name] for name in names}, zero, True)
            return
        upon_mask = {"k.fraction"} if whole or not self.plan.picked else {"k.fraction", "v"}

        def part(turn: int, key: SSAValue, first: bool) -> None:
            tiles = {name: self.head[f"{plan.part_tile(name)}.{turn}"] for name in names}
            for name, tile in tiles.items():
                mask = self._mask(row.slot) if name in upon_mask else None
                mask = keys if name == "k" else mask
                self._load(tile, name, (key, row.column), plan.part, mask)
            emit(tiles, key, first)

        if plan.key_parts == 1:
            part(row.slot, zero, True)
            return
        part(0, zero, True)
        rest = e.add(self.length, -plan.part)
        with e.strided_loop(rest, 2 * plan.part, -2 * plan.part, rest) as (offset, left):
            part(1, e.add(offset, plan.part), False)
            if plan.key_parts > 2:
                with e.loop(e.add(left, -plan.part), self.shape.length):
                    part(0, e.add(offset, 2 * plan.part), False)

    # -- stages ----------------------------------------------------------------------------

    def _mask(self, slot: int) -> SSAValue:
        return self.slots[slot]["mask"] if self.plan.chained else self.head["mask"]

    def _scores(self, row: _Row) -> None:
        """Queries and their first scores: integer ones and their mask, or all of them."""
        e, tiles = self.e, self.slots[row.slot]
        self._load(tiles["q"], "q", (row.row, row.column), self.plan.rows)
        own = e.tiles(self.plan.score_tiles)
        if self.shape.pruned:
            self._integer_scores(tiles, own, row)
        elif self.shape.bits:
            self._predict(tiles, own, row)
        else:
            self._dense_scores(tiles, own["a"], row)
        if self.plan.chained:
            # Behind the queries: their place is free only when the last values are computed.
            self._load_values(self.turn, row.column)

    def _dense_scores(self, tiles: Tiles, acc: SSAValue, row: _Row) -> None:
        e, shift = self.e, self._dense_shift()

        def part(key: SSAValue, column: SSAValue) -> None:
            e.do("mm", acc=acc, a=tiles["q"], b=key, first=1, b_transposed=1)
            e.do("drainc", t=tiles["s"], acc=acc, col_reg=column, shift=shift)

        if not self.plan.shared:
            self._over_keys(("k",), row, lambda planes, key, _: part(planes["k"], key))
            return
        for i, spec in enumerate(self.plan.shared_keys):
            key, place = self.shared[self.turn][spec.name], i * self.plan.part

            def emit(key: SSAValue = key, place: int = place) -> None:
                part(key, e.constant(place))

            self._where(place, emit)

    def _dense_shift(self) -> int:
        points = self.attention.points
        return points["q"] + points["k"] - points["s"]

    def _integer_scores(self, tiles: Tiles, own: Tiles, row: _Row) -> None:
        """Scores against all keys, into `a`; block sums into `theta`; their mask, unless it is there."""
        scores, theta = tiles.get("a", tiles["s"]), own["theta"]
        sums: dict[str, SSAValue | int] = {"r": theta}
        if self.shape.row_sums:
            self.e.do("wide", r=tiles["r"], x=tiles["q"], t=self.head["k.sum"], as_row=0)
            sums = {"r": tiles["r"], "positive": 1}

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            fields = {"a": scores, "q": tiles["q"], "k": planes["k"], "theta": theta}
            self.e.do("scores", **fields, col_reg=key, **sums)

        if self.plan.shared:
            emit(self.shared[self.turn], self.e.constant(0), True)
        else:
            self._over_keys(("k",), row, emit)
        if self.ranked:
            return
        pruning = self.attention.pruning
        assert pruning is not None
        mask = self._mask(row.slot)
        fields: dict[str, hdp.Operand] = {"m": mask, "theta": theta, "row_reg": row.row}
        if pruning.density:
            op = self.e.do("topk", **fields, density=pruning.density)
        else:
            each_head = len(pruning.rho_b) > 1
            op = self.e.do("mask", **fields, own=each_head, rho=pruning.rho_b[0])
        op.location = pruning.mask.location
        self._report(op)

    # -- predictions -----------------------------------------------------------------------

    def _find_peaks(self, column: SSAValue) -> None:
        """The greatest magnitudes of queries and keys, and low-bit codes of keys that stay."""
        e, tiles, head = self.e, self.e.tiles(self.plan.peak_tiles), self.head

        def query(row: SSAValue, first: bool) -> None:
            e.do("peak", t=head["q.peak"], x=tiles["q.part"], first=first)

        def key(planes: dict[str, SSAValue], at: SSAValue, first: bool) -> None:
            e.do("peak", t=head["k.peak"], x=planes["k"], first=first)

        self._by_parts(tiles, "q", column, query)
        self._over_keys(("k",), _Row(e.constant(0), 0, column), key)
        for bits in self.shape.bits if self.plan.resident else ():
            e.do("low", t=head[f"k.low{bits}"], x=head["k"], peak=head["k.peak"], bits=bits)

    def _predict(self, tiles: Tiles, own: Tiles, row: _Row) -> None:
        """The mask of a row tile, by one round of low-bit scores after the other."""
        prediction = self.attention.prediction
        assert prediction is not None
        e, last, among = self.e, len(prediction.bits) - 1, self.head["mask"]
        for i, (bits, source) in enumerate(zip(prediction.bits, prediction.masks)):
            e.do("low", t=own["q.low"], x=tiles["q"], peak=self.head["q.peak"], bits=bits)
            if i == 0:
                self._low_scores(tiles, own, row, bits)
            else:
                self._picked(tiles, row, own["a"], own["q.low"], among, 0, own, bits)
            target = self.head["mask" if i == last else "round"]
            fields: dict[str, hdp.Operand] = {"m": target, "row_reg": row.row}
            if prediction.ratios:
                rho = prediction.ratios[i]
                op = e.do("filter", **fields, s=tiles["s"], among=among, rho=rho, has_among=i > 0)
            else:
                self._predicted_softmax(tiles)
                op = e.do("likely", **fields, p=tiles["p"], code=prediction.code)
            op.location, among = source.location, target
            self._report(op)
            if i < last:
                op.attributes["first_round"] = UnitAttr()

    def _predicted_softmax(self, tiles: Tiles) -> None:
        prediction = self.attention.prediction
        assert prediction is not None
        scale = SoftmaxScale.of(self.attention.scale)
        fields = {"multiplier": scale.multiplier, "shift": scale.shift, "point": prediction.point}
        self.e.do("softmax", p=tiles["p"], s=tiles["s"], **fields)

    def _low_keys(self, planes: dict[str, SSAValue], own: Tiles, bits: int) -> SSAValue:
        """Low-bit codes of keys: those that stay, or of a part that passes by."""
        if self.plan.resident:
            return self.head[f"k.low{bits}"]
        self.e.do("low", t=own["k.low"], x=planes["k"], peak=self.head["k.peak"], bits=bits)
        return own["k.low"]

    def _low_scores(self, tiles: Tiles, own: Tiles, row: _Row, bits: int) -> None:
        """All low-bit scores of a row tile: integers, or at the point of a prediction."""
        e, prediction, points = self.e, self.attention.prediction, self.attention.points
        assert prediction is not None

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            low, acc = self._low_keys(planes, own, bits), own["a"]
            e.do("mm", acc=acc, a=own["q.low"], b=low, first=1, b_transposed=1)
            if prediction.ratios:
                e.do("drainc", t=tiles["s"], acc=acc, col_reg=key, shift=0)
                return
            peaks = {"q_peak": self.head["q.peak"], "k_peak": self.head["k.peak"]}
            shift = points["q"] + points["k"] + 2 * (bits - 1) - prediction.point
            e.do("drainp", t=tiles["s"], acc=acc, **peaks, col_reg=key, shift=shift)

        self._over_keys(("k",), row, emit)

    def _picked(
        self,
        tiles: Tiles,
        row: _Row,
        acc: SSAValue,
        query: SSAValue,
        mask: SSAValue,
        shift: int,
        own: Tiles | None = None,
        bits: int = 0,
    ) -> None:
        """The scores that a mask keeps, of low-bit keys where `bits` are given."""
        e = self.e

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            keys = planes["k"] if own is None else self._low_keys(planes, own, bits)
            place = {"mask": mask, "row_reg": row.row, "col_reg": key}
            e.do("pick", acc=acc, q=query, k=keys, **place)
            e.do("drainm", t=tiles["s"], acc=acc, **place, shift=shift)

        self._over_keys(("k",), row, emit, keys=mask)

    def _gate(self) -> None:
        pruning = self.attention.pruning
        assert pruning is not None
        assert pruning.gate is not None
        tau = math.ldexp(pruning.tau_h[0], pruning.point)
        own = len(pruning.tau_h) > 1
        op = self.e.do("gate", tau=tau, own=own, positive=pruning.positive)
        op.location = pruning.gate.location
        self._report(op)

    def _softmax(self, row: _Row) -> None:
        """Fractions of kept blocks, if blocks are pruned, and the softmax."""
        tiles = self.slots[row.slot]
        if self.shape.pruned:
            self._merge(tiles, row)
        elif self.shape.bits:
            acc, shift = self.e.tiles(self.plan.merge_tiles)["f"], self._dense_shift()
            self._picked(tiles, row, acc, tiles["q"], self.head["mask"], shift)
        self._emit_softmax(tiles["p"], tiles["s"])

    def _emit_softmax(self, p: SSAValue, s: SSAValue) -> None:
        scale = SoftmaxScale.of(self.attention.scale)
        fields = {"multiplier": scale.multiplier, "shift": scale.shift}
        op = self.e.do("softmax", p=p, s=s, **fields, point=self.attention.points["s"])
        self._report(op)

    def _merge(self, tiles: Tiles, row: _Row) -> None:
        """Fraction products of a row tile, and the adder."""
        pruning, points = self.attention.pruning, self.attention.points
        assert pruning is not None
        fraction = tiles["q.fraction"]
        self._load(fraction, "q.fraction", (row.row, row.column), self.plan.rows)
        parts = self.e.tiles(self.plan.merge_tiles)

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            place = {"mask": self._mask(row.slot), "row_reg": row.row, "col_reg": key}
            operands = {"qi": tiles["q"], "qf": fraction, "ki": planes["k"]}
            self.e.do("frac", **parts, **operands, kf=planes["k.fraction"], **place)
            self.e.do(
                "add",
                s=tiles["s"],
                a=tiles.get("a", tiles["s"]),
                **parts,
                **place,
                pruned=pruning.pruned,
                point_q=points["q"],
                point_k=points["k"],
                point_s=points["s"] - pruning.point,
                r=tiles.get("r", tiles["s"]),
                constant=self.shape.constant,
            )

        self._over_keys(("k", "k.fraction"), row, emit)

    def _values(self, row: _Row) -> None:
        """The weighted sum of the values, and the result's way to memory."""
        e, tiles, plan = self.e, self.slots[row.slot], self.plan
        acc = e.tiles(self.plan.value_tiles)["acc"]
        # A head that is one step sums its values where they are, or else before.
        whole = plan.summed and plan.chained and plan.key_parts == 1
        if plan.chained and not whole:
            self._sum_values(row)

        def emit(planes: dict[str, SSAValue], key: SSAValue, first: bool) -> None:
            if whole:
                self._add_values(planes, key, first)
            e.do(
                "pv",
                acc=acc,
                p=tiles["p"],
                v=planes["v"],
                mask=self._mask(row.slot) if plan.picked else tiles["p"],
                row_reg=row.row,
                col_reg=key,
                first=first,
                sparse=plan.picked,
                total=self.head["v.sum"] if plan.summed else acc,
                constant=plan.summed,
            )

        if plan.shared and not plan.picked:
            turn = row.slot if self.plan.chained else self.turn
            emit(self.shared[turn], e.constant(0), True)
        else:
            self._over_keys(("v",), row, emit, whole=whole)
        points = self.attention.points
        shift = PROBABILITY_POINT + points["v"] - points["o"]
        e.do("drain", t=tiles["o"], acc=acc, bias=acc, shift=shift)
        if self.sums is not None:
            self.sums.add(tiles["o"], row.row)
        place = {"row_reg": row.row, "col_reg": row.column, "core_cols": self.shape.dim}
        core_rows = self.plan.rows if self.plan.parts > 1 else 0
        leave = self.shape.gate and self.shape.gated != "zero"
        e.do("st", d=self.windows["o"], t=tiles["o"], core_rows=core_rows, **place, leave=leave)
