"""
Numbers and addresses of tensors and tiles.

Assumes the machine level of lower-to-hdp. The machine is that of the context, hdp-edge where none
is named. Leaves nothing symbolic. Places are first fit, largest first.

Tensors:

- Weights and constants lie first in DRAM, in the order of `weight_layout`, as the data section of
  the program's weights.safetensors. Inputs, outputs and activations follow.
- The place of an activation is used again after its last use.
- An activation of a fused group lies in the shared buffer, beside the tiles there.
- Activations between layers lie in DRAM where the host does element-wise work, since the host reads
  DRAM. On a machine with vector units they lie in the shared buffer as far as there is room behind
  all tiles; those that are used most in the shortest time come first.

Tiles:

- A tile that is declared outside of a loop keeps its place throughout the loop.
- A tile that is declared in a loop's body needs its place from its first to its last use there.
- A tile that is declared over another one begins where that one does.

Tensors get descriptor numbers, and tiles get tile numbers, by the same ranges of use.

Example: test/passes/allocate_buffers.mlir.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, UnitAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.context import hardware_of
from heatc.dialects import hdp
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import DESCRIPTORS, DTYPES, TILES
from heatc.passes.effect import Effect
from heatc.passes.rewriting import describe_location
from heatc.passes.tiling.packing import (
    PAGE,
    TILE_ALIGNMENT,
    Packer,
    Range,
    align,
    first_fit,
    up,
)

_IN_WEIGHTS = ("weight", "constant")


class WeightPlace(NamedTuple):
    """Where a weight lies: `offset` is its address and its place in the data section."""

    key: str
    dtype: str
    shape: tuple[int, ...]
    offset: int


def weight_tensors(module: ModuleOp) -> list[hdp.TensorOp]:
    """The weights and constants in the order of their addresses: widest elements first, by key."""
    found = [
        op for op in module.walk() if isinstance(op, hdp.TensorOp) and op.role.data in _IN_WEIGHTS
    ]
    return sorted(found, key=lambda op: (-DTYPES[op.dtype.data], op.symbol.data))


def weight_shape(op: hdp.TensorOp) -> tuple[int, ...]:
    """The shape of a weight in the weights file."""
    if op.shape is not None:
        return hdp.integers(op.shape)
    return (op.rows.value.data * op.cols.value.data,)


def weight_layout(module: ModuleOp) -> list[WeightPlace]:
    """Key, dtype, shape and offset of the weights, one after the other without gaps."""
    places: list[WeightPlace] = []
    offset = 0
    for op in weight_tensors(module):
        places.append(WeightPlace(op.symbol.data, op.dtype.data, weight_shape(op), offset))
        offset += op.nbytes
    return places


# --- Live ranges --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Span:
    """First and last place of an op in program order."""

    start: int
    end: int


class _Order:
    """Places of ops in program order."""

    def __init__(self, function: FuncOp):
        self.spans: dict[Operation, _Span] = {}
        self._next = 0
        self._number(function.body.block)
        self.last = self._next

    def _number(self, block: Block) -> None:
        for op in block.ops:
            start = self._next
            self._next += 1
            for region in op.regions:
                self._number(region.block)
            self.spans[op] = _Span(start, self._next)
            self._next += 1

    def uses(self, value: SSAValue, block: Block | None) -> list[_Span]:
        """
        The spans of a value's uses, as seen from `block`: a use in a loop is the whole loop.

        The uses of a tensor's windows and aliases are uses of the tensor, those of a tile over another one are
        uses of that one.
        """
        spans: list[_Span] = []
        for use in value.uses:
            if isinstance(use.operation, hdp.WindowOp | hdp.AliasOp | hdp.TileOp):
                spans += self.uses(use.operation.result, block)
            op = use.operation
            while op.parent is not block:
                parent = op.parent_op()
                assert parent is not None
                op = parent
            spans.append(self.spans[op])
        return spans

    def live(self, op: Operation, *, from_definition: bool) -> _Span:
        """From an op's place, or the first use of its result, to the last use of it."""
        uses = self.uses(op.results[0], op.parent)
        own = self.spans[op]
        starts = [own.start] if from_definition or not uses else [s.start for s in uses]
        return _Span(min(starts), max((s.end for s in uses), default=own.end))


# --- Numbers ------------------------------------------------------------------------------------


T = TypeVar("T", bound=hdp.TensorOp | hdp.WindowOp | hdp.AliasOp | hdp.TileOp)


def _number(ops: Sequence[T], order: _Order, limit: int, what: str) -> None:
    """The lowest number that no op has that is live at the same time."""
    free = list(range(limit))
    active: list[tuple[int, int]] = []
    for op in ops:
        live = order.live(op, from_definition=True)
        for end, number in [a for a in active if a[0] < live.start]:
            active.remove((end, number))
            free.append(number)
        if not free:
            raise InfeasibleError(
                f"more than {limit} {what}s at a time", place=describe_location(op)
            )
        number = min(free)
        free.remove(number)
        active.append((live.end, number))
        op.number = IntegerAttr(number, i64)


# --- Addresses ----------------------------------------------------------------------------------


def _place_tiles(
    tiles: Sequence[hdp.TileOp],
    order: _Order,
    space: str,
    bound: int,
    taken: Sequence[tuple[Range, int]] = (),
) -> int:
    """Addresses of the tiles in a space; returns the bytes that they and what is `taken` need."""
    own = [op for op in tiles if op.space.data == space and op.base is None]
    # What a body declares is needed between its uses; what is declared before a loop, in all of it.
    spans = [order.live(op, from_definition=False) for op in own]
    ranges = [Range(op.bytes.value.data, s.start, s.end) for op, s in zip(own, spans)]
    placed = first_fit(ranges, TILE_ALIGNMENT, taken)
    if placed.peak > bound:
        ends = zip(own, placed.addresses)
        worst = max(ends, key=lambda p: p[1] + p[0].bytes.value.data, default=(None,))[0]
        raise InfeasibleError(
            f"tiles need {placed.peak} bytes of a {space} buffer of {bound}",
            place="" if worst is None else describe_location(worst),
            notes=[f"raise buffers.{space} to {up(placed.peak, 1024)} KiB"],
        )
    for op, address in zip(own, placed.addresses):
        op.address = IntegerAttr(address, i64)
    for op in tiles:
        if op.space.data == space and op.base is not None:
            base = op.base.owner
            assert isinstance(base, hdp.TileOp)
            op.address = base.address
    return placed.peak


def _range(op: hdp.TensorOp, order: _Order) -> Range:
    """Inputs and outputs keep their place for the whole run."""
    if op.role.data != "activation":
        return Range(op.nbytes, 0, order.last)
    live = order.live(op, from_definition=False)
    return Range(op.nbytes, live.start, live.end)


def _place_shared(tensors: Sequence[hdp.TensorOp], order: _Order) -> list[tuple[Range, int]]:
    """
    Places of the tensors in the shared buffer, which tiles then leave free.

    What lay at a place before is done with when a store comes: the array computes in order.
    """
    own = [op for op in tensors if op.space.data == "shared"]
    ranges = [_range(op, order) for op in own]
    placed = first_fit(ranges, PAGE)
    for op, address in zip(own, placed.addresses):
        op.base = IntegerAttr(address, i64)
    return list(zip(ranges, placed.addresses))


def _keep_on_chip(tensors: Sequence[hdp.TensorOp], order: _Order, first: int, bound: int) -> None:
    """
    Activations from DRAM to the shared buffer, from byte `first` on, where no tile ever lies.

    What the host works with (integers, and whatever it packs) stays where it is.
    """
    first = align(first, PAGE)
    own = [
        op
        for op in tensors
        if op.space.data == "dram" and op.role.data == "activation" and op.dtype.data == "i16"
    ]
    ranges = {op: _range(op, order) for op in own}

    def dullness(op: hdp.TensorOp) -> float:
        """How long a tensor lies there for each use."""
        span = ranges[op].end - ranges[op].start + 1
        return span / max(1, len(order.uses(op.result, op.parent)))

    packer = Packer(ranges.values(), PAGE)
    for op in sorted(own, key=lambda op: (dullness(op), ranges[op].start)):
        address = packer.lowest(ranges[op])
        if first + address + op.nbytes > bound:
            continue
        packer.take(ranges[op], address)
        op.space = StringAttr("shared")
        op.on_chip = UnitAttr()
        op.base = IntegerAttr(first + address, i64)


def _place_tensors(
    module: ModuleOp, tensors: Sequence[hdp.TensorOp], order: _Order, hw: Hardware
) -> None:
    weights = weight_tensors(module)
    for op, place in zip(weights, weight_layout(module)):
        op.base = IntegerAttr(place.offset, i64)
    first = align(sum(op.nbytes for op in weights), PAGE)
    dram = [op for op in tensors if op.space.data == "dram"]
    rest = [op for op in dram if op.role.data not in _IN_WEIGHTS]
    placed = first_fit([_range(op, order) for op in rest], PAGE)
    if first + placed.peak > hw.dram_capacity_bytes:
        raise InfeasibleError(
            f"weights and activations need {first + placed.peak} bytes of DRAM, "
            f"{hw.name} has {hw.dram_capacity_bytes}",
            notes=[
                f"raise dram.capacity to {up(first + placed.peak, 1 << 20)} MiB",
                "a smaller batch or shorter sequences need less",
            ],
        )
    for op, address in zip(rest, placed.addresses):
        op.base = IntegerAttr(first + address, i64)


def allocate(module: ModuleOp, function: FuncOp, hardware: Hardware) -> None:
    """Annotate a function of a module in place; `InfeasibleError` where something does not fit."""
    order = _Order(function)
    walked = list(function.walk())
    tensors = [op for op in walked if isinstance(op, hdp.TensorOp)]
    tiles = [op for op in walked if isinstance(op, hdp.TileOp)]
    described = [op for op in walked if isinstance(op, hdp.TensorOp | hdp.WindowOp | hdp.AliasOp)]
    _number(described, order, DESCRIPTORS, "tensor")
    _number(tiles, order, TILES, "tile")
    _place_tiles(tiles, order, "local", hardware.local_buffer_bytes)
    taken = _place_shared(tensors, order)
    peak = _place_tiles(tiles, order, "shared", hardware.shared_buffer_bytes, taken)
    if hardware.vector_lanes:
        _keep_on_chip(tensors, order, peak, hardware.shared_buffer_bytes)
    _place_tensors(module, tensors, order, hardware)


@dataclass(frozen=True)
class AllocateBuffersPass(ModulePass):
    """Numbers and addresses, checked against the hardware's buffers; exact."""

    name = "allocate-buffers"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Annotate every function in place; `InfeasibleError` where something does not fit."""
        hardware = hardware_of(ctx)
        for function in op.ops:
            if isinstance(function, FuncOp) and function.body.blocks:
                allocate(op, function, hardware)
        op.attributes["heatc.hardware"] = StringAttr(hardware.name)
