"""Norms of activations."""

from __future__ import annotations

import math

from xdsl.ir import SSAValue

from heatc.capture.aten import Call, Unsupported, converter
from heatc.dialects import nn
from heatc.errors import HeatcError

_LEAST_STEP = 2.0**-23
"""The distance of float32 from 1 to the next number, which RMS norm adds where it is told no eps."""


@converter("layer_norm.default", "native_layer_norm.default")
def convert_layer_norm(call: Call) -> SSAValue:
    """Several last axes are one."""
    value = call.value("input")
    shape, element, extents = nn.shape_of(value), nn.element_of(value), _extents(call)
    weight = call.optional("weight") or call.full(1.0, element, extents)
    bias = call.optional("bias") or call.full(0.0, element, extents)
    rows, weight, bias = _last_axes_as_one(call, len(extents), value, weight, bias)
    eps = float(call.number("eps", 1e-5))
    return call.reshape(call.add(nn.LayerNormOp(rows, weight, bias, eps)), shape)


def _extents(call: Call) -> list[int]:
    """The axes that are normalised, which have to be the last ones."""
    extents, shape = call.integers("normalized_shape"), nn.shape_of(call.value("input"))
    if not extents or extents != list(shape[-len(extents) :]):
        raise HeatcError(f"{call} has normalized_shape {extents} for a tensor {shape}")
    return extents


def _last_axes_as_one(call: Call, count: int, *values: SSAValue) -> list[SSAValue]:
    shapes = [nn.shape_of(value) for value in values]
    return [
        call.reshape(value, [*shape[:-count], math.prod(shape[-count:])])
        for value, shape in zip(values, shapes)
    ]


@converter("rms_norm.default", "_fused_rms_norm.default")
def convert_rms_norm(call: Call) -> SSAValue:
    value = call.value("input")
    shape, extents = nn.shape_of(value), _extents(call)
    weight = call.optional("weight") or call.full(1.0, nn.element_of(value), extents)
    rows, weight = _last_axes_as_one(call, len(extents), value, weight)
    eps = call.number("eps") if call.has("eps") else _LEAST_STEP
    return call.reshape(call.add(nn.RmsNormOp(rows, weight, float(eps))), shape)


@converter("group_norm.default")
def convert_group_norm(call: Call) -> SSAValue:
    return _group_norm(call, call.integer("num_groups"))


@converter("native_group_norm.default")
def convert_native_group_norm(call: Call) -> SSAValue:
    return _group_norm(call, call.integer("group"))


def _group_norm(call: Call, groups: int) -> SSAValue:
    """A layer norm of every group of channels, then a scale and an offset for every channel."""
    value = call.value("input")
    shape, element = nn.shape_of(value), nn.element_of(value)
    count = math.prod(shape) // (shape[0] * groups)
    one, zero = (call.full(number, element, [count]) for number in (1, 0))
    rows = call.reshape(value, [shape[0], groups, count])
    eps = float(call.number("eps", 1e-5))
    normal = call.reshape(call.add(nn.LayerNormOp(rows, one, zero, eps)), shape)
    return _each_channel(call, normal, call.optional("weight"), call.optional("bias"))


def _each_channel(
    call: Call, value: SSAValue, scale: SSAValue | None, offset: SSAValue | None
) -> SSAValue:
    """`value` (B, C, ...) times `scale` (C) plus `offset` (C)."""
    shape = [-1] + [1] * (len(nn.shape_of(value)) - 2)
    shape[0] = nn.shape_of(value)[1]
    if scale is not None:
        value = call.add(nn.MulOp(value, call.reshape(scale, shape)))
    if offset is not None:
        value = call.add(nn.AddOp(value, call.reshape(offset, shape)))
    return value


@converter("batch_norm.default", "_native_batch_norm_legit_no_training.default")
def convert_batch_norm(call: Call) -> SSAValue:
    """In evaluation mode: a scale and an offset for every channel, of constants."""
    if call.flag("training"):
        raise Unsupported("batch norm in training mode, call model.eval() before exporting")
    mean, variance = call.value("running_mean"), call.value("running_var")
    scale = call.map(call.shifted(variance, float(call.number("eps", 1e-5))), "rsqrt")
    if (weight := call.optional("weight")) is not None:
        scale = call.add(nn.MulOp(scale, weight))
    centre = call.add(nn.MulOp(mean, scale))
    bias = call.optional("bias") or call.full(0, nn.element_of(centre), nn.shape_of(centre))
    offset = call.add(nn.SubOp(bias, centre))
    return _each_channel(call, call.value("input"), scale, offset)
