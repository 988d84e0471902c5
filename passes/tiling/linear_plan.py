"""
How large the tiles of a linear are.

`plan_linear` tries the sensible tile sizes, drops those whose tiles do not fit the buffers, and
takes the one with the fewest estimated cycles. The estimate has the times of
docs/design/machine.md; PE array and DMA engine overlap where tiles are double-buffered. `ISSUE`
cycles are added for each instruction, so that few, large tiles win where it makes no difference.
Everything is decided for the largest run; shorter sequences run fewer iterations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import DTYPES
from heatc.machine.clocks import HostWork
from heatc.passes.tiling.packing import PLANNED_TOKENS, TILE_ALIGNMENT, TileSpec, align, up

ISSUE = 16
"""Cycles that an instruction counts in the estimate beside its work."""

MOST_SLABS = 16
"""The depth of a linear is cut into at most this many slabs: each needs registers and tiles."""

MOST_ROWS_OF_A_PART = 4
"""A part of a row tile has at most this many times the rows of the PE array."""

_ACC, _CODE, _WIDE = DTYPES["acc"], DTYPES["i16"], DTYPES["i32"]


@dataclass(frozen=True)
class LinearShape:
    """
    (rows, depth) times (columns, depth) transposed; results of some dtypes, with a bias or not.

    `panel`: the activations lie in panels of that many columns, 0 if in one piece. `pre`: a token
    has as many rows, and the bias too.
    """

    rows: int
    depth: int
    columns: int
    planes: tuple[str, ...] = ("i16",)
    bias: bool = True
    panel: int = 0
    pre: int = 1


@dataclass(frozen=True)
class LinearPlan:
    """
    Tiles of a linear.

    The cores are a grid: `parts` parts of `rows` rows, and as many items of `columns` result columns
    as cores are left for. The activations of a row tile lie in slabs of `slab` columns. These lie
    in the shared buffer if all cores have the same rows, else the slabs of each part in local
    buffers. Weight slabs take turns in `slots` tiles, in the shared buffer if all cores have the
    same columns.
    """

    shape: LinearShape
    rows: int
    columns: int
    slab: int
    slots: int
    parts: int = 1
    cores: int = 1

    @property
    def items(self) -> int:
        """Column items of the grid."""
        return self.cores // self.parts

    @property
    def step(self) -> int:
        """Result columns that all cores compute at a time."""
        return self.items * self.columns

    @property
    def row_step(self) -> int:
        """Rows that all cores work on at a time."""
        return self.parts * self.rows

    @property
    def resident(self) -> bool:
        """Whether the tiles have room for all weights."""
        return self.step >= self.shape.columns and self.slots >= self.slabs

    @property
    def weights_shared(self) -> bool:
        """Whether all cores have the same columns, of weights in the shared buffer."""
        return self.parts > 1 and self.items == 1

    @property
    def slabs(self) -> int:
        """Slabs of the whole depth."""
        return up(self.shape.depth, self.slab)

    @property
    def local_bytes(self) -> int:
        """Bytes of a local buffer that the tiles take."""
        tiles = self.local_tiles()
        if not self.weights_shared:
            tiles += self.weight_tiles()
        if self.parts > 1:
            tiles += self.slab_tiles()
        return _bytes(tiles)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared buffer that the tiles take."""
        tiles = self.weight_tiles() if self.weights_shared else []
        return _bytes(tiles + (self.slab_tiles() if self.parts == 1 else []))

    @property
    def slab_bytes(self) -> int:
        """Bytes of one slab of activations."""
        return self.rows * self.slab * _CODE

    def slab_tiles(self) -> list[TileSpec]:
        """The tiles of a row tile's activations."""
        return [TileSpec(f"x.{i}", "i16", self.slab_bytes) for i in range(self.slabs)]

    def weight_tiles(self) -> list[TileSpec]:
        """The tiles that weight slabs take turns in."""
        nbytes = self.columns * self.slab * _CODE
        return [TileSpec(f"slab.{i}", "i16", nbytes) for i in range(self.slots)]

    def local_tiles(self) -> list[TileSpec]:
        """The other tiles of a core: accumulators, result planes, bias."""
        cells = self.rows * self.columns
        tiles = [TileSpec("acc", "acc", cells * _ACC)]
        tiles += [
            TileSpec(f"out.{i}", dtype, cells * DTYPES[dtype])
            for i, dtype in enumerate(self.shape.planes)
        ]
        if self.shape.bias:
            tiles.append(TileSpec("bias", "i32", self.shape.pre * self.columns * _WIDE))
        return tiles

    def cost(self, hw: Hardware) -> float:
        """
        Estimated cycles, the mean of four lengths, the longest first and most.

        Tiles are made for the longest run and have to do for shorter ones, where parts of many rows
        leave cores without work.
        """
        rows = self.shape.rows
        return sum(n * self._cycles(hw, up(rows * i, 4)) for i, n in _LENGTHS) / _WEIGHTS

    def _cycles(self, hw: Hardware, rows: int) -> float:
        """Estimated cycles of some rows."""
        shape = self.shape
        row_tiles = up(rows, self.row_step)
        steps = row_tiles * up(shape.columns, self.step)
        high = up(min(self.rows, rows), hw.pe_rows)
        work = high * up(self.columns, hw.pe_columns) * shape.depth
        work += self.slabs * (hw.pe_rows + hw.pe_columns - 2)
        work += len(shape.planes) * high * self.columns
        weights = (1 if self.resident else row_tiles) * shape.columns * shape.depth * _CODE
        written = shape.columns * sum(DTYPES[dtype] for dtype in shape.planes)
        activations = rows * (shape.depth * _CODE + written)
        # With vector units activations lie in the shared buffer as a rule (`allocate-buffers`).
        width = hw.shared_bytes_per_cycle if hw.vector_lanes else hw.dram_bytes_per_cycle
        dma = weights / hw.dram_bytes_per_cycle + activations / width
        compute = steps * work
        total = max(compute, dma) if self.slots > 1 else compute + dma
        return total + ISSUE * steps * (4 + 2 * self.slabs)


_LENGTHS = ((4, 4), (3, 1), (2, 1), (1, 1))
"""Quarters of the longest run, and how much they count."""
_WEIGHTS = sum(n for _, n in _LENGTHS)


def _row_sizes(shape: LinearShape, unit: int) -> list[int]:
    """Rows of a tile; whole tokens, since a bias begins again with each."""
    rows = shape.rows
    sizes = {min(align(rows, unit), k * unit * 2**i) for k in (1, 3) for i in range(16)}
    return sorted({min(align(s, shape.pre), rows) for s in sizes})


def _bytes(tiles: list[TileSpec]) -> int:
    return sum(align(tile.nbytes, TILE_ALIGNMENT) for tile in tiles)


def _column_sizes(columns: int, items: int, hw: Hardware) -> list[int]:
    share = up(columns, items)
    sizes = {share, *(up(share, j) for j in range(2, 9))}
    sizes |= {hw.pe_columns * j for j in (1, 2, 3, 4, 6, 8)}
    return sorted(s for s in sizes if s <= align(share, hw.pe_columns))


def _parts(shape: LinearShape, hw: Hardware) -> list[int]:
    """Into how many row parts the cores may be cut: none of them without rows."""
    most = up(shape.rows, hw.pe_rows)
    return [p for p in range(1, hw.cores + 1) if hw.cores % p == 0 and p <= most]


def _linear_plans(shape: LinearShape, hw: Hardware) -> Iterator[LinearPlan]:
    for parts in _parts(shape, hw):
        rows_of = replace(shape, rows=align(up(shape.rows, parts), shape.pre))
        for rows in _row_sizes(rows_of, hw.pe_rows):
            if parts > 1 and rows > MOST_ROWS_OF_A_PART * hw.pe_rows:
                continue
            for columns in _column_sizes(shape.columns, hw.cores // parts, hw):
                yield from _slab_plans(shape, rows, columns, parts, hw)


def _slab_plans(
    shape: LinearShape, rows: int, columns: int, parts: int, hw: Hardware
) -> Iterator[LinearPlan]:
    steps = up(shape.columns, hw.cores // parts * columns)
    for count in range(1, MOST_SLABS + 1):
        slab = up(shape.depth, count)
        if up(shape.depth, slab) != count or (shape.panel and shape.panel % slab):
            continue
        # Slots take turns from one step to the next only if the slabs come out even.
        double = count % 2 == 0
        plan = LinearPlan(shape, rows, columns, slab, 2 if double else 1, parts, hw.cores)
        yield plan
        if steps == 1 and count > 1 and not double:
            yield replace(plan, slots=2)


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
    local = min(p.local_bytes for p in plans)
    shared = min(p.shared_bytes for p in plans)
    raise InfeasibleError(
        f"a linear {shape.rows}x{shape.depth} by {shape.columns}x{shape.depth} does not fit",
        notes=[
            f"smallest tiles: {local} bytes a local buffer of {hw.local_buffer_bytes}",
            f"and {shared} bytes a shared buffer of {hw.shared_buffer_bytes}",
            f"raise {' or '.join(_linear_levers(plans, hw))}",
        ],
    )


def _linear_levers(plans: list[LinearPlan], hw: Hardware) -> list[str]:
    """What to raise in the hardware file: either buffer alone where that helps, else both."""
    local = [p.local_bytes for p in plans if p.shared_bytes <= hw.shared_buffer_bytes]
    shared = [p.shared_bytes for p in plans if p.local_bytes <= hw.local_buffer_bytes]
    levers = [f"buffers.local to {up(min(local), 1024)} KiB"] if local else []
    levers += [f"buffers.shared to {up(min(shared), 1024)} KiB"] if shared else []
    if levers:
        return levers
    least = min(plans, key=lambda p: (p.local_bytes, p.shared_bytes))
    sizes = (up(least.local_bytes, 1024), up(least.shared_bytes, 1024))
    return ["buffers.local to {} KiB and buffers.shared to {} KiB".format(*sizes)]


def plan_token_linear(shape: LinearShape, hw: Hardware) -> LinearPlan:
    """
    Tiles of a linear over packed tokens, planned for a multiple of `PLANNED_TOKENS`.

    Programs compiled for 30, 64 or 128 tokens then have the same tiles: what a sentence costs
    depends on its tokens, not on how far it was padded. Where that does not fit, as few as asked.
    """
    try:
        rows = align(shape.rows, shape.pre * PLANNED_TOKENS)
        return plan_linear(replace(shape, rows=rows), hw)
    except InfeasibleError:
        return plan_linear(shape, hw)


MOST_PANELS = 8
"""A tensor between linears is cut into at most this many panels."""

_TASK = ("hget", "hgelu", "hput")
"""An element-wise task of the host: read, a GELU, write."""


def _task_cycles(elements: int, hw: Hardware) -> int:
    """What the task takes, beside its bytes."""
    work = HostWork(hw)
    return sum(work.cycles(mnemonic, elements, 0, "dram", reads=False) for mnemonic in _TASK)


def panel_count(first: LinearShape, second: LinearShape, hw: Hardware) -> int:
    """
    In how many column panels the tensor between two linears should lie.

    An element-wise task of the host stands between them. In panels it works on one while the
    first linear computes the next, and the second linear begins with those that are done. 1 where
    that saves nothing, or where no tiles fit. Like the tiles it is decided for a multiple of
    `PLANNED_TOKENS`.
    """
    first = replace(first, rows=align(first.rows, PLANNED_TOKENS))
    host = _task_cycles(first.rows * first.columns, hw)
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
        saved = hidden - (count * part - whole) - count * _task_cycles(0, hw)
        if saved > most:
            best, most = count, saved
    return best
