"""Elementwise ops, comparisons, choices, softmax, norms and activations."""

from __future__ import annotations

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


@converter("pow.Tensor_Scalar")
def convert_pow(call: Call) -> SSAValue:
    exponent = call.number("exponent")
    value = call.operand("self", call.out_element)
    constant = constant_of(value)
    if constant is not None:
        return _constant(call, constant, float(exponent))
    if exponent not in (1, 2, 3, 4):
        raise Unsupported(f"exponent {exponent}, supported are 1, 2, 3, 4 or a constant base")
    result = value
    for _ in range(int(exponent) - 1):
        result = call.add(nn.MulOp(result, value))
    return result


@converter("sqrt.default")
def convert_sqrt(call: Call) -> SSAValue:
    return _constant_power(call, 0.5)


@converter("rsqrt.default")
def convert_rsqrt(call: Call) -> SSAValue:
    return _constant_power(call, -0.5)


def _constant_power(call: Call, exponent: float) -> SSAValue:
    constant = constant_of(call.operand("self", call.out_element))
    if constant is None:
        raise Unsupported("only the root of a constant is supported")
    return _constant(call, constant, exponent)


def _constant(call: Call, base: float, exponent: float) -> SSAValue:
    if base <= 0:
        raise Unsupported(f"{base} to the power {exponent}")
    return call.full(base**exponent, call.out_element, call.out.shape)


def constant_of(value: SSAValue) -> float | None:
    """The number that a value is everywhere, if it is known."""
    owner = value.owner
    if isinstance(owner, nn.CastOp) and nn.element_of(owner.x) != i1:
        return constant_of(owner.x)
    return owner.value.value.data if isinstance(owner, nn.FullOp) else None


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


@converter("layer_norm.default", "native_layer_norm.default")
def convert_layer_norm(call: Call) -> SSAValue:
    value = call.value("input")
    extents = call.integers("normalized_shape")
    if extents != list(nn.shape_of(value)[-1:]):
        raise Unsupported(f"normalized_shape {extents}, only the last axis is supported")
    element = nn.element_of(value)
    weight = call.optional("weight") or call.full(1.0, element, extents)
    bias = call.optional("bias") or call.full(0.0, element, extents)
    return call.add(nn.LayerNormOp(value, weight, bias, float(call.number("eps", 1e-5))))


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
