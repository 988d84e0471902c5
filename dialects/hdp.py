"""
The `hdp` dialect: the machine, one op for each instruction.

Instruction ops are made from `heatc.isa.table`, so that the dialect cannot disagree with the
encoder: tiles, tensors and registers are SSA values, immediates are properties. A register operand
is an `index` at the tiled level and `!hdp.reg<number>` at the machine level.

    %w = hdp.tensor "encoder.query.weight" weight dram i16 [384, 384] {point = 15 : i64}
    %t = hdp.tile "slab.0" local i16 6144
    hdp.ld %t, %w, %row, %column, rows = 48, cols = 64, core_rows = 48, core_cols = 0 : index, index

`hdp.tensor`, `hdp.window`, `hdp.alias` and `hdp.tile` define what instructions work on; `hdp.loop` holds the
body between a `loop` and its `end`; `hdp.special` names a register that instructions set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IndexType,
    IntAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    UnitAttr,
    f64,
    i64,
)
from xdsl.ir import (
    Attribute,
    Dialect,
    Operation,
    ParametrizedAttribute,
    Region,
    SSAValue,
    TypeAttribute,
)
from xdsl.irdl import (
    IRDLOperation,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser, Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.attn_packing import ValuesAttr
from heatc.dialects.hdp_plans import PLANS
from heatc.isa.table import (
    DESCRIPTORS,
    DTYPES,
    ISA,
    R_BATCH,
    R_EXTRA,
    R_EXTRA_START,
    R_LENGTH,
    R_START,
    R_TOKENS,
    R_ZERO,
    REGISTERS,
    SPACES,
    TILE_DTYPES,
    TILES,
    Field,
    FieldKind,
    Instruction,
)

Value = SSAValue | Operation
Operand = SSAValue | int | float | str

ROLES = ("weight", "constant", "input", "output", "activation")
"""What a tensor is: `weight` and `constant` are in the program's weights, the rest is written."""

SPECIAL = {
    "zero": R_ZERO,
    "tokens": R_TOKENS,
    "batch": R_BATCH,
    "start": R_START,
    "length": R_LENGTH,
    "extra_start": R_EXTRA_START,
    "extra": R_EXTRA,
}
"""Registers with a meaning of their own, by name."""


# --- Types --------------------------------------------------------------------------------------


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


_SCALAR = IndexType | RegType


def register_of(value: SSAValue) -> int:
    """The register that a value lies in."""
    if not isinstance(value.type, RegType):
        raise VerifyException(f"expected a register, got {value.type}")
    return value.type.number.data


def integers(array: Attribute) -> tuple[int, ...]:
    """The values of an `array<i64: ...>`."""
    assert isinstance(array, DenseArrayBase)
    return tuple(int(v) for v in cast("DenseArrayBase[IntegerType]", array).get_values())


def _integer(value: int) -> IntegerAttr:
    return IntegerAttr(value, i64)


def _within(what: str, attribute: IntegerAttr | None, low: int, high: int) -> None:
    if attribute is not None and not low <= attribute.value.data <= high:
        raise VerifyException(f"{what} {attribute.value.data} is outside {low}..{high}")


def _one_of(what: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise VerifyException(f"unknown {what} {value!r}, expected one of {', '.join(choices)}")


# --- Values -------------------------------------------------------------------------------------


@irdl_op_definition
class TensorOp(IRDLOperation):
    """
    `%d = hdp.tensor "query.weight" weight dram i16 [384, 384] {point = 15 : i64}`.

    With `rows %n` a register has the number of rows; the extents then say how much memory is
    needed.

    - `point`: the binary point.
    - `ports`: the model's names for an input or output. `shape`, `limit` (rows of the table that it
      indexes), `port_role` (`mask`), `real` and `masked` (the values of a mask) and `truth` (i8
      that the model has as truth values) describe it.
    - `names` and `permutation`: which weights to quantise. `values`: those of a constant.
    - `plane_of`: the tensor that this is the integer or the fraction plane of.
    - `number` and `base` come from allocate-buffers, and `on_chip`: it was to lie in DRAM, and
      lies in the shared buffer as a whole.
    """

    name = "hdp.tensor"
    rows_value = opt_operand_def(_SCALAR)
    symbol = prop_def(StringAttr)
    role = prop_def(StringAttr)
    space = prop_def(StringAttr)
    dtype = prop_def(StringAttr)
    rows = prop_def(IntegerAttr)
    cols = prop_def(IntegerAttr)
    point = opt_prop_def(IntegerAttr)
    shape = opt_prop_def(DenseArrayBase)
    limit = opt_prop_def(IntegerAttr)
    ports = opt_prop_def(ArrayAttr[StringAttr])
    port_role = opt_prop_def(StringAttr)
    real = opt_prop_def(ValuesAttr)
    masked = opt_prop_def(ValuesAttr)
    truth = opt_prop_def(UnitAttr)
    names = opt_prop_def(ArrayAttr[StringAttr])
    permutation = opt_prop_def(DenseArrayBase)
    values = opt_prop_def(DenseArrayBase)
    plane_of = opt_prop_def(StringAttr)
    number = opt_prop_def(IntegerAttr)
    base = opt_prop_def(IntegerAttr)
    on_chip = opt_prop_def(UnitAttr)
    result = result_def(TensorType)

    def __init__(
        self,
        symbol: str,
        role: str,
        dtype: str,
        extents: tuple[int, int],
        *,
        rows_value: Value | None = None,
        point: int | None = None,
        properties: dict[str, Attribute] | None = None,
    ):
        super().__init__(
            operands=[rows_value],
            result_types=[TensorType()],
            properties={
                "symbol": StringAttr(symbol),
                "role": StringAttr(role),
                "space": StringAttr("dram"),
                "dtype": StringAttr(dtype),
                "rows": _integer(extents[0]),
                "cols": _integer(extents[1]),
                "point": None if point is None else _integer(point),
                **(properties or {}),
            },
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows.value.data * self.cols.value.data * DTYPES[self.dtype.data]

    def verify_(self) -> None:
        _one_of("role", self.role.data, ROLES)
        _one_of("space", self.space.data, ("dram", "shared"))
        _one_of("dtype", self.dtype.data, [d for d in DTYPES if d not in TILE_DTYPES])
        for what, extent in (("rows", self.rows), ("cols", self.cols)):
            _within(what, extent, 1, (1 << 20) - 1)
        _within("number", self.number, 0, DESCRIPTORS - 1)
        if self.truth is not None and self.dtype.data != "i8":
            raise VerifyException(f"truth values are i8, got {self.dtype.data}")

    @classmethod
    def parse(cls, parser: Parser) -> TensorOp:
        """Parse the form of the class docstring."""
        symbol = parser.parse_str_literal()
        role, space, dtype = (parser.parse_identifier() for _ in range(3))
        rows, cols = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, parser.parse_integer
        )
        rows_value = None
        if parser.parse_optional_keyword("rows") is not None:
            (rows_value,) = _parse_scalars(parser, [parser.parse_unresolved_operand()])
        op = cls(symbol, role, dtype, (rows, cols), rows_value=rows_value)
        op.space = StringAttr(space)
        _take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_string_literal(self.symbol.data)
        words = f" {self.role.data} {self.space.data} {self.dtype.data}"
        printer.print_string(f"{words} [{self.rows.value.data}, {self.cols.value.data}]")
        if self.rows_value is not None:
            printer.print_string(" rows ")
            _print_scalars(printer, [self.rows_value])
        _print_rest(printer, self, ("symbol", "role", "space", "dtype", "rows", "cols"))


def _take_properties(op: Operation, attributes: dict[str, Attribute]) -> None:
    known = type(op).get_irdl_definition().properties if isinstance(op, IRDLOperation) else {}
    for name, attribute in attributes.items():
        (op.properties if name in known else op.attributes)[name] = attribute


def _print_rest(printer: Printer, op: Operation, printed: Sequence[str] = ()) -> None:
    rest = {n: a for n, a in op.properties.items() if n not in printed}
    rest.update(op.attributes)
    if rest:
        printer.print_string(" ")
        printer.print_attr_dict(rest)


def _parse_scalars(parser: Parser, names: Sequence[Any]) -> list[SSAValue]:
    """`: type, type` after operands, resolved."""
    parser.parse_punctuation(":")
    types = parser.parse_comma_separated_list(parser.Delimiter.NONE, parser.parse_type)
    return list(parser.resolve_operands(names, types, parser.pos))


def _print_scalars(printer: Printer, values: Sequence[SSAValue]) -> None:
    printer.print_list(values, printer.print_ssa_value)
    printer.print_string(" : ")
    printer.print_list([v.type for v in values], printer.print_attribute)


@irdl_op_definition
class TileOp(IRDLOperation):
    """
    `%t = hdp.tile "slab.0" local i16 6144`: a place of 6144 bytes in a buffer.

    A tile that is declared outside of a loop keeps its place throughout the loop; one that is
    declared in the body needs it between its first and its last use there.
    `hdp.tile "p" local i16 4096 over %s` begins where tile `s` begins, for what is computed in place.
    """

    name = "hdp.tile"
    base = opt_operand_def(TileType)
    symbol = prop_def(StringAttr)
    space = prop_def(StringAttr)
    dtype = prop_def(StringAttr)
    bytes = prop_def(IntegerAttr)
    number = opt_prop_def(IntegerAttr)
    address = opt_prop_def(IntegerAttr)
    result = result_def(TileType)

    def __init__(
        self, symbol: str, space: str, dtype: str, nbytes: int, base: SSAValue | None = None
    ):
        super().__init__(
            operands=[base],
            result_types=[TileType()],
            properties={
                "symbol": StringAttr(symbol),
                "space": StringAttr(space),
                "dtype": StringAttr(dtype),
                "bytes": _integer(nbytes),
            },
        )

    def verify_(self) -> None:
        _one_of("space", self.space.data, ("shared", "local"))
        _one_of("dtype", self.dtype.data, tuple(DTYPES))
        _within("bytes", self.bytes, 1, (1 << 32) - 1)
        _within("number", self.number, 0, TILES - 1)
        self._verify_base()

    def _verify_base(self) -> None:
        if self.base is None:
            return
        owner = self.base.owner
        if (
            not isinstance(owner, TileOp)
            or owner.base is not None
            or owner.parent is not self.parent
        ):
            raise VerifyException("over: expected a tile of its own place in the same block")
        if owner.space.data != self.space.data or owner.bytes.value.data < self.bytes.value.data:
            raise VerifyException(
                f"over: {self.bytes.value.data} {self.space.data} bytes do not fit "
                f"{owner.bytes.value.data} {owner.space.data} bytes"
            )

    @classmethod
    def parse(cls, parser: Parser) -> TileOp:
        """Parse the form of the class docstring."""
        symbol = parser.parse_str_literal()
        space, dtype = parser.parse_identifier(), parser.parse_identifier()
        nbytes, base = parser.parse_integer(), None
        if parser.parse_optional_keyword("over") is not None:
            base = parser.resolve_operand(parser.parse_unresolved_operand(), TileType())
        op = cls(symbol, space, dtype, nbytes, base)
        _take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_string_literal(self.symbol.data)
        printer.print_string(f" {self.space.data} {self.dtype.data} {self.bytes.value.data}")
        if self.base is not None:
            printer.print_string(" over ")
            printer.print_ssa_value(self.base)
        _print_rest(printer, self, ("symbol", "space", "dtype", "bytes"))


@irdl_op_definition
class WindowOp(IRDLOperation):
    """`%w = hdp.window %d, %start, %rows : index, index`: rows start .. start + rows of a tensor."""

    name = "hdp.window"
    src = operand_def(TensorType)
    start_reg = operand_def(_SCALAR)
    rows_reg = operand_def(_SCALAR)
    number = opt_prop_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, src: Value, start: Value, rows: Value):
        super().__init__(operands=[src, start, rows], result_types=[TensorType()])

    def verify_(self) -> None:
        _within("number", self.number, 0, DESCRIPTORS - 1)

    @classmethod
    def parse(cls, parser: Parser) -> WindowOp:
        """Parse the form of the class docstring."""
        src = parser.resolve_operand(parser.parse_unresolved_operand(), TensorType())
        parser.parse_punctuation(",")
        names = parser.parse_comma_separated_list(
            parser.Delimiter.NONE, parser.parse_unresolved_operand
        )
        start, rows = _parse_scalars(parser, names)
        op = cls(src, start, rows)
        _take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_ssa_value(self.src)
        printer.print_string(", ")
        _print_scalars(printer, [self.start_reg, self.rows_reg])
        _print_rest(printer, self)


@irdl_op_definition
class AliasOp(IRDLOperation):
    """
    `%m = hdp.alias %x [1024, 48] rows %n : index`: the bytes of a tensor with other extents.

    `rows %n` and the extents are those of `hdp.tensor`; a `tensor` instruction of its own.
    """

    name = "hdp.alias"
    src = operand_def(TensorType)
    rows_value = opt_operand_def(_SCALAR)
    rows = prop_def(IntegerAttr)
    cols = prop_def(IntegerAttr)
    number = opt_prop_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, src: Value, extents: tuple[int, int], rows_value: Value | None = None):
        super().__init__(
            operands=[src, rows_value],
            result_types=[TensorType()],
            properties={"rows": _integer(extents[0]), "cols": _integer(extents[1])},
        )

    @property
    def tensor(self) -> TensorOp:
        """The tensor whose bytes these are; `VerifyException` where there is none."""
        met: set[AliasOp] = {self}
        owner = self.src.owner
        while isinstance(owner, AliasOp) and owner not in met:
            met.add(owner)
            owner = owner.src.owner
        if not isinstance(owner, TensorOp):
            raise VerifyException("expected a tensor or an alias of one, which has a place")
        return owner

    def verify_(self) -> None:
        whole = self.tensor
        for what, extent in (("rows", self.rows), ("cols", self.cols)):
            _within(what, extent, 1, (1 << 20) - 1)
        _within("number", self.number, 0, DESCRIPTORS - 1)
        size = self.rows.value.data * self.cols.value.data
        if size > whole.rows.value.data * whole.cols.value.data:
            raise VerifyException(
                f"{self.rows.value.data} x {self.cols.value.data} elements do not fit "
                f"{whole.rows.value.data} x {whole.cols.value.data}"
            )

    @classmethod
    def parse(cls, parser: Parser) -> AliasOp:
        """Parse the form of the class docstring."""
        src = parser.resolve_operand(parser.parse_unresolved_operand(), TensorType())
        rows, cols = parser.parse_comma_separated_list(
            parser.Delimiter.SQUARE, parser.parse_integer
        )
        rows_value = None
        if parser.parse_optional_keyword("rows") is not None:
            (rows_value,) = _parse_scalars(parser, [parser.parse_unresolved_operand()])
        op = cls(src, (rows, cols), rows_value)
        _take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_ssa_value(self.src)
        printer.print_string(f" [{self.rows.value.data}, {self.cols.value.data}]")
        if self.rows_value is not None:
            printer.print_string(" rows ")
            _print_scalars(printer, [self.rows_value])
        _print_rest(printer, self, ("rows", "cols"))


@irdl_op_definition
class SpecialOp(IRDLOperation):
    """
    `%n = hdp.special tokens : index`: a register that instructions set, as a value.

    `zero` is 0; `tokens` and `batch` are set by `hpack` or `hrows`; `start`, `length`, `extra_start`
    and `extra` by `seq`.
    """

    name = "hdp.special"
    register = prop_def(StringAttr)
    result = result_def(_SCALAR)
    traits = traits_def(Pure())

    def __init__(self, register: str, result_type: Attribute | None = None):
        super().__init__(
            result_types=[result_type or IndexType()],
            properties={"register": StringAttr(register)},
        )

    def verify_(self) -> None:
        _one_of("register", self.register.data, tuple(SPECIAL))
        type_ = self.result.type
        if isinstance(type_, RegType) and type_.number.data != SPECIAL[self.register.data]:
            expected = SPECIAL[self.register.data]
            raise VerifyException(
                f"{self.register.data} is register {expected}, got {type_.number.data}"
            )

    @classmethod
    def parse(cls, parser: Parser) -> SpecialOp:
        """Parse the form of the class docstring."""
        register = parser.parse_identifier()
        parser.parse_punctuation(":")
        return cls(register, parser.parse_type())

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(f" {self.register.data} : ")
        printer.print_attribute(self.result.type)


@irdl_op_definition
class LoopOp(IRDLOperation):
    """
    `hdp.loop %i : !hdp.reg<5> = 0 to %n : !hdp.reg<63> step 128 { ... }`.

    The register is 0, step, ... while it is below the bound; two instruction words.
    """

    name = "hdp.loop"
    bound = operand_def(RegType)
    step = prop_def(IntegerAttr)
    body = region_def("single_block")
    traits = traits_def(NoTerminator())

    def __init__(self, bound: Value, step: int, body: Region):
        super().__init__(operands=[bound], properties={"step": _integer(step)}, regions=[body])

    @property
    def register(self) -> int:
        """The loop's register."""
        return register_of(self.body.block.args[0])

    def verify_(self) -> None:
        _within("step", self.step, 1, (1 << 20) - 1)
        types = [a.type for a in self.body.block.args]
        if len(types) != 1 or not isinstance(types[0], RegType):
            raise VerifyException(f"expected one register as block argument, got {types}")

    @classmethod
    def parse(cls, parser: Parser) -> LoopOp:
        """Parse the form of the class docstring."""
        argument = parser.parse_argument()
        parser.parse_punctuation("=")
        parser.parse_integer()
        parser.parse_keyword("to")
        bound = parser.parse_unresolved_operand()
        parser.parse_punctuation(":")
        resolved = parser.resolve_operand(bound, parser.parse_type())
        parser.parse_keyword("step")
        step = parser.parse_integer()
        return cls(resolved, step, parser.parse_region([argument]))

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.enter_scope()
        argument = self.body.block.args[0]
        printer.print_string(" ")
        printer.print_ssa_value(argument)
        printer.print_string(" : ")
        printer.print_attribute(argument.type)
        printer.print_string(" = 0 to ")
        _print_scalars(printer, [self.bound])
        printer.print_string(f" step {self.step.value.data} ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)
        printer.exit_scope()


# --- Instructions -------------------------------------------------------------------------------


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
                _one_of(field.name, str(value), field.choices)
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
        _take_properties(op, parser.parse_optional_attr_dict())
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
        _print_rest(printer, self, [f.name for f in self.immediate_fields])


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
        return float(parser.parse_number())
    return parser.parse_integer()


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
        FieldKind.REG: _SCALAR,
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
            body["result"] = result_def(_SCALAR)
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
    return _integer(int(cast(int, value)))


assert set(SPACES) == {"dram", "shared", "local"}

HDP = Dialect(
    "hdp",
    [TensorOp, WindowOp, AliasOp, TileOp, SpecialOp, LoopOp, *INSTRUCTION_OPS.values()],
    [TensorType, TileType, RegType, *PLANS],
)
