"""Indexing: by lists of places, along axes, by truth, and writing at places."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType, i1, i64
from xdsl.ir import SSAValue

from heatc.capture.aten import ELEMENTS, Call, Unsupported, converter
from heatc.capture.graph import Arg
from heatc.dialects import nn
from heatc.errors import HeatcError

_MASKS = (i1, ELEMENTS["u8"])
"""Element types of what picks by truth when it indexes."""

_MOST_COMPARED = 1 << 24
"""Comparisons of places that writing at places may cost."""


@converter("index.Tensor", "_unsafe_index.Tensor")
def convert_index(call: Call) -> SSAValue:
    items = _items(call)
    axes = [axis for axis, item in enumerate(items) if item is not None]
    if not axes:
        return call.value("self")
    return _index(call, call.value("self"), axes, [items[axis] for axis in axes], "indices")


def _items(call: Call) -> list[Arg]:
    items = call.arg("indices")
    if not isinstance(items, list):
        raise HeatcError(f"expected a list for argument 'indices' of {call}")
    return items


@converter("index_select.default")
def convert_index_select(call: Call) -> SSAValue:
    value = call.value("self")
    axis = call.axis("dim", len(nn.shape_of(value)))
    return _index(call, value, [axis], [call.arg("index")], "index")


@converter("gather.default")
def convert_gather(call: Call) -> SSAValue:
    """Every axis but one is indexed by its own position."""
    value, index = call.value("self"), call.value("index")
    shape = nn.shape_of(index)
    rank = len(shape)
    axis = call.axis("dim", rank)
    if not rank or rank != len(nn.shape_of(value)):
        raise Unsupported(
            f"gather from rank {len(nn.shape_of(value))} with an index of rank {rank}"
        )
    indices: list[SSAValue] = []
    for other, extent in enumerate(shape):
        position = [extent if a == other else 1 for a in range(rank)]
        indices.append(index if other == axis else call.reshape(call.iota(extent), position))
    return call.add(nn.IndexOp(value, indices, call.out_type))


@converter("flip.default")
def convert_flip(call: Call) -> SSAValue:
    value = call.value("self")
    rank = len(nn.shape_of(value))
    for axis in (call.wrap(axis, rank) for axis in call.integers("dims")):
        extent = nn.shape_of(value)[axis]
        value = taken(call, value, [axis], [call.iota(extent, extent - 1, -1)])
    return value


def _index(
    call: Call, value: SSAValue, axes: Sequence[int], items: Sequence[Arg], name: str
) -> SSAValue:
    indices = [call.resolve(item, name) for item in items]
    if any(nn.element_of(index) in _MASKS for index in indices):
        raise Unsupported("indexing with a boolean mask: its result has no static shape")
    if axes[-1] >= len(nn.shape_of(value)):
        raise HeatcError(f"{call} has too many indices for rank {len(nn.shape_of(value))}")
    return taken(call, value, axes, indices)


def taken(
    call: Call, value: SSAValue, axes: Sequence[int], indices: Sequence[SSAValue]
) -> SSAValue:
    """
    Integer indexing of axes: they are moved to the front and their result back.

    The result of axes with gaps between them stays in front, as PyTorch has it.
    """
    shape = nn.shape_of(value)
    others = [axis for axis in range(len(shape)) if axis not in axes]
    lead = nn.broadcast_shapes(*(nn.shape_of(index) for index in indices))
    value = call.permute(value, [*axes, *others])
    type_ = TensorType(nn.element_of(value), [*lead, *(shape[axis] for axis in others)])
    result = call.add(nn.IndexOp(value, indices, type_))
    is_adjacent = list(axes) == list(range(axes[0], axes[-1] + 1))
    width, first = len(lead), axes[0] if is_adjacent else 0
    rest = range(width + first, width + len(others))
    return call.permute(result, [*range(width, width + first), *range(width), *rest])


@converter("index_put.default")
def convert_index_put(call: Call) -> SSAValue:
    """One value where a mask is true, or at the places that lists of integers name."""
    if call.flag("accumulate"):
        raise Unsupported("index_put with accumulate")
    value, written = call.value("self"), call.cast(call.value("values"), call.out_element)
    items = _items(call)
    if any(item is None for item in items):
        raise Unsupported("index_put with an axis that is written as a whole before others")
    indices = [call.resolve(item, "indices") for item in items]
    rank = len(nn.shape_of(value))
    if len(indices) == 1 and nn.element_of(indices[0]) in _MASKS:
        hit, covered = call.cast(indices[0], i1), len(nn.shape_of(indices[0]))
    else:
        hit, covered = _hit(call, value, indices), len(indices)
    if any(extent != 1 for extent in nn.shape_of(written)[: -(rank - covered) or None]):
        raise Unsupported("index_put of several values, which need not be at different places")
    hit = call.reshape(hit, [*nn.shape_of(hit), *[1] * (rank - covered)])
    return call.where(hit, written, value)


def _hit(call: Call, value: SSAValue, indices: Sequence[SSAValue]) -> SSAValue:
    """Which places of the leading axes are named by some element of the indices."""
    if any(nn.element_of(index) in _MASKS for index in indices):
        raise Unsupported("index_put with a boolean mask among its indices")
    lead = nn.broadcast_shapes(*(nn.shape_of(index) for index in indices))
    extents = nn.shape_of(value)[: len(indices)]
    count = math.prod(lead)
    if count * math.prod(extents) > _MOST_COMPARED:
        raise Unsupported(f"index_put at {count} places of {math.prod(extents)}")
    hit: SSAValue | None = None
    for axis, (extent, index) in enumerate(zip(extents, indices)):
        named = call.reshape(call.expand(call.cast(index, i64), lead), [count])
        negative = call.compare(named, call.full(0, i64), "lt")
        named = call.where(negative, call.shifted(named, extent), named)
        shape = [extent if other == axis else 1 for other in range(len(extents))]
        place = call.reshape(call.iota(extent), [*shape, 1])
        same = call.compare(place, named, "eq")
        hit = same if hit is None else call.add(nn.AndOp(hit, same))
    assert hit is not None
    return call.reduce(hit, "any", [len(extents)])
