"""Ops of the `nn` dialect on single elements: arithmetic, comparisons, functions, choices."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.nn_base import (
    AnyTensor,
    BinaryOp,
    NnOp,
    UnaryOp,
    Value,
    broadcast_shapes,
    expect,
    shape_of,
)
from heatc.functions import FUNCTIONS

PREDICATES = ("eq", "ne", "lt", "le", "gt", "ge")
APPROXIMATIONS = ("none", "tanh", "quick")
"""Forms of GELU."""


@irdl_op_definition
class AddOp(BinaryOp):
    """`nn.add %a, %b`: sum."""

    name = "nn.add"


@irdl_op_definition
class SubOp(BinaryOp):
    """`nn.sub %a, %b`: difference."""

    name = "nn.sub"


@irdl_op_definition
class MulOp(BinaryOp):
    """`nn.mul %a, %b`: product."""

    name = "nn.mul"


@irdl_op_definition
class DivOp(BinaryOp):
    """`nn.div %a, %b`: true quotient."""

    name = "nn.div"


@irdl_op_definition
class MaximumOp(BinaryOp):
    """`nn.maximum %a, %b`: the greater one; NaN where either is."""

    name = "nn.maximum"


@irdl_op_definition
class MinimumOp(BinaryOp):
    """`nn.minimum %a, %b`: the less one; NaN where either is."""

    name = "nn.minimum"


@irdl_op_definition
class PowOp(BinaryOp):
    """`nn.pow %a, %b`: `a` to the power of `b`."""

    name = "nn.pow"


@irdl_op_definition
class FloorDivOp(BinaryOp):
    """`nn.floor_div %a, %b`: the quotient, rounded down."""

    name = "nn.floor_div"


@irdl_op_definition
class RemainderOp(BinaryOp):
    """`nn.remainder %a, %b`: what rounding down leaves, with the sign of `b`."""

    name = "nn.remainder"


@irdl_op_definition
class AndOp(BinaryOp):
    """`nn.and %a, %b`: bitwise (logical on i1) and."""

    name = "nn.and"


@irdl_op_definition
class OrOp(BinaryOp):
    """`nn.or %a, %b`: bitwise (logical on i1) or."""

    name = "nn.or"


@irdl_op_definition
class CompareOp(BinaryOp):
    """`nn.compare %a, %b {predicate = "ge"}`: elementwise comparison to i1."""

    name = "nn.compare"

    predicate = prop_def(StringAttr)

    def __init__(self, lhs: Value, rhs: Value, predicate: str, result_type: Attribute):
        IRDLOperation.__init__(
            self,
            operands=[lhs, rhs],
            result_types=[result_type],
            properties={"predicate": StringAttr(predicate)},
        )

    def verify_(self) -> None:
        super().verify_()
        if self.predicate.data not in PREDICATES:
            raise VerifyException(
                f"unknown predicate {self.predicate.data!r}, expected one of {PREDICATES}"
            )


@irdl_op_definition
class NotOp(UnaryOp):
    """`nn.not %a`: logical not of i1, bitwise not of integers."""

    name = "nn.not"


@irdl_op_definition
class TanhOp(UnaryOp):
    """`nn.tanh %x`."""

    name = "nn.tanh"


@irdl_op_definition
class ReluOp(UnaryOp):
    """`nn.relu %x`."""

    name = "nn.relu"


@irdl_op_definition
class MapOp(UnaryOp):
    """`nn.map %x {function = "exp"}`: a function of `heatc.functions` of each element."""

    name = "nn.map"
    function = prop_def(StringAttr)

    def __init__(self, x: Value, function: str, result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        IRDLOperation.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"function": StringAttr(function)},
        )

    def verify_(self) -> None:
        super().verify_()
        if self.function.data not in FUNCTIONS:
            raise VerifyException(
                f"unknown function {self.function.data!r}, expected one of {', '.join(FUNCTIONS)}"
            )


@irdl_op_definition
class CastOp(UnaryOp):
    """`nn.cast %x : (tensor<4xi64>) -> tensor<4xi1>`: PyTorch's `.to(dtype)` (nonzero is true)."""

    name = "nn.cast"


@irdl_op_definition
class GeluOp(UnaryOp):
    """`nn.gelu %x {approximate = "none"}`: exact (erf), `tanh`, or `quick`: x sigmoid(1.702 x)."""

    name = "nn.gelu"
    approximate = prop_def(StringAttr)

    def __init__(self, x: Value, approximate: str = "none", result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        IRDLOperation.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"approximate": StringAttr(approximate)},
        )

    def verify_(self) -> None:
        super().verify_()
        if self.approximate.data not in APPROXIMATIONS:
            raise VerifyException(
                f"unknown approximation {self.approximate.data!r}, expected one of {APPROXIMATIONS}"
            )


@irdl_op_definition
class WhereOp(NnOp):
    """`nn.where %condition, %a, %b`: elementwise choice, NumPy broadcasting."""

    name = "nn.where"
    condition = operand_def(AnyTensor)
    lhs = operand_def(AnyTensor)
    rhs = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, condition: Value, lhs: Value, rhs: Value, result_type: Attribute):
        super().__init__(operands=[condition, lhs, rhs], result_types=[result_type])

    def verify_(self) -> None:
        expected = broadcast_shapes(*(shape_of(v) for v in self.operands))
        expect("result shape", expected, shape_of(self.result))
