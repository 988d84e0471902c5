"""
The `einsum` dialect: contractions and the weights they read.

A weight is named by its state-dict path and lives outside the text, mapped from the file it
came in. The op says which weight, how it is viewed, and its checksum; nothing is ever printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, StringAttr, TensorType, i64
from xdsl.ir import Attribute, Data, Dialect, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

Pairs: TypeAlias = tuple[tuple[int, int], ...]


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


@irdl_attr_definition
class PathAttr(Data[Pairs]):
    """
    `#einsum.path<(0, 2), (1, 3)>`: in which order the operands of a contraction meet.

    Operands are 0 to n-1, step k contracts two tensors and its result is tensor n+k.
    """

    name = "einsum.path"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Pairs:
        with parser.in_angle_brackets():
            return tuple(
                parser.parse_comma_separated_list(
                    parser.Delimiter.NONE, lambda: _parse_pair(parser)
                )
            )

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{', '.join(f'({a}, {b})' for a, b in self.data)}>")

    def check(self, operands: int) -> None:
        """Raise `VerifyException` where this is no path of so many operands."""
        if len(self.data) != operands - 1:
            raise VerifyException(f"expected a path of {operands - 1} steps, got {len(self.data)}")
        live = set(range(operands))
        for number, (a, b) in enumerate(self.data, operands):
            if a == b or not {a, b} <= live:
                raise VerifyException(f"step ({a}, {b}) contracts what is not in {sorted(live)}")
            live = live - {a, b} | {number}


def _parse_pair(parser: AttrParser) -> tuple[int, int]:
    with parser.in_parens():
        first = parser.parse_integer(allow_boolean=False)
        parser.parse_punctuation(",")
        return first, parser.parse_integer(allow_boolean=False)


@irdl_attr_definition
class DecompositionAttr(Data[tuple[str, str, tuple[int, ...], float]]):
    """
    `#einsum.decomposition<"tt", "8x8x12|12x8x8", [8, 64, 96, 64, 8], 0.0625>`: where factors
    come from: format, input and output modes, ranks, and the relative error of the layer's output
    on its calibration inputs (of the weight where there were none).
    """

    name = "einsum.decomposition"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> tuple[str, str, tuple[int, ...], float]:
        with parser.in_angle_brackets():
            format_ = parser.parse_str_literal()
            parser.parse_punctuation(",")
            shape = parser.parse_str_literal()
            parser.parse_punctuation(",")
            ranks = parser.parse_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: parser.parse_integer(allow_boolean=False)
            )
            parser.parse_punctuation(",")
            error = parser.parse_number()
        return format_, shape, tuple(ranks), float(error)

    def print_parameter(self, printer: Printer) -> None:
        format_, shape, ranks, error = self.data
        numbers = ", ".join(map(str, ranks))
        printer.print_string(f'<"{format_}", "{shape}", [{numbers}], {error:.6f}>')


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

    `path` is the order in which the operands meet, `decomposition` where its weights come from.

    On fixed-point operands the sum is exact in the result type, which must be wide enough:
    its point is the sum of the operands' points.
    """

    name = "einsum.contract"
    equation = prop_def(StringAttr)
    path = opt_prop_def(PathAttr)
    decomposition = opt_prop_def(DecompositionAttr)
    inputs = var_operand_def(TensorType[Attribute])
    result = result_def(TensorType[Attribute])
    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "$equation $inputs attr-dict `:` functional-type(operands, results)"

    def __init__(
        self,
        equation: str,
        inputs: Sequence[SSAValue | Operation],
        result_type: Attribute,
        path: PathAttr | None = None,
        decomposition: DecompositionAttr | None = None,
    ):
        super().__init__(
            operands=[list(inputs)],
            result_types=[result_type],
            properties={
                "equation": StringAttr(equation),
                "path": path,
                "decomposition": decomposition,
            },
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
        if self.path is not None:
            self.path.check(len(terms))


EINSUM = Dialect("einsum", [WeightOp, ContractOp], [PathAttr, DecompositionAttr])
