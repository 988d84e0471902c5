"""
The `einsum` dialect: contractions and the weights they read.

A weight is named by its state-dict path and lives outside the text, mapped from the file it
came in. The op says which weight, how it is viewed, and its checksum; nothing is ever printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, StringAttr, TensorType, i64
from xdsl.ir import Attribute, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException


def parse_equation(equation: str) -> tuple[tuple[str, ...], str]:
    """
    The operand terms and the result term of `"ti,oi->to"`.

    Raises `VerifyException` on a malformed equation; every index is one letter.
    """
    left, arrow, result = equation.partition("->")
    terms = tuple(left.split(","))
    letters = "".join(terms) + result
    if not arrow or not letters.isalpha():
        raise VerifyException(f"malformed equation {equation!r}, expected e.g. 'ti,oi->to'")
    if len(set(result)) != len(result) or not set(result) <= set("".join(terms)):
        raise VerifyException(f"result {result!r} of {equation!r} repeats or invents an index")
    return terms, result


@irdl_op_definition
class WeightOp(IRDLOperation):
    """
    `einsum.weight ["encoder.layer.0.output.dense.weight"] : tensor<384x1536xf32>`.

    Several names are concatenated along axis 0; `permutation` then permutes the axes.
    A fixed-point result type is the weight rounded half to even into that type.
    `checksum` is `"crc32:<8 hex digits>"` of the first-to-last named weights' bytes.
    """

    name = "einsum.weight"
    names = prop_def(ArrayAttr[StringAttr])
    permutation = opt_prop_def(DenseArrayBase.constr(i64))
    checksum = opt_prop_def(StringAttr)
    result = result_def(TensorType[Attribute])
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$names attr-dict `:` type($result)"

    def __init__(
        self,
        names: str | Sequence[str],
        result_type: Attribute,
        permutation: Sequence[int] | None = None,
        checksum: str | None = None,
    ):
        names = (names,) if isinstance(names, str) else tuple(names)
        super().__init__(
            result_types=[result_type],
            properties={
                "names": ArrayAttr(StringAttr(name) for name in names),
                "permutation": None
                if permutation is None
                else DenseArrayBase.from_list(i64, list(permutation)),
                "checksum": None if checksum is None else StringAttr(checksum),
            },
        )

    @property
    def keys(self) -> tuple[str, ...]:
        """The state-dict names, in order."""
        return tuple(name.data for name in self.names)

    def verify_(self) -> None:
        if not self.names.data:
            raise VerifyException("expected at least one weight name")
        rank = self.result.type.get_num_dims()
        if self.permutation is not None:
            permutation = self.permutation.get_values()
            if sorted(permutation) != list(range(rank)):
                raise VerifyException(f"{permutation} is not a permutation of rank {rank}")


@irdl_op_definition
class ContractOp(IRDLOperation):
    """
    `einsum.contract "ti,oi->to" %x, %w : (...) -> ...`: the n-ary contraction of an equation.

    On fixed-point operands the sum is exact in the result type, which must be wide enough:
    its point is the sum of the operands' points.
    """

    name = "einsum.contract"
    equation = prop_def(StringAttr)
    inputs = var_operand_def(TensorType[Attribute])
    result = result_def(TensorType[Attribute])
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$equation $inputs attr-dict `:` functional-type(operands, results)"

    def __init__(
        self, equation: str, inputs: Sequence[SSAValue | Operation], result_type: Attribute
    ):
        super().__init__(
            operands=[list(inputs)],
            result_types=[result_type],
            properties={"equation": StringAttr(equation)},
        )

    def verify_(self) -> None:
        terms, result_term = parse_equation(self.equation.data)
        if len(terms) != len(self.inputs):
            raise VerifyException(
                f"equation {self.equation.data!r} has {len(terms)} operands, got {len(self.inputs)}"
            )
        extents: dict[str, int] = {}
        for term, value in zip((*terms, result_term), (*self.inputs, self.result)):
            shape = cast(TensorType[Attribute], value.type).get_shape()
            if len(term) != len(shape):
                raise VerifyException(f"term {term!r} does not fit shape {shape}")
            for letter, extent in zip(term, shape):
                if extents.setdefault(letter, extent) != extent:
                    raise VerifyException(
                        f"index {letter!r} has extents {extents[letter]} and {extent}"
                    )


EINSUM = Dialect("einsum", [WeightOp, ContractOp])
