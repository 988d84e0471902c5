"""Ops of the `nn` dialect along axes: reductions, positions of extremes, running sums."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, TensorType, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.nn_base import (
    AnyTensor,
    NnOp,
    UnaryOp,
    Value,
    element_of,
    expect,
    int_array,
    shape_of,
)

REDUCTIONS = ("sum", "mean", "max", "min", "prod", "any", "all")


def _expect_axis(axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise VerifyException(f"axis {axis} is out of range for rank {rank}")


def _without(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(extent for axis, extent in enumerate(shape) if axis not in axes)


@irdl_op_definition
class ReduceOp(NnOp):
    """
    `nn.reduce %x {kind = "mean", axes = array<i64: 1>}`: one number for the elements along axes.

    The result lacks the axes. `sum`, `mean` and `prod` are rounded once, into the result's type;
    `max` and `min` are NaN where an element is; `any` and `all` are of truth values.
    """

    name = "nn.reduce"
    x = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    kind = prop_def(StringAttr)
    axes = prop_def(DenseArrayBase.constr(i64))

    def __init__(
        self, x: Value, kind: str, axes: Sequence[int], result_element: Attribute | None = None
    ):
        x = SSAValue.get(x)
        element = element_of(x) if result_element is None else result_element
        super().__init__(
            operands=[x],
            result_types=[TensorType(element, _without(shape_of(x), axes))],
            properties={"kind": StringAttr(kind), "axes": int_array(axes)},
        )

    @property
    def reduced(self) -> tuple[int, ...]:
        """The axes that the result lacks, in order."""
        return tuple(int(axis) for axis in self.axes.get_values())

    def verify_(self) -> None:
        if self.kind.data not in REDUCTIONS:
            raise VerifyException(
                f"unknown reduction {self.kind.data!r}, expected one of {', '.join(REDUCTIONS)}"
            )
        for axis in self.reduced:
            _expect_axis(axis, len(shape_of(self.x)))
        if list(self.reduced) != sorted(set(self.reduced)):
            raise VerifyException(f"axes {self.reduced} do not ascend")
        expect("result shape", _without(shape_of(self.x), self.reduced), shape_of(self.result))


@irdl_op_definition
class ArgmaxOp(NnOp):
    """`nn.argmax %x {axis = 1 : i64}`: where the greatest element is, the first of equal ones; i64."""

    name = "nn.argmax"
    x = operand_def(AnyTensor)
    result = result_def(AnyTensor)
    axis = prop_def(IntegerAttr)

    def __init__(self, x: Value, axis: int):
        x = SSAValue.get(x)
        super().__init__(
            operands=[x],
            result_types=[TensorType(i64, _without(shape_of(x), [axis]))],
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def verify_(self) -> None:
        axis = self.axis.value.data
        _expect_axis(axis, len(shape_of(self.x)))
        expect("result shape", _without(shape_of(self.x), [axis]), shape_of(self.result))
        expect("element type of the result", i64, element_of(self.result))


@irdl_op_definition
class CumsumOp(UnaryOp):
    """`nn.cumsum %x {axis = 1 : i64}`: the sums of an axis from its start to each element."""

    name = "nn.cumsum"
    axis = prop_def(IntegerAttr)

    def __init__(self, x: Value, axis: int, result_type: Attribute | None = None):
        type_ = SSAValue.get(x).type if result_type is None else result_type
        NnOp.__init__(
            self,
            operands=[x],
            result_types=[type_],
            properties={"axis": IntegerAttr(axis, i64)},
        )

    def verify_(self) -> None:
        super().verify_()
        _expect_axis(self.axis.value.data, len(shape_of(self.x)))
