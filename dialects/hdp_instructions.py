"""
The ops of instructions, made from the rows of `heatc.isa.table`.

Tiles, tensors and registers are SSA values, immediates are properties.
"""

from __future__ import annotations

import math
from typing import Any, cast

from xdsl.dialects.builtin import FloatAttr, IndexType, IntegerAttr, StringAttr, UnitAttr, f64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.hdp_types import (
    SCALAR,
    TensorType,
    TileType,
    expect_one_of,
    integer_attr,
    print_rest,
    take_properties,
)
from heatc.isa.table import ISA, Field, FieldKind, Instruction

Operand = SSAValue | int | float | str


def _is_value(field: Field) -> bool:
    return field.kind in (FieldKind.REG, FieldKind.TILE, FieldKind.DESC)


class InstructionOp(IRDLOperation):
    """
    Base of the ops made from the table: `hdp.<mnemonic> operands, field = immediate : types`.

    What is said beside the fields is for debug.json, and is no part of the word.

    Attributes:
        attention: the attention under whose name it reports what it decides or rounds.
        dim: columns of a head of that attention, of `heads` alone.
        first_round: whether it decides in the first of two rounds.
    """

    attention = opt_prop_def(StringAttr)
    dim = opt_prop_def(IntegerAttr)
    first_round = opt_prop_def(UnitAttr)

    @property
    def instruction(self) -> Instruction:
        """The table's entry."""
        return ISA[self.name.removeprefix("hdp.")]

    @property
    def mnemonic(self) -> str:
        """The instruction's name."""
        return self.instruction.mnemonic

    @property
    def value_fields(self) -> list[Field]:
        """The fields that are operands, in order."""
        entry = self.instruction
        return [f for f in entry.fields if _is_value(f) and f.name != entry.defines]

    @property
    def immediate_fields(self) -> list[Field]:
        """The fields that are properties, in order."""
        return [f for f in self.instruction.fields if not _is_value(f)]

    def operand_of(self, field: str) -> SSAValue:
        """The operand of a field."""
        names = [f.name for f in self.value_fields]
        return self.operands[names.index(field)]

    def immediate(self, field: Field) -> int | float | str:
        """The value of an immediate field."""
        attribute = self.properties[field.name]
        if isinstance(attribute, StringAttr):
            return attribute.data
        return cast("IntegerAttr | FloatAttr", attribute).value.data

    def verify_(self) -> None:
        for field in self.immediate_fields:
            value = self.immediate(field)
            if field.kind is FieldKind.ENUM:
                expect_one_of(field.name, str(value), field.choices)
            elif isinstance(value, int) and not field.low <= value <= field.high:
                raise VerifyException(f"{field.name} {value} is outside {field.low}..{field.high}")

    @classmethod
    def parse(cls, parser: Parser) -> InstructionOp:
        """Parse the form of the class docstring."""
        entry = ISA[cls.name.removeprefix("hdp.")]
        defined = entry.defines
        names: dict[str, Any] = {}
        fields: dict[str, Operand] = {}
        first = True
        for field in sorted((f for f in entry.fields if f.name != defined), key=_is_immediate):
            if not first:
                parser.parse_punctuation(",")
            first = False
            if _is_value(field):
                names[field.name] = parser.parse_unresolved_operand()
            else:
                parser.parse_keyword(field.name)
                parser.parse_punctuation("=")
                fields[field.name] = _parse_immediate(parser, field)
        result_type = _resolve(parser, entry, names, fields, defined)
        op = instruction(entry.mnemonic, result_type, **fields)
        take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        if self.instruction.fields:
            printer.print_string(" ")
        printer.print_list(self.operands, printer.print_ssa_value)
        if self.operands and self.immediate_fields:
            printer.print_string(", ")
        printer.print_list(
            self.immediate_fields,
            lambda f: printer.print_string(f"{f.name} = {_literal(self.immediate(f))}"),
        )
        scalars = [
            v.type for f, v in zip(self.value_fields, self.operands) if f.kind is FieldKind.REG
        ]
        types = [*scalars, *self.result_types]
        if types:
            printer.print_string(" : ")
            printer.print_list(types, printer.print_attribute)
        print_rest(printer, self, [f.name for f in self.immediate_fields])


def _literal(value: float | str) -> str:
    """A number as MLIR writes it: 1e-12 has no meaning there, 1.0e-12 has."""
    text = str(value)
    if isinstance(value, float) and "e" in text and "." not in text:
        text = text.replace("e", ".0e")
    return text


def _is_immediate(field: Field) -> bool:
    return not _is_value(field)


def _parse_immediate(parser: Parser, field: Field) -> Operand:
    if field.kind is FieldKind.ENUM:
        return parser.parse_identifier()
    if field.kind is FieldKind.F64:
        return _parse_real(parser)
    return parser.parse_integer()


def _parse_real(parser: Parser) -> float:
    """A number, or `inf` or `-inf`."""
    sign = -1.0 if parser.parse_optional_punctuation("-") is not None else 1.0
    if parser.parse_optional_keyword("inf") is not None:
        return sign * math.inf
    return sign * parser.parse_number()


def _resolve(
    parser: Parser,
    entry: Instruction,
    names: dict[str, Any],
    fields: dict[str, Operand],
    defined: str,
) -> Attribute | None:
    """Resolve operands into `fields`; returns the result's type if there is a result."""
    kinds = {f.name: f.kind for f in entry.fields}
    scalars = [n for n in names if kinds[n] is FieldKind.REG]
    types: list[Attribute] = []
    if scalars or defined:
        parser.parse_punctuation(":")
        types = list(parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type))
    if len(types) != len(scalars) + bool(defined):
        parser.raise_error(f"expected {len(scalars) + bool(defined)} register types")
    known = dict(zip(scalars, types))
    for name, operand in names.items():
        kind = kinds[name]
        type_ = TileType() if kind is FieldKind.TILE else TensorType()
        fields[name] = parser.resolve_operand(operand, known.get(name, type_))
    return types[-1] if defined else None


def _operand_constraint(field: Field) -> Any:
    constraint: Any = {
        FieldKind.REG: SCALAR,
        FieldKind.TILE: TileType,
        FieldKind.DESC: TensorType,
    }[field.kind]
    return operand_def(constraint)


def _property(field: Field) -> Any:
    if field.kind is FieldKind.F64:
        return prop_def(FloatAttr)
    return prop_def(StringAttr if field.kind is FieldKind.ENUM else IntegerAttr)


def _make(entry: Instruction) -> type[InstructionOp]:
    body: dict[str, Any] = {
        "__doc__": f"`{entry.mnemonic}`: {entry.summary} {entry.semantics}",
        "__module__": __name__,
        "name": f"hdp.{entry.mnemonic}",
    }
    for field in entry.fields:
        if field.name == entry.defines:
            body["result"] = result_def(SCALAR)
        else:
            body[field.name] = _operand_constraint(field) if _is_value(field) else _property(field)
    name = "".join(part.capitalize() for part in entry.mnemonic.split("_")) + "Op"
    return irdl_op_definition(type(name, (InstructionOp,), body))


INSTRUCTION_OPS: dict[str, type[InstructionOp]] = {
    mnemonic: _make(entry)
    for mnemonic, entry in ISA.items()
    if mnemonic not in ("tensor", "window", "tile", "loop", "end")
}
"""The generated ops by mnemonic."""


def instruction(
    mnemonic: str, result_type: Attribute | None = None, /, **fields: Operand | Operation
) -> InstructionOp:
    """
    An instruction op from its fields by name; immediates that are left out are 0.

    `li`, `addi` and `span` define a value of `result_type`, an index if none is given.
    """
    entry = ISA[mnemonic]
    defined = entry.defines
    operands: list[SSAValue | Operation] = []
    properties: dict[str, Attribute] = {}
    for field in entry.fields:
        if field.name == defined:
            continue
        if _is_value(field):
            operands.append(cast("SSAValue | Operation", fields.pop(field.name)))
        else:
            properties[field.name] = _immediate_attribute(field, fields.pop(field.name, 0))
    if fields:
        raise ValueError(f"{mnemonic} has no field {sorted(fields)[0]!r}")
    results: list[Attribute] = [result_type or IndexType()] if defined else []
    return INSTRUCTION_OPS[mnemonic].build(
        operands=operands, result_types=results, properties=properties
    )


def _immediate_attribute(field: Field, value: object) -> Attribute:
    if field.kind is FieldKind.F64:
        return FloatAttr(float(cast(float, value)), f64)
    if field.kind is FieldKind.ENUM:
        return StringAttr(value if isinstance(value, str) else field.choices[cast(int, value)])
    return integer_attr(int(cast(int, value)))
