"""Ops that create tensors from numbers."""

from __future__ import annotations

from xdsl.dialects.builtin import TensorType, i64
from xdsl.ir import SSAValue

from heatc.capture.aten import Call, Unsupported, converter
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


@converter("arange.default", "arange.start", "arange.start_step")
def convert_arange(call: Call) -> SSAValue:
    start, step = call.number("start", 0), call.number("step", 1)
    if start != int(start) or step != int(step):
        raise Unsupported(f"a range from {start} by {step}, only integers are supported")
    shape = call.out_type.get_shape()
    type_ = TensorType(i64, shape)
    return call.cast(call.add(nn.IotaOp(int(start), int(step), type_)), call.out_element)
