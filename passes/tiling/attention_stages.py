"""
What a row tile of an attention goes through: first scores and their mask, the softmax, the values.

Dense scores are all there is to score. A pruning rule multiplies integer parts first, decides on
blocks, and adds what fractions of kept blocks contribute. A prediction decides on single scores
by codes of few bits, and computes those that are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

from heatc.isa.units import PROBABILITY_POINT, SoftmaxScale
from heatc.passes.tiling.attention_loads import Loads, Row
from heatc.passes.tiling.attention_parts import Prediction, Pruning
from heatc.passes.tiling.attention_plan import AttentionPlan, AttentionShape
from heatc.passes.tiling.attention_sink import REPORTED, About, N, Sink, T
from heatc.passes.tiling.head_sums import Sums


@dataclass(frozen=True)
class Attention:
    """
    One attention.

    Points are those of q, k, v, of the scores and of the output, q and k's above those of their
    integer parts and the scores' above that of the integer scores.
    """

    shape: AttentionShape
    scale: float
    points: dict[str, int]
    pruning: Pruning | None
    prediction: Prediction | None = None
    padded: bool = False
    """Whether sequences may have rows that are no keys."""
    shifts: tuple[int, ...] = ()
    """By how many bits each bias is finer than scores."""
    keyless: str = "zero"
    """What a row gives that sees no key."""
    least_keyless: str = "zero"
    """What it gives where `shape.least` hides all of it, too."""


class Stages(Generic[N, T]):
    """Emits the stages of row tiles."""

    def __init__(
        self, sink: Sink[N, T], attention: Attention, loads: Loads[N, T], sums: Sums[N, T] | None
    ):
        self.s = sink
        self.attention = attention
        self.loads = loads
        self.sums = sums
        self.plan: AttentionPlan = loads.plan
        self.shape = attention.shape
        scale = SoftmaxScale.of(attention.scale)
        self.scale = {"multiplier": scale.multiplier, "shift": scale.shift}

    # -- before the first row tile of a head -----------------------------------------------

    def begin(self, turn: int, column: N) -> None:
        """Keys, and what is known of all of them together."""
        self.loads.keys(turn, column)
        if self.shape.row_sums:
            self._sum_keys(column)
        if self.shape.bits:
            self._find_peaks(column)

    def _sum_keys(self, column: N) -> None:
        """The sum of the integer parts of all keys."""
        s, loads = self.s, self.loads
        total, zero = loads.head["k.sum"], s.constant(0)

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            s.do("colsum", t=total, x=planes["k"], first=first)

        if self.plan.shared:
            emit(loads.shared[loads.turn], zero, True)
        else:
            loads.over_keys(("k",), Row(zero, 0, column), emit)

    def _find_peaks(self, column: N) -> None:
        """The greatest magnitudes of queries and keys, and low-bit codes of keys that stay."""
        s, loads, head = self.s, self.loads, self.loads.head
        part = s.stage_tiles(self.plan.peak_tiles)["q.part"]

        def query(row: N, first: bool) -> None:
            s.do("peak", t=head["q.peak"], x=part, first=first)

        def key(planes: dict[str, T], at: N, first: bool) -> None:
            s.do("peak", t=head["k.peak"], x=planes["k"], first=first)

        loads.by_parts(part, "q", column, query)
        loads.over_keys(("k",), Row(s.constant(0), 0, column), key)
        for bits in self.shape.bits if self.plan.resident else ():
            s.do("low", t=head[f"k.low{bits}"], x=head["k"], peak=head["k.peak"], bits=bits)

    # -- first scores ----------------------------------------------------------------------

    def scores(self, row: Row[N]) -> None:
        """Queries and their first scores: integer ones and their mask, or all of them."""
        self.loads.queries("q", row)
        self.loads.masks(row)
        own = self.s.stage_tiles(self.plan.score_tiles)
        if self.shape.pruned:
            self._integer_scores(own["theta"], row)
        elif self.shape.bits:
            self._predict(own, row)
        else:
            self._dense_scores(own["a"], row)
        if self.plan.chained:
            # Behind the queries: their place is free only when the last values are computed.
            self.loads.values(self.loads.turn, row.column)

    def _dense_scores(self, acc: T, row: Row[N]) -> None:
        s, loads, shift = self.s, self.loads, self._dense_shift()
        tiles = loads.slots[row.slot]

        def part(key: T, column: N) -> None:
            s.do("mm", acc=acc, a=tiles["q"], b=key, first=1, b_transposed=1)
            s.do("drainc", t=tiles["s"], acc=acc, col_reg=column, shift=shift)

        if not self.plan.shared:
            loads.over_keys(("k",), row, lambda planes, key, _: part(planes["k"], key))
            return
        for i, spec in enumerate(self.plan.shared_keys):
            key, place = loads.shared[loads.turn][spec.name], i * self.plan.part

            def emit(key: T = key, place: int = place) -> None:
                part(key, s.constant(place))

            loads.where(place, emit)

    def _dense_shift(self) -> int:
        points = self.attention.points
        return points["q"] + points["k"] - points["s"]

    def _integer_scores(self, theta: T, row: Row[N]) -> None:
        """Scores against all keys, into `a`; block sums into `theta`; their mask, unless it is there."""
        s, loads = self.s, self.loads
        tiles = loads.slots[row.slot]
        scores = tiles.get("a", tiles["s"])
        sums: dict[str, T | int] = {"r": theta}
        if self.shape.row_sums:
            s.do("wide", r=tiles["r"], x=tiles["q"], t=loads.head["k.sum"], as_row=0)
            sums = {"r": tiles["r"], "positive": 1}

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            fields = {"a": scores, "q": tiles["q"], "k": planes["k"], "theta": theta}
            s.do("scores", **fields, col_reg=key, **sums, plain=bool(self.shape.visible))

        if self.plan.shared:
            emit(loads.shared[loads.turn], s.constant(0), True)
        else:
            loads.over_keys(("k",), row, emit)
        if loads.ranked:
            return
        if self.shape.visible:
            pruning = self.attention.pruning
            assert pruning is not None
            fields = {"a": scores, "v": tiles["visible"], "positive": pruning.positive}
            s.do("weigh", theta=theta, **fields)
        self._decide(theta, row)

    def _decide(self, theta: T, row: Row[N]) -> None:
        """The mask of a row tile, of its block sums."""
        pruning = self.attention.pruning
        assert pruning is not None
        tiles = {"m": self.loads.mask(row.slot), "theta": theta}
        about = About(pruning.mask, report=True)
        if pruning.density:
            density = pruning.density
            self.s.do("topk", about, **tiles, row_reg=row.row, density=density)
        else:
            own = len(pruning.rho_b) > 1
            self.s.do("mask", about, **tiles, row_reg=row.row, own=own, rho=pruning.rho_b[0])

    def gate(self) -> None:
        """Which heads go on, by the block sums of all row tiles."""
        pruning = self.attention.pruning
        assert pruning is not None
        tau = math.ldexp(pruning.tau_h[0], pruning.point)
        own, positive = len(pruning.tau_h) > 1, pruning.positive
        about = About(pruning.gate, report=True)
        visible = bool(self.shape.visible)
        self.s.do("gate", about, tau=tau, own=own, positive=positive, visible=visible)

    # -- predictions -----------------------------------------------------------------------

    def _predict(self, own: dict[str, T], row: Row[N]) -> None:
        """The mask of a row tile, by one round of low-bit scores after the other."""
        prediction = self.attention.prediction
        assert prediction is not None
        s, head, tiles = self.s, self.loads.head, self.loads.slots[row.slot]
        last, among = len(prediction.bits) - 1, head["mask"]
        for i, (bits, source) in enumerate(zip(prediction.bits, prediction.masks)):
            s.do("low", t=own["q.low"], x=tiles["q"], peak=head["q.peak"], bits=bits)
            if i == 0:
                self._low_scores(own, row, bits)
            else:
                self._picked(row, own["a"], own["q.low"], among, 0, own, bits)
            target = head["mask" if i == last else "round"]
            fields = {"m": target, "row_reg": row.row}
            about = About(source, report=True, first_round=i < last)
            if prediction.ratios:
                rho, has = prediction.ratios[i], i > 0
                s.do("filter", about, **fields, s=tiles["s"], among=among, rho=rho, has_among=has)
            else:
                s.do("softmax", p=tiles["p"], s=tiles["s"], **self.scale, point=prediction.point)
                s.do("likely", about, **fields, p=tiles["p"], code=prediction.code)
            among = target

    def _low_keys(self, key: T, own: dict[str, T], bits: int) -> T:
        """Low-bit codes of keys: those that stay, or of a part that passes by."""
        head = self.loads.head
        if self.plan.resident:
            return head[f"k.low{bits}"]
        self.s.do("low", t=own["k.low"], x=key, peak=head["k.peak"], bits=bits)
        return own["k.low"]

    def _low_scores(self, own: dict[str, T], row: Row[N], bits: int) -> None:
        """All low-bit scores of a row tile: integers, or at the point of a prediction."""
        s, prediction, points = self.s, self.attention.prediction, self.attention.points
        head, scores = self.loads.head, self.loads.slots[row.slot]["s"]
        assert prediction is not None

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            low, acc = self._low_keys(planes["k"], own, bits), own["a"]
            s.do("mm", acc=acc, a=own["q.low"], b=low, first=1, b_transposed=1)
            if prediction.ratios:
                s.do("drainc", t=scores, acc=acc, col_reg=key, shift=0)
                return
            peaks = {"q_peak": head["q.peak"], "k_peak": head["k.peak"]}
            shift = points["q"] + points["k"] + 2 * (bits - 1) - prediction.point
            s.do("drainp", t=scores, acc=acc, **peaks, col_reg=key, shift=shift)

        self.loads.over_keys(("k",), row, emit)

    def _picked(
        self,
        row: Row[N],
        acc: T,
        query: T,
        mask: T,
        shift: int,
        own: dict[str, T] | None = None,
        bits: int = 0,
    ) -> None:
        """The scores that a mask keeps, of low-bit keys where `bits` are given."""
        s, scores = self.s, self.loads.slots[row.slot]["s"]

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            keys = planes["k"] if own is None else self._low_keys(planes["k"], own, bits)
            place = {"mask": mask, "row_reg": row.row, "col_reg": key}
            s.do("pick", acc=acc, q=query, k=keys, **place)
            s.do("drainm", t=scores, acc=acc, **place, shift=shift)

        self.loads.over_keys(("k",), row, emit, keys=mask)

    # -- the softmax -----------------------------------------------------------------------

    def softmax(self, row: Row[N]) -> None:
        """Fractions of kept blocks, or kept scores, where some are pruned; and the softmax."""
        tiles = self.loads.slots[row.slot]
        if self.shape.pruned:
            self._merge(row)
        elif self.shape.bits:
            acc, shift = self.s.stage_tiles(self.plan.merge_tiles)["f"], self._dense_shift()
            self._picked(row, acc, tiles["q"], self.loads.head["mask"], shift)
        self._mask_scores(tiles)
        self.softmax_of(tiles["p"], tiles["s"])

    def _mask_scores(self, tiles: dict[str, T]) -> None:
        """What the model adds to the scores of a row tile, and what it hides of them."""
        attention, shape = self.attention, self.shape
        every = range(len(shape.biases))
        first = len(every) - shape.biases_behind
        seen = "visible" if shape.visible else None
        self._offset(tiles, every[:first], seen, attention.keyless)
        if shape.least is not None:
            self._offset(tiles, every[first:], "least", attention.least_keyless)

    def _offset(self, tiles: dict[str, T], biases: range, hiding: str | None, keyless: str) -> None:
        """Add some biases to scores, then hide what a mask says."""
        s, own = self.s, tiles["s"]
        visible = own if hiding is None else tiles[hiding]
        for i in biases:
            fields = {"s": own, "b": tiles[f"bias.{i}"], "v": visible, "has_bias": 1}
            hides = {"has_visible": hiding is not None and i == biases[-1], "keyless": keyless}
            shift = self.attention.shifts[i]
            s.do("offset", REPORTED, **fields, **hides, shift=shift)
        if hiding is not None and not biases:
            fields = {"s": own, "b": own, "v": visible, "has_visible": 1}
            s.do("offset", REPORTED, **fields, keyless=keyless)

    def softmax_of(self, p: T, s: T) -> None:
        """The softmax of some scores."""
        self.s.do("softmax", REPORTED, p=p, s=s, **self.scale, point=self.attention.points["s"])

    def _merge(self, row: Row[N]) -> None:
        """Fraction products of a row tile, and the adder."""
        s, loads, points = self.s, self.loads, self.attention.points
        pruning, tiles = self.attention.pruning, loads.slots[row.slot]
        assert pruning is not None
        fraction = loads.queries("q.fraction", row)
        parts = s.stage_tiles(self.plan.merge_tiles)
        hides = bool(self.shape.visible) and pruning.pruned == "mean"

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            place = {"mask": loads.mask(row.slot), "row_reg": row.row, "col_reg": key}
            operands = {"qi": tiles["q"], "qf": fraction, "ki": planes["k"]}
            s.do("frac", **parts, **operands, kf=planes["k.fraction"], **place)
            s.do(
                "add",
                s=tiles["s"],
                a=tiles.get("a", tiles["s"]),
                **parts,
                **place,
                pruned=pruning.pruned,
                point_q=points["q"],
                point_k=points["k"],
                point_s=points["s"] - pruning.point,
                r=tiles["visible"] if hides else tiles.get("r", tiles["s"]),
                constant=self.shape.constant,
                hides=hides,
            )

        loads.over_keys(("k", "k.fraction"), row, emit)

    # -- values ----------------------------------------------------------------------------

    def sum_values(self, row: Row[N]) -> None:
        """The sum of all values of a head, which stands for those of pruned scores."""
        if self.plan.summed:
            self.loads.over_keys(("v",), row, self._add_values, whole=True)

    def _add_values(self, planes: dict[str, T], key: N, first: bool) -> None:
        self.s.do("colsum", t=self.loads.head["v.sum"], x=planes["v"], first=first)

    def values(self, row: Row[N]) -> None:
        """The weighted sum of the values, and the result's way to memory."""
        s, loads, plan = self.s, self.loads, self.plan
        tiles = loads.slots[row.slot]
        acc = s.stage_tiles(plan.value_tiles)["acc"]
        # A head that is one step sums its values where they are, or else before.
        whole = plan.summed and plan.chained and plan.key_parts == 1
        if plan.chained and not whole:
            self.sum_values(row)

        def emit(planes: dict[str, T], key: N, first: bool) -> None:
            if whole:
                self._add_values(planes, key, first)
            s.do(
                "pv",
                acc=acc,
                p=tiles["p"],
                v=planes["v"],
                mask=loads.mask(row.slot) if plan.picked else tiles["p"],
                row_reg=row.row,
                col_reg=key,
                first=first,
                sparse=plan.picked,
                total=loads.head["v.sum"] if plan.summed else acc,
                constant=plan.summed,
            )

        if plan.shared and not plan.picked:
            turn = row.slot if plan.chained else loads.turn
            emit(loads.shared[turn], s.constant(0), True)
        else:
            loads.over_keys(("v",), row, emit, whole=whole)
        self._leave(acc, row)

    def _leave(self, acc: T, row: Row[N]) -> None:
        """A row tile's output: rounded, counted, stored."""
        s, loads, points = self.s, self.loads, self.attention.points
        output = loads.slots[row.slot]["o"]
        shift = PROBABILITY_POINT + points["v"] - points["o"]
        s.do("drain", t=output, acc=acc, bias=acc, shift=shift)
        if self.sums is not None:
            self.sums.add(output, row.row)
        place = {"row_reg": row.row, "col_reg": row.column}
        core_rows = self.plan.rows if self.plan.parts > 1 else 0
        leave = self.shape.gate and self.shape.gated != "zero"
        cores = {"core_rows": core_rows, "core_cols": self.shape.dim}
        s.do("st", d=loads.windows["o"], t=output, **place, **cores, leave=leave)

    # -- pruned heads ----------------------------------------------------------------------

    def pruned_heads(self, column: N) -> None:
        """One row for all tokens of a head: the mean of its values, or those of its mean query."""
        s, loads, points = self.s, self.loads, self.attention.points
        tiles, zero = s.stage_tiles(self.plan.tail_tiles), s.constant(0)
        if self.shape.gated == "mean":
            self._sum_parts(tiles, "v", column)
            shift = points["v"] - points["o"]
            s.do("divide", t=tiles["o.row"], acc=tiles["v.sum"], col_reg=zero, wide=0, shift=shift)
        else:
            self._mean_query(tiles, column)
        place = {"row_reg": zero, "col_reg": column}
        for windows in (loads.windows, loads.extra_windows):
            if "o" in windows:
                dim = self.shape.dim
                s.do("strow", d=windows["o"], t=tiles["o.row"], **place, core_cols=dim)

    def _mean_query(self, tiles: dict[str, T], column: N) -> None:
        """The row of the mean query: its scores, softmax and values."""
        s, points, pruning = self.s, self.attention.points, self.attention.pruning
        assert pruning is not None
        self._sum_parts(tiles, "q", column)

        def scores(key: N, first: bool) -> None:
            s.do("wide", r=tiles["c"], x=tiles["k.part"], t=tiles["q.sum"], as_row=1)
            shift = pruning.point - points["s"]
            s.do("divide", t=tiles["s.row"], acc=tiles["c"], col_reg=key, wide=1, shift=shift)

        def values(key: N, first: bool) -> None:
            operands = {"acc": tiles["acc.row"], "p": tiles["p.row"], "v": tiles["v.part"]}
            place = {"mask": tiles["p.row"], "row_reg": s.constant(0), "col_reg": key}
            s.do("pv", **operands, **place, first=first, total=tiles["acc.row"])

        self.loads.by_parts(tiles["k.part"], "k", column, scores)
        self.softmax_of(tiles["p.row"], tiles["s.row"])
        self.loads.by_parts(tiles["v.part"], "v", column, values)
        acc = tiles["acc.row"]
        shift = PROBABILITY_POINT + points["v"] - points["o"]
        s.do("drain", t=tiles["o.row"], acc=acc, bias=acc, shift=shift)

    def _sum_parts(self, tiles: dict[str, T], name: str, column: N) -> None:
        """The sum of all rows of a plane."""
        total, part = tiles[f"{name}.sum"], tiles[f"{name}.part"]

        def emit(row: N, first: bool) -> None:
            self.s.do("colsum", t=total, x=part, first=first)

        self.loads.by_parts(part, name, column, emit)
