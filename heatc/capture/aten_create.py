"""Ops that create tensors from numbers."""

from __future__ import annotations

from xdsl.dialects.builtin import f64, i64
from xdsl.ir import SSAValue

from heatc.capture.aten import Call, converter
from heatc.dialects import nn


def _fill(call: Call, number: float) -> SSAValue:
    return call.full(number, call.out_type.get_element_type(), call.out.shape)


@converter("zeros.default", "zeros_like.default", "new_zeros.default")
def convert_zeros(call: Call) -> SSAValue:
    return _fill(call, 0)


@converter("ones.default", "ones_like.default", "new_ones.default")
def convert_ones(call: Call) -> SSAValue:
    return _fill(call, 1)


@converter("full.default", "full_like.default", "new_full.default")
def convert_full(call: Call) -> SSAValue:
    return _fill(call, call.number("fill_value"))


@converter("fill.Scalar")
def convert_fill(call: Call) -> SSAValue:
    return _fill(call, call.number("value"))


@converter("scalar_tensor.default")
def convert_scalar_tensor(call: Call) -> SSAValue:
    return _fill(call, call.number("s"))


@converter(
    "empty.memory_format", "empty_like.default", "new_empty.default", "new_empty_strided.default"
)
@converter("empty_strided.default", "empty_permuted.default")
def convert_empty(call: Call) -> SSAValue:
    """What is written before it is read, as calls in place were; zeros are as good as anything."""
    return _fill(call, 0)


@converter("fill.Tensor")
def convert_fill_tensor(call: Call) -> SSAValue:
    return call.expand(call.cast(call.value("value"), call.out_element), call.out.shape)


@converter("arange.default", "arange.start", "arange.start_step")
def convert_arange(call: Call) -> SSAValue:
    start, step = call.number("start", 0), call.number("step", 1)
    count = call.out_type.get_shape()[0]
    if start == int(start) and step == int(step):
        return call.cast(call.iota(count, int(start), int(step)), call.out_element)
    # As PyTorch does: in float64, rounded once.
    wide = call.scaled(call.cast(call.iota(count), f64), step)
    return call.cast(call.shifted(wide, start), call.out_element)


@converter("linspace.default")
def convert_linspace(call: Call) -> SSAValue:
    start, end = call.number("start"), call.number("end")
    count = call.integer("steps")
    step = (end - start) / max(count - 1, 1)
    wide = call.scaled(call.cast(call.iota(count), f64), step)
    return call.cast(call.shifted(wide, start), call.out_element)


@converter("one_hot.default")
def convert_one_hot(call: Call) -> SSAValue:
    """Compared with every class; the number of classes is that of the graph."""
    value = call.value("self")
    classes = call.iota(call.out.shape[-1])
    each = call.reshape(call.cast(value, i64), [*nn.shape_of(value), 1])
    return call.cast(call.compare(each, classes, "eq"), call.out_element)
