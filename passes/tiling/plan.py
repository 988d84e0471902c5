"""
How large tiles are.

`plan_linear` and `plan_attention` try the sensible tile sizes, drop those whose tiles do not fit
the buffers, and take the one with the fewest estimated cycles. The estimate is that of
docs/design/machine.md (PE array and DMA engine overlap where tiles are double-buffered), plus
`ISSUE` cycles an instruction, so that few, large tiles win where it makes no difference.
Everything is decided for the largest run; shorter sequences run fewer iterations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import BLOCK, DTYPES
from heatc.passes.tiling.packing import TILE_ALIGNMENT, Range, align, first_fit

ISSUE = 16
"""Cycles that an instruction counts in the estimate beside its work."""

PLANNED_TOKENS = 128
"""Tiles are planned for a multiple of this many tokens, see `plan_token_linear`."""

MOST_SLABS = 16
"""The depth of a linear is cut into at most this many slabs: each needs registers and tiles."""

_ACC, _CODE, _WIDE = DTYPES["acc"], DTYPES["i16"], DTYPES["i32"]


def up(x: int, y: int) -> int:
    """`x / y` rounded up."""
    return -(-x // y)


@dataclass(frozen=True)
class TileSpec:
    """A tile to declare: `start` and `end` are the first and last step that need it."""

    name: str
    dtype: str
    nbytes: int
    start: int = 0
    end: int = 0


# --- Linears ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LinearShape:
    """
    (rows, depth) times (columns, depth) transposed; results of some dtypes, with a bias or not.

    `panel`: the activations lie in panels of that many columns, 0 if in one piece.
    """

    rows: int
    depth: int
    columns: int
    planes: tuple[str, ...] = ("i16",)
    bias: bool = True
    panel: int = 0


@dataclass(frozen=True)
class LinearPlan:
    """
    Tiles of a linear.

    A row tile's activations lie in the shared buffer, in slabs of `slab` columns. A core computes
    `columns` result columns at a time, from weight slabs that take turns in `slots` tiles.
    """

    shape: LinearShape
    rows: int
    columns: int
    slab: int
    slots: int

    @property
    def slabs(self) -> int:
        """Slabs of the whole depth."""
        return up(self.shape.depth, self.slab)

    @property
    def local_bytes(self) -> int:
        """Bytes of a local buffer that the tiles take."""
        return sum(align(t.nbytes, TILE_ALIGNMENT) for t in self.local_tiles())

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared buffer that the activations take."""
        return self.slabs * align(self.slab_bytes, TILE_ALIGNMENT)

    @property
    def slab_bytes(self) -> int:
        """Bytes of one slab of activations."""
        return self.rows * self.slab * _CODE

    def local_tiles(self) -> list[TileSpec]:
        """The tiles of a core: accumulators, weight slots, result planes, bias."""
        cells = self.rows * self.columns
        tiles = [TileSpec("acc", "acc", cells * _ACC)]
        weight = self.columns * self.slab * _CODE
        tiles += [TileSpec(f"slab.{i}", "i16", weight) for i in range(self.slots)]
        tiles += [
            TileSpec(f"out.{i}", dtype, cells * DTYPES[dtype])
            for i, dtype in enumerate(self.shape.planes)
        ]
        if self.shape.bias:
            tiles.append(TileSpec("bias", "i32", self.columns * _WIDE))
        return tiles

    def cost(self, hw: Hardware) -> float:
        """Estimated cycles of the whole linear."""
        shape = self.shape
        row_tiles = up(shape.rows, self.rows)
        steps = row_tiles * up(shape.columns, hw.cores * self.columns)
        folds = up(self.rows, hw.pe_rows) * up(self.columns, hw.pe_columns)
        work = folds * shape.depth + self.slabs * (hw.pe_rows + hw.pe_columns - 2)
        work += len(shape.planes) * up(self.rows, hw.pe_rows) * self.columns
        weights = row_tiles * shape.columns * shape.depth * _CODE
        written = shape.columns * sum(DTYPES[dtype] for dtype in shape.planes)
        activations = shape.rows * (shape.depth * _CODE + written)
        dma = (weights + activations) / hw.dram_bytes_per_cycle
        compute = steps * work
        total = max(compute, dma) if self.slots > 1 else compute + dma
        return total + ISSUE * steps * (4 + 2 * self.slabs)


def _row_sizes(rows: int, unit: int) -> list[int]:
    sizes = {min(align(rows, unit), k * unit * 2**i) for k in (1, 3) for i in range(16)}
    return sorted(min(s, rows) for s in sizes)


def _column_sizes(columns: int, hw: Hardware) -> list[int]:
    share = up(columns, hw.cores)
    sizes = {share, *(up(share, j) for j in range(2, 9))}
    sizes |= {hw.pe_columns * j for j in (1, 2, 3, 4, 6, 8)}
    return sorted(s for s in sizes if s <= align(share, hw.pe_columns))


def _linear_plans(shape: LinearShape, hw: Hardware) -> Iterator[LinearPlan]:
    for rows in _row_sizes(shape.rows, hw.pe_rows):
        for columns in _column_sizes(shape.columns, hw):
            steps = up(shape.columns, hw.cores * columns)
            for count in range(1, MOST_SLABS + 1):
                slab = up(shape.depth, count)
                if up(shape.depth, slab) != count or (shape.panel and shape.panel % slab):
                    continue
                # Slots take turns from one step to the next only if the slabs come out even.
                double = count % 2 == 0
                yield LinearPlan(shape, rows, columns, slab, 2 if double else 1)
                if steps == 1 and count > 1 and not double:
                    yield LinearPlan(shape, rows, columns, slab, 2)


@lru_cache(maxsize=256)
def plan_linear(shape: LinearShape, hw: Hardware) -> LinearPlan:
    """The cheapest tiles of a linear; `InfeasibleError` if none fit."""
    plans = list(_linear_plans(shape, hw))
    fitting = [
        p
        for p in plans
        if p.local_bytes <= hw.local_buffer_bytes and p.shared_bytes <= hw.shared_buffer_bytes
    ]
    if fitting:
        return min(fitting, key=lambda p: p.cost(hw))
    if not plans:
        raise InfeasibleError(f"no slab of a linear divides panels of {shape.panel} columns")
    local = min(plans, key=lambda p: p.local_bytes)
    shared = min(plans, key=lambda p: p.shared_bytes)
    raise InfeasibleError(
        f"a linear {shape.rows}x{shape.depth} by {shape.columns}x{shape.depth} does not fit",
        notes=[
            f"smallest tiles: {local.local_bytes} bytes a local buffer of {hw.local_buffer_bytes}",
            f"and {shared.shared_bytes} bytes a shared buffer of {hw.shared_buffer_bytes}",
            "a smaller PE array, or larger buffers, would make it fit",
        ],
    )


def plan_token_linear(shape: LinearShape, hw: Hardware) -> LinearPlan:
    """
    Tiles of a linear over packed tokens, planned for a multiple of `PLANNED_TOKENS`.

    Programs compiled for 30, 64 or 128 tokens then have the same tiles: what a sentence costs
    depends on its tokens, not on how far it was padded. Where that does not fit, as few as asked.
    """
    try:
        return plan_linear(replace(shape, rows=align(shape.rows, PLANNED_TOKENS)), hw)
    except InfeasibleError:
        return plan_linear(shape, hw)


MOST_PANELS = 8
"""A tensor between linears is cut into at most this many panels."""

_HOST_OPERATIONS, _HOST_CALLS = 25, 3
"""Of an element-wise task: read, a GELU, write (see the instruction table)."""


def panel_count(first: LinearShape, second: LinearShape, hw: Hardware) -> int:
    """
    In how many column panels the tensor between two linears should lie.

    An element-wise task of the host stands between them. In panels it works on one while the
    first linear computes the next, and the second linear begins with those that are done. 1 where
    that saves nothing, or where no tiles fit. Like the tiles it is decided for a multiple of
    `PLANNED_TOKENS`.
    """
    first = replace(first, rows=align(first.rows, PLANNED_TOKENS))
    per_cycle = hw.clock_hz / hw.host_ops_per_second
    host = first.rows * first.columns * _HOST_OPERATIONS * per_cycle
    whole = plan_token_linear(first, hw).cost(hw)
    best, most = 1, 0.0
    for count in range(2, MOST_PANELS + 1):
        width = first.columns // count
        if first.columns % count or width % hw.pe_columns:
            continue
        try:
            plan = plan_token_linear(replace(first, columns=width), hw)
            plan_token_linear(replace(second, panel=width), hw)
        except InfeasibleError:
            continue
        if width % (hw.cores * plan.columns):
            continue
        part = plan.cost(hw)
        hidden = min(host, whole) * (1 - 1 / count)
        saved = hidden - (count * part - whole) - count * _HOST_CALLS * hw.host_call_cycles
        if saved > most:
            best, most = count, saved
    return best


# --- Attention ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class AttentionShape:
    """
    One attention: sequences of at most `length` tokens, `heads` of `dim`.

    `pruned`: HDP on integer and fraction planes; `gate`: heads are gated in a first pass. `planes`
    are names and dtypes of the planes that are narrower than i16.
    """

    length: int
    heads: int
    dim: int
    pruned: bool
    gate: bool
    planes: tuple[tuple[str, str], ...] = ()

    def dtype(self, plane: str) -> str:
        """The dtype of a plane (`q`, `q.fraction`, `k`, `k.fraction`, `v`)."""
        return dict(self.planes).get(plane, "i16")

    def plane_bytes(self, plane: str, rows: int) -> int:
        """Bytes of one head of some rows of a plane."""
        return rows * self.dim * DTYPES[self.dtype(plane)]


@dataclass(frozen=True)
class AttentionPlan:
    """
    Tiles of an attention: `rows` queries against `keys` keys at a time.

    Where `keys` is the whole length, keys and values stay in the local buffer for all row tiles.
    """

    shape: AttentionShape
    rows: int
    keys: int

    @property
    def resident(self) -> bool:
        """Whether a head's keys and values are loaded once."""
        return self.keys >= self.shape.length

    @property
    def head_tiles(self) -> list[TileSpec]:
        """Tiles that live as long as a head."""
        shape, tiles = self.shape, list[TileSpec]()
        if shape.pruned:
            blocks = up(shape.length, BLOCK[0])
            tiles.append(TileSpec("mask", "i8", blocks * up(up(shape.length, BLOCK[1]), 8)))
        if self.resident:
            names = ("k", "k.fraction", "v") if shape.pruned else ("k", "v")
            tiles += [self._plane(name, shape.length) for name in names]
        return tiles

    @property
    def row_tiles(self) -> list[TileSpec]:
        """Tiles of one row tile, with the steps that need them."""
        return self._pruned_tiles() if self.shape.pruned else self._dense_tiles()

    @property
    def gate_tiles(self) -> list[TileSpec]:
        """Tiles of one row tile of the first pass, which only ranks blocks."""
        names = ("q", "k", "a", "theta")
        return [t for t in self._pruned_tiles() if t.name in names]

    def _dense_tiles(self) -> list[TileSpec]:
        length, rows = self.shape.length, self.rows
        tiles = [self._plane("q", rows, 0, 1)]
        if not self.resident:
            tiles += [self._key_tile("k", 1, 1), self._theta(1, 1)]
        tiles += [
            TileSpec("a", "acc", rows * length * _ACC, 1, 2),
            TileSpec("s", "i32", rows * length * _WIDE, 2, 3),
        ]
        return tiles + self._value_tiles(3)

    def _pruned_tiles(self) -> list[TileSpec]:
        length, rows = self.shape.length, self.rows
        tiles = [self._plane("q", rows, 0, 4)]
        if not self.resident:
            tiles.append(self._key_tile("k", 1, 1))
        tiles += [
            TileSpec("a", "i32", rows * length * _WIDE, 1, 4),
            self._theta(1, 2),
            self._plane("q.fraction", rows, 3, 4),
        ]
        if not self.resident:
            again = replace(self._key_tile("k", 4, 4), name="k.integer")
            tiles += [again, self._key_tile("k.fraction", 4, 4)]
        part = rows * min(self.keys, length) * _ACC
        tiles += [
            TileSpec("f1", "acc", part, 4, 4),
            TileSpec("f2", "acc", part, 4, 4),
            TileSpec("s", "i32", rows * length * _WIDE, 4, 5),
        ]
        return tiles + self._value_tiles(5)

    def _key_tile(self, name: str, start: int, end: int) -> TileSpec:
        return self._plane(name, self.keys, start, end)

    def _plane(self, name: str, rows: int, start: int = 0, end: int = 0) -> TileSpec:
        shape = self.shape
        return TileSpec(name, shape.dtype(name), shape.plane_bytes(name, rows), start, end)

    def _theta(self, start: int, end: int) -> TileSpec:
        blocks = up(self.rows, BLOCK[0]) * up(self.shape.length, BLOCK[1])
        return TileSpec("theta", "acc", blocks * _ACC, start, end)

    def _value_tiles(self, step: int) -> list[TileSpec]:
        cells = self.rows * self.shape.dim
        tiles = [TileSpec("p", "i16", self.rows * self.shape.length * _CODE, step, step + 1)]
        if not self.resident:
            tiles.append(self._key_tile("v", step + 1, step + 1))
        return [
            *tiles,
            TileSpec("acc", "acc", cells * _ACC, step + 1, step + 2),
            TileSpec("o", "i16", cells * _CODE, step + 2, step + 3),
        ]

    def local_bytes(self) -> int:
        """Bytes of a local buffer at the worst moment."""
        last = 1 << 20
        head = [Range(t.nbytes, 0, last) for t in self.head_tiles]
        rows = [Range(t.nbytes, t.start, t.end) for t in self.row_tiles]
        return first_fit(head + rows, TILE_ALIGNMENT).peak

    def cost(self, hw: Hardware) -> float:
        """Estimated cycles of one sequence with all of its blocks kept."""
        shape = self.shape
        row_tiles, key_tiles = up(shape.length, self.rows), up(shape.length, self.keys)
        folds = up(self.rows, hw.pe_rows) * key_tiles * up(self.keys, hw.pe_columns)
        products = (4 + shape.gate) if shape.pruned else 2
        fill = products * key_tiles * (hw.pe_rows + hw.pe_columns)
        softmax = self.rows * up(shape.length, hw.softmax_lanes)
        work = row_tiles * (products * folds * shape.dim + fill + softmax)
        names = ["k", "k.fraction", "v"] if shape.pruned else ["k", "v"]
        if not self.resident and shape.pruned:
            names += ["k"] * (1 + shape.gate)
        loads = sum(shape.plane_bytes(name, shape.length) for name in names)
        loads *= min(hw.cores, shape.heads) * (1 if self.resident else row_tiles)
        instructions = row_tiles * (len(self.row_tiles) + 12 + 12 * (key_tiles - 1))
        rounds = up(shape.heads, hw.cores)
        return rounds * (work + loads / hw.dram_bytes_per_cycle + ISSUE * instructions)


def _even(value: int) -> int:
    return align(value, 2)


def _attention_plans(shape: AttentionShape, hw: Hardware) -> Iterator[AttentionPlan]:
    row_sizes = {_even(hw.pe_rows * k) for k in range(1, up(shape.length, hw.pe_rows) + 1)}
    row_sizes |= {_even(up(hw.pe_rows, k)) for k in (2, 3, 4, 8, 16, 32)}
    key_sizes = {_even(hw.pe_columns * k) for k in range(1, up(shape.length, hw.pe_columns) + 1)}
    key_sizes |= {_even(up(hw.pe_columns, k)) for k in (2, 4, 8)}
    for rows in sorted(row_sizes):
        for keys in sorted({min(k, _even(shape.length)) for k in key_sizes}):
            yield AttentionPlan(shape, min(rows, _even(shape.length)), keys)


@lru_cache(maxsize=64)
def plan_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """The cheapest tiles of an attention; `InfeasibleError` if none fit."""
    plans = sorted(set(_attention_plans(shape, hw)), key=lambda p: (p.cost(hw), p.rows, p.keys))
    for plan in plans:
        if plan.local_bytes() <= hw.local_buffer_bytes:
            return plan
    least = min(plan.local_bytes() for plan in plans)
    raise InfeasibleError(
        f"an attention of {shape.length} tokens with heads of {shape.dim} does not fit",
        notes=[
            f"its smallest tiles need {least} bytes, a local buffer has {hw.local_buffer_bytes}",
            "compile for shorter sequences, or use hardware with larger local buffers",
        ],
    )


def plan_token_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """Tiles of an attention, planned for a multiple of `PLANNED_TOKENS` where that fits."""
    try:
        return plan_attention(replace(shape, length=align(shape.length, PLANNED_TOKENS)), hw)
    except InfeasibleError:
        return plan_attention(shape, hw)
