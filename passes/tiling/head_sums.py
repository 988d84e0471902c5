"""
The instructions of cascaded head pruning: sums of what heads put out, and the list of those that go on.

See `heatc.passes.tiling.cascade` for what is summed and why it is exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic

from xdsl.ir import Operation, SSAValue

from heatc.passes.tiling.attention_sink import About, N, ProgramSink, T


class Sums(ABC, Generic[N, T]):
    """A layer's part in the importance of heads."""

    @abstractmethod
    def begin(self, sequence: N, head: dict[str, T], output: T, extra: T | None) -> None:
        """Before the heads of a sequence."""

    @abstractmethod
    def add(self, output: T, row: N) -> None:
        """Count what a row tile puts out."""

    @abstractmethod
    def end(self, head: N) -> None:
        """After all row tiles of a head."""


@dataclass(frozen=True)
class Cascade:
    """
    What one layer of `heads` heads has to do with their importance.

    `before` and `after` are the tensors of sums that it takes and leaves, if any; `shift`: see
    `sum_shift`. `ranking` is the op that lists the heads (for its location), None if all go on.
    """

    heads: int
    keep: int
    before: SSAValue | None = None
    after: SSAValue | None = None
    shift: int = 0
    ranking: Operation | None = None


class HeadSums(Sums[SSAValue, SSAValue]):
    """Emits a layer's part in the cascade; the cores work on `items` heads at a time."""

    def __init__(self, sink: ProgramSink, cascade: Cascade, items: int):
        self.s = sink
        self.cascade = cascade
        self.items = items
        self.tiles: dict[str, SSAValue] = {}
        self.after: SSAValue | None = None

    def begin(
        self,
        sequence: SSAValue,
        head: dict[str, SSAValue],
        output: SSAValue,
        extra: SSAValue | None,
    ) -> None:
        """The sums so far, and the list of heads, if there is one; on all cores."""
        s, cascade, zero = self.s, self.cascade, self.s.constant(0)
        self.tiles = head
        self.after = None if cascade.after is None else s.row(cascade.after, sequence)
        if cascade.before is None:
            return
        place = {"row_reg": zero, "col_reg": zero}
        before = s.row(cascade.before, sequence)
        s.do("ld", t=head["heads.sums"], d=before, **place, rows=1, cols=cascade.heads)
        if cascade.ranking is None:
            return
        about = About(cascade.ranking, report=True)
        s.do("cascade", about, s=head["heads.sums"], keep=cascade.keep)
        if self.after is not None:
            # The sums of pruned heads stay; kept heads overwrite theirs.
            s.do("st", d=self.after, t=head["heads.sums"], **place)
        for window in (output, extra):
            if window is not None:
                self._clear(window)

    def _clear(self, output: SSAValue) -> None:
        """Pruned heads put out 0, `items` of them at a time."""
        s, keep, dim, items = self.s, self.cascade.keep, self.s.shape.dim, self.items
        left = s.constant(self.cascade.heads - keep)
        start = s.constant(keep * dim)

        def some(offset: SSAValue, column: SSAValue) -> None:
            s.begin_heads(s.add(offset, keep), self.cascade.heads)
            place = {"row_reg": s.constant(0), "col_reg": column}
            s.do("stzero", d=output, **place, cols=dim, core_cols=dim)

        s.repeat_strided(left, items, items * dim, some, start)

    def add(self, output: SSAValue, row: SSAValue) -> None:
        """Count what a row tile puts out; the first one of a head begins at row 0."""
        if self.after is not None:
            self.s.do("magnitude", t=self.tiles["head.sum"], x=output, row_reg=row)

    def end(self, head: SSAValue) -> None:
        """Leave the sums of the heads that the cores have worked on."""
        if self.after is None:
            return
        s, total, first = self.s, self.tiles["head.total"], self.cascade.before is None
        fields = {"t": total, "acc": self.tiles["head.sum"], "head_reg": head}
        sums = total if first else self.tiles["heads.sums"]
        s.do("tally", **fields, s=sums, first=first, shift=self.cascade.shift)
        place = {"row_reg": s.constant(0), "col_reg": head}
        s.do("strow", d=self.after, t=total, **place, core_cols=1)
