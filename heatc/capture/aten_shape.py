"""Ops that move elements: views, axes, slices, indexing, joins and splits."""

from __future__ import annotations

import math

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, SSAValue

from heatc.capture.aten import Call, Unsupported, converter, tensor_type
from heatc.dialects import nn
from heatc.errors import HeatcError


@converter(
    "view.default",
    "reshape.default",
    "_unsafe_view.default",
    "_reshape_alias.default",
    "view_as.default",
    "reshape_as.default",
    "flatten.using_ints",
    "unflatten.int",
    "unsqueeze.default",
    "squeeze.default",
    "squeeze.dims",
)
def convert_reshape(call: Call) -> SSAValue:
    return call.reshape(call.value("self"), call.out_type.get_shape())


@converter("squeeze.dim")
def convert_squeeze(call: Call) -> SSAValue:
    value = call.value("self")
    shape = nn.shape_of(value)
    axis = call.axis("dim", len(shape))
    return call.drop(value, axis) if shape and shape[axis] == 1 else value


@converter("transpose.int", "swapaxes.default", "swapdims.default")
def convert_transpose(call: Call) -> SSAValue:
    value = call.value("self")
    rank = len(nn.shape_of(value))
    names = {"transpose": ("dim0", "dim1"), "swapaxes": ("axis0", "axis1")}
    first, second = names.get(call.call.target.split(".")[1], ("dim0", "dim1"))
    a, b = call.axis(first, rank), call.axis(second, rank)
    order = list(range(rank))
    if rank:
        order[a], order[b] = order[b], order[a]
    return call.permute(value, order)


@converter("t.default", "numpy_T.default", "mT.default")
def convert_t(call: Call) -> SSAValue:
    value = call.value("self")
    order = list(range(len(nn.shape_of(value))))
    if "mT" in call.call.target:
        order[-2:] = order[:-3:-1]
        return call.permute(value, order)
    return call.permute(value, order[::-1])


@converter("permute.default")
def convert_permute(call: Call) -> SSAValue:
    value = call.value("self")
    rank = len(nn.shape_of(value))
    order = [call.wrap(axis, rank) for axis in call.integers("dims")]
    if sorted(order) != list(range(rank)):
        raise HeatcError(f"{order} of {call} is not a permutation of rank {rank}")
    return call.permute(value, order)


@converter("movedim.int")
def convert_movedim(call: Call) -> SSAValue:
    value = call.value("self")
    rank = len(nn.shape_of(value))
    order = [axis for axis in range(rank) if axis != call.axis("source", rank)]
    order.insert(call.axis("destination", rank), call.axis("source", rank))
    return call.permute(value, order)


@converter("expand.default", "expand_as.default", "broadcast_to.default")
def convert_expand(call: Call) -> SSAValue:
    return call.expand(call.value("self"), call.out_type.get_shape())


@converter("repeat.default")
def convert_repeat(call: Call) -> SSAValue:
    """Every axis gets a copy axis before it; both are then one."""
    value, repeats = call.value("self"), call.integers("repeats")
    shape = nn.shape_of(value)
    shape = (1,) * (len(repeats) - len(shape)) + shape
    split = [extent for pair in zip([1] * len(shape), shape) for extent in pair]
    wide = [extent for pair in zip(repeats, shape) for extent in pair]
    return call.reshape(call.expand(call.reshape(value, split), wide), call.out.shape)


@converter("repeat_interleave.self_int")
def convert_repeat_interleave(call: Call) -> SSAValue:
    if not call.has("dim"):
        raise Unsupported("repeat_interleave without dim")
    value = call.value("self")
    shape = list(nn.shape_of(value))
    axis = call.axis("dim", len(shape))
    split = [*shape[: axis + 1], 1, *shape[axis + 1 :]]
    wide = [*shape[: axis + 1], call.integer("repeats"), *shape[axis + 1 :]]
    return call.reshape(call.expand(call.reshape(value, split), wide), call.out.shape)


@converter("select.int")
def convert_select(call: Call) -> SSAValue:
    value = call.value("self")
    shape = nn.shape_of(value)
    axis = call.axis("dim", len(shape))
    index = call.integer("index")
    start = index + shape[axis] if index < 0 else index
    return call.drop(call.cut(value, axis, start, 1), axis)


@converter("slice.Tensor")
def convert_slice(call: Call) -> SSAValue:
    value = call.value("self")
    shape = nn.shape_of(value)
    axis = call.axis("dim", len(shape), 0)
    step = call.integer("step", 1)
    start = call.integer("start") if call.has("start") else 0
    end = call.integer("end") if call.has("end") else shape[axis]
    if step < 1:
        raise HeatcError(f"{call} has step {step}")
    start, end, step = slice(start, end, step).indices(shape[axis])
    size = len(range(start, end, step))
    if not size:
        raise Unsupported("a slice without elements")
    return call.cut(value, axis, start, size, step)


@converter("narrow.default")
def convert_narrow(call: Call) -> SSAValue:
    value = call.value("self")
    axis = call.axis("dim", len(nn.shape_of(value)))
    start = call.integer("start")
    start += nn.shape_of(value)[axis] if start < 0 else 0
    return call.cut(value, axis, start, call.integer("length"))


@converter(
    "split.Tensor",
    "split.sizes",
    "split.default",
    "split_with_sizes.default",
    "chunk.default",
    "tensor_split.sections",
)
def convert_split(call: Call) -> list[SSAValue]:
    value = call.value("self")
    axis = call.axis("dim", len(nn.shape_of(value)), 0)
    parts: list[SSAValue] = []
    start = 0
    for part in call.outs:
        size = tensor_type(part).get_shape()[axis]
        parts.append(call.cut(value, axis, start, size))
        start += size
    return parts


@converter("unbind.int")
def convert_unbind(call: Call) -> list[SSAValue]:
    value = call.value("self")
    axis = call.axis("dim", len(nn.shape_of(value)), 0)
    return [call.drop(call.cut(value, axis, i, 1), axis) for i in range(len(call.outs))]


@converter("cat.default", "concat.default", "concatenate.default")
def convert_cat(call: Call) -> SSAValue:
    inputs = [call.cast(value, call.out_element) for value in call.values_of("tensors")]
    return call.concat(inputs, call.axis("dim", len(call.out.shape), 0))


@converter("stack.default")
def convert_stack(call: Call) -> SSAValue:
    axis = call.axis("dim", len(call.out.shape), 0)
    part = list(call.out.shape)
    part[axis] = 1
    values = [call.cast(value, call.out_element) for value in call.values_of("tensors")]
    return call.concat([call.reshape(value, part) for value in values], axis)


@converter("slice_scatter.default")
def convert_slice_scatter(call: Call) -> SSAValue:
    """`self` with a part of one axis replaced; what lies between every `step`-th stays."""
    value, part = call.value("self"), call.cast(call.value("src"), call.out_element)
    axis = call.axis("dim", len(nn.shape_of(value)), 0)
    extent, step = nn.shape_of(value)[axis], call.integer("step", 1)
    first = call.integer("start") if call.has("start") else None
    start = slice(first, None, step).indices(extent)[0]
    count = nn.shape_of(part)[axis]
    if step != 1:
        return _scattered(call, value, part, axis, range(start, start + count * step, step))
    return _replaced(call, value, part, axis, start)


@converter("select_scatter.default")
def convert_select_scatter(call: Call) -> SSAValue:
    value = call.value("self")
    shape = list(nn.shape_of(value))
    axis = call.axis("dim", len(shape))
    index = call.integer("index")
    start = index + shape[axis] if index < 0 else index
    shape[axis] = 1
    part = call.reshape(call.cast(call.value("src"), call.out_element), shape)
    return _replaced(call, value, part, axis, start)


def _replaced(call: Call, value: SSAValue, part: SSAValue, axis: int, start: int) -> SSAValue:
    """`value` with `part` from `start` on along an axis."""
    extent, count = nn.shape_of(value)[axis], nn.shape_of(part)[axis]
    pieces = [part]
    if start > 0:
        pieces.insert(0, call.cut(value, axis, 0, start))
    if start + count < extent:
        pieces.append(call.cut(value, axis, start + count, extent - start - count))
    return call.concat(pieces, axis)


def _scattered(call: Call, value: SSAValue, part: SSAValue, axis: int, places: range) -> SSAValue:
    """`value` with `part` at some places of an axis."""
    pieces: list[SSAValue] = []
    for place in range(nn.shape_of(value)[axis]):
        source, at = (part, places.index(place)) if place in places else (value, place)
        pieces.append(call.cut(source, axis, at, 1))
    return call.concat(pieces, axis)


@converter("copy.default")
def convert_copy(call: Call) -> SSAValue:
    return call.expand(call.cast(call.value("src"), call.out_element), call.out.shape)


@converter("roll.default")
def convert_roll(call: Call) -> SSAValue:
    value = call.value("self")
    shape = nn.shape_of(value)
    shifts, axes = call.integers("shifts"), call.integers("dims") if call.has("dims") else []
    if not axes:
        value, axes = call.reshape(value, [math.prod(shape)]), [0]
    for shift, axis in zip(shifts, axes):
        axis = call.wrap(axis, len(nn.shape_of(value)))
        extent = nn.shape_of(value)[axis]
        kept = extent - shift % extent if extent else 0
        if kept != extent:
            parts = [call.cut(value, axis, kept, extent - kept), call.cut(value, axis, 0, kept)]
            value = call.concat(parts, axis)
    return call.reshape(value, shape)


@converter("constant_pad_nd.default", "pad.default")
def convert_pad(call: Call) -> SSAValue:
    """Pairs of how many elements come before and after, the last axis first; negative ones cut."""
    if call.arg("mode", "constant") != "constant":
        raise Unsupported(f"padding by {call.arg('mode')!r}, only a constant is supported")
    value, pad = call.value("self"), call.integers("pad")
    number = call.number("value") if call.has("value") else 0
    for i in range(len(pad) // 2):
        axis = len(nn.shape_of(value)) - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        extent = nn.shape_of(value)[axis] + min(before, 0) + min(after, 0)
        value = call.cut(value, axis, max(-before, 0), extent)
        value = call.padded(value, axis, before, after, number)
    return value


@converter("diagonal.default", "diagonal_copy.default")
def convert_diagonal(call: Call) -> SSAValue:
    """The first two axes are the named ones; of those the same positions are taken."""
    value = call.value("self")
    rank, offset = len(nn.shape_of(value)), call.integer("offset", 0)
    axes = [call.axis("dim1", rank, 0), call.axis("dim2", rank, 1)]
    rest = [axis for axis in range(rank) if axis not in axes]
    value = call.permute(value, [*axes, *rest])
    count = call.out.shape[-1]
    rows, columns = call.iota(count, max(-offset, 0)), call.iota(count, max(offset, 0))
    found = call.add(nn.IndexOp(value, [rows, columns], _front(call, value, count)))
    return call.permute(found, [*range(1, len(rest) + 1), 0])


def _front(call: Call, value: SSAValue, count: int) -> TensorType[Attribute]:
    return TensorType(nn.element_of(value), [count, *nn.shape_of(value)[2:]])
