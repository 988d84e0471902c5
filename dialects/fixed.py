"""
The `fixed` dialect: the fixed-point element type of the machine.

A tensor of `!fixed.q<16, 11>` holds int16 codes; the value of a code is `code * 2**-11`.
The binary point is part of the type, so every rounding in a program can be read off its types.
`heatc.fixed_point` has the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import IntAttr, TensorType, f32, f64
from xdsl.ir import Attribute, Dialect, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from heatc.isa.dtypes import ACC_BITS

WIDTHS = (8, 16, 32, ACC_BITS)


@irdl_attr_definition
class QType(ParametrizedAttribute, TypeAttribute):
    """`!fixed.q<width, point>`: two's complement, `width` bits in all, `point` fraction bits."""

    name = "fixed.q"
    width: IntAttr
    point: IntAttr

    def __init__(self, width: int | IntAttr, point: int | IntAttr):
        super().__init__(
            IntAttr(width) if isinstance(width, int) else width,
            IntAttr(point) if isinstance(point, int) else point,
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            width = parser.parse_integer()
            parser.parse_punctuation(",")
            point = parser.parse_integer()
        return (IntAttr(width), IntAttr(point))

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.width.data}, {self.point.data}>")

    def verify(self) -> None:
        if self.width.data not in WIDTHS:
            raise VerifyException(f"width {self.width.data} is not one of {WIDTHS}")
        if not -64 <= self.point.data <= 64:
            raise VerifyException(f"point {self.point.data} is outside -64..64")


def _tensor(value: SSAValue) -> TensorType[Attribute]:
    return cast(TensorType[Attribute], value.type)


def _expect_same_shape(x: SSAValue, result: SSAValue) -> None:
    if _tensor(x).get_shape() != _tensor(result).get_shape():
        raise VerifyException(
            f"expected result shape {_tensor(x).get_shape()}, got {_tensor(result).get_shape()}"
        )


def _expect_fixed(what: str, value: SSAValue) -> None:
    element = _tensor(value).get_element_type()
    if not isinstance(element, QType):
        raise VerifyException(f"expected a fixed-point {what}, got elements of type {element}")


def _expect_float(what: str, value: SSAValue) -> None:
    element = _tensor(value).get_element_type()
    if element not in (f32, f64):
        raise VerifyException(f"expected a floating-point {what}, got elements of type {element}")


@irdl_op_definition
class RequantizeOp(IRDLOperation):
    """
    `fixed.requantize %x : tensor<?x4x!fixed.q<48, 25>> to tensor<?x4x!fixed.q<16, 9>>`.

    Moves the binary point, rounding half to even, and saturates to the result's width. `plan` says
    the tiles of the product that it rounds, once they are chosen.
    """

    name = "fixed.requantize"
    x = operand_def(TensorType[Attribute])
    result = result_def(TensorType[Attribute])
    plan = opt_prop_def(Attribute)
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` type($x) `to` type($result)"

    def __init__(self, x: SSAValue | Operation, result_type: TensorType[Attribute]):
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        _expect_same_shape(self.x, self.result)
        _expect_fixed("operand", self.x)
        _expect_fixed("result", self.result)


@irdl_op_definition
class QuantizeOp(IRDLOperation):
    """`fixed.quantize %x : tensor<4xf64> to tensor<4x!fixed.q<16, 9>>`: half to even, saturating."""

    name = "fixed.quantize"
    x = operand_def(TensorType[Attribute])
    result = result_def(TensorType[Attribute])
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` type($x) `to` type($result)"

    def __init__(self, x: SSAValue | Operation, result_type: TensorType[Attribute]):
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        _expect_same_shape(self.x, self.result)
        _expect_float("operand", self.x)
        _expect_fixed("result", self.result)


@irdl_op_definition
class DequantizeOp(IRDLOperation):
    """`fixed.dequantize %x : tensor<4x!fixed.q<16, 9>> to tensor<4xf64>`: exact."""

    name = "fixed.dequantize"
    x = operand_def(TensorType[Attribute])
    result = result_def(TensorType[Attribute])
    traits = traits_def(Pure())
    assembly_format = "$x attr-dict `:` type($x) `to` type($result)"

    def __init__(self, x: SSAValue | Operation, result_type: TensorType[Attribute]):
        super().__init__(operands=[x], result_types=[result_type])

    def verify_(self) -> None:
        _expect_same_shape(self.x, self.result)
        _expect_fixed("operand", self.x)
        _expect_float("result", self.result)


FIXED = Dialect("fixed", [QuantizeOp, RequantizeOp, DequantizeOp], [QType])
