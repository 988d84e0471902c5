"""Functions of single elements, and activations that are made of them."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import f32, i1
from xdsl.ir import SSAValue

from heatc.capture.aten import Call, Unsupported, converter
from heatc.capture.constants import constant_of
from heatc.dialects import nn

_REAL = ("exp", "log", "sigmoid", "erf", "cos", "sin")
"""Functions whose result is real, whatever the operand is."""

_WHOLE = ("floor", "ceil", "trunc", "round")
"""Functions that leave integers as they are."""


@converter(*(f"{name}.default" for name in _REAL), "special_erf.default", "special_expit.default")
def convert_real(call: Call) -> SSAValue:
    name = call.call.target.split(".")[1].removeprefix("special_").replace("expit", "sigmoid")
    return call.map(call.operand("self", call.out_element), name)


@converter("abs.default", "absolute.default", "sign.default", "sgn.default")
def convert_magnitude(call: Call) -> SSAValue:
    value = call.value("self")
    element = nn.element_of(value)
    if element == i1:
        return value
    if "aten.abs" in call.call.target:
        return call.map(value, "abs")
    if element != f32:
        return call.map(value, "sign")
    # PyTorch's sign of NaN is 0, NumPy's is NaN.
    zero = call.full(0, element)
    above, below = (call.cast(call.compare(value, zero, p), element) for p in ("gt", "lt"))
    return call.add(nn.SubOp(above, below))


@converter(*(f"{name}.default" for name in _WHOLE), "fix.default")
def convert_whole(call: Call) -> SSAValue:
    value = call.value("self")
    name = call.call.target.split(".")[1].replace("fix", "trunc")
    return call.map(value, name) if nn.element_of(value) == f32 else value


@converter("sqrt.default", "rsqrt.default")
def convert_root(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    inverse = ".rsqrt" in call.call.target
    constant = constant_of(value)
    if constant is None or constant <= 0:
        return call.map(value, "rsqrt" if inverse else "sqrt")
    return call.full(constant ** (-0.5 if inverse else 0.5), call.out_element, call.out.shape)


@converter("pow.Tensor_Scalar")
def convert_power(call: Call) -> SSAValue:
    """Small whole powers are products, roots are roots."""
    exponent = call.number("exponent")
    value = call.operand("self", call.out_element)
    constant = constant_of(value)
    if constant is not None and constant > 0 and call.out_element == f32:
        # NumPy's power overflows to infinity, Python's raises.
        number = float(np.float64(constant) ** exponent)
        return call.full(number, call.out_element, call.out.shape)
    if exponent in (1, 2, 3, 4):
        result = value
        for _ in range(int(exponent) - 1):
            result = call.add(nn.MulOp(result, value))
        return result
    if exponent in (0.5, -0.5):
        return call.map(value, "sqrt" if exponent > 0 else "rsqrt")
    if exponent == -1:
        return call.add(nn.DivOp(call.full(1, call.out_element), value))
    return call.add(nn.PowOp(value, call.full(exponent, call.out_element)))


@converter("pow.Scalar", "pow.Tensor_Tensor")
def convert_powers(call: Call) -> SSAValue:
    element = call.out_element
    return call.add(nn.PowOp(call.operand("self", element), call.operand("exponent", element)))


@converter("exp2.default", "special_exp2.default")
def convert_exp2(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    return call.add(nn.PowOp(call.full(2, call.out_element), value))


_LOGARITHMS = {"log2": 1.4426950408889634, "log10": 0.4342944819032518, "log1p": 1.0}
"""What the natural logarithm is multiplied by."""


@converter(*(f"{name}.default" for name in _LOGARITHMS))
def convert_logarithm(call: Call) -> SSAValue:
    value = call.operand("self", call.out_element)
    name = call.call.target.split(".")[1]
    shifted = call.shifted(value, 1) if name == "log1p" else value
    return call.scaled(call.map(shifted, "log"), _LOGARITHMS[name])


@converter("expm1.default")
def convert_expm1(call: Call) -> SSAValue:
    return call.shifted(call.map(call.operand("self", call.out_element), "exp"), -1)


@converter("silu.default")
def convert_silu(call: Call) -> SSAValue:
    return call.map(call.value("self"), "silu")


@converter("softplus.default")
def convert_softplus(call: Call) -> SSAValue:
    """`log(1 + exp(beta x)) / beta`, and `x` itself above the threshold."""
    value = call.value("self")
    beta, threshold = call.number("beta", 1), call.number("threshold", 20)
    scaled = call.scaled(value, beta)
    smooth = call.map(call.shifted(call.map(scaled, "exp"), 1), "log")
    large = call.compare(scaled, call.full(threshold, nn.element_of(value)), "gt")
    return call.where(large, value, call.scaled(smooth, 1 / beta))


@converter("leaky_relu.default")
def convert_leaky_relu(call: Call) -> SSAValue:
    value = call.value("self")
    positive = call.compare(value, call.full(0, nn.element_of(value)), "gt")
    return call.where(positive, value, call.scaled(value, call.number("negative_slope", 0.01)))


@converter("elu.default")
def convert_elu(call: Call) -> SSAValue:
    value = call.value("self")
    alpha, scale, inner = (call.number(n, 1) for n in ("alpha", "scale", "input_scale"))
    below = call.shifted(call.map(call.scaled(value, inner), "exp"), -1)
    positive = call.compare(value, call.full(0, nn.element_of(value)), "gt")
    return call.where(positive, call.scaled(value, scale), call.scaled(below, alpha * scale))


@converter("clamp.default", "clamp_min.default", "clamp_max.default", "hardtanh.default")
def convert_clamp(call: Call) -> SSAValue:
    return _clamped(call, call.operand("self", call.out_element))


@converter("clamp.Tensor", "clamp_min.Tensor", "clamp_max.Tensor")
def convert_clamp_tensor(call: Call) -> SSAValue:
    return _clamped(call, call.operand("self", call.out_element))


def _clamped(call: Call, value: SSAValue) -> SSAValue:
    element, is_hard = nn.element_of(value), ".hardtanh" in call.call.target
    for names, op, usual in (
        (("min", "min_val"), nn.MaximumOp, -1),
        (("max", "max_val"), nn.MinimumOp, 1),
    ):
        name = next((n for n in names if call.has(n)), None)
        if name is not None:
            value = call.add(op(value, call.operand(name, element)))
        elif is_hard:
            value = call.add(op(value, call.full(usual, element)))
    return value


@converter("hardsigmoid.default", "hardswish.default")
def convert_hard_gate(call: Call) -> SSAValue:
    """`min(max(x + 3, 0), 6) / 6`, and `x` times that."""
    value = call.value("self")
    element = nn.element_of(value)
    gate = call.add(nn.MaximumOp(call.shifted(value, 3), call.full(0, element)))
    gate = call.add(nn.MinimumOp(gate, call.full(6, element)))
    if "hardswish" in call.call.target:
        gate = call.add(nn.MulOp(value, gate))
    return call.scaled(gate, 1 / 6)


@converter("mish.default")
def convert_mish(call: Call) -> SSAValue:
    """`x tanh(log(1 + exp(x)))`."""
    value = call.value("self")
    # Beyond 20, tanh is 1 and exp would overflow.
    capped = call.add(nn.MinimumOp(value, call.full(20, nn.element_of(value))))
    smooth = call.map(call.shifted(call.map(capped, "exp"), 1), "log")
    return call.add(nn.MulOp(value, call.add(nn.TanhOp(smooth))))


@converter("glu.default")
def convert_glu(call: Call) -> SSAValue:
    value = call.value("self")
    axis = call.axis("dim", len(nn.shape_of(value)), -1)
    half = nn.shape_of(value)[axis] // 2
    gate = call.map(call.cut(value, axis, half, half), "sigmoid")
    return call.add(nn.MulOp(call.cut(value, axis, 0, half), gate))


@converter("isnan.default", "isinf.default", "isfinite.default")
def convert_is_special(call: Call) -> SSAValue:
    value = call.value("self")
    if nn.element_of(value) != f32:
        number = 1 if "isfinite" in call.call.target else 0
        return call.full(number, i1, call.out.shape)
    if "isnan" in call.call.target:
        return call.compare(value, value, "ne")
    infinite = call.full(float("inf"), f32)
    predicate = "eq" if "isinf" in call.call.target else "lt"
    return call.compare(call.map(value, "abs"), infinite, predicate)


@converter("rand.default", "randn.default", "rand_like.default", "randn_like.default")
@converter("bernoulli.default", "randint.default", "bernoulli.p", "normal_functional.default")
def refuse_random(call: Call) -> SSAValue:
    raise Unsupported("random numbers: call model.eval() before exporting")
