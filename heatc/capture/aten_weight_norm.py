"""Weights that are divided by a norm of theirs."""

from __future__ import annotations

from xdsl.ir import SSAValue

from heatc.capture.aten import Call, converter
from heatc.capture.aten_reduce import vector_norm
from heatc.dialects import nn


@converter("_weight_norm.default", "_weight_norm_interface.default")
def convert_weight_norm(call: Call) -> SSAValue:
    """`v g / |v|`, the norm over all axes but one; over all where the axis is -1."""
    direction, size = call.value("v"), call.value("g")
    rank = len(nn.shape_of(direction))
    kept = call.integer("dim", 0)
    axes = [axis for axis in range(rank) if kept == -1 or axis != call.wrap(kept, rank)]
    norm = vector_norm(call, direction, 2, axes)
    shape = [1 if axis in axes else n for axis, n in enumerate(nn.shape_of(direction))]
    factor = call.add(nn.DivOp(call.reshape(size, shape), call.reshape(norm, shape)))
    return call.add(nn.MulOp(direction, factor))
