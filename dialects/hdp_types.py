"""The types of the `hdp` dialect, and what its ops share when they are parsed, printed and verified."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from xdsl.dialects.builtin import DenseArrayBase, IndexType, IntAttr, IntegerAttr, IntegerType, i64
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, SSAValue, TypeAttribute
from xdsl.irdl import IRDLOperation, irdl_attr_definition
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from heatc.isa.table import REGISTERS


@irdl_attr_definition
class TensorType(ParametrizedAttribute, TypeAttribute):
    """`!hdp.tensor`: a tensor descriptor."""

    name = "hdp.tensor"


@irdl_attr_definition
class TileType(ParametrizedAttribute, TypeAttribute):
    """`!hdp.tile`: a tile in a buffer."""

    name = "hdp.tile"


@irdl_attr_definition
class RegType(ParametrizedAttribute, TypeAttribute):
    """`!hdp.reg<5>`: the scalar register r5."""

    name = "hdp.reg"
    number: IntAttr

    def __init__(self, number: int | IntAttr):
        super().__init__(IntAttr(number) if isinstance(number, int) else number)

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            return (IntAttr(parser.parse_integer()),)

    def print_parameters(self, printer: Printer) -> None:
        printer.print_string(f"<{self.number.data}>")

    def verify(self) -> None:
        if not 0 <= self.number.data < REGISTERS:
            raise VerifyException(f"register {self.number.data} is outside 0..{REGISTERS - 1}")


SCALAR = IndexType | RegType
"""A register operand: a number at the tiled level, a register at the machine level."""


def register_of(value: SSAValue) -> int:
    """The register that a value lies in."""
    if not isinstance(value.type, RegType):
        raise VerifyException(f"expected a register, got {value.type}")
    return value.type.number.data


def integers(array: Attribute) -> tuple[int, ...]:
    """The values of an `array<i64: ...>`."""
    assert isinstance(array, DenseArrayBase)
    return tuple(int(v) for v in cast("DenseArrayBase[IntegerType]", array).get_values())


def integer_attr(value: int) -> IntegerAttr:
    """An `i64` attribute."""
    return IntegerAttr(value, i64)


def expect_within(what: str, attribute: IntegerAttr | None, low: int, high: int) -> None:
    """Raise `VerifyException` for a number outside of a range."""
    if attribute is not None and not low <= attribute.value.data <= high:
        raise VerifyException(f"{what} {attribute.value.data} is outside {low}..{high}")


def expect_one_of(what: str, value: str, choices: Sequence[str]) -> None:
    """Raise `VerifyException` for a name that is none of the choices."""
    if value not in choices:
        raise VerifyException(f"unknown {what} {value!r}, expected one of {', '.join(choices)}")


def take_properties(op: Operation, attributes: dict[str, Attribute]) -> None:
    """Give an op what stood in its attribute dictionary, declared properties as such."""
    known = type(op).get_irdl_definition().properties if isinstance(op, IRDLOperation) else {}
    for name, attribute in attributes.items():
        (op.properties if name in known else op.attributes)[name] = attribute


def print_rest(printer: Printer, op: Operation, printed: Sequence[str] = ()) -> None:
    """Print what an op has beside the properties that stand in its form."""
    rest = {n: a for n, a in op.properties.items() if n not in printed}
    rest.update(op.attributes)
    if rest:
        printer.print_string(" ")
        printer.print_attr_dict(rest)


def parse_scalars(parser: Parser, names: Sequence[Any]) -> list[SSAValue]:
    """`: type, type` after operands, resolved."""
    parser.parse_punctuation(":")
    types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
    return list(parser.resolve_operands(names, types, parser.pos))


def print_scalars(printer: Printer, values: Sequence[SSAValue]) -> None:
    """Operands and their types: `%a, %b : index, index`."""
    printer.print_list(values, printer.print_ssa_value)
    printer.print_string(" : ")
    printer.print_list([v.type for v in values], printer.print_attribute)
