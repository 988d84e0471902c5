"""Elementwise ops, comparisons, choices, softmax and activations."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import TensorType, f32, i1, i64
from xdsl.ir import Attribute, SSAValue

from heatc.capture.aten import Call, Unsupported, converter, promoted
from heatc.capture.graph import Ref
from heatc.dialects import nn


def _binary(call: Call, op: type[nn.BinaryOp], *, scale: str | None = None) -> SSAValue:
    """A broadcasting op in its result's element type; `scale` multiplies the second operand."""
    element = call.out_element
    lhs, rhs = call.operand("self", element), call.operand("other", element)
    if scale is not None:
        rhs = _times(call, rhs, call.number(scale, 1))
    return call.add(op(lhs, rhs))


def _times(call: Call, value: SSAValue, factor: float) -> SSAValue:
    """A value `factor` times; of booleans, which have no other factors, all or nothing."""
    if factor == 1:
        return value
    element = nn.element_of(value)
    op = nn.AndOp if element == i1 else nn.MulOp
    return call.add(op(value, call.full(factor, element)))


@converter("add.Tensor", "add.Scalar")
def convert_add(call: Call) -> SSAValue:
    return _binary(call, nn.OrOp if call.out_element == i1 else nn.AddOp, scale="alpha")


@converter("sub.Tensor", "sub.Scalar")
def convert_sub(call: Call) -> SSAValue:
    return _binary(call, nn.SubOp, scale="alpha")


@converter("rsub.Tensor", "rsub.Scalar")
def convert_rsub(call: Call) -> SSAValue:
    element = call.out_element
    subtrahend = _times(call, call.operand("self", element), call.number("alpha", 1))
    return call.add(nn.SubOp(call.operand("other", element), subtrahend))


@converter("mul.Tensor", "mul.Scalar")
def convert_mul(call: Call) -> SSAValue:
    return _binary(call, nn.AndOp if call.out_element == i1 else nn.MulOp)


@converter("div.Tensor", "div.Scalar", "true_divide.Tensor")
def convert_div(call: Call) -> SSAValue:
    return _binary(call, nn.DivOp)


@converter("maximum.default", "max.other", "fmax.default")
def convert_maximum(call: Call) -> SSAValue:
    return _binary(call, nn.OrOp if call.out_element == i1 else nn.MaximumOp)


@converter("minimum.default", "min.other", "fmin.default")
def convert_minimum(call: Call) -> SSAValue:
    return _binary(call, nn.AndOp if call.out_element == i1 else nn.MinimumOp)


@converter("floor_divide.default", "floor_divide.Scalar")
def convert_floor_divide(call: Call) -> SSAValue:
    return _binary(call, nn.FloorDivOp)


@converter("div.Tensor_mode", "div.Scalar_mode")
def convert_rounded_quotient(call: Call) -> SSAValue:
    mode = call.arg("rounding_mode")
    if mode is None:
        return _binary(call, nn.DivOp)
    if mode == "floor":
        return _binary(call, nn.FloorDivOp)
    if call.out_element == f32:
        return call.map(_binary(call, nn.DivOp), "trunc")
    return _signed(call, nn.FloorDivOp, ("self", "other"))


@converter("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def convert_remainder(call: Call) -> SSAValue:
    return _binary(call, nn.RemainderOp)


@converter("fmod.Tensor", "fmod.Scalar")
def convert_fmod(call: Call) -> SSAValue:
    """What cutting off leaves, with the sign of the dividend."""
    return _signed(call, nn.RemainderOp, ("self",))


def _signed(call: Call, op: type[nn.BinaryOp], signs: Sequence[str]) -> SSAValue:
    """An op on absolute values, with the product of the signs of the named operands."""
    element = call.out_element
    sizes = [call.operand(name, element) for name in ("self", "other")]
    if not nn.is_unsigned(element):
        sizes = [call.map(value, "abs") for value in sizes]
    result = call.add(op(sizes[0], sizes[1]))
    if nn.is_unsigned(element):
        return result
    for name in signs:
        result = call.add(nn.MulOp(result, call.map(call.operand(name, element), "sign")))
    return result


@converter("neg.default")
def convert_neg(call: Call) -> SSAValue:
    value = call.value("self")
    return call.add(nn.MulOp(value, call.full(-1, nn.element_of(value))))


@converter("reciprocal.default")
def convert_reciprocal(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    return call.add(nn.DivOp(call.full(1, nn.element_of(value)), value))


@converter("square.default")
def convert_square(call: Call) -> SSAValue:
    value = call.value("self")
    return call.add(nn.MulOp(value, value))


_PREDICATES = {"eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge"}


@converter(*(f"{name}.{kind}" for name in _PREDICATES for kind in ("Tensor", "Scalar")))
def convert_compare(call: Call) -> SSAValue:
    element = _common_element(call)
    lhs, rhs = call.operand("self", element), call.operand("other", element)
    predicate = call.call.target.split(".")[1]
    return call.add(nn.CompareOp(lhs, rhs, predicate, call.out_type))


def _common_element(call: Call) -> Attribute:
    """The element type in which torch compares `self` and `other`."""
    element = nn.element_of(call.value("self"))
    if isinstance(call.arg("other"), Ref):
        return promoted(element, nn.element_of(call.value("other")))
    number = call.number("other")
    if isinstance(number, bool):
        return element
    if isinstance(number, float):
        return promoted(element, f32)
    # An integer takes the type of a tensor of integers, and wraps around in it.
    return i64 if element == i1 else element


@converter("__and__.Tensor", "__and__.Scalar", "bitwise_and.Tensor", "bitwise_and.Scalar")
def convert_and(call: Call) -> SSAValue:
    return _binary(call, nn.AndOp)


@converter("__or__.Tensor", "__or__.Scalar", "bitwise_or.Tensor", "bitwise_or.Scalar")
def convert_or(call: Call) -> SSAValue:
    return _binary(call, nn.OrOp)


@converter("__xor__.Tensor", "__xor__.Scalar", "bitwise_xor.Tensor", "bitwise_xor.Scalar")
def convert_xor(call: Call) -> SSAValue:
    """Of integers, what either has and not both."""
    element = call.out_element
    lhs, rhs = call.operand("self", element), call.operand("other", element)
    if element == i1:
        return call.compare(lhs, rhs, "ne")
    return call.add(nn.SubOp(call.add(nn.OrOp(lhs, rhs)), call.add(nn.AndOp(lhs, rhs))))


@converter("logical_and.default")
def convert_logical_and(call: Call) -> SSAValue:
    return call.add(nn.AndOp(call.operand("self", i1), call.operand("other", i1)))


@converter("logical_or.default")
def convert_logical_or(call: Call) -> SSAValue:
    return call.add(nn.OrOp(call.operand("self", i1), call.operand("other", i1)))


@converter("logical_xor.default")
def convert_logical_xor(call: Call) -> SSAValue:
    lhs, rhs = call.operand("self", i1), call.operand("other", i1)
    return call.add(nn.CompareOp(lhs, rhs, "ne", call.out_type))


@converter("logical_not.default")
def convert_logical_not(call: Call) -> SSAValue:
    return call.add(nn.NotOp(call.operand("self", i1)))


@converter("bitwise_not.default")
def convert_bitwise_not(call: Call) -> SSAValue:
    return call.add(nn.NotOp(call.value("self")))


@converter("where.self", "where.ScalarOther", "where.ScalarSelf", "where.Scalar")
def convert_where(call: Call) -> SSAValue:
    element = call.out_element
    condition = call.cast(call.value("condition"), i1)
    lhs, rhs = call.operand("self", element), call.operand("other", element)
    return call.add(nn.WhereOp(condition, lhs, rhs, call.out_type))


@converter("masked_fill.Scalar", "masked_fill.Tensor")
def convert_masked_fill(call: Call) -> SSAValue:
    element = call.out_element
    mask = call.cast(call.value("mask"), i1)
    value = call.operand("value", element)
    return call.add(nn.WhereOp(mask, value, call.operand("self", element), call.out_type))


@converter("relu.default")
def convert_relu(call: Call) -> SSAValue:
    return call.add(nn.ReluOp(call.value("self")))


@converter("tanh.default")
def convert_tanh(call: Call) -> SSAValue:
    return call.add(nn.TanhOp(call.operand("self", call.out_element)))


@converter("gelu.default")
def convert_gelu(call: Call) -> SSAValue:
    return call.add(nn.GeluOp(call.value("self"), str(call.arg("approximate", "none"))))


@converter("softmax.int", "_softmax.default", "special_softmax.int", "_safe_softmax.default")
def convert_softmax(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    dim, safe = call.axis("dim", len(call.out.shape)), "_safe" in call.call.target
    return call.add(nn.SoftmaxOp(value, dim, safe=safe))


@converter("dropout.default", "native_dropout.default", "feature_dropout.default")
def convert_dropout(call: Call) -> SSAValue:
    if call.flag("train", True) and call.number("p", 0.5) != 0:
        raise Unsupported("dropout in training mode, call model.eval() before exporting")
    return call.value("input")


@converter(
    "_to_copy.default",
    "to.device",
    "to.dtype",
    "to.dtype_layout",
    "to.other",
    "to.prim_Device",
    "to.prim_dtype",
    "to.prim_other",
    "type_as.default",
    "alias.default",
    "clone.default",
    "contiguous.default",
    "detach.default",
    "detach_.default",
    "lift.default",
    "lift_fresh.default",
    "lift_fresh_copy.default",
)
def convert_cast(call: Call) -> SSAValue:
    element = call.out_type.get_element_type()
    return call.cast(call.value("self"), element)


@converter(
    "_assert_tensor_metadata.default",
    "_assert_async.msg",
    "_assert_async.default",
    "_assert_scalar.default",
    "sym_constrain_range_for_size.default",
)
def drop_assertion(call: Call) -> None:
    """torch.export's own assertions hold by construction: shapes and dtypes are static."""


@converter("tril.default", "triu.default")
def convert_triangle(call: Call) -> SSAValue:
    value = call.value("self")
    rows, columns = nn.shape_of(value)[-2:]
    diagonal = call.integer("diagonal", 0)
    row = call.add(nn.IotaOp(diagonal, 1, TensorType(i64, [rows])))
    column = call.add(nn.IotaOp(0, 1, TensorType(i64, [columns])))
    predicate = "ge" if "tril" in call.call.target else "le"
    mask_type = TensorType(i1, [rows, columns])
    row = call.reshape(row, [rows, 1])
    mask = call.add(nn.CompareOp(row, column, predicate, mask_type))
    return call.add(nn.WhereOp(mask, value, call.full(0, nn.element_of(value)), call.out_type))
