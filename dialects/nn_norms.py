"""Ops of the `nn` dialect that scale the elements of an axis together: softmax and norms."""

from __future__ import annotations

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, UnitAttr, f64, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.nn_base import (
    AnyTensor,
    NnOp,
    UnaryOp,
    Value,
    expect,
    expect_axes,
    shape_of,
)


@irdl_op_definition
class SoftmaxOp(UnaryOp):
    """
    `nn.softmax %x {dim = -1 : i64}`: nothing but -inf along the axis gives NaN, as in PyTorch.

    With `safe` it gives 0, as in PyTorch's `_safe_softmax`, which fused attention is made of.
    """

    name = "nn.softmax"
    dim = prop_def(IntegerAttr)
    safe = opt_prop_def(UnitAttr)

    def __init__(
        self, x: Value, dim: int, result_type: Attribute | None = None, *, safe: bool = False
    ):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        IRDLOperation.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"dim": IntegerAttr(dim, i64), "safe": UnitAttr() if safe else None},
        )

    def verify_(self) -> None:
        super().verify_()
        rank, dim = len(shape_of(self.x)), self.dim.value.data
        if not -rank <= dim < rank:
            raise VerifyException(f"dim {dim} is out of range for rank {rank}")


@irdl_op_definition
class LayerNormOp(NnOp):
    """`nn.layer_norm %x, %weight, %bias {eps}`: over the last axis, biased variance."""

    name = "nn.layer_norm"
    x = operand_def(AnyTensor)
    weight = operand_def(AnyTensor)
    bias = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    eps = prop_def(FloatAttr)

    def __init__(
        self,
        x: Value,
        weight: Value,
        bias: Value,
        eps: float,
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        super().__init__(
            operands=[x, weight, bias],
            result_types=[type_],
            properties={"eps": FloatAttr(eps, f64)},
        )

    def verify_(self) -> None:
        expect_axes(1, shape_of(self.x))
        extent = shape_of(self.x)[-1]
        expect("weight shape", (extent,), shape_of(self.weight))
        expect("bias shape", (extent,), shape_of(self.bias))
        expect("result shape", shape_of(self.x), shape_of(self.result))


@irdl_op_definition
class RmsNormOp(NnOp):
    """
    `nn.rms_norm %x, %weight {eps}`: `x / sqrt(mean(x^2) + eps) * weight` over the last axis.

    x (..., N), weight (N). The norm of Zhang and Sennrich, arXiv 1910.07467, equation 4.
    """

    name = "nn.rms_norm"
    x = operand_def(AnyTensor)
    weight = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    eps = prop_def(FloatAttr)

    def __init__(self, x: Value, weight: Value, eps: float, result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        super().__init__(
            operands=[x, weight],
            result_types=[type_],
            properties={"eps": FloatAttr(eps, f64)},
        )

    def verify_(self) -> None:
        expect_axes(1, shape_of(self.x))
        expect("weight shape", (shape_of(self.x)[-1],), shape_of(self.weight))
        expect("result shape", shape_of(self.x), shape_of(self.result))
