"""Reductions, extremes and their places, running sums, norms of vectors, variances."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import f32, i1, i64
from xdsl.ir import SSAValue

from heatc.capture.aten import ELEMENTS, Call, converter
from heatc.dialects import nn
from heatc.errors import HeatcError


def axes_of(call: Call, rank: int) -> list[int]:
    """The axes that a call reduces; no axes, and an empty list, are all of them."""
    if not call.has("dim"):
        return list(range(rank))
    axes = [call.wrap(axis, rank) for axis in call.integers("dim")] if rank else []
    if axes or not rank:
        return axes
    # What an empty list means differs from op to op.
    is_untouched = call.out.shape == nn.shape_of(call.value("self"))
    return [] if is_untouched else list(range(rank))


def _reduced(call: Call, value: SSAValue, kind: str) -> SSAValue:
    axes = axes_of(call, len(nn.shape_of(value)))
    return call.reshape(call.reduce(value, kind, axes), call.out.shape)


@converter("sum.default", "sum.dim_IntList")
@converter("mean.default", "mean.dim", "prod.default", "prod.dim_int")
def convert_sum(call: Call) -> SSAValue:
    return _reduced(call, call.operand("self", call.out_element), call.call.target.split(".")[1])


@converter("amax.default", "amin.default", "max.default", "min.default")
def convert_extreme(call: Call) -> SSAValue:
    kind = call.call.target.split(".")[1].removeprefix("a")
    return _reduced(call, call.value("self"), kind)


@converter("any.default", "any.dim", "any.dims", "all.default", "all.dim", "all.dims")
def convert_truth(call: Call) -> SSAValue:
    kind = call.call.target.split(".")[1]
    return call.cast(_reduced(call, call.operand("self", i1), kind), call.out_element)


@converter("max.dim", "min.dim")
def convert_extreme_and_place(call: Call) -> list[SSAValue]:
    value, kind = call.value("self"), call.call.target.split(".")[1]
    rank = len(nn.shape_of(value))
    shape = call.out.shape
    if not rank:
        return [value, call.full(0, i64)]
    axis = call.axis("dim", rank)
    found = call.reshape(call.reduce(value, kind, [axis]), shape)
    return [found, call.reshape(_place(call, value, axis, kind), shape)]


@converter("argmax.default", "argmin.default")
def convert_place(call: Call) -> SSAValue:
    value, kind = call.value("self"), call.call.target.split(".")[1].removeprefix("arg")
    shape = nn.shape_of(value)
    if not shape:
        return call.full(0, i64, call.out.shape)
    if not call.has("dim"):
        flat = call.reshape(value, [math.prod(shape)])
        return call.reshape(_place(call, flat, 0, kind), call.out.shape)
    found = _place(call, value, call.axis("dim", len(shape)), kind)
    return call.reshape(found, call.out.shape)


def _place(call: Call, value: SSAValue, axis: int, kind: str) -> SSAValue:
    """Where an extreme is, the first of equal ones."""
    if nn.element_of(value) in (i1, ELEMENTS["u8"]):
        value = call.cast(value, i64)
    if kind == "min":
        value = call.map(value, "neg")
    return call.add(nn.ArgmaxOp(value, axis))


@converter("cumsum.default")
def convert_cumsum(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    rank = len(nn.shape_of(value))
    return call.add(nn.CumsumOp(value, call.axis("dim", rank))) if rank else value


@converter("count_nonzero.default", "count_nonzero.dim_IntList")
def convert_count(call: Call) -> SSAValue:
    return _reduced(call, call.cast(call.operand("self", i1), i64), "sum")


@converter("linalg_vector_norm.default")
def convert_vector_norm(call: Call) -> SSAValue:
    return _norm(call, call.number("ord", 2))


@converter("norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype", "norm.Scalar")
def convert_norm(call: Call) -> SSAValue:
    return _norm(call, call.number("p") if call.has("p") else 2)


@converter("frobenius_norm.dim")
def convert_frobenius_norm(call: Call) -> SSAValue:
    return _norm(call, 2)


def _norm(call: Call, order: float) -> SSAValue:
    value = call.operand("self", call.out_element)
    axes = axes_of(call, len(nn.shape_of(value)))
    return call.reshape(vector_norm(call, value, order, axes), call.out.shape)


def vector_norm(call: Call, value: SSAValue, order: float, axes: Sequence[int]) -> SSAValue:
    """The norm of this order along axes, which the result lacks."""
    if order == 2:
        squares = call.add(nn.MulOp(value, value))
        return call.map(call.reduce(squares, "sum", axes), "sqrt")
    if order == 0:
        zero = call.full(0, nn.element_of(value))
        different = call.cast(call.compare(value, zero, "ne"), nn.element_of(value))
        return call.reduce(different, "sum", axes)
    size = call.map(value, "abs")
    if math.isinf(order):
        return call.reduce(size, "max" if order > 0 else "min", axes)
    if order == 1:
        return call.reduce(size, "sum", axes)
    element = nn.element_of(value)
    powers = call.add(nn.PowOp(size, call.full(order, element)))
    return call.add(nn.PowOp(call.reduce(powers, "sum", axes), call.full(1 / order, element)))


@converter("var.correction", "std.correction", "var.dim", "std.dim", "var.default", "std.default")
def convert_variance(call: Call) -> SSAValue:
    found, _ = _variance(call)
    found = call.map(found, "sqrt") if ".std" in call.call.target else found
    return call.reshape(found, call.out.shape)


@converter("var_mean.correction", "var_mean.dim", "var_mean.default")
def convert_variance_and_mean(call: Call) -> list[SSAValue]:
    return [call.reshape(part, call.out.shape) for part in _variance(call)]


def _variance(call: Call) -> tuple[SSAValue, SSAValue]:
    """The variance and the mean along axes, which keep the extent 1."""
    value = call.value("self")
    shape = nn.shape_of(value)
    axes = axes_of(call, len(shape))
    correction = call.number("correction") if call.has("correction") else 1
    if call.has("unbiased"):
        correction = int(call.flag("unbiased"))
    mean = call.reduce(value, "mean", axes, keep=True)
    centred = call.add(nn.SubOp(value, mean))
    squares = call.add(nn.MulOp(centred, centred))
    count = math.prod(shape[axis] for axis in axes)
    total = call.reduce(squares, "sum", axes, keep=True)
    divisor = call.full(max(0, count - correction), nn.element_of(value))
    return call.add(nn.DivOp(total, divisor)), mean


@converter("log_softmax.int", "_log_softmax.default", "special_log_softmax.int")
def convert_log_softmax(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    if not nn.shape_of(value):
        return call.full(0, call.out_element)
    axis = call.axis("dim", len(nn.shape_of(value)))
    peak = call.reduce(value, "max", [axis], keep=True)
    below = call.add(nn.SubOp(value, peak))
    total = call.reduce(call.map(below, "exp"), "sum", [axis], keep=True)
    return call.add(nn.SubOp(below, call.map(total, "log")))


@converter("logsumexp.default")
def convert_logsumexp(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    axes = axes_of(call, len(nn.shape_of(value)))
    peak = call.reduce(value, "max", axes, keep=True)
    # Where all is infinite, subtracting it would be NaN.
    finite = call.compare(call.map(peak, "abs"), call.full(math.inf, f32), "lt")
    peak = call.where(finite, peak, call.full(0, f32))
    total = call.reduce(call.map(call.add(nn.SubOp(value, peak)), "exp"), "sum", axes, keep=True)
    return call.reshape(call.add(nn.AddOp(call.map(total, "log"), peak)), call.out.shape)


@converter("bucketize.Tensor")
def convert_bucketize(call: Call) -> SSAValue:
    """How many boundaries lie below each element."""
    value, boundaries = call.value("self"), call.value("boundaries")
    if len(nn.shape_of(boundaries)) != 1:
        raise HeatcError(f"{call} has boundaries of shape {nn.shape_of(boundaries)}")
    predicate = "le" if call.flag("right") else "lt"
    each = call.reshape(value, [*nn.shape_of(value), 1])
    below = call.cast(call.compare(boundaries, each, predicate), i64)
    return call.cast(call.reduce(below, "sum", [len(nn.shape_of(value))]), call.out_element)
