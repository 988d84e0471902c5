"""
Planes of an attention on their way to tiles.

Queries come a row tile at a time, each core its own. Keys and values come once a head, where they
stay, or pass by in parts, which take turns in two tiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeAlias

from heatc.passes.tiling.attention_plan import AttentionPlan, AttentionShape
from heatc.passes.tiling.attention_sink import N, Sink, T
from heatc.passes.tiling.packing import TileSpec

OF_QUERIES = ("q", "q.fraction", "o", "dq")
"""Tensors that have rows of queries; all others are read by key."""

POSITIONS = ("dq", "dk")
"""Positions of queries and keys, where the model has masks of its own."""


class Row(NamedTuple, Generic[N]):
    """A row tile: the first query of core 0, the slot it works in, and where its head lies."""

    row: N
    slot: int
    column: N


OnKeys: TypeAlias = Callable[[dict[str, T], N, bool], None]
"""Takes the tiles of planes by name, their first key, and whether it is 0."""


class Loads(Generic[N, T]):
    """
    Loads planes of an attention; holds its tiles that outlive a stage.

    Attributes:
        shape: of the attention; the plan's may be of longer sequences.
        length: tokens of the sequence at hand.
        windows: the rows of the sequence in each tensor.
        head: tiles that live as long as a head.
        shared: tiles of the shared buffer, which take turns from head to head.
        slots: tiles of the row tiles that are worked on at the same time.
        turn: which of `shared` the head at hand has.
        ranked: whether masks are there: of a gated head, whose first pass is done.
    """

    length: N

    def __init__(self, sink: Sink[N, T], shape: AttentionShape, plan: AttentionPlan):
        self.s = sink
        self.shape = shape
        self.plan = plan
        self.windows: dict[str, T] = {}
        self.extra_windows: dict[str, T] = {}
        self.head: dict[str, T] = {}
        self.shared: list[dict[str, T]] = []
        self.slots: list[dict[str, T]] = []
        self.turn = 0
        self.ranked = False

    def declare(self) -> None:
        """Declare the tiles that last."""
        s, plan = self.s, self.plan
        self.head = s.tiles(plan.head_tiles)
        self.slots = [s.tiles(plan.slot_tiles) for _ in range(plan.slots)]
        self.shared = [s.tiles(plan.shared_tiles, "shared") for _ in range(2)]

    def mask(self, slot: int) -> T:
        """The block mask of a row tile."""
        return self.slots[slot]["mask"] if self.plan.chained else self.head["mask"]

    # -- rows of a plane -------------------------------------------------------------------

    def load(self, tile: T, name: str, row: N, column: N, rows: int, mask: T | None = None) -> None:
        """
        Some rows of each core's head; queries (`name` begins with q) are dealt out to its cores.

        With a mask of blocks, only keys that some query wants.
        """
        dealt = name.startswith("q") and self.plan.parts > 1
        self._rows(tile, name, row, column, rows, self.plan.rows if dealt else 0, mask)

    def _rows(
        self, tile: T, name: str, row: N, column: N, rows: int, core_rows: int, mask: T | None
    ) -> None:
        dim, window = self.shape.dim, self.windows[name]
        place = {"row_reg": row, "col_reg": column}
        size = {"rows": rows, "cols": dim, "core_rows": core_rows, "core_cols": dim}
        if mask is None:
            self.s.do("ld", t=tile, d=window, **place, **size)
        else:
            self.s.do("ldm", mask=mask, axis="key", t=tile, d=window, **place, **size)

    def queries(self, name: str, row: Row[N]) -> T:
        """A row tile of queries, in its slot."""
        tile = self.slots[row.slot][name]
        self.load(tile, name, row.row, row.column, self.plan.rows)
        return tile

    def masks(self, row: Row[N]) -> None:
        """What a row tile sees, and its parts of biases, in its slot."""
        s, shape, tiles = self.s, self.shape, self.slots[row.slot]
        place = {name: self.windows[name] for name in POSITIONS} if shape.masked else {}
        core_rows = self.plan.rows if self.plan.parts > 1 else 0
        size = {"row_reg": row.row, "rows": self.plan.rows, "core_rows": core_rows}
        for i, mask in enumerate(shape.visible):
            fields = {"t": tiles["visible"], "d": s.tensor(f"visible.{i}"), **place}
            s.do("ldv", **fields, **size, **mask.fields, also=i > 0)
        for i, mask in enumerate(shape.biases):
            fields = {"t": tiles[f"bias.{i}"], "d": s.tensor(f"bias.{i}"), **place}
            s.do("ldb", **fields, **size, **mask.fields)
        if shape.least is not None:
            fields = {"t": tiles["least"], "d": s.tensor("least.0"), **place}
            s.do("ldv", **fields, **size, **shape.least.fields)

    def by_parts(self, tile: T, name: str, column: N, emit: Callable[[N, bool], None]) -> None:
        """All rows of a plane in parts; `emit` takes the first row, and whether it is 0."""
        s, size = self.s, self.plan.part

        def part(row: N, first: bool) -> None:
            self._rows(tile, name, row, column, size, 0, None)
            emit(row, first)

        part(s.constant(0), True)
        if self.plan.key_parts > 1:
            rest = s.add(self.length, -size)
            s.repeat(rest, size, lambda offset: part(s.add(offset, size), False))

    # -- keys and values -------------------------------------------------------------------

    def keys(self, turn: int, column: N) -> None:
        """Keys that the first scores of a head need; `turn`: of the shared tiles."""
        s, plan = self.s, self.plan
        self.turn = turn
        if not plan.shared:
            if plan.resident:
                self.load(self.head["k"], "k", s.constant(0), column, plan.keys)
            return
        for i, spec in enumerate(plan.shared_keys):
            rows = spec.nbytes // self.shape.plane_bytes("k", 1)

            def load(i: int = i, spec: TileSpec = spec, rows: int = rows) -> None:
                tile = self.shared[turn][spec.name]
                self.load(tile, "k", s.constant(i * rows), column, rows)

            self.where(i * rows, load)

    def values(self, turn: int, column: N) -> None:
        """What the other stages of a head need."""
        s, plan = self.s, self.plan
        zero = s.constant(0)
        if plan.shared and not plan.picked:
            self.load(self.shared[turn]["v"], "v", zero, column, self.shape.length)
        if not plan.resident or plan.chained:
            return
        if plan.shared and self.shape.pruned:
            self.load(self.head["k"], "k", zero, column, plan.keys)
        for name in plan.local_planes:
            if name != "k":
                upon = self.ranked and (name != "v" or self.shape.sparse)
                mask = self.mask(0) if upon else None
                self.load(self.head[name], name, zero, column, plan.keys, mask)

    def where(self, tokens: int, emit: Callable[[], None]) -> None:
        """Only where a sequence has more tokens than that."""
        if not tokens:
            emit()
            return
        self.s.repeat(self.s.add(self.length, -tokens), self.shape.length, lambda _: emit())

    def over_keys(
        self,
        names: tuple[str, ...],
        row: Row[N],
        emit: OnKeys[T, N],
        *,
        whole: bool = False,
        keys: T | None = None,
    ) -> None:
        """
        What is computed with local keys or values: at once, or on one part after the other.

        Parts take turns in two tiles each. `whole`: all values are needed, whatever the mask says.
        `keys` is a mask that says which keys are needed, if not all of them.
        """
        s, plan = self.s, self.plan
        zero = s.constant(0)
        if plan.resident and not plan.chained:
            emit({name: self.head[name] for name in names}, zero, True)
            return
        upon_mask = {"k.fraction"} if whole or not plan.picked else {"k.fraction", "v"}
        masks = {n: self.mask(row.slot) if n in upon_mask else None for n in names}
        if keys is not None:
            masks["k"] = keys
        turns = [{n: self.head[f"{plan.part_tile(n)}.{turn}"] for n in names} for turn in range(2)]

        def part(turn: int, key: N, first: bool) -> None:
            tiles = turns[turn]
            for name, tile in tiles.items():
                self.load(tile, name, key, row.column, plan.part, masks[name])
            emit(tiles, key, first)

        if plan.key_parts == 1:
            part(row.slot, zero, True)
            return

        def pair(offset: N, left: N) -> None:
            part(1, s.add(offset, plan.part), False)
            if plan.key_parts > 2:
                further = s.add(left, -plan.part)
                s.repeat(further, self.shape.length, lambda _: more(offset))

        def more(offset: N) -> None:
            part(0, s.add(offset, 2 * plan.part), False)

        part(0, zero, True)
        rest = s.add(self.length, -plan.part)
        s.repeat_strided(rest, 2 * plan.part, -2 * plan.part, pair, rest)
