"""
How large the tiles of an attention are.

`plan_attention` tries the sensible tile sizes, drops those whose tiles do not fit the buffers, and
takes the one whose instructions, scheduled (`heatc.passes.tiling.schedule`), take the fewest
cycles. Everything is decided for the largest run; shorter sequences run fewer iterations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.hardware.costs import macs_per_pe
from heatc.isa.table import BITS, BLOCK, DTYPES
from heatc.passes.tiling.packing import (
    PLANNED_TOKENS,
    TILE_ALIGNMENT,
    Range,
    TileSpec,
    align,
    first_fit,
    up,
)
from heatc.passes.tiling.schedule import KEPT, scheduled_cycles

_TIE = 1e-9
"""Estimates this close count as equal, relative; then fewer slots and rows decide."""

_ACC, _CODE, _WIDE = DTYPES["acc"], DTYPES["i16"], DTYPES["i32"]


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
        return self.pruned and (self.score == "zero" or (self.score == "mean" and self.row_sums))

    @property
    def even(self) -> bool:
        """Whether all pruned scores of a row have one probability, which is not 0."""
        return self.pruned and self.score in ("zero", "mean")

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

    `parts` cores share a head; each has `rows` queries of it at a time. Keys and values pass by
    `keys` at a time, or all at once where `keys` is the whole length; then they stay for all
    queries of a head. `shared`: the cores all work on one head, and what they read alike lies in
    the shared buffer: keys of the integer (or only) scores, values unless `picked`. With two
    `slots` scores of the next queries are computed while the softmax unit works on the last ones.
    `summed`: kept values alone are multiplied, the sum of all values stands for the others.
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
            TileSpec("s", "i32", cells * _WIDE),
            TileSpec("p", "i16", cells * _CODE, over="s"),
            TileSpec("o", "i16", self.rows * shape.dim * _CODE),
        ]

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

    def cost(self, hw: Hardware, limit: float = math.inf) -> float:
        """
        Estimated cycles of a sequence, the mean of `_lengths`; infinity once beyond `limit`.

        What is not scheduled yet counts with its bound, so that a plan that cannot win is dropped
        after the longest sequence.
        """
        lengths = self._lengths()
        most = limit * sum(lengths.values()) * (1 + _TIE)
        done, rest = 0.0, self.least_cost(hw) * sum(lengths.values())
        for length, n in lengths.items():
            rest -= n * self._bound(hw, length)
            done += n * scheduled_cycles(self, hw, length)
            if done + rest > most:
                return math.inf
        return done / sum(lengths.values())

    def least_cost(self, hw: Hardware) -> float:
        """What `cost` cannot go below: the PE array alone, or the bytes alone."""
        lengths = self._lengths()
        total = sum(n * self._bound(hw, length) for length, n in lengths.items())
        return total / sum(lengths.values())

    def _lengths(self) -> dict[int, int]:
        """
        Four lengths and their weights, the longest first and most.

        Tiles are made for the longest sequence and have to do for shorter ones, where large row
        tiles leave cores without work.
        """
        return {max(1, self.shape.length * i // 4): 1 + 3 * (i == 4) for i in (4, 3, 2, 1)}

    def _bound(self, hw: Hardware, length: int) -> float:
        """Cycles that either the PE array or the DMA engine certainly takes."""
        rounds, steps = up(self.shape.heads, hw.cores // self.parts), up(length, self.step)
        last = min(self.rows, length - (steps - 1) * self.step)
        sizes = [(self.rows, steps - 1), (last, 1)]
        products = sum(n * self._products(hw, rows, length) for rows, n in sizes)
        dma = self._loaded(length, steps) / hw.dram_bytes_per_cycle
        return max(rounds * products, dma)

    def _products(self, hw: Hardware, rows: int, length: int) -> float:
        """The least cycles of the PE array for a row tile."""
        shape, fill = self.shape, hw.pe_rows + hw.pe_columns - 2
        high, dim, parts = up(rows, hw.pe_rows), shape.dim, up(length, self.part)
        local = "v" in self.local_planes
        read = shape.share if self.picked else 1.0
        work = high * dim * hw.fold_overlap + read * high * length * up(dim, hw.pe_columns)
        work += fill * (parts if local and not self.resident else 1)
        folds = high * up(length, hw.pe_columns)
        steps = up(dim, self._macs(hw, "q", "k"))
        if shape.bits:
            low = up(dim, macs_per_pe(max(shape.bits), max(shape.bits), hw.split_bits))
            picked = steps + (len(shape.bits) - 1) * low
            work += shape.share * high * length / hw.pe_columns * picked
            return work + folds * (low + hw.fold_overlap) + fill * parts
        if not shape.pruned:
            return work + folds * (steps + hw.fold_overlap) + fill * parts
        passes = 1 + (shape.gate and up(shape.length, self.step) > 1)
        fractions = up(dim, self._macs(hw, "q.fraction", "k"))
        fractions += up(dim, self._macs(hw, "q", "k.fraction"))
        work += passes * (folds * steps + fill)
        return work + shape.share * high * length / hw.pe_columns * fractions

    def _macs(self, hw: Hardware, a: str, b: str) -> int:
        """Multiply-accumulates a PE and cycle of two planes."""
        return macs_per_pe(*(8 * DTYPES[self.shape.dtype(n)] for n in (a, b)), hw.split_bits)

    def _loaded(self, length: int, steps: int) -> int:
        """Bytes of DRAM traffic of a sequence."""
        shape, names = self.shape, self.local_planes
        again = 1 if self.resident and not self.chained else steps
        first = 1 + int(shape.gate and self.steps > 1)
        times = dict.fromkeys(names, again) | {"q": first}
        if shape.pruned:
            times["q.fraction"] = 1
        if shape.bits:
            times["q"] += 1
        loaded = [(name, n) for name, n in times.items()] + [("v", 1)]
        if self.shared:
            loaded += [("k", 1)] + ([] if "v" in names else [("v", 1)])
        elif shape.pruned and not self.resident:
            loaded.append(("k", again * first))
        return shape.heads * sum(n * shape.plane_bytes(plane, length) for plane, n in loaded)


def low_dtype(bits: int) -> str:
    """The narrowest dtype that holds codes of some bits."""
    return "i4" if bits <= BITS["i4"] else "i8"


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


MOST_KEY_TILES = 8
"""Keys of dense scores lie in at most this many tiles of the shared buffer."""


def attention_plans(shape: AttentionShape, hw: Hardware) -> Iterator[AttentionPlan]:
    """The sensible plans of an attention, whether or not their tiles fit."""
    most_rows, most_keys = (align(shape.length, extent) for extent in shape.block)
    row_sizes = {hw.pe_rows * k for k in (1, 2, 3, 4, 6, 8)}
    row_sizes |= {up(hw.pe_rows, k) for k in (2, 4, 8, 16)}
    row_sizes = {min(align(n, shape.block[0]), most_rows) for n in row_sizes}
    key_sizes = {hw.pe_columns * k for k in (1, 2, 3, 4, 6, 8, 12, 16)}
    key_sizes |= {up(hw.pe_columns, k) for k in (2, 4, 8)} | {most_keys}
    key_sizes = {min(align(n, shape.block[1]), most_keys) for n in key_sizes}
    for parts in _divisors(hw.cores):
        for rows in sorted(row_sizes):
            if (parts - 1) * rows >= most_rows:
                continue
            for keys in sorted(key_sizes):
                for shared in (False, True) if parts == hw.cores and not shape.bits else (False,):
                    for slots, summed in product((1, 2), (False, True)[: 1 + shape.even]):
                        plan = AttentionPlan(shape, parts, rows, keys, shared, slots, summed)
                        if not _is_useful(plan):
                            continue
                        yield plan


def _is_useful(plan: AttentionPlan) -> bool:
    shape = plan.shape
    if plan.slots > 1 and plan.steps == 1 and (not plan.shared or shape.gate):
        return False
    return not plan.shared or shape.pruned or plan.key_parts <= MOST_KEY_TILES


def _fits(plan: AttentionPlan, hw: Hardware) -> bool:
    return plan.local_bytes <= hw.local_buffer_bytes and plan.shared_bytes <= hw.shared_buffer_bytes


def cheapest(plans: Sequence[AttentionPlan], hw: Hardware) -> AttentionPlan | None:
    """The plan of the fewest estimated cycles whose tiles fit, None if none fit."""
    bounded = [(p.least_cost(hw), p) for p in plans]
    best: tuple[tuple[float, int, int, int], AttentionPlan] | None = None
    for least, plan in sorted(bounded, key=lambda item: item[0]):
        if best is not None and least >= best[0][0]:
            break
        if not _fits(plan, hw):
            continue
        rank = (plan.cost(hw, best[0][0] if best else math.inf), plan.slots, plan.rows, plan.keys)
        if best is None or rank < best[0]:
            best = rank, plan
    return None if best is None else best[1]


@lru_cache(maxsize=512)
def plan_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """The cheapest tiles of an attention; `InfeasibleError` if none fit."""
    plans = list(attention_plans(shape, hw))
    best = cheapest(plans, hw)
    if best is not None:
        return best
    least = min((p.local_bytes, p.shared_bytes) for p in plans if not p.shared)[0]
    raise InfeasibleError(
        f"an attention of {shape.length} tokens with heads of {shape.dim} does not fit",
        notes=[
            f"its smallest tiles need {least:,} bytes, a local buffer has {hw.local_buffer_bytes:,}",
            f"raise buffers.local to {up(least, 1024)} KiB" + _shorter(shape, hw),
        ],
    )


def _shorter(shape: AttentionShape, hw: Hardware) -> str:
    """The most tokens that fit, as an alternative."""
    low, high = 0, shape.length
    while high - low > 1:
        middle = (low + high) // 2
        least = min(p.local_bytes for p in attention_plans(replace(shape, length=middle), hw))
        low, high = (middle, high) if least <= hw.local_buffer_bytes else (low, middle)
    return f" or compile for at most {low} tokens" if low else ""


def plan_token_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """Tiles of an attention, planned for a multiple of `PLANNED_TOKENS` where that fits."""
    try:
        return plan_attention(replace(shape, length=align(shape.length, PLANNED_TOKENS)), hw)
    except InfeasibleError:
        return plan_attention(shape, hw)
