"""What the ops of the `nn` dialect have in common: shapes, element types, and the base classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    I64,
    DenseArrayBase,
    IntegerType,
    Signedness,
    TensorType,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    operand_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

AnyTensor = TensorType[Attribute]
Value = SSAValue | Operation

TOKENS = DYNAMIC_INDEX
"""The extent `?`: the number of packed tokens, known at run time."""

FORMAT = "operands attr-dict `:` functional-type(operands, results)"


def shape_of(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value; `TOKENS` stands for the number of packed tokens."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise VerifyException(f"expected a tensor, got {type_}")
    return cast(AnyTensor, type_).get_shape()


def element_of(value: SSAValue) -> Attribute:
    """The element type of a tensor value."""
    type_ = value.type
    if not isinstance(type_, TensorType):
        raise VerifyException(f"expected a tensor, got {type_}")
    return cast(AnyTensor, type_).get_element_type()


def is_unsigned(element: Attribute) -> bool:
    """Whether a type is of integers without a sign."""
    if not isinstance(element, IntegerType):
        return False
    return cast(IntegerType, element).signedness.data == Signedness.UNSIGNED


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """
    NumPy's broadcast of shapes in which `TOKENS` is one unknown extent that is not 1.

    Raises `VerifyException` where the shapes do not broadcast.
    """
    rank = max((len(s) for s in shapes), default=0)
    result: list[int] = []
    for axis in range(rank):
        extents = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0}
        extents.discard(1)
        if len(extents) > 1:
            raise VerifyException(f"shapes {[tuple(s) for s in shapes]} do not broadcast")
        result.append(extents.pop() if extents else 1)
    return tuple(result)


def int_array(values: Sequence[int]) -> DenseArrayBase[I64]:
    """`array<i64: ...>` of the given integers."""
    return DenseArrayBase.from_list(i64, list(values))


def expect_axes(least: int, *shapes: Sequence[int]) -> None:
    if any(len(shape) < least for shape in shapes):
        given = " and ".join(str(tuple(shape)) for shape in shapes)
        raise VerifyException(f"expected operands of rank {least} or more, got {given}")


def expect(what: str, expected: object, got: object) -> None:
    if expected != got:
        raise VerifyException(f"expected {what} {expected}, got {got}")


class NnOp(IRDLOperation):
    """Base of the ops: pure, generic assembly with properties in the attribute dictionary."""

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = FORMAT


class UnaryOp(NnOp):
    """Elementwise, one operand; the result has the operand's shape."""

    x = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        super().__init__(operands=[x], result_types=[type_])

    def verify_(self) -> None:
        expect("result shape", shape_of(self.x), shape_of(self.result))


class BinaryOp(NnOp):
    """Elementwise, two operands, NumPy broadcasting."""

    lhs = operand_def(AnyTensor)
    rhs = operand_def(AnyTensor)
    result = result_def(AnyTensor)

    def __init__(self, lhs: Value, rhs: Value, result_type: Attribute | None = None):
        lhs, rhs = SSAValue.get(lhs), SSAValue.get(rhs)
        if result_type is None:
            shape = broadcast_shapes(shape_of(lhs), shape_of(rhs))
            result_type = TensorType(self.result_element(lhs), shape)
        super().__init__(operands=[lhs, rhs], result_types=[result_type])

    @classmethod
    def result_element(cls, lhs: SSAValue) -> Attribute:
        """The element type of the result when none is given."""
        return element_of(lhs)

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs))
        expect("result shape", expected, shape_of(self.result))
