"""
Attention on the cores: heads and queries dealt out, a tile of queries at a time.

A row tile goes through three stages (`heatc.passes.tiling.attention_stages`): its first scores with
their mask, what is left of the scores and the softmax, the values. With two slots they take turns
between two row tiles, so that the PE array works on one while adder and softmax unit work on the
other. Engines work in program order: the order of the stages in a loop's body is the schedule.

The kernel is written once. `emit_attention` makes a program of it; the planner counts what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic

from xdsl.ir import SSAValue

from heatc.isa.table import BLOCK
from heatc.passes.tiling.attention_loads import OF_QUERIES, POSITIONS, Loads, Row
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.passes.tiling.attention_sink import REPORTED, N, ProgramSink, Sink, T
from heatc.passes.tiling.attention_stages import Attention, Stages
from heatc.passes.tiling.emitter import Emitter
from heatc.passes.tiling.head_sums import Cascade, HeadSums, Sums


def emit_attention(
    emitter: Emitter,
    symbol: str,
    attention: Attention,
    tensors: Mapping[str, SSAValue],
    plan: AttentionPlan,
    cores: int,
    cascade: Cascade | None = None,
) -> None:
    """
    Loops over sequences, heads, and tiles of queries.

    `tensors` are q, k, v, or q, k and their fractions, and v; the output `o`, and what masks of the
    model's own need (`heatc.passes.tiling.attention_sink.ProgramSink`). What instructions
    decide or round is reported under `symbol`.
    """
    sink = ProgramSink(emitter, symbol, attention.shape, tensors)
    items = cores // plan.parts
    sums = None if cascade is None else HeadSums(sink, cascade, items)
    Kernel(sink, attention, plan, items, attention.shape.heads, sums).run()


class Kernel(Generic[N, T]):
    """
    The order in which `heads` heads of an attention are worked on, `items` of them at a time.

    `sums` is its part in the importance of heads, if it has one.
    """

    def __init__(
        self,
        sink: Sink[N, T],
        attention: Attention,
        plan: AttentionPlan,
        items: int,
        heads: int,
        sums: Sums[N, T] | None,
    ):
        self.s = sink
        self.attention = attention
        self.plan = plan
        self.items = items
        self.heads = heads
        self.shape = attention.shape
        self.loads = Loads(sink, self.shape, plan)
        self.stages = Stages(sink, attention, self.loads, sums)
        self.sums = sums

    def run(self) -> None:
        """All sequences."""
        self._parameters()
        self.s.repeat(self.s.special("batch"), 1, self._sequence)
        self.s.do("all")

    def _parameters(self) -> None:
        """The thresholds of heads that differ."""
        pruning = self.attention.pruning
        if pruning is None:
            return
        scaled = tuple(math.ldexp(tau, pruning.point) for tau in pruning.tau_h)
        for which, values in (("rho", pruning.rho_b), ("tau", scaled)):
            for head, value in enumerate(values if len(values) > 1 else ()):
                self.s.do("param", which=which, head=head, value=value)

    def _sequence(self, sequence: N) -> None:
        s, loads = self.s, self.loads
        s.do("seq", rb=sequence)
        start, loads.length = s.special("start"), s.special("length")
        self._open_windows(start)
        # Once, unless the sequence has no token.
        s.repeat(loads.length, self.shape.length, lambda _: self._tokens(sequence))

    def _open_windows(self, start: N) -> None:
        s, loads = self.s, self.loads
        names = (*self.shape.plane_names, "o", *(POSITIONS if self.shape.masked else ()))
        loads.windows = {name: s.window(name, start, loads.length) for name in names}
        if not self.attention.padded:
            return
        first, self.extra = s.special("extra_start"), s.special("extra")
        loads.extra_windows = {
            name: s.window(name, first, self.extra, "_extra")
            for name in names
            if name in OF_QUERIES
        }

    def _tokens(self, sequence: N) -> None:
        """A sequence that has tokens."""
        s, plan, loads = self.s, self.plan, self.loads
        if self.sums is not None:
            # The heads of the sequence before may be listed, and leave cores without work.
            s.do("all")
        if self.shape.block != BLOCK:
            rows, columns = self.shape.block
            s.do("blocks", REPORTED, rows=rows, columns=columns)
        if plan.parts > 1:
            s.do("group", parts=plan.parts, rows=plan.rows)
        loads.declare()
        if self.sums is not None:
            windows = loads.windows["o"], loads.extra_windows.get("o")
            self.sums.begin(sequence, loads.head, *windows)
        if plan.chained:
            self._chain()
            self._chain_extra()
        else:
            self._rounds()

    def _end_sums(self, head: N) -> None:
        if self.sums is not None:
            self.sums.end(head)

    # -- heads -----------------------------------------------------------------------------

    def _chain(self) -> None:
        """One head after the other on all cores: the next one's scores before this one's values."""
        s, heads, dim = self.s, self.heads, self.shape.dim
        zero = s.constant(0)

        def tile(head: N, column: N, ahead: int) -> tuple[N, Row[N]]:
            head = s.add(head, ahead) if ahead else head
            column = s.add(column, ahead * dim) if ahead else column
            return head, Row(zero, ahead % 2, column)

        def step(head: N, column: N, ahead: int) -> None:
            """Values of the head before `ahead` between the stages of `ahead`."""
            done, old = tile(head, column, ahead - 1)
            number, new = tile(head, column, ahead)
            s.begin_heads(number)
            self.stages.begin(ahead % 2, new.column)
            self._overlap(old, new)
            s.end_heads()
            self._end_sums(done)

        def pair(head: N, column: N) -> None:
            step(head, column, 1)
            step(head, column, 2)

        s.begin_heads(zero)
        self.stages.begin(0, zero)
        self.stages.scores(Row(zero, 0, zero))
        self.stages.softmax(Row(zero, 0, zero))
        s.end_heads()
        pairs = (heads - 1) // 2
        if pairs:
            s.repeat_strided(s.constant(2 * pairs), 2, 2 * dim, pair)
        last, column = s.constant(2 * pairs), s.constant(2 * pairs * dim)
        if heads % 2 == 0:
            step(last, column, 1)
        done, row = tile(last, column, (heads - 1) % 2)
        self.stages.values(row)
        self._end_sums(done)

    def _rounds(self) -> None:
        """As many heads at a time as there are groups of cores."""
        s, heads, dim, items = self.s, self.heads, self.shape.dim, self.items
        if not self.plan.shared:

            def some(head: N, column: N) -> None:
                self._round(head, column, 0)

            s.repeat_strided(s.constant(heads), items, items * dim, some)
            return

        def pair(head: N, column: N) -> None:
            self._round(head, column, 0)
            self._round(s.add(head, 1), s.add(column, dim), 1)

        pairs = heads // 2
        if pairs:
            s.repeat_strided(s.constant(2 * pairs), 2, 2 * dim, pair)
        if heads % 2:
            self._round(s.constant(2 * pairs), s.constant(2 * pairs * dim), 0)

    def _round(self, head: N, column: N, turn: int) -> None:
        """The heads that the cores work on at the same time; `turn`: of the shared tiles."""
        self.s.begin_heads(head)
        self.loads.ranked = False
        self.stages.begin(turn, column)
        if self.shape.gate:
            self._rank(column)
        self._kept_heads(column)
        self._extra_rows(column)
        if self.shape.gate and self.shape.gated != "zero":
            self.s.of_pruned_heads(lambda: self.stages.pruned_heads(column))
        self.s.end_heads()
        self._end_sums(head)

    def _rank(self, column: N) -> None:
        """The first pass of a gated head: masks and head importance."""
        if self.plan.steps == 1:
            self.stages.scores(Row(self.s.constant(0), 0, column))
        else:

            def scores(row: N) -> None:
                self.stages.scores(Row(row, 0, column))

            self.s.repeat(self.loads.length, self.plan.step, scores)
        self.stages.gate()
        self.loads.ranked = True

    # -- row tiles -------------------------------------------------------------------------

    def _kept_heads(self, column: N) -> None:
        """All row tiles of the heads that were not pruned."""
        first = Row(self.s.constant(0), 0, column)
        if self.plan.slots == 1:
            # A head of one step has its scores from the first pass.
            self._alone(column)
            return
        self.stages.scores(first)
        self.loads.values(self.loads.turn, column)
        self.stages.softmax(first)
        self.stages.sum_values(first)
        self._pipeline(column)

    def _alone(self, column: N) -> None:
        """One row tile after the other."""
        s, plan = self.s, self.plan
        if plan.steps == 1:
            self._finish(Row(s.constant(0), 0, column), values=True)
            return
        self.loads.values(self.loads.turn, column)
        self.stages.sum_values(Row(s.constant(0), 0, column))

        def finish(row: N) -> None:
            self._finish(Row(row, 0, column), values=False)

        s.repeat(self.loads.length, plan.step, finish)

    def _finish(self, row: Row[N], *, values: bool) -> None:
        """All stages of a row tile but those that the first pass has done."""
        if not (self.loads.ranked and self.plan.steps == 1):
            self.stages.scores(row)
        if values:
            self.loads.values(self.loads.turn, row.column)
        self.stages.softmax(row)
        if values:
            self.stages.sum_values(row)
        self.stages.values(row)

    def _pipeline(self, column: N) -> None:
        """Row tiles in two slots; the first one's scores are there."""
        s, step, length = self.s, self.plan.step, self.loads.length

        def pair(row: N, left: N) -> None:
            more, further = s.add(left, -step), s.add(left, -2 * step)
            following = s.add(row, step)
            one, two = Row(row, 0, column), Row(following, 1, column)
            three = Row(s.add(row, 2 * step), 0, column)
            self._overlap(one, two, more)
            # What stands last needs no successor.
            s.repeat(more, self.shape.length, lambda _: self._overlap(two, three, further))

        s.repeat_strided(length, 2 * step, -2 * step, pair, length)

    def _overlap(self, old: Row[N], new: Row[N], left: N | None = None) -> None:
        """
        Values of a row tile, and the stages before of the next one, if tokens are `left`.

        The values wait for a softmax that works while the next scores are computed. Where pruned
        scores take none of its time that is enough, and the next mask comes meanwhile.
        """
        stages = self.stages

        def emit(*some: Callable[[Row[N]], None]) -> None:
            if left is None:
                for stage in some:
                    stage(new)
            else:
                self.s.repeat(left, self.shape.length, lambda _: emit_all(some))

        def emit_all(some: tuple[Callable[[Row[N]], None], ...]) -> None:
            for stage in some:
                stage(new)

        if self.plan.picked:
            emit(stages.scores)
            stages.values(old)
            emit(stages.softmax)
        else:
            emit(stages.scores, stages.softmax)
            stages.values(old)

    # -- rows that are no keys -------------------------------------------------------------

    def _extra_rows(self, column: N) -> None:
        """
        The rows of the heads at hand that are no keys, one row tile after the other.

        They begin row tiles and blocks of their own. Heads were decided on without them, and their
        magnitudes are not added up.
        """
        if not self.attention.padded:
            return
        loads, stages = self.loads, self.stages
        ranked, windows, sums = loads.ranked, loads.windows, stages.sums
        loads.ranked, stages.sums = False, None
        loads.windows = {**windows, **loads.extra_windows}

        def finish(row: N) -> None:
            self.s.do("extra")
            self._finish(Row(row, 0, column), values=True)

        self.s.repeat(self.extra, self.plan.step, finish)
        loads.ranked, loads.windows, stages.sums = ranked, windows, sums

    def _chain_extra(self) -> None:
        """The rows that are no keys of one head after the other, where a sequence has any."""
        if not self.attention.padded:
            return
        s, dim = self.s, self.shape.dim

        def head(number: N, column: N) -> None:
            s.begin_heads(number)
            self.stages.begin(0, column)
            self._extra_rows(column)

        def heads(_: N) -> None:
            s.repeat_strided(s.constant(self.heads), 1, dim, head)

        s.repeat(self.extra, self.shape.length, heads)
