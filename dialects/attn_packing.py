"""
Packed tokens: the part of the `attn` dialect that makes padding disappear, and brings it back.

`attn.packing` lists the rows of a batch. A sequence's rows are its *keys*, which are its real
tokens in order, and behind them the masked positions that some op reads (`reads` of the packing's
type, a static set), which are *queries* only. `attn.pack` keeps these rows, `attn.unpack` puts
rows back where they were. In between every tensor is (tokens, width) and no op needs a mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    ArrayAttr,
    FloatData,
    IntAttr,
    IntegerAttr,
    TensorType,
    UnitAttr,
    i1,
    i64,
)
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from heatc.intervals import Interval, number_text

AnyTensor = TensorType[Attribute]
Value = SSAValue | Operation


@irdl_attr_definition
class PackingType(ParametrizedAttribute, TypeAttribute):
    """
    `!attn.packing<8, 128, reads [0]>`: which of 8 x 128 positions have rows, known at run time.

    Real tokens have. Of the masked positions those have that some op reads: none, the listed
    ones, or `all`.
    """

    name = "attn.packing"
    batch: IntAttr
    length: IntAttr
    read: ArrayAttr[IntAttr]

    def __init__(
        self,
        batch: int | IntAttr,
        length: int | IntAttr,
        reads: Sequence[int] | ArrayAttr[IntAttr] = (),
    ):
        super().__init__(
            IntAttr(batch) if isinstance(batch, int) else batch,
            IntAttr(length) if isinstance(length, int) else length,
            reads if isinstance(reads, ArrayAttr) else ArrayAttr(IntAttr(p) for p in reads),
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        reads: Sequence[int] = ()
        with parser.in_angle_brackets():
            batch = parser.parse_integer()
            parser.parse_punctuation(",")
            length = parser.parse_integer()
            if parser.parse_optional_punctuation(",") is not None:
                parser.parse_keyword("reads")
                if parser.parse_optional_keyword("all") is not None:
                    reads = range(max(length, 0))
                else:
                    square = parser.Delimiter.SQUARE
                    reads = parser.parse_comma_separated_list(square, parser.parse_integer)
        return (IntAttr(batch), IntAttr(length), ArrayAttr(IntAttr(p) for p in reads))

    def print_parameters(self, printer: Printer) -> None:
        reads = self.reads
        text = f", reads [{', '.join(map(str, reads))}]" if reads else ""
        if len(reads) == self.length.data:
            text = ", reads all"
        printer.print_string(f"<{self.batch.data}, {self.length.data}{text}>")

    def verify(self) -> None:
        if self.batch.data < 1 or self.length.data < 1:
            raise VerifyException(
                f"batch {self.batch.data} and length {self.length.data} must be positive"
            )
        reads = self.reads
        if list(reads) != sorted(set(reads)):
            raise VerifyException(f"positions {list(reads)} do not ascend")
        if reads and not 0 <= reads[0] <= reads[-1] < self.length.data:
            raise VerifyException(f"positions {list(reads)} leave 0..{self.length.data - 1}")

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, length)."""
        return self.batch.data, self.length.data

    @property
    def reads(self) -> tuple[int, ...]:
        """The positions that have a row of their own where they are masked."""
        return tuple(p.data for p in self.read.data)


@irdl_attr_definition
class ValuesAttr(ParametrizedAttribute):
    """
    `#attn.values<min : -1, 1 : max>`: a set of numbers, as intervals with both ends in them.

    `min` and `max` stand for all numbers below and above.
    """

    name = "attn.values"
    ends: ArrayAttr[FloatData]

    def __init__(self, intervals: Sequence[Interval] | ArrayAttr[FloatData]):
        if not isinstance(intervals, ArrayAttr):
            intervals = ArrayAttr(FloatData(end) for pair in intervals for end in pair)
        super().__init__(intervals)

    @property
    def intervals(self) -> tuple[Interval, ...]:
        """The intervals, ascending."""
        ends = [end.data for end in self.ends.data]
        return tuple(zip(ends[::2], ends[1::2]))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        ends: list[FloatData] = []
        with parser.in_angle_brackets():
            while not ends or parser.parse_optional_punctuation(",") is not None:
                ends.append(FloatData(_parse_end(parser)))
                parser.parse_punctuation(":")
                ends.append(FloatData(_parse_end(parser)))
        return (ArrayAttr(ends),)

    def print_parameters(self, printer: Printer) -> None:
        parts = (f"{_end_text(low)} : {_end_text(high)}" for low, high in self.intervals)
        printer.print_string(f"<{', '.join(parts)}>")

    def verify(self) -> None:
        ends = [end.data for end in self.ends.data]
        if not ends or len(ends) % 2:
            raise VerifyException(f"expected pairs of ends, got {len(ends)} numbers")
        lows, highs = ends[::2], ends[1::2]
        inside = all(low <= high for low, high in zip(lows, highs))
        if not inside or not all(high < low for high, low in zip(highs, lows[1:])):
            raise VerifyException(f"ends {ends} are no ascending intervals")


def _parse_end(parser: AttrParser) -> float:
    if parser.parse_optional_keyword("min") is not None:
        return -math.inf
    if parser.parse_optional_keyword("max") is not None:
        return math.inf
    return float(parser.parse_number())


def _end_text(end: float) -> str:
    if math.isinf(end):
        return "min" if end < 0 else "max"
    return number_text(end)


def tensor_of(value: SSAValue) -> AnyTensor:
    """The tensor type of a value."""
    if not isinstance(value.type, TensorType):
        raise VerifyException(f"expected a tensor, got {value.type}")
    return cast(AnyTensor, value.type)


def packing_of(value: SSAValue) -> PackingType:
    """The packing type of a value."""
    if not isinstance(value.type, PackingType):
        raise VerifyException(f"expected a packing, got {value.type}")
    return value.type


def shape_text(shape: Sequence[int]) -> str:
    """`(?, 4)`: a shape in a message."""
    extents = ["?" if n == DYNAMIC_INDEX else str(n) for n in shape]
    return f"({', '.join(extents)})" if len(extents) != 1 else f"({extents[0]},)"


def expect_shape(what: str, value: SSAValue, shape: Sequence[int]) -> None:
    """Raise `VerifyException` unless a value has a shape."""
    found = tensor_of(value).get_shape()
    if found != tuple(shape):
        raise VerifyException(
            f"expected {what} of shape {shape_text(shape)}, got {shape_text(found)}"
        )


class AttnOp(IRDLOperation):
    """Base of the ops: pure, properties in the attribute dictionary."""

    traits = traits_def(Pure())
    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "operands attr-dict `:` functional-type(operands, results)"


@irdl_op_definition
class PackingOp(AttnOp):
    """
    `attn.packing %mask {real = #attn.values<1 : max>, masked = #attn.values<0 : 0>}`.

    A token is real where the mask's value is among `real`, masked where it is among `masked`;
    every other value is refused at run time. Without these attributes real is what is not 0;
    without a mask all tokens are real. Refused too is a sequence without a real token whose
    padding is read: there is no key that the read rows could attend to.
    """

    name = "attn.packing"
    mask = opt_operand_def(AnyTensor)
    result = result_def(PackingType)
    real = opt_prop_def(ValuesAttr)
    masked = opt_prop_def(ValuesAttr)
    assembly_format = "($mask^)? attr-dict `:` functional-type(operands, results)"

    def __init__(
        self,
        mask: Value | None,
        batch: int,
        length: int,
        reads: Sequence[int] = (),
        real: ValuesAttr | None = None,
        masked: ValuesAttr | None = None,
    ):
        super().__init__(
            operands=[mask],
            result_types=[PackingType(batch, length, reads)],
            properties={"real": real, "masked": masked},
        )

    def verify_(self) -> None:
        if self.mask is not None:
            expect_shape("mask", self.mask, packing_of(self.result).shape)
        elif packing_of(self.result).reads:
            raise VerifyException("without a mask no position is masked, so that none is read")
        if (self.real is None) != (self.masked is None):
            raise VerifyException("expected both `real` and `masked` values, or neither")
        if self.real is not None and self.mask is None:
            raise VerifyException("values of a mask that is not there")
        if self.real is not None and self.masked is not None:
            _expect_disjoint(self.real.intervals, self.masked.intervals)


def _expect_disjoint(real: Sequence[Interval], masked: Sequence[Interval]) -> None:
    for low, high in real:
        for other_low, other_high in masked:
            if low <= other_high and other_low <= high:
                raise VerifyException(
                    f"values {low}..{high} are real and {other_low}..{other_high} masked"
                )


@irdl_op_definition
class PackOp(AttnOp):
    """`attn.pack %x, %p`: (B, S, ...) -> (tokens, ...), the rows of the packing in its order."""

    name = "attn.pack"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, x: Value, packing: Value):
        x = SSAValue.get(x)
        type_ = TensorType(
            tensor_of(x).get_element_type(), (DYNAMIC_INDEX, *tensor_of(x).get_shape()[2:])
        )
        super().__init__(operands=[x, packing], result_types=[type_])

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        if shape[:2] != packing_of(self.packing).shape:
            raise VerifyException(f"shape {shape_text(shape)} is not packed by {self.packing.type}")
        expect_shape("result", self.result, (DYNAMIC_INDEX, *shape[2:]))


@irdl_op_definition
class UnpackOp(AttnOp):
    """
    `attn.unpack %x, %p {read}`: (tokens, ...) -> (B, S, ...), zeros where a token is masked.

    With `read` a masked position that the packing has a row of comes back as that row.
    """

    name = "attn.unpack"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    read = opt_prop_def(UnitAttr)

    def __init__(self, x: Value, packing: Value, *, read: bool = False):
        x, packing = SSAValue.get(x), SSAValue.get(packing)
        shape = (*packing_of(packing).shape, *tensor_of(x).get_shape()[1:])
        type_ = TensorType(tensor_of(x).get_element_type(), shape)
        super().__init__(
            operands=[x, packing],
            result_types=[type_],
            properties={"read": UnitAttr() if read else None},
        )

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        if shape[:1] != (DYNAMIC_INDEX,):
            raise VerifyException(f"expected packed rows (?, ...), got shape {shape_text(shape)}")
        expect_shape("result", self.result, (*packing_of(self.packing).shape, *shape[1:]))


@irdl_op_definition
class TokenOp(AttnOp):
    """
    `attn.token %x, %p {position = 0 : i64}`: (tokens, ...) -> (B, ...), one row of each sequence.

    `position` counts padded positions, as in `x[:, position]`. Where that token may be masked the
    packing has a row of it.
    """

    name = "attn.token"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    position = prop_def(IntegerAttr)

    def __init__(
        self, x: Value, packing: Value, position: int, result_type: Attribute | None = None
    ):
        x, packing = SSAValue.get(x), SSAValue.get(packing)
        shape = (packing_of(packing).batch.data, *tensor_of(x).get_shape()[1:])
        type_ = result_type or TensorType(tensor_of(x).get_element_type(), shape)
        super().__init__(
            operands=[x, packing],
            result_types=[type_],
            properties={"position": IntegerAttr(position, i64)},
        )

    def verify_(self) -> None:
        packing, position = packing_of(self.packing), self.position.value.data
        batch, length = packing.shape
        if not 0 <= position < length:
            raise VerifyException(f"position {position} is outside 0..{length - 1}")
        owner = self.packing.owner
        masks = isinstance(owner, PackingOp) and owner.mask is not None
        if masks and position not in packing.reads:
            raise VerifyException(
                f"position {position} may be masked, and {packing} has no row of it then"
            )
        expect_shape("result", self.result, (batch, *tensor_of(self.x).get_shape()[1:]))


@irdl_op_definition
class RealOp(AttnOp):
    """`attn.real %p : (!attn.packing<2, 5>) -> tensor<2x5xi1>`: which tokens are real."""

    name = "attn.real"
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, packing: Value):
        shape = packing_of(SSAValue.get(packing)).shape
        super().__init__(operands=[packing], result_types=[TensorType(i1, shape)])

    def verify_(self) -> None:
        expect_shape("result", self.result, packing_of(self.packing).shape)
