"""Ops that move elements: views, axes, slices, indexing, joins and splits."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType, i1, i64
from xdsl.ir import SSAValue

from heatc.capture.aten import ELEMENTS, Call, Unsupported, converter, tensor_type
from heatc.capture.graph import Arg
from heatc.dialects import nn
from heatc.errors import HeatcError

_MASKS = (i1, ELEMENTS["u8"])
"""Element types of what picks by truth when it indexes."""


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
    return _concat(call, inputs, call.axis("dim", len(call.out.shape), 0))


@converter("stack.default")
def convert_stack(call: Call) -> SSAValue:
    axis = call.axis("dim", len(call.out.shape), 0)
    part = list(call.out.shape)
    part[axis] = 1
    values = [call.cast(value, call.out_element) for value in call.values_of("tensors")]
    return _concat(call, [call.reshape(value, part) for value in values], axis)


def _concat(call: Call, inputs: Sequence[SSAValue], axis: int) -> SSAValue:
    if len(inputs) == 1:
        return inputs[0]
    return call.add(nn.ConcatOp(inputs, axis, call.out_type))


@converter("index.Tensor")
def convert_index(call: Call) -> SSAValue:
    items = call.arg("indices")
    if not isinstance(items, list):
        raise HeatcError(f"expected a list for argument 'indices' of {call}")
    axes = [axis for axis, item in enumerate(items) if item is not None]
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        raise Unsupported("indices with gaps between them")
    return _index(call, call.value("self"), axes, [items[axis] for axis in axes], "indices")


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
        iota = call.add(nn.IotaOp(0, 1, TensorType(i64, [extent])))
        position = [extent if a == other else 1 for a in range(rank)]
        indices.append(index if other == axis else call.reshape(iota, position))
    return call.add(nn.IndexOp(value, indices, call.out_type))


def _index(
    call: Call, value: SSAValue, axes: Sequence[int], items: Sequence[Arg], name: str
) -> SSAValue:
    """Integer indexing of adjacent axes: they are moved to the front and their result back."""
    indices = [call.resolve(item, name) for item in items]
    if any(nn.element_of(index) in _MASKS for index in indices):
        raise Unsupported("indexing with a boolean mask: its result has no static shape")
    shape = nn.shape_of(value)
    if axes[-1] >= len(shape):
        raise HeatcError(f"{call} has too many indices for rank {len(shape)}")
    before = [axis for axis in range(axes[0])]
    after = [axis for axis in range(axes[-1] + 1, len(shape))]
    lead = nn.broadcast_shapes(*(nn.shape_of(index) for index in indices))
    value = call.permute(value, [*axes, *before, *after])
    rest = [shape[axis] for axis in (*before, *after)]
    type_ = TensorType(nn.element_of(value), [*lead, *rest])
    result = call.add(nn.IndexOp(value, indices, type_))
    width, first = len(lead), len(before)
    order = [*range(width, width + first), *range(width), *range(width + first, width + len(rest))]
    return call.permute(result, order)
