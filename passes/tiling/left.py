"""A product with the weight on the left: a token, or a part of one, a core and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from xdsl.ir import SSAValue

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import DTYPES
from heatc.passes.tiling.emitter import Emitter, Tiles
from heatc.passes.tiling.packing import TILE_ALIGNMENT, TileSpec, align, up

MOST_CHUNKS = 16
"""A weight is cut into at most this many tiles: each needs a tile number."""

_ACC, _CODE, _WIDE = DTYPES["acc"], DTYPES["i16"], DTYPES["i32"]


@dataclass(frozen=True)
class LeftShape:
    """`items` products (new, gone) times (gone, post); results of some dtypes, with a bias or not."""

    items: int
    gone: int
    new: int
    post: int
    planes: tuple[str, ...] = ("i16",)
    bias: bool = False


@dataclass(frozen=True)
class LeftPlan:
    """
    Tiles of a left product.

    The weight lies in the shared buffer, in chunks of `rows` rows; a core has an item in each of
    `slots` tiles.
    """

    shape: LeftShape
    rows: int
    slots: int

    @property
    def chunks(self) -> int:
        """Chunks of the whole weight."""
        return up(self.shape.new, self.rows)

    def weight_tiles(self) -> list[TileSpec]:
        """The tiles of the weight in the shared buffer."""
        nbytes = self.rows * self.shape.gone * _CODE
        return [TileSpec(f"w.{i}", "i16", nbytes) for i in range(self.chunks)]

    def local_tiles(self) -> list[TileSpec]:
        """The tiles of a core: accumulators, items, results, bias."""
        shape, cells = self.shape, self.rows * self.shape.post
        tiles = [TileSpec("acc", "acc", cells * _ACC)]
        for slot in range(self.slots):
            tiles.append(TileSpec(f"x.{slot}", "i16", shape.gone * shape.post * _CODE))
            tiles += [
                TileSpec(f"out.{slot}.{i}", dtype, cells * DTYPES[dtype])
                for i, dtype in enumerate(shape.planes)
            ]
        if shape.bias:
            tiles += [TileSpec(f"bias.{i}", "i32", cells * _WIDE) for i in range(self.chunks)]
        return tiles

    @property
    def local_bytes(self) -> int:
        """Bytes of a local buffer that the tiles take."""
        return sum(align(t.nbytes, TILE_ALIGNMENT) for t in self.local_tiles())

    @property
    def shared_bytes(self) -> int:
        """Bytes of the shared buffer that the weight takes."""
        return sum(align(t.nbytes, TILE_ALIGNMENT) for t in self.weight_tiles())

    def cost(self, hw: Hardware) -> float:
        """Estimated cycles: the array or the transfers of all items, both where they take turns."""
        shape = self.shape
        folds = up(self.rows, hw.pe_rows) * up(shape.post, hw.pe_columns)
        drain = len(shape.planes) * up(self.rows, hw.pe_rows) * shape.post
        fill = hw.pe_rows + hw.pe_columns - 2
        work = self.chunks * (folds * shape.gone + fill + drain)
        moved = hw.cores * (shape.gone + shape.new * len(shape.planes)) * shape.post * _CODE
        dma = moved / hw.dram_bytes_per_cycle
        each = max(work, dma) if self.slots > 1 else work + dma
        return up(shape.items, hw.cores) * each


@dataclass(frozen=True)
class Left:
    """
    `outputs = requantise(weight x + bias)` for every item; `items` is their number at run time.

    `x` (items gone, post), `weight` (new, gone), `bias` (new, post), `outputs` (items new, post) are
    tensors; two outputs are the integer and the fraction plane, split above `fraction` bits.
    """

    shape: LeftShape
    items: SSAValue
    x: SSAValue
    weight: SSAValue
    bias: SSAValue | None
    outputs: tuple[SSAValue, ...]
    bias_shift: int
    shift: int
    fraction: int


def _plans(shape: LeftShape) -> Iterator[LeftPlan]:
    for chunks in range(1, min(MOST_CHUNKS, shape.new) + 1):
        rows = up(shape.new, chunks)
        if up(shape.new, rows) == chunks:
            yield from (LeftPlan(shape, rows, slots) for slots in (2, 1))


@lru_cache(maxsize=256)
def plan_left(shape: LeftShape, hw: Hardware) -> LeftPlan:
    """The cheapest tiles of a left product; `InfeasibleError` if none fit."""
    plans = list(_plans(shape))
    local, shared = hw.local_buffer_bytes, hw.shared_buffer_bytes
    fitting = [p for p in plans if p.local_bytes <= local and p.shared_bytes <= shared]
    if fitting:
        return min(fitting, key=lambda p: p.cost(hw))
    least = min(p.local_bytes for p in plans)
    raise InfeasibleError(
        f"a product of {shape.new}x{shape.gone} with {shape.gone}x{shape.post} does not fit",
        notes=[
            f"smallest tiles: {least} bytes a local buffer of {local}, "
            f"{plans[0].shared_bytes} bytes a shared buffer of {shared}",
            "raise buffers.local or buffers.shared, or choose another path or shape",
        ],
    )


def hold_left(emitter: Emitter, weight: SSAValue, plan: LeftPlan) -> Tiles:
    """Load the weight, for all items to come."""
    e, tiles = emitter, emitter.tiles(plan.weight_tiles(), "shared")
    for i, tile in enumerate(tiles.values()):
        place = {"row_reg": e.constant(i * plan.rows), "col_reg": e.constant(0)}
        e.do("ld", t=tile, d=weight, **place, rows=plan.rows, cols=plan.shape.gone)
    return tiles


def emit_left(
    emitter: Emitter, left: Left, plan: LeftPlan, cores: int, held: Tiles | None = None
) -> None:
    """A loop over items; core c works on item i + c. The weight may be `held` already."""
    e, shape = emitter, left.shape
    weights = hold_left(e, left.weight, plan) if held is None else held
    local = e.tiles(plan.local_tiles())
    if left.bias is not None:
        for i in range(plan.chunks):
            place = {"row_reg": e.constant(i * plan.rows), "col_reg": e.constant(0)}
            size = {"rows": plan.rows, "cols": shape.post}
            e.do("ld", t=local[f"bias.{i}"], d=left.bias, **place, **size)
    kernel = _Item(e, left, plan, list(weights.values()), local)
    with e.loop(left.items, plan.slots * cores) as item:
        kernel.emit(0, item)
        for slot in range(1, plan.slots):
            other = e.add(item, slot * cores)
            # Runs once where items are left, else not at all.
            with e.loop(e.span(left.items, other, 1), 1):
                kernel.emit(slot, other)


@dataclass(frozen=True)
class _Item:
    """Emits the product of the items from one on, one a core."""

    e: Emitter
    left: Left
    plan: LeftPlan
    weights: list[SSAValue]
    local: Tiles

    def emit(self, slot: int, item: SSAValue) -> None:
        """Item `item` in the tiles of a slot."""
        e, shape, x = self.e, self.left.shape, self.local[f"x.{slot}"]
        zero = e.constant(0)
        size = {"rows": shape.gone, "cols": shape.post, "core_rows": shape.gone}
        e.do("ld", t=x, d=self.left.x, row_reg=e.scaled(item, shape.gone), col_reg=zero, **size)
        first = e.scaled(item, shape.new)
        for i, weight in enumerate(self.weights):
            e.do("mm", acc=self.local["acc"], a=weight, b=x, first=1, b_transposed=0)
            self._drain(slot, i)
            row = e.add(first, i * self.plan.rows) if i else first
            for plane, output in enumerate(self.left.outputs):
                tile = self.local[f"out.{slot}.{plane}"]
                e.do("st", d=output, t=tile, row_reg=row, col_reg=zero, core_rows=shape.new)

    def _drain(self, slot: int, chunk: int) -> None:
        left, acc = self.left, self.local["acc"]
        common = {
            "acc": acc,
            "bias": acc if left.bias is None else self.local[f"bias.{chunk}"],
            "has_bias": left.bias is not None,
            "bias_shift": left.bias_shift,
            "shift": left.shift,
        }
        out = [self.local[f"out.{slot}.{i}"] for i in range(len(left.shape.planes))]
        if len(out) == 1:
            self.e.do("drain", t=out[0], **common)
        else:
            self.e.do("drains", ti=out[0], tf=out[1], point=left.fraction, **common)
