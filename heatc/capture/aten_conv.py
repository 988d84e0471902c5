"""
Convolutions and pooling, as linears and reductions of windows of tokens.

A convolution whose windows lie side by side, such as a patch embedding, is a reshape and a linear.
Of windows that overlap or leave gaps, the tokens at each place of a window are gathered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from xdsl.dialects.builtin import TensorType
from xdsl.ir import SSAValue

from heatc.capture.aten import Call, Unsupported, converter
from heatc.capture.aten_index import taken
from heatc.dialects import nn
from heatc.errors import HeatcError

_FEW = 16
"""Places of a window that are slices of their own; more are gathered at once."""


@dataclass(frozen=True)
class Windows:
    """Along each axis of space: how many places a window has, how far they and windows lie apart."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]

    def counts(self, space: Sequence[int]) -> list[int]:
        """How many windows fit into a padded space."""
        parts = zip(space, self.kernel, self.stride, self.dilation)
        return [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in parts]

    @property
    def are_side_by_side(self) -> bool:
        """Whether every element is in one window at most, and windows have no gaps inside."""
        return self.kernel == self.stride and set(self.dilation) == {1}


@converter("conv1d.default", "conv2d.default", "conv3d.default")
@converter("conv1d.padding", "conv2d.padding", "conv3d.padding")
@converter("convolution.default")
def convert_convolution(call: Call) -> SSAValue:
    value, weight, bias = call.value("input"), call.value("weight"), call.optional("bias")
    rank = len(nn.shape_of(weight)) - 2
    if call.flag("transposed"):
        raise Unsupported("a transposed convolution")
    is_batched = len(nn.shape_of(value)) == rank + 2
    if not is_batched:
        value = call.reshape(value, [1, *nn.shape_of(value)])
    kernel = nn.shape_of(weight)[2:]
    windows = Windows(kernel, _each(call, "stride", rank, 1), _each(call, "dilation", rank, 1))
    value = _padded(call, value, _padding(call, windows))
    groups = call.integer("groups", 1)
    if groups == 1:
        found = _linear(call, value, weight, bias, windows)
    else:
        found = _grouped(call, value, weight, bias, windows, groups)
    # (B, windows, O) -> (B, O, ...)
    outputs = nn.shape_of(weight)[0]
    space = windows.counts(nn.shape_of(value)[2:])
    found = call.permute(found, [0, 2, 1])
    return call.reshape(
        found, [nn.shape_of(value)[0], outputs, *space] if is_batched else call.out.shape
    )


def _each(call: Call, name: str, rank: int, default: int) -> tuple[int, ...]:
    """One number for each axis of space."""
    numbers = call.integers(name) if call.has(name) else []
    numbers = numbers or [default]
    return tuple(numbers * rank if len(numbers) == 1 else numbers)


def _padding(call: Call, windows: Windows) -> list[tuple[int, int]]:
    """How many zeros come before and after along each axis of space."""
    rank = len(windows.kernel)
    if not isinstance(call.arg("padding"), str):
        return [(n, n) for n in _each(call, "padding", rank, 0)]
    if call.arg("padding") == "valid":
        return [(0, 0)] * rank
    total = [d * (k - 1) for k, d in zip(windows.kernel, windows.dilation)]
    return [(n // 2, n - n // 2) for n in total]


def _padded(
    call: Call, value: SSAValue, padding: Sequence[tuple[int, int]], number: float = 0
) -> SSAValue:
    first = len(nn.shape_of(value)) - len(padding)
    for axis, (before, after) in enumerate(padding, first):
        value = call.padded(value, axis, before, after, number)
    return value


def _linear(
    call: Call, value: SSAValue, weight: SSAValue, bias: SSAValue | None, windows: Windows
) -> SSAValue:
    """(B, C, ...) -> (B, windows, O)."""
    shape = nn.shape_of(weight)
    if windows.are_side_by_side:
        # The elements of a window in the order of the weight's: channels first.
        tokens = _side_by_side(call, value, windows)
        matrix = call.reshape(weight, [shape[0], math.prod(shape[1:])])
    else:
        tokens = _gathered(call, value, windows)
        tokens = call.reshape(tokens, [*nn.shape_of(tokens)[:2], math.prod(shape[1:])])
        last = call.permute(weight, [0, *range(2, len(shape)), 1])
        matrix = call.reshape(last, [shape[0], math.prod(shape[1:])])
    out = TensorType(nn.element_of(value), [*nn.shape_of(tokens)[:-1], shape[0]])
    return call.add(nn.LinearOp(tokens, matrix, bias, out))


def _side_by_side(call: Call, value: SSAValue, windows: Windows) -> SSAValue:
    """(B, C, ...) -> (B, windows, C * places)."""
    batch, channels, *space = nn.shape_of(value)
    counts, kernel = windows.counts(space), windows.kernel
    for axis, (count, places) in enumerate(zip(counts, kernel), 2):
        value = call.cut(value, axis, 0, count * places)
    split = [extent for pair in zip(counts, kernel) for extent in pair]
    value = call.reshape(value, [batch, channels, *split])
    rank = len(kernel)
    order = [0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)]
    value = call.permute(value, order)
    return call.reshape(value, [batch, math.prod(counts), channels * math.prod(kernel)])


def _gathered(call: Call, value: SSAValue, windows: Windows) -> SSAValue:
    """(B, C, ...) -> (B, windows, places, C)."""
    batch, channels, *space = nn.shape_of(value)
    rank, counts = len(space), windows.counts(space)
    tokens = call.permute(value, [0, *range(2, 2 + rank), 1])
    if math.prod(windows.kernel) > _FEW:
        indices = [_places(call, windows, counts, axis) for axis in range(rank)]
        tokens = taken(call, tokens, range(1, 1 + rank), indices)
        return call.reshape(tokens, [batch, math.prod(counts), math.prod(windows.kernel), channels])
    parts = [
        call.reshape(part, [batch, math.prod(counts), 1, channels])
        for part in _taps(call, tokens, windows, range(1, 1 + rank))
    ]
    return call.concat(parts, 2)


def _places(call: Call, windows: Windows, counts: Sequence[int], axis: int) -> SSAValue:
    """Where the places of the windows lie along an axis, as an index of all axes of both."""
    rank = len(counts)
    first = call.iota(counts[axis], 0, windows.stride[axis])
    inner = call.iota(windows.kernel[axis], 0, windows.dilation[axis])
    shape = [1] * (2 * rank)
    outer_shape = [counts[axis] if a == axis else n for a, n in enumerate(shape)]
    inner_shape = [windows.kernel[axis] if a == axis + rank else n for a, n in enumerate(shape)]
    first, inner = call.reshape(first, outer_shape), call.reshape(inner, inner_shape)
    return call.add(nn.AddOp(first, inner))


def _taps(call: Call, value: SSAValue, windows: Windows, axes: Sequence[int]) -> list[SSAValue]:
    """For each place of a window, what all windows have there."""
    counts = windows.counts([nn.shape_of(value)[axis] for axis in axes])
    found: list[SSAValue] = []
    for place in product(*map(range, windows.kernel)):
        part = value
        for axis, at, count, stride, step in zip(
            axes, place, counts, windows.stride, windows.dilation
        ):
            part = call.cut(part, axis, at * step, count, stride)
        found.append(part)
    return found


def _grouped(
    call: Call,
    value: SSAValue,
    weight: SSAValue,
    bias: SSAValue | None,
    windows: Windows,
    groups: int,
) -> SSAValue:
    """Every group of channels by itself, (B, C, ...) -> (B, windows, O)."""
    tokens = _gathered(call, value, windows)
    batch, count, places, channels = nn.shape_of(tokens)
    outputs = nn.shape_of(weight)[0]
    width = channels // groups
    tokens = call.reshape(tokens, [batch * count, places, groups, width])
    tokens = call.permute(tokens, [2, 0, 1, 3])
    tokens = call.reshape(tokens, [groups, batch * count, places * width])
    kernel = call.reshape(weight, [groups, outputs // groups, width, places])
    kernel = call.permute(kernel, [0, 3, 2, 1])
    kernel = call.reshape(kernel, [groups, places * width, outputs // groups])
    type_ = TensorType(nn.element_of(value), [groups, batch * count, outputs // groups])
    found = call.add(nn.MatmulOp(tokens, kernel, type_))
    found = call.reshape(call.permute(found, [1, 0, 2]), [batch, count, outputs])
    return found if bias is None else call.add(nn.AddOp(found, bias))


# Pooling.


@converter("max_pool1d.default", "max_pool2d.default", "max_pool2d_with_indices.default")
def convert_max_pool(call: Call) -> SSAValue:
    windows, value = _pooled(call, -math.inf)
    axes = range(len(nn.shape_of(value)) - len(windows.kernel), len(nn.shape_of(value)))
    first, *rest = _taps(call, value, windows, axes)
    for tap in rest:
        first = call.add(nn.MaximumOp(first, tap))
    return call.reshape(first, call.out.shape)


@converter("avg_pool1d.default", "avg_pool2d.default")
def convert_average_pool(call: Call) -> SSAValue:
    if call.has("divisor_override") or (
        any(call.integers("padding") if call.has("padding") else [])
        and not call.flag("count_include_pad", True)
    ):
        raise Unsupported("an average over as many elements as lie inside")
    windows, value = _pooled(call, 0)
    axes = range(len(nn.shape_of(value)) - len(windows.kernel), len(nn.shape_of(value)))
    first, *rest = _taps(call, value, windows, axes)
    for tap in rest:
        first = call.add(nn.AddOp(first, tap))
    return call.reshape(call.scaled(first, 1 / math.prod(windows.kernel)), call.out.shape)


def _pooled(call: Call, number: float) -> tuple[Windows, SSAValue]:
    """The windows of a pooling, and its padded operand."""
    rank = 1 if "1d" in call.call.target else 2
    if call.flag("ceil_mode"):
        raise Unsupported("pooling of windows that are cut off (ceil_mode)")
    kernel = _each(call, "kernel_size", rank, 1)
    stride = (
        _each(call, "stride", rank, 1) if call.has("stride") and call.integers("stride") else kernel
    )
    padding = [(n, n) for n in _each(call, "padding", rank, 0)]
    value = _padded(call, call.value("self"), padding, number)
    return Windows(kernel, stride, _each(call, "dilation", rank, 1)), value


@converter("adaptive_avg_pool1d.default", "adaptive_avg_pool2d.default")
@converter("_adaptive_avg_pool2d.default")
def convert_adaptive_pool(call: Call) -> SSAValue:
    """Windows side by side, each of the same extent."""
    value = call.value("self")
    wanted = call.integers("output_size")
    lead = nn.shape_of(value)[: -len(wanted)]
    space = nn.shape_of(value)[-len(wanted) :]
    if any(extent % count for extent, count in zip(space, wanted)):
        raise Unsupported(f"adaptive pooling of {space} to {wanted}, windows of different extents")
    split = [n for extent, count in zip(space, wanted) for n in (count, extent // count)]
    axes = [len(lead) + 1 + 2 * i for i in range(len(wanted))]
    rows = call.reshape(value, [*lead, *split])
    return call.reshape(call.reduce(rows, "mean", axes), call.out.shape)


@converter("unfold.default")
def convert_unfold(call: Call) -> SSAValue:
    """Windows of one axis, with the places of a window as the last axis."""
    value = call.value("self")
    rank = len(nn.shape_of(value))
    axis = call.axis("dimension", rank)
    size, step = call.integer("size"), call.integer("step")
    count = (nn.shape_of(value)[axis] - size) // step + 1
    if count < 1:
        raise HeatcError(f"{call} has no window")
    first = call.reshape(call.iota(count, 0, step), [count, 1])
    places = call.add(nn.AddOp(first, call.iota(size)))
    found = taken(call, value, [axis], [places])
    order = [a for a in range(rank + 1) if a != axis + 1]
    return call.permute(found, [*order, axis + 1])
