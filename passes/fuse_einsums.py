"""
Results of steps of factorised layers stay on the chip, some tokens at a time.

Assumes `lower-contractions`. A layer is then a chain of steps, each a product of packed tokens with
a weight, with reshapes between them. This pass cuts every chain into groups. It sets `fuse` on all
steps of a group but its last: their results are made and read tile by tile and never as a whole.

The size of a tile:

- For the machine of the context it is the largest multiple of the PE array's rows for which two tiles of
  every live result fit the shared buffer, beside the operands of a step.
- Without a machine it is the largest multiple of 32 tokens whose live results take `cache` bytes,
  by default 1 MiB, a core's level-2 cache. A processor's products of fewer than 32 columns cost
  more than is saved.

Groups are cut so that the fewest bytes pass to and from memory. A fused result saves its writing
and reading; each further tile of tokens costs the weights of its group again. Results without
`fuse` are held as a whole; a remark says which and why. `tokens` is how
many the bytes are counted for, by default what the largest packing has room for. Where the plan of
the context says `fuse` of a layer, it is done: true (one group), false (none), or the tile.

Exact: the same sums. Leaves steps that have `fuse`, and those that are no product of matrices.

Example (test/passes/fuse_einsums.mlir): the first linear of `"ta,Aa->tA"` and `"tA,mA->tm"` gets
`fuse = #einsum.fuse<tokens = 128>`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from heatc.context import machine_of, plan_of
from heatc.dialects.einsum import ContractOp, FuseAttr, only_reader
from heatc.dialects.nn import element_of, shape_of
from heatc.errors import HeatcError
from heatc.hardware import Hardware
from heatc.passes.analysis.constants import first_weight
from heatc.passes.analysis.products import ProductForm, product_form
from heatc.passes.analysis.tokens import most_tokens
from heatc.passes.effect import Effect
from heatc.passes.factorising.targets import layer_path
from heatc.passes.rewriting import remark
from heatc.passes.tiling.packing import TILE_ALIGNMENT, align

CACHE_BYTES = 1 << 20
_UNIT = 32


@dataclass(frozen=True)
class _Step:
    """A step and its sizes; `inputs` and `outputs` are elements of a token."""

    op: ContractOp
    form: ProductForm

    @cached_property
    def inputs(self) -> int:
        return math.prod(shape_of(self.op.inputs[0])[1:])

    @cached_property
    def outputs(self) -> int:
        return math.prod(shape_of(self.op.result)[1:])

    @cached_property
    def weights(self) -> int:
        return math.prod(shape_of(self.op.inputs[1]))


Group = Sequence[_Step]


class _Chip(Protocol):
    """What tiles have room in, and what a group moves to and from memory behind it."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> int:
        """What tiles are multiples of, tokens."""
        ...

    @property
    def capacity(self) -> int:
        """Bytes."""
        ...

    @property
    def element(self) -> int:
        """Bytes of a value or weight."""
        ...

    def takes(self, step: _Step) -> bool:
        """Whether it computes a step as a product of matrices."""
        ...

    def need(self, group: Group, tokens: int) -> int:
        """The bytes that a tile of so many tokens takes, at the step that takes most."""
        ...

    def fetches(self, step: _Step, tokens: int) -> int:
        """How often a step alone reads its weight for so many tokens."""
        ...


@dataclass(frozen=True)
class _SharedBuffer:
    """The machine's shared buffer: codes of 16 bits, two tiles of each result in turns."""

    hw: Hardware
    element: int = 2

    @property
    def name(self) -> str:
        return f"the shared buffer of {self.hw.name}"

    @property
    def unit(self) -> int:
        return self.hw.pe_rows

    @property
    def capacity(self) -> int:
        return self.hw.shared_buffer_bytes

    def takes(self, step: _Step) -> bool:
        """A weight that differs from product to product has no instruction."""
        return not step.form.is_batched

    def need(self, group: Group, tokens: int) -> int:
        last = len(group) - 1
        most = 0
        for k, step in enumerate(group):
            read = self._tile(tokens * step.inputs) * (2 if k else 1)
            written = self._tile(tokens * step.outputs) * 2 if k < last else 0
            # A weight in front of the activation comes from the shared buffer.
            own = (
                self._tile(step.form.columns * step.form.depth)
                if math.prod(step.form.rest) > 1
                else 0
            )
            most = max(most, read + written + own)
        return most

    def _tile(self, elements: int) -> int:
        return align(elements * self.element, TILE_ALIGNMENT)

    def fetches(self, step: _Step, tokens: int) -> int:
        tile = max(_largest(self, [step], tokens), self.unit)
        return -(-tokens // tile)


@dataclass(frozen=True)
class _Cache:
    """A core's cache: float32, one tile of each live result."""

    capacity: int
    name: str = "the cache"
    unit: int = _UNIT
    element: int = 4

    def takes(self, step: _Step) -> bool:
        return True

    def need(self, group: Group, tokens: int) -> int:
        live = [step.outputs for step in group[:-1]]
        most = max(a + b for a, b in zip([0, *live], [*live, 0]))
        return most * tokens * self.element

    def fetches(self, step: _Step, tokens: int) -> int:
        """The library's product blocks the tokens itself."""
        return 1


def _largest(chip: _Chip, group: Group, tokens: int) -> int:
    """The largest multiple of the chip's unit of tokens that fits, 0 where none does."""
    low, high = 0, align(tokens, chip.unit) // chip.unit
    while low < high:
        middle = (low + high + 1) // 2
        fits = chip.need(group, middle * chip.unit) <= chip.capacity
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * chip.unit


@dataclass(frozen=True)
class _Cut:
    """A chain in groups: their tiles of tokens (0: a step alone) and bytes moved."""

    groups: tuple[tuple[_Step, ...], ...]
    tiles: tuple[int, ...]
    moved: int

    @property
    def fused(self) -> int:
        """How many results stay on the chip."""
        return sum(len(group) - 1 for group in self.groups)

    def then(self, group: Group, tile: int, moved: int) -> _Cut:
        """With a group behind."""
        return _Cut((*self.groups, tuple(group)), (*self.tiles, tile), self.moved + moved)


@dataclass(frozen=True)
class _Planner:
    chip: _Chip
    tokens: int

    def moved(self, group: Group, tile: int) -> int:
        """Bytes that a group moves to and from memory: operands, weights, result."""
        if len(group) == 1:
            fetches = self.chip.fetches(group[0], self.tokens)
        else:
            fetches = -(-self.tokens // tile)
        values = self.tokens * (group[0].inputs + group[-1].outputs)
        return self.chip.element * (values + fetches * sum(step.weights for step in group))

    def alone(self, chain: Group) -> _Cut:
        """Every step by itself."""
        cut = _Cut((), (), 0)
        for step in chain:
            cut = cut.then([step], 0, self.moved([step], 0))
        return cut

    def whole(self, chain: Group, tile: int) -> _Cut:
        """One group."""
        return _Cut((), (), 0).then(chain, tile, self.moved(chain, tile))

    def best(self, chain: Group) -> _Cut:
        """The cut that moves the fewest bytes, of equal ones that with the most fused results."""
        cuts = [_Cut((), (), 0)]
        for stop in range(1, len(chain) + 1):
            found = [c for start in range(stop) if (c := self._next(cuts[start], chain, stop))]
            cuts.append(min(found, key=lambda c: (c.moved, -c.fused)))
        return cuts[-1]

    def _next(self, cut: _Cut, chain: Group, stop: int) -> _Cut | None:
        """A cut of the first steps with the next ones up to `stop` as a group, if it fits."""
        group = chain[sum(map(len, cut.groups)) : stop]
        tile = _largest(self.chip, group, self.tokens) if len(group) > 1 else 0
        if len(group) > 1 and not tile:
            return None
        return cut.then(group, tile, self.moved(group, tile))


# ---- chains -----------------------------------------------------------------------------------


def _chains(module: ModuleOp) -> Iterator[list[_Step]]:
    """The steps of every layer in order, where there are at least two."""
    seen: set[Operation] = set()
    for op in module.walk():
        if op in seen or not isinstance(op, ContractOp):
            continue
        chain: list[_Step] = []
        step = _step(op)
        while step is not None:
            chain.append(step)
            seen.add(step.op)
            # The step with the provenance is its layer's last.
            ends = step.op.decomposition is not None
            reader = None if ends else only_reader(step.op.result)
            step = None if reader is None else _step(reader)
        if len(chain) > 1:
            yield chain


def _step(op: ContractOp) -> _Step | None:
    values = (*op.inputs, op.result)
    if op.fuse is not None or any(element_of(v) != f32 or 0 in shape_of(v) for v in values):
        return None
    if len(shape_of(op.result)) < 2 or len(shape_of(op.inputs[0])) < 2:
        return None
    form = product_form(op)
    return None if form is None else _Step(op, form)


def _layer(chain: Group) -> str:
    """The module path of the layer that the steps' weights belong to."""
    for step in chain:
        weight = first_weight(step.op.inputs[1])
        if weight is not None:
            return layer_path(weight)
    return ""


# ---- the pass ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class FuseEinsumsPass(ModulePass):
    """Results between steps of a factorised layer stay on the chip where they fit; exact."""

    name = "fuse-einsums"
    effect: ClassVar[Effect] = Effect.EXACT

    cache: int = CACHE_BYTES
    tokens: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Set `fuse` on the steps whose results stay on the chip."""
        if self.cache < 1:
            raise HeatcError(f"cache: expected at least 1 byte, got {self.cache}")
        chains = list(_chains(op))
        told = _told(ctx)
        if chains:
            planner = _Planner(self._chip(machine_of(ctx)), self.tokens or most_tokens(op))
            for chain in chains:
                _fuse(ctx, chain, planner, told.get(_layer(chain)))
        for layer in told.keys() - {_layer(chain) for chain in chains}:
            if told[layer]:
                text = f"{layer}: the plan fuses its steps, but it is no chain of steps"
                remark(ctx, op, text)

    def _chip(self, hardware: Hardware | None) -> _Chip:
        return _Cache(self.cache) if hardware is None else _SharedBuffer(hardware)


def _told(ctx: Context) -> dict[str, bool | int]:
    """What the plan says of a layer."""
    plan = plan_of(ctx)
    if plan is None:
        return {}
    return {path: layer.fuse for path, layer in plan.heat.items() if layer.fuse is not None}


def _fuse(ctx: Context, chain: Group, planner: _Planner, told: bool | int | None) -> None:
    """Cut a layer's chain as the plan says, or else as costs least, and say so."""
    alone = planner.alone(chain)
    cut, reason = _choose(chain, planner, told, alone)
    for group, tile in zip(cut.groups, cut.tiles):
        for step in group[:-1]:
            step.op.fuse = FuseAttr(tile)
    _remark(ctx, chain, planner, cut, alone, reason)


def _choose(
    chain: Group, planner: _Planner, told: bool | int | None, alone: _Cut
) -> tuple[_Cut, str]:
    """The cut of a chain, and why it is that one."""
    chip = planner.chip
    if told is False:
        return alone, "the plan says so"
    refused = next((step for step in chain if not chip.takes(step)), None)
    if refused is not None:
        # Such a step is refused by the machine whatever stands beside it.
        return alone, f"{refused.op.equation.data!r} is a product for each of its shared indices"
    least = chip.need(chain, chip.unit)
    if told is not None:
        tile = _largest(chip, chain, planner.tokens) if told is True else told
        need = chip.need(chain, max(tile, 1))
        if not tile or need > chip.capacity:
            lacking = least if not tile else need
            return alone, f"{_of(tile or chip.unit)} need {lacking} bytes of {_room(chip)}"
        return planner.whole(chain, tile), "the plan says so"
    cut = planner.best(chain)
    if cut.fused:
        return cut, "it moves the fewest bytes"
    if not any(_largest(chip, chain[k : k + 2], planner.tokens) for k in range(len(chain) - 1)):
        return cut, f"{_of(chip.unit)} need {least} bytes of {_room(chip)}"
    return cut, "tiles would read the weights again and again"


def _of(tokens: int) -> str:
    return f"results of {tokens} tokens"


def _room(chip: _Chip) -> str:
    return f"{chip.name}, which has {chip.capacity}"


def _remark(
    ctx: Context, chain: Group, planner: _Planner, cut: _Cut, alone: _Cut, reason: str
) -> None:
    """Say what became of a layer, in words and in numbers."""
    results = len(chain) - 1
    if not cut.fused:
        text = f"{results} result(s) between steps stay in memory: {reason}"
    else:
        sizes = " and ".join(str(n) for n in dict.fromkeys(n for n in cut.tiles if n))
        text = (
            f"{cut.fused} of {results} result(s) between steps stay on the chip, {sizes} tokens at "
            f"a time: {cut.moved} bytes to and from memory for {planner.tokens} tokens, "
            f"{alone.moved} without"
        )
    weighed: list[Mapping[str, Any]] = [{"fuse": False, "moved_bytes": alone.moved}]
    tile = _largest(planner.chip, chain, planner.tokens)
    if tile:
        whole = planner.whole(chain, tile)
        weighed.append({"fuse": True, "tiles": [tile], "moved_bytes": whole.moved})
    remark(
        ctx,
        chain[-1].op,
        f"{_layer(chain)}: {text}",
        layer=_layer(chain),
        chosen={
            "fuse": bool(cut.fused),
            "steps": [step.op.equation.data for step in chain],
            "groups": [len(group) for group in cut.groups],
            "tiles": list(cut.tiles),
            "moved_bytes": cut.moved,
            "tokens": planner.tokens,
            "reason": reason,
        },
        weighed=weighed,
        shown=False,
    )
