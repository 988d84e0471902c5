"""
An attention as far as its tiles depend on it, and the tiles of an attention.

Both are data. `heatc.passes.tiling.attention_planner` chooses a plan, the kernel in
`heatc.passes.tiling.attention` follows it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from heatc.isa.table import BITS, BLOCK, DTYPES
from heatc.passes.tiling.packing import TILE_ALIGNMENT, Range, TileSpec, align, first_fit, up

KEPT = 0.5
"""The share of blocks that a pruning rule is taken to keep: a threshold near the mean."""

_ACC, _CODE, _WIDE = DTYPES["acc"], DTYPES["i16"], DTYPES["i32"]


@dataclass(frozen=True)
class MaskShape:
    """
    A mask of the model's own in memory: its dtype, its heads, and along which axes it changes.
    """

    dtype: str
    heads: int = 1
    by_batch: bool = False
    by_row: bool = True

    @property
    def by_head(self) -> bool:
        """Whether heads have masks of their own."""
        return self.heads > 1

    @property
    def fields(self) -> dict[str, int]:
        """Fields of the instructions that load a part of it."""
        flags = {"by_batch": self.by_batch, "by_head": self.by_head, "by_row": self.by_row}
        return {"heads": self.heads, **{name: int(flag) for name, flag in flags.items()}}


@dataclass(frozen=True)
class AttentionShape:
    """
    One attention, as far as its tiles depend on it.

    Attributes:
        length: the most tokens of a sequence.
        heads: heads that are computed.
        dim: columns of a head.
        pruned: scores come in an integer and a fraction part, and blocks of them are pruned.
        gate: heads are gated, after a first pass over all integer scores.
        planes: names and dtypes of the planes that are narrower than i16.
        score: what becomes of pruned scores (`PRUNED_SCORES`).
        row_sums: a row's sum of integer scores is needed before its first block.
        gated: what pruned heads put out (`heatc.rules.GATED`).
        ranked: heads whose importance so far is read to choose `heads` of them; 0 if none is.
        counted: the attention adds to the importance of heads.
        block: query rows and key columns of a block.
        density: share of blocks that are kept, 0 where a threshold decides.
        bits: widths of the rounds of low-bit codes that predict which scores are computed at all.
        likely: the prediction is by the softmax of low-bit scores.
        visible: masks that hide scores.
        biases: masks that are added to scores.
        least: the mask that hides behind `visible` once more, if there is one.
        biases_behind: how many of the last biases are added between both.
    """

    length: int
    heads: int
    dim: int
    pruned: bool
    gate: bool
    planes: tuple[tuple[str, str], ...] = ()
    score: str = "zero"
    row_sums: bool = False
    gated: str = "zero"
    ranked: int = 0
    counted: bool = False
    block: tuple[int, int] = BLOCK
    density: float = 0.0
    bits: tuple[int, ...] = ()
    likely: bool = False
    visible: tuple[MaskShape, ...] = ()
    biases: tuple[MaskShape, ...] = ()
    least: MaskShape | None = None
    biases_behind: int = 0

    @property
    def masked(self) -> bool:
        """Whether the model has masks of its own."""
        return bool(self.visible or self.biases)

    @property
    def share(self) -> float:
        """The share of blocks that is taken to be kept."""
        return self.density or KEPT

    @property
    def sparse(self) -> bool:
        """Whether pruned scores have no part in the softmax, so that their values are not read."""
        return bool(self.bits) or (self.pruned and self.score == "neginf")

    @property
    def constant(self) -> bool:
        """Whether one number stands for all pruned scores of a row, in adder and softmax unit."""
        if self.masked:
            return False
        return self.pruned and (self.score == "zero" or (self.score == "mean" and self.row_sums))

    @property
    def even(self) -> bool:
        """Whether all pruned scores of a row have one probability, which is not 0."""
        return self.pruned and self.score in ("zero", "mean") and not self.masked

    @property
    def plane_names(self) -> tuple[str, ...]:
        """Its operands: split in integer and fraction parts where blocks are pruned."""
        return ("q", "q.fraction", "k", "k.fraction", "v") if self.pruned else ("q", "k", "v")

    def dtype(self, plane: str) -> str:
        """The dtype of a plane (`q`, `q.fraction`, `k`, `k.fraction`, `v`)."""
        return dict(self.planes).get(plane, "i16")

    def plane_bytes(self, plane: str, rows: int) -> int:
        """Bytes of one head of some rows of a plane."""
        return rows * self.dim * DTYPES[self.dtype(plane)]


@dataclass(frozen=True)
class AttentionPlan:
    """
    Tiles of an attention.

    Attributes:
        shape: the attention.
        parts: cores that share a head.
        rows: queries of a head that a core works on at a time.
        keys: keys and values that pass by at a time. Where this is the whole length, they stay for
            all queries of a head.
        shared: all cores work on one head. Keys of the integer (or only) scores lie in the shared
            buffer, and so do values unless they are `picked`.
        slots: row tiles that are worked on at the same time. With two, scores of the next queries
            are computed while the softmax unit works on the last ones.
        summed: kept values alone are multiplied; the sum of all values stands for the others.
    """

    shape: AttentionShape
    parts: int
    rows: int
    keys: int
    shared: bool
    slots: int
    summed: bool = False

    @property
    def picked(self) -> bool:
        """Whether probabilities of kept scores alone are multiplied: a core picks its own values."""
        return self.shape.sparse or self.summed

    @property
    def step(self) -> int:
        """Queries that the cores of a head work on at a time."""
        return self.parts * self.rows

    @property
    def steps(self) -> int:
        """Steps of the longest sequence."""
        return up(self.shape.length, self.step)

    @property
    def key_parts(self) -> int:
        """Parts of the keys of the longest sequence."""
        return up(self.shape.length, self.keys)

    @property
    def resident(self) -> bool:
        """Whether the keys and values of a head that lie in local buffers are loaded once."""
        return self.keys >= self.shape.length

    @property
    def in_place(self) -> bool:
        """Whether merged scores take the place of integer ones; a mean needs all of these."""
        return self.shape.score != "mean" or self.resident

    @property
    def chained(self) -> bool:
        """Whether queries of one head are followed by those of the next: a head is one step."""
        return self.slots > 1 and self.steps == 1 and self.shared

    @property
    def shared_keys(self) -> list[TileSpec]:
        """Tiles of the keys in the shared buffer: parts of them for dense scores."""
        whole = min(self.keys, self.shape.length)
        if self.shape.pruned:
            return [self._plane("k", self.shape.length)]
        return [replace(self._plane("k", whole), name=f"k.{i}") for i in range(self.key_parts)]

    @property
    def shared_tiles(self) -> list[TileSpec]:
        """Tiles of a head in the shared buffer."""
        if not self.shared:
            return []
        values = [] if self.picked else [self._plane("v", self.shape.length)]
        return self.shared_keys + values

    @property
    def local_planes(self) -> list[str]:
        """The planes of keys and values that lie in local buffers."""
        if not self.shape.pruned:
            return [] if self.shared else ["k", "v"]
        return ["k", "k.fraction", *(["v"] if self.picked or not self.shared else [])]

    @property
    def head_tiles(self) -> list[TileSpec]:
        """Local tiles that live as long as a head: its mask, keys and values or parts of them."""
        tiles = [self._mask()] if self.shape.pruned and not self.chained else []
        tiles += self._prediction_tiles()
        if self.shape.row_sums:
            tiles.append(TileSpec("k.sum", "acc", self.shape.dim * _ACC))
        if self.summed:
            tiles.append(TileSpec("v.sum", "acc", self.shape.dim * _ACC))
        if self.shape.ranked:
            tiles.append(TileSpec("heads.sums", "i64", self.shape.ranked * DTYPES["i64"]))
        if self.shape.counted:
            tiles.append(TileSpec("head.sum", "acc", _ACC))
            tiles.append(TileSpec("head.total", "i64", DTYPES["i64"]))
        if self.resident and not self.chained:
            return tiles + [self._plane(name, self.shape.length) for name in self.local_planes]
        return tiles + [
            replace(self._plane(name, self.part), name=f"{name}.{i}")
            for name in self.local_planes
            if name == self.part_tile(name)
            for i in range(2)
        ]

    def _prediction_tiles(self) -> list[TileSpec]:
        """Masks of the rounds, greatest magnitudes, and low-bit codes of keys that stay."""
        shape = self.shape
        if not shape.bits:
            return []
        tiles = [TileSpec(f"{plane}.peak", "acc", _ACC) for plane in ("q", "k")]
        tiles += [replace(self._mask(), name=n) for n in ("mask", "round")[: len(shape.bits)]]
        if not self.resident:
            return tiles
        names = [(f"k.low{bits}", low_dtype(bits)) for bits in shape.bits]
        return tiles + [TileSpec(n, d, shape.length * shape.dim * DTYPES[d]) for n, d in names]

    @property
    def peak_tiles(self) -> list[TileSpec]:
        """Local tiles of the search for the greatest magnitudes."""
        return [replace(self._plane("q", self.part), name="q.part")]

    def part_tile(self, plane: str) -> str:
        """
        The plane in whose tiles the parts of a plane pass by.

        Parts of values come where those of keys have been, which are all read by then.
        """
        shape = self.shape
        alike = shape.pruned and shape.dtype("k") == shape.dtype(plane)
        return "k" if plane == "v" and alike and not self.chained else plane

    @property
    def part(self) -> int:
        """Rows of a part of keys and values."""
        return min(self.keys, self.shape.length)

    @property
    def slot_tiles(self) -> list[TileSpec]:
        """Local tiles of one of the row tiles that are worked on at the same time."""
        shape, cells = self.shape, self.rows * self.shape.length
        planes = ("q", "q.fraction") if shape.pruned else ("q",)
        tiles = [self._plane(name, self.rows) for name in planes]
        if self.chained and shape.pruned:
            tiles.append(self._mask())
        if shape.pruned and not self.in_place:
            tiles.append(TileSpec("a", "i32", cells * _WIDE))
        if shape.row_sums:
            tiles.append(TileSpec("r", "acc", self.rows * _ACC))
        return [
            *tiles,
            *self._score_mask_tiles(),
            TileSpec("s", "i32", cells * _WIDE),
            TileSpec("p", "i16", cells * _CODE, over="s"),
            TileSpec("o", "i16", self.rows * shape.dim * _CODE),
        ]

    def _score_mask_tiles(self) -> list[TileSpec]:
        """What the rows of a row tile see, a bit a score, and their parts of biases."""
        shape, cells = self.shape, self.rows * self.shape.length
        tiles = [
            TileSpec(f"bias.{i}", bias.dtype, cells * DTYPES[bias.dtype])
            for i, bias in enumerate(shape.biases)
        ]
        hiding = ["visible"] * bool(shape.visible) + ["least"] * (shape.least is not None)
        bits = self.rows * up(shape.length, 8)
        return [*tiles, *(TileSpec(name, "i8", bits) for name in hiding)]

    @property
    def score_tiles(self) -> list[TileSpec]:
        """Local tiles of the first scores of a row tile."""
        if not self.shape.pruned:
            scores = [TileSpec("a", "acc", self.rows * self.part * _ACC)]
            return scores + self._low_tiles()
        high, wide = self.shape.block
        blocks = up(self.rows, high) * up(self.shape.length, wide)
        return [TileSpec("theta", "acc", blocks * _ACC)]

    def _low_tiles(self) -> list[TileSpec]:
        """Low-bit codes of a row tile, and of keys that pass by."""
        if not self.shape.bits:
            return []
        dtype = low_dtype(max(self.shape.bits))
        rows = [("q.low", self.rows), *([] if self.resident else [("k.low", self.part)])]
        return [TileSpec(name, dtype, n * self.shape.dim * DTYPES[dtype]) for name, n in rows]

    @property
    def merge_tiles(self) -> list[TileSpec]:
        """Local tiles of the fraction products of a row tile, or of its picked scores."""
        nbytes = self.rows * self.part * _ACC
        return [
            TileSpec(name, "acc", nbytes) for name in (("f",) if self.shape.bits else ("f1", "f2"))
        ]

    @property
    def value_tiles(self) -> list[TileSpec]:
        """Local tiles of the weighted values of a row tile."""
        return [TileSpec("acc", "acc", self.rows * self.shape.dim * _ACC)]

    @property
    def tail_tiles(self) -> list[TileSpec]:
        """Local tiles of what a pruned head puts out: one row, by parts of queries, keys, values."""
        shape = self.shape
        sums, row = shape.dim * _ACC, shape.dim * _CODE
        values = [
            replace(self._plane("v", self.part), name="v.part"),
            TileSpec("o.row", "i16", row),
        ]
        if shape.gated == "mean":
            return [*values, TileSpec("v.sum", "acc", sums)]
        planes = [replace(self._plane(n, self.part), name=f"{n}.part") for n in ("q", "k")]
        return [
            *values,
            *planes,
            TileSpec("q.sum", "acc", sums),
            TileSpec("c", "acc", self.part * _ACC),
            TileSpec("s.row", "i32", shape.length * _WIDE),
            TileSpec("p.row", "i16", shape.length * _CODE),
            TileSpec("acc.row", "acc", sums),
        ]

    def _mask(self) -> TileSpec:
        """A bit a block of the rows of one core."""
        high, wide = self.shape.block
        blocks = self.steps * up(self.rows, high)
        return TileSpec("mask", "i8", blocks * up(up(self.shape.length, wide), 8))

    def _plane(self, name: str, rows: int) -> TileSpec:
        return TileSpec(name, self.shape.dtype(name), self.shape.plane_bytes(name, rows))

    @property
    def local_bytes(self) -> int:
        """Bytes of a local buffer at the worst moment."""
        stages = [self.score_tiles, self.value_tiles]
        if self.shape.pruned or self.shape.bits:
            stages.append(self.merge_tiles)
        if self.shape.bits:
            stages.append(self.peak_tiles)
        if self.shape.gate and self.shape.gated != "zero":
            stages.append(self.tail_tiles)
        lasting = [*self.head_tiles, *self.slot_tiles * self.slots]
        ranges = [Range(t.nbytes, 0, len(stages)) for t in lasting if not t.over]
        ranges += [Range(t.nbytes, i, i) for i, tiles in enumerate(stages) for t in tiles]
        return first_fit(ranges, TILE_ALIGNMENT).peak

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared buffer: keys and values of two heads."""
        return 2 * sum(align(t.nbytes, TILE_ALIGNMENT) for t in self.shared_tiles)


def low_dtype(bits: int) -> str:
    """The narrowest dtype that holds codes of some bits."""
    return "i4" if bits <= BITS["i4"] else "i8"
