"""Attention on the cores: one head a core, a tile of queries at a time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects.builtin import IntegerAttr, StringAttr, i64
from xdsl.ir import Operation, SSAValue

from heatc.dialects import hdp
from heatc.hardware import Hardware
from heatc.isa.units import PROBABILITY_POINT, SoftmaxScale
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.plan import AttentionPlan, AttentionShape, plan_token_attention


@dataclass(frozen=True)
class Pruning:
    """What rule `paper` decides on, and the ops that decide (for locations)."""

    rho_b: float
    tau_h: float | None
    pruned: str
    mask: Operation
    gate: Operation | None


@dataclass(frozen=True)
class Attention:
    """
    One attention on tensors: `planes` are q, k, v, or q, k and their fractions, and v.

    Points are those of q, k, v, of the scores and of the output. What instructions decide or
    round is reported under `symbol`.
    """

    symbol: str
    shape: AttentionShape
    planes: dict[str, SSAValue]
    output: SSAValue
    scale: float
    points: dict[str, int]
    pruning: Pruning | None

    @property
    def sparse(self) -> bool:
        """Whether pruned scores have no part in the softmax, so that their values are not read."""
        return self.pruning is not None and self.pruning.pruned == "neginf"


def emit_attention(emitter: Emitter, attention: Attention, hardware: Hardware) -> None:
    """Loops over sequences, rounds of heads, and tiles of queries."""
    _Kernel(emitter, attention, hardware).run()


class _Kernel:
    def __init__(self, emitter: Emitter, attention: Attention, hardware: Hardware):
        self.e = emitter
        self.attention = attention
        self.hardware = hardware
        self.shape = attention.shape
        self.plan: AttentionPlan = plan_token_attention(attention.shape, hardware)
        self.windows: dict[str, SSAValue] = {}
        self.head: Tiles = {}

    def run(self) -> None:
        e, shape = self.e, self.shape
        batch = e.special("batch")
        with e.loop(batch, 1) as sequence:
            e.do("seq", rb=sequence)
            start, self.length = e.special("start"), e.special("length")
            self._open_windows(start)
            # Once, unless the sequence has no token.
            with e.loop(self.length, shape.length):
                heads = e.constant(shape.heads)
                cores = self.hardware.cores
                with e.strided_loop(heads, cores, cores * shape.dim) as (head, column):
                    heads_op = e.do("heads", rc=head, stride=1, limit=shape.heads)
                    heads_op.attributes["dim"] = IntegerAttr(shape.dim, i64)
                    self._report(heads_op)
                    self.column = column
                    self._round()
        e.do("all")

    def _report(self, op: Operation) -> None:
        """Name the attention on an op that debug information or points are read from."""
        op.attributes["attention"] = StringAttr(self.attention.symbol)

    def _open_windows(self, start: SSAValue) -> None:
        tensors = {**self.attention.planes, "o": self.attention.output}
        for name, tensor in tensors.items():
            window = self.e.emit(hdp.WindowOp(tensor, start, self.length))
            window.name_hint = f"{name.replace('.', '_')}_rows"
            self.windows[name] = window

    def _round(self) -> None:
        """The heads that the cores work on at the same time."""
        e, plan = self.e, self.plan
        self.head = e.tiles(plan.head_tiles)
        zero = e.constant(0)
        if plan.resident:
            self._load(self.head["k"], "k", zero, plan.keys)
        if self.shape.gate:
            with e.loop(self.length, plan.rows) as row:
                self._rank(e.tiles(plan.gate_tiles), row)
            self._gate()
        if plan.resident:
            if self.attention.pruning is not None:
                self._load(self.head["k.fraction"], "k.fraction", zero, plan.keys, self.shape.gate)
            upon = self.attention.sparse and self.shape.gate
            self._load(self.head["v"], "v", zero, plan.keys, upon)
        with e.loop(self.length, plan.rows) as row:
            tiles = {**self.head, **e.tiles(plan.row_tiles)}
            if self.attention.pruning is None:
                self._dense(tiles, row)
            else:
                self._pruned(tiles, row)
            self._store(tiles, row)

    # -- transfers -------------------------------------------------------------------------

    def _load(
        self, tile: SSAValue, name: str, row: SSAValue, rows: int, upon_mask: bool = False
    ) -> None:
        """Core c's head of some rows."""
        dim = self.shape.dim
        fields = {
            "t": tile,
            "d": self.windows[name],
            "row_reg": row,
            "col_reg": self.column,
            "rows": rows,
            "cols": dim,
            "core_cols": dim,
        }
        if upon_mask:
            self.e.do("ldm", mask=self.head["mask"], axis="key", **fields)
        else:
            self.e.do("ld", **fields)

    @contextmanager
    def _key_tiles(self) -> Generator[SSAValue]:
        """The first key column of each key tile; a loop only where keys are not resident."""
        if self.plan.resident:
            yield self.e.constant(0)
            return
        with self.e.loop(self.length, self.plan.keys) as column:
            yield column

    def _store(self, tiles: Tiles, row: SSAValue) -> None:
        e, points = self.e, self.attention.points
        shift = PROBABILITY_POINT + points["v"] - points["o"]
        e.do("drain", t=tiles["o"], acc=tiles["acc"], bias=tiles["acc"], shift=shift)
        window, dim = self.windows["o"], self.shape.dim
        e.do("st", d=window, t=tiles["o"], row_reg=row, col_reg=self.column, core_cols=dim)

    # -- scores ----------------------------------------------------------------------------

    def _integer_scores(self, tiles: Tiles) -> None:
        """Scores of a row tile against all keys, into `a`; block sums into `theta`."""
        with self._key_tiles() as key:
            if not self.plan.resident:
                self._load(tiles["k"], "k", key, self.plan.keys)
            self.e.do(
                "scores",
                a=tiles["a"],
                q=tiles["q"],
                k=tiles["k"],
                theta=tiles["theta"],
                col_reg=key,
            )

    def _rank(self, tiles: Tiles, row: SSAValue) -> None:
        """The first pass of a gated head: masks and head importance."""
        self._load(tiles["q"], "q", row, self.plan.rows)
        self._integer_scores({**self.head, **tiles})
        self._mask(tiles, row)

    def _mask(self, tiles: Tiles, row: SSAValue) -> None:
        pruning = self.attention.pruning
        assert pruning is not None
        op = self.e.do(
            "mask", m=self.head["mask"], theta=tiles["theta"], row_reg=row, rho=pruning.rho_b
        )
        op.location = pruning.mask.location
        self._report(op)

    def _gate(self) -> None:
        pruning = self.attention.pruning
        assert pruning is not None
        assert pruning.gate is not None
        assert pruning.tau_h is not None
        op = self.e.do("gate", tau=pruning.tau_h)
        op.location = pruning.gate.location
        self._report(op)

    def _dense(self, tiles: Tiles, row: SSAValue) -> None:
        """Scores with all bits, softmax, values."""
        e, points = self.e, self.attention.points
        self._load(tiles["q"], "q", row, self.plan.rows)
        if self.plan.resident:
            e.do("mm", acc=tiles["a"], a=tiles["q"], b=tiles["k"], first=1, b_transposed=1)
        else:
            self._integer_scores(tiles)
        shift = points["q"] + points["k"] - points["s"]
        e.do("drain", t=tiles["s"], acc=tiles["a"], bias=tiles["a"], shift=shift)
        self._values(tiles, row)

    def _pruned(self, tiles: Tiles, row: SSAValue) -> None:
        """Integer scores, mask, fractions of kept blocks, merge, softmax, values."""
        plan = self.plan
        self._load(tiles["q"], "q", row, plan.rows)
        self._integer_scores(tiles)
        if not self.shape.gate:
            self._mask(tiles, row)
        self._load(tiles["q.fraction"], "q.fraction", row, plan.rows)
        with self._key_tiles() as key:
            if not plan.resident:
                self._load(tiles["k.integer"], "k", key, plan.keys)
                self._load(tiles["k.fraction"], "k.fraction", key, plan.keys, True)
            self._merge(tiles, row, key)
        self._values(tiles, row)

    def _merge(self, tiles: Tiles, row: SSAValue, key: SSAValue) -> None:
        """Fraction products of some key columns, and the adder."""
        pruning, points = self.attention.pruning, self.attention.points
        assert pruning is not None
        place = {"mask": self.head["mask"], "row_reg": row, "col_reg": key}
        parts = {"f1": tiles["f1"], "f2": tiles["f2"]}
        keys = tiles["k"] if self.plan.resident else tiles["k.integer"]
        self.e.do(
            "frac",
            **parts,
            qi=tiles["q"],
            qf=tiles["q.fraction"],
            ki=keys,
            kf=tiles["k.fraction"],
            **place,
        )
        self.e.do(
            "add",
            s=tiles["s"],
            a=tiles["a"],
            **parts,
            **place,
            pruned=pruning.pruned,
            point_q=points["q"],
            point_k=points["k"],
            point_s=points["s"],
        )

    # -- values ----------------------------------------------------------------------------

    def _values(self, tiles: Tiles, row: SSAValue) -> None:
        """Softmax of the row tile, and the weighted sum of the values."""
        e, plan = self.e, self.plan
        scale = SoftmaxScale.of(self.attention.scale)
        softmax = e.do(
            "softmax",
            p=tiles["p"],
            s=tiles["s"],
            multiplier=scale.multiplier,
            shift=scale.shift,
            point=self.attention.points["s"],
        )
        self._report(softmax)
        zero = e.constant(0)
        if not plan.resident:
            self._load(tiles["v"], "v", zero, plan.keys, self.attention.sparse)
        self._add_values(tiles, row, zero, first=True)
        if plan.resident:
            return
        rest = e.add(self.length, -plan.keys)
        with e.loop(rest, plan.keys) as offset:
            column = e.add(offset, plan.keys)
            self._load(tiles["v"], "v", column, plan.keys, self.attention.sparse)
            self._add_values(tiles, row, column, first=False)

    def _add_values(self, tiles: Tiles, row: SSAValue, column: SSAValue, *, first: bool) -> None:
        self.e.do(
            "pv",
            acc=tiles["acc"],
            p=tiles["p"],
            v=tiles["v"],
            mask=self.head["mask"] if self.attention.sparse else tiles["p"],
            row_reg=row,
            col_reg=column,
            first=first,
            sparse=self.attention.sparse,
        )
