"""
The `einsum` dialect: contractions and the weights they read.

A weight is named by its state-dict path and lives outside the text, mapped from the file it
came in. The op says which weight, how it is viewed, and its checksum; nothing is ever printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

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

from heatc.dialects.einsum_format import FormatAttr, Pairs, pairs_text, parse_pairs
from heatc.dialects.fixed import RequantizeOp
from heatc.dialects.nn import TOKENS, ReshapeOp, shape_of


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
            return parse_pairs(parser)

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<{pairs_text(self.data)}>")

    def check(self, operands: int) -> None:
        """Raise `VerifyException` where this is no path of so many operands."""
        if len(self.data) != operands - 1:
            raise VerifyException(f"expected a path of {operands - 1} steps, got {len(self.data)}")
        live = set(range(operands))
        for number, (a, b) in enumerate(self.data, operands):
            if a == b or not {a, b} <= live:
                raise VerifyException(f"step ({a}, {b}) contracts what is not in {sorted(live)}")
            live = live - {a, b} | {number}


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


@irdl_attr_definition
class FuseAttr(Data[int]):
    """
    `#einsum.fuse<tokens = 64>`: the result of a step stays on the chip, so many tokens at a time.

    It is made and read tile by tile by the one contraction behind it, and never as a whole.
    """

    name = "einsum.fuse"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> int:
        with parser.in_angle_brackets():
            parser.parse_keyword("tokens")
            parser.parse_punctuation("=")
            return parser.parse_integer(allow_boolean=False)

    def print_parameter(self, printer: Printer) -> None:
        printer.print_string(f"<tokens = {self.data}>")


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
    `format` says how the weight of two operands is to be factorised.
    `fuse` says that the result of a step of packed tokens is never held as a whole; the steps of
    one tile size up to the first without `fuse` are one group.

    On fixed-point operands the sum is exact in the result type, which must be wide enough:
    its point is the sum of the operands' points.
    """

    name = "einsum.contract"
    equation = prop_def(StringAttr)
    path = opt_prop_def(PathAttr)
    decomposition = opt_prop_def(DecompositionAttr)
    fuse = opt_prop_def(FuseAttr)
    planned = opt_prop_def(FormatAttr, prop_name="format")
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
        fuse: FuseAttr | None = None,
    ):
        super().__init__(
            operands=[list(inputs)],
            result_types=[result_type],
            properties={
                "equation": StringAttr(equation),
                "path": path,
                "decomposition": decomposition,
                "fuse": fuse,
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
        if self.planned is not None and len(terms) != 2:
            raise VerifyException(
                f"format: expected an activation and a weight, got {len(terms)} operands"
            )
        if self.fuse is not None:
            self._verify_fused(self.fuse.data, terms, result_term)

    def _verify_fused(self, tokens: int, terms: tuple[str, ...], result_term: str) -> None:
        """A fused result is rows of tokens, and one step of as many tokens at a time reads it."""
        if tokens < 1:
            raise VerifyException(f"fuse: expected at least 1 token at a time, got {tokens}")
        if not is_step(self):
            raise VerifyException(
                "fuse: expected a step of packed tokens with what has none, its first axis the "
                f"tokens, got {self.equation.data!r} from "
                f"{', '.join(str(v.type) for v in self.inputs)} to {self.result.type}"
            )
        reader = only_reader(self.result)
        if reader is None:
            what = ", ".join(use.operation.name for use in self.result.uses) or "nothing"
            raise VerifyException(
                f"fuse: expected one contraction that reads the {self.result.type} as its first "
                f"operand, through nothing but reshapes of each token, got {what}"
            )
        if reader.fuse is not None and reader.fuse.data != tokens:
            raise VerifyException(
                f"fuse: expected one number of tokens in a group, got {tokens} and "
                f"{reader.fuse.data}"
            )


def is_step(op: ContractOp) -> bool:
    """Whether a contraction is of packed tokens, first in operand and result, and a constant."""
    terms, result = parse_equation(op.equation.data)
    if len(terms) != 2 or not terms[0] or not result or terms[0][0] != result[0]:
        return False
    extents = [shape_of(v) for v in (*op.inputs, op.result)]
    places = [[i for i, extent in enumerate(s) if extent == TOKENS] for s in extents]
    return places == [[0], [], [0]]


def only_reader(value: SSAValue) -> ContractOp | None:
    """
    The step whose first operand a packed value is and that is all that reads it, or None.

    Reshapes that leave every token its own row, and roundings, may stand between.
    """
    use = value.get_unique_use()
    while use is not None and isinstance(use.operation, ReshapeOp | RequantizeOp):
        value = use.operation.result
        use = value.get_unique_use() if shape_of(value)[:1] == (TOKENS,) else None
    op = None if use is None else use.operation
    if not isinstance(op, ContractOp) or use is None or use.index != 0:
        return None
    return op if is_step(op) else None


EINSUM = Dialect(
    "einsum", [WeightOp, ContractOp], [PathAttr, DecompositionAttr, FuseAttr, FormatAttr]
)
