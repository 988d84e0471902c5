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

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    FloatAttr,
    IndexType,
    IntegerAttr,
    StringAttr,
    UnitAttr,
)
from xdsl.ir import Attribute, Dialect, Operation, Region, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
)
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.traits import NoTerminator, Pure
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.attn_packing import ValuesAttr
from heatc.dialects.hdp_instructions import INSTRUCTION_OPS, InstructionOp, Operand, instruction
from heatc.dialects.hdp_plans import PLANS
from heatc.dialects.hdp_types import (
    SCALAR,
    RegType,
    TensorType,
    TileType,
    expect_one_of,
    expect_within,
    integer_attr,
    integers,
    parse_scalars,
    print_rest,
    print_scalars,
    register_of,
    take_properties,
)
from heatc.isa.table import (
    DESCRIPTORS,
    DTYPES,
    R_BATCH,
    R_EXTRA,
    R_EXTRA_START,
    R_LENGTH,
    R_START,
    R_TOKENS,
    R_ZERO,
    SPACES,
    TILE_DTYPES,
    TILES,
)

__all__ = [
    "HDP",
    "INSTRUCTION_OPS",
    "AliasOp",
    "InstructionOp",
    "LoopOp",
    "Operand",
    "RegType",
    "SpecialOp",
    "TensorOp",
    "TensorType",
    "TileOp",
    "TileType",
    "WindowOp",
    "instruction",
    "integers",
    "register_of",
]

Value = SSAValue | Operation

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


@irdl_op_definition
class TensorOp(IRDLOperation):
    """
    `%d = hdp.tensor "query.weight" weight dram i16 [384, 384] {point = 15 : i64}`.

    With `rows %n` a register has the number of rows; the extents then say how much memory is
    needed.

    - `point`: the binary point.
    - `ports`: the model's names for an input or output. `shape`, `limit` (rows of the table that it
      indexes), `port_role` (`mask`), `real` and `masked` (the values of a mask), `within` (the
      interval that an input's values must lie in), `hides` (or else they are at most this, which hides a
      score) and `truth` (i8 that the model has as truth values) describe it.
    - `names` and `permutation`: which weights to quantise. `values`: those of a constant.
    - `plane_of`: the tensor that this is the integer or the fraction plane of.
    - `number` and `base` come from allocate-buffers, and `on_chip`: it was to lie in DRAM, and
      lies in the shared buffer as a whole.
    """

    name = "hdp.tensor"
    rows_value = opt_operand_def(SCALAR)
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
    within = opt_prop_def(ValuesAttr)
    hides = opt_prop_def(FloatAttr)
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
                "rows": integer_attr(extents[0]),
                "cols": integer_attr(extents[1]),
                "point": None if point is None else integer_attr(point),
                **(properties or {}),
            },
        )

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor."""
        return self.rows.value.data * self.cols.value.data * DTYPES[self.dtype.data]

    def verify_(self) -> None:
        expect_one_of("role", self.role.data, ROLES)
        expect_one_of("space", self.space.data, ("dram", "shared"))
        expect_one_of("dtype", self.dtype.data, [d for d in DTYPES if d not in TILE_DTYPES])
        for what, extent in (("rows", self.rows), ("cols", self.cols)):
            expect_within(what, extent, 1, (1 << 20) - 1)
        expect_within("number", self.number, 0, DESCRIPTORS - 1)
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
            (rows_value,) = parse_scalars(parser, [parser.parse_unresolved_operand()])
        op = cls(symbol, role, dtype, (rows, cols), rows_value=rows_value)
        op.space = StringAttr(space)
        take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_string_literal(self.symbol.data)
        words = f" {self.role.data} {self.space.data} {self.dtype.data}"
        printer.print_string(f"{words} [{self.rows.value.data}, {self.cols.value.data}]")
        if self.rows_value is not None:
            printer.print_string(" rows ")
            print_scalars(printer, [self.rows_value])
        print_rest(printer, self, ("symbol", "role", "space", "dtype", "rows", "cols"))


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
                "bytes": integer_attr(nbytes),
            },
        )

    def verify_(self) -> None:
        expect_one_of("space", self.space.data, ("shared", "local"))
        expect_one_of("dtype", self.dtype.data, tuple(DTYPES))
        expect_within("bytes", self.bytes, 1, (1 << 32) - 1)
        expect_within("number", self.number, 0, TILES - 1)
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
        take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_string_literal(self.symbol.data)
        printer.print_string(f" {self.space.data} {self.dtype.data} {self.bytes.value.data}")
        if self.base is not None:
            printer.print_string(" over ")
            printer.print_ssa_value(self.base)
        print_rest(printer, self, ("symbol", "space", "dtype", "bytes"))


@irdl_op_definition
class WindowOp(IRDLOperation):
    """`%w = hdp.window %d, %start, %rows : index, index`: rows start .. start + rows of a tensor."""

    name = "hdp.window"
    src = operand_def(TensorType)
    start_reg = operand_def(SCALAR)
    rows_reg = operand_def(SCALAR)
    number = opt_prop_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, src: Value, start: Value, rows: Value):
        super().__init__(operands=[src, start, rows], result_types=[TensorType()])

    def verify_(self) -> None:
        expect_within("number", self.number, 0, DESCRIPTORS - 1)

    @classmethod
    def parse(cls, parser: Parser) -> WindowOp:
        """Parse the form of the class docstring."""
        src = parser.resolve_operand(parser.parse_unresolved_operand(), TensorType())
        parser.parse_punctuation(",")
        names = parser.parse_comma_separated_list(
            parser.Delimiter.NONE, parser.parse_unresolved_operand
        )
        start, rows = parse_scalars(parser, names)
        op = cls(src, start, rows)
        take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_ssa_value(self.src)
        printer.print_string(", ")
        print_scalars(printer, [self.start_reg, self.rows_reg])
        print_rest(printer, self)


@irdl_op_definition
class AliasOp(IRDLOperation):
    """
    `%m = hdp.alias %x [1024, 48] rows %n : index`: the bytes of a tensor with other extents.

    `rows %n` and the extents are those of `hdp.tensor`; a `tensor` instruction of its own.
    """

    name = "hdp.alias"
    src = operand_def(TensorType)
    rows_value = opt_operand_def(SCALAR)
    rows = prop_def(IntegerAttr)
    cols = prop_def(IntegerAttr)
    number = opt_prop_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, src: Value, extents: tuple[int, int], rows_value: Value | None = None):
        super().__init__(
            operands=[src, rows_value],
            result_types=[TensorType()],
            properties={"rows": integer_attr(extents[0]), "cols": integer_attr(extents[1])},
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
            expect_within(what, extent, 1, (1 << 20) - 1)
        expect_within("number", self.number, 0, DESCRIPTORS - 1)
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
            (rows_value,) = parse_scalars(parser, [parser.parse_unresolved_operand()])
        op = cls(src, (rows, cols), rows_value)
        take_properties(op, parser.parse_optional_attr_dict())
        return op

    def print(self, printer: Printer) -> None:
        """Print the form of the class docstring."""
        printer.print_string(" ")
        printer.print_ssa_value(self.src)
        printer.print_string(f" [{self.rows.value.data}, {self.cols.value.data}]")
        if self.rows_value is not None:
            printer.print_string(" rows ")
            print_scalars(printer, [self.rows_value])
        print_rest(printer, self, ("rows", "cols"))


@irdl_op_definition
class SpecialOp(IRDLOperation):
    """
    `%n = hdp.special tokens : index`: a register that instructions set, as a value.

    `zero` is 0; `tokens` and `batch` are set by `hpack` or `hrows`; `start`, `length`, `extra_start`
    and `extra` by `seq`.
    """

    name = "hdp.special"
    register = prop_def(StringAttr)
    result = result_def(SCALAR)
    traits = traits_def(Pure())

    def __init__(self, register: str, result_type: Attribute | None = None):
        super().__init__(
            result_types=[result_type or IndexType()],
            properties={"register": StringAttr(register)},
        )

    def verify_(self) -> None:
        expect_one_of("register", self.register.data, tuple(SPECIAL))
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
        super().__init__(operands=[bound], properties={"step": integer_attr(step)}, regions=[body])

    @property
    def register(self) -> int:
        """The loop's register."""
        return register_of(self.body.block.args[0])

    def verify_(self) -> None:
        expect_within("step", self.step, 1, (1 << 20) - 1)
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
        print_scalars(printer, [self.bound])
        printer.print_string(f" step {self.step.value.data} ")
        printer.print_region(self.body, print_entry_block_args=False, print_empty_block=False)
        printer.exit_scope()


assert set(SPACES) == {"dram", "shared", "local"}

HDP = Dialect(
    "hdp",
    [TensorOp, WindowOp, AliasOp, TileOp, SpecialOp, LoopOp, *INSTRUCTION_OPS.values()],
    [TensorType, TileType, RegType, *PLANS],
)
