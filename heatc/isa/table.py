"""
The instruction set, declared once.

Each entry gives an instruction's fields (hence its encoding, text form and IR operation), what
it computes, what must hold before it, and its cycles. Encoder, decoder, assembler,
disassembler, machine, `hdp` dialect and docs/isa.md read this table and nothing else.

`cycles` is a Python expression and is what the machine evaluates; its names are the shape of the
work (`m`, `n`, `k`, `folds`, `depth`, `blocks`, `nbytes`, `elements`), `macs` that a PE does in a
cycle at the operands' widths, and constants of the hardware (`CYCLE_CONSTANTS`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType

from heatc.isa.actions import ENERGY, VECTOR_ENERGY, Actions

ISA_VERSION = 2
WORD_BYTES = 16
WORD_BITS = 8 * WORD_BYTES
OPCODE_BITS = 8

BLOCK = (2, 2)
"""(query rows, key columns) of a block of scores, unless `blocks` says another one."""

REGISTERS = 64
TILES = 64
DESCRIPTORS = 1024
HOST_REGISTERS = 8

R_ZERO = 0
"""Reads as 0, writes are ignored."""
R_TOKENS = 63
"""Number of packed tokens, set by `hpack`."""
R_BATCH = 62
"""Number of sequences, set by `hpack`."""
R_START = 61
"""First packed row of the current sequence, set by `seq`."""
R_LENGTH = 60
"""Length of the current sequence in tokens, its keys, set by `seq`."""
R_EXTRA_START = 59
"""First packed row of the current sequence that is no key, set by `seq`."""
R_EXTRA = 58
"""How many rows of the current sequence are no keys, set by `seq`."""

DTYPES: Mapping[str, int] = MappingProxyType(
    {"i8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4, "acc": 6, "i4": 1}
)
"""Bytes of an element in a buffer; `acc` is a 48-bit accumulator, `i4` has a byte of its own."""

TILE_DTYPES = ("acc", "i4")
"""What tiles hold, and tensors do not."""

BITS: Mapping[str, int] = MappingProxyType({name: 8 * n for name, n in DTYPES.items()} | {"i4": 4})
"""Bits of an element."""


def split_dtypes(point: int) -> tuple[str, str]:
    """
    The narrowest dtypes that hold integer and fraction part of any int16 code at `point`, >= 0.

    |I| <= 2^(15 - point), reached by the least code only: [-2^7, 2^7) from point 8 on.
    |F| < 2^point: at most 2^7 - 1 up to point 7.
    """
    return "i8" if point >= 8 else "i16", "i8" if point <= 7 else "i16"


def sorting_compares(count: int) -> int:
    """
    Compare-exchanges that sort `count` keys in a bitonic network, >= 0.

    K. E. Batcher, Sorting networks and their applications, AFIPS 1968: with N = 2^p keys p (p + 1) / 2
    stages of N / 2.
    """
    depth = max(count - 1, 0).bit_length()
    return (1 << depth) // 2 * (depth * (depth + 1) // 2)


SPACES = ("dram", "shared", "local")
PRUNED_SCORES = ("zero", "neginf", "int", "mean")
MASK_AXES = ("key", "query")
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")
PARAMETERS = ("rho", "tau")
"""Thresholds that every head can have of its own."""
HEADS = 1 << 12
"""Heads that the sequencer keeps parameters of."""


class FieldKind(StrEnum):
    """What a field holds."""

    REG = "reg"
    TILE = "tile"
    DESC = "desc"
    HOST = "host"
    INT = "int"
    UINT = "uint"
    F64 = "f64"
    ENUM = "enum"
    FLAG = "flag"


INDEX_KINDS: Mapping[FieldKind, str] = MappingProxyType(
    {FieldKind.REG: "r", FieldKind.TILE: "t", FieldKind.DESC: "d", FieldKind.HOST: "h"}
)
"""Kinds that name a piece of state, with the letter of their text form."""


class Engine(StrEnum):
    """
    What executes an instruction; `pe`, `se`, `adder` and `softmax` exist once a core.

    `vector` stands for the vector units of all cores, which work as one. No instruction names it:
    on a machine that has them they execute the element-wise instructions of the host.
    """

    CONTROL = "control"
    DMA = "dma"
    PE = "pe"
    SE = "se"
    ADDER = "adder"
    SOFTMAX = "softmax"
    VECTOR = "vector"
    HOST = "host"


CORE_ENGINES = (Engine.PE, Engine.SE, Engine.ADDER, Engine.SOFTMAX)

CYCLE_CONSTANTS: Mapping[str, str] = MappingProxyType(
    {
        "up": "up(x, y) = x / y rounded up",
        "rows": "rows of the PE array",
        "columns": "columns of the PE array",
        "fills": "fills(x) = how often x folds fill the PE array: once if folds overlap, else x times",
        "leaves": "leaves(x) = x if folds overlap, else 0: results then leave within their fold",
        "se_lanes": "block importances per cycle and sparsity engine",
        "adder_lanes": "scores per cycle and adder",
        "softmax_lanes": "scores per cycle and softmax unit",
        "width": "bytes per cycle between DMA and DRAM, or DMA and shared buffer",
        "vector_lanes": "elements per cycle of the vector units of all cores",
        "call": "cycles to start a host operation",
        "host_ops": "host operations per machine cycle",
        "host_width": "host bytes per machine cycle",
    }
)


@dataclass(frozen=True)
class Field:
    """One field of an instruction word; `choices` names the values of an `enum`."""

    name: str
    kind: FieldKind
    bits: int
    choices: tuple[str, ...] = ()

    @cached_property
    def signed(self) -> bool:
        """Whether the field is a two's complement integer."""
        return self.kind is FieldKind.INT

    @cached_property
    def low(self) -> int:
        """The least legal value of an integer field."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @cached_property
    def high(self) -> int:
        """The greatest legal value of an integer field."""
        if self.kind is FieldKind.ENUM:
            return len(self.choices) - 1
        return (1 << (self.bits - self.signed)) - 1


@dataclass(frozen=True)
class Instruction:
    """
    One instruction: its word, and in words and formulas what it does.

    `semantics` and `precondition` are statements over the operands; `cycles` is the expression
    that the machine evaluates (engine occupancy; see the module's docstring). `vector` is that of
    the vector units where a machine has them; empty where the host does the work all the same.
    """

    mnemonic: str
    opcode: int
    engine: Engine
    fields: tuple[Field, ...]
    summary: str
    semantics: str
    precondition: str
    cycles: str
    vector: str = ""

    def field_index(self, name: str) -> int:
        """The position of a field among the operands."""
        return next(i for i, field in enumerate(self.fields) if field.name == name)

    @property
    def energy(self) -> Actions:
        """What it does that costs energy: action to expression, see `heatc.isa.actions`."""
        return ENERGY[self.mnemonic]

    @property
    def vector_energy(self) -> Actions:
        """The same where the vector units do it."""
        return VECTOR_ENERGY[self.mnemonic]

    @property
    def bits(self) -> int:
        """Bits used of the word, opcode included."""
        return OPCODE_BITS + sum(field.bits for field in self.fields)


def reg(name: str) -> Field:
    """A scalar register r0..r63."""
    return Field(name, FieldKind.REG, 6)


def tile(name: str) -> Field:
    """A tile t0..t63."""
    return Field(name, FieldKind.TILE, 6)


def desc(name: str) -> Field:
    """A tensor descriptor d0..d1023."""
    return Field(name, FieldKind.DESC, 10)


def host(name: str) -> Field:
    """A host register h0..h7."""
    return Field(name, FieldKind.HOST, 3)


def sint(name: str, bits: int) -> Field:
    """A two's complement immediate."""
    return Field(name, FieldKind.INT, bits)


def uint(name: str, bits: int) -> Field:
    """An unsigned immediate."""
    return Field(name, FieldKind.UINT, bits)


def f64(name: str) -> Field:
    """A float64 immediate; a NaN is an illegal word."""
    return Field(name, FieldKind.F64, 64)


def enum(name: str, choices: tuple[str, ...]) -> Field:
    """One of `choices`, encoded as its index."""
    return Field(name, FieldKind.ENUM, max(1, (len(choices) - 1).bit_length()), choices)


def flag(name: str) -> Field:
    """0 or 1."""
    return Field(name, FieldKind.FLAG, 1)


_FILL = "fills({folds}) * (rows + columns - 2)"
_DENSE = "up(m, rows) * up(n, columns)"
_PE_DENSE = f"{_DENSE} * up(k, macs) + {_FILL.format(folds=_DENSE)}"
_DRAIN = "leaves(up(m, rows) * n)"
_HOST = "call + {ops} * elements / host_ops + nbytes / host_width"
_PASS = "up(elements, vector_lanes)"
_DMA = "nbytes / width"

_ISA = (
    Instruction(
        "halt",
        0x01,
        Engine.CONTROL,
        (),
        "End of the program.",
        "The run ends.",
        "No loop is open.",
        "1",
    ),
    Instruction(
        "li",
        0x02,
        Engine.CONTROL,
        (reg("rd"), sint("imm", 64)),
        "Load an immediate.",
        "rd := imm",
        "",
        "1",
    ),
    Instruction(
        "addi",
        0x03,
        Engine.CONTROL,
        (reg("rd"), reg("ra"), sint("imm", 32)),
        "Add an immediate.",
        "rd := ra + imm",
        "The sum fits 64 bits.",
        "1",
    ),
    Instruction(
        "span",
        0x0C,
        Engine.CONTROL,
        (reg("rd"), reg("ra"), reg("rb"), uint("limit", 20), uint("scale", 20)),
        "Rows of a tile of tokens.",
        "rd := min(max(ra - rb, 0), limit) * scale",
        "",
        "1",
    ),
    Instruction(
        "loop",
        0x04,
        Engine.CONTROL,
        (reg("r"), reg("bound"), uint("step", 20), uint("skip", 20)),
        "Begin of a loop.",
        "r := 0; if r >= bound, go to pc + skip (the instruction after the matching `end`)",
        "r is not r0; step >= 1; pc + skip - 1 is an `end` whose back is skip - 1.",
        "1",
    ),
    Instruction(
        "end",
        0x05,
        Engine.CONTROL,
        (uint("back", 20),),
        "End of a loop.",
        "with the `loop` at pc - back: r := r + step; if r < bound, go to pc - back + 1",
        "pc - back is the `loop` of the innermost open loop.",
        "1",
    ),
    Instruction(
        "seq",
        0x06,
        Engine.CONTROL,
        (reg("rb"),),
        "Make a sequence the current one.",
        "r61, r60 := first packed row and length of sequence rb; r59, r58 := first packed row and "
        "number of its rows that are no keys",
        "0 <= rb < r62 as `hpack` set it.",
        "1",
    ),
    Instruction(
        "all",
        0x07,
        Engine.CONTROL,
        (),
        "Activate all cores.",
        "active := kept := true on every core",
        "",
        "1",
    ),
    Instruction(
        "heads",
        0x08,
        Engine.CONTROL,
        (reg("rc"), uint("stride", 16), uint("limit", 16)),
        "Begin of a round of heads.",
        "active := kept := rc + core * stride < limit; theta_head := 0",
        "",
        "1",
    ),
    Instruction(
        "param",
        0x09,
        Engine.CONTROL,
        (enum("which", PARAMETERS), uint("head", 12), f64("value")),
        "Set a parameter of a head.",
        "parameter `which` of head `head` := value, for a `mask` or `gate` with own",
        "",
        "1",
    ),
    Instruction(
        "group",
        0x0A,
        Engine.CONTROL,
        (uint("parts", 8), uint("rows", 16)),
        "Let groups of cores share a head.",
        "until the next `all`: core c is part c mod parts of item c / parts, and has rows part * rows "
        "on from those an instruction names. `heads`, core_cols count items instead of cores, core_rows "
        "count parts; a load with core_rows = 0 is fetched once a group, with core_cols = 0 once for the same "
        "part of all groups; a mask has the rows of its "
        "core one after the other, mask row row_reg / parts is the first; theta_head is summed over "
        "a group",
        "parts >= 1 divides the cores; rows is a multiple of the block, 0 only with parts = 1.",
        "1",
    ),
    Instruction(
        "extra",
        0x0E,
        Engine.CONTROL,
        (),
        "Turn to the rows that are no keys.",
        "until the next `heads` or `all` rows of a sequence are its r58 rows that are no keys: what "
        "`mask`, `topk`, `filter` and `likely` decide is theirs, and does not count for a head",
        "",
        "1",
    ),
    Instruction(
        "pruned",
        0x0B,
        Engine.CONTROL,
        (),
        "Turn to the pruned heads.",
        "the active cores whose heads `gate` pruned in this round execute what follows, the others "
        "do not, until the next `heads` or `all`",
        "",
        "1",
    ),
    Instruction(
        "blocks",
        0x0D,
        Engine.CONTROL,
        (uint("rows", 7), uint("columns", 7)),
        "Set the size of a block of scores.",
        "until the next `all`: a block has rows (r) x columns (c) scores; else 2 x 2",
        "the sparsity engine has such blocks (`sparsity_engine.blocks`); r divides the rows that "
        "`group` gave each core.",
        "1",
    ),
    Instruction(
        "tensor",
        0x10,
        Engine.CONTROL,
        (
            desc("d"),
            enum("space", SPACES),
            enum("dtype", tuple(DTYPES)),
            uint("base", 40),
            uint("rows_imm", 20),
            reg("rows_reg"),
            uint("cols", 20),
        ),
        "Describe a row-major tensor.",
        "d := (space, dtype, base, rows, cols); rows = rows_reg if that is not r0, else rows_imm",
        "space is dram or shared, dtype is neither acc nor i4; base is a multiple of the element; the tensor "
        "lies inside its space.",
        "1",
    ),
    Instruction(
        "window",
        0x11,
        Engine.CONTROL,
        (desc("d"), desc("src"), reg("start_reg"), reg("rows_reg")),
        "Describe some rows of a tensor.",
        "d := rows start_reg .. start_reg + rows_reg of src",
        "src is described and has these rows.",
        "1",
    ),
    Instruction(
        "tile",
        0x12,
        Engine.CONTROL,
        (
            tile("t"),
            enum("space", SPACES),
            enum("dtype", tuple(DTYPES)),
            uint("address", 32),
            uint("bytes", 32),
        ),
        "Place a tile in a buffer.",
        "t := (space, dtype, address, capacity in bytes), without contents",
        "space is local or shared; address + bytes <= the buffer.",
        "1",
    ),
    Instruction(
        "ld",
        0x20,
        Engine.DMA,
        (
            tile("t"),
            desc("d"),
            reg("row_reg"),
            reg("col_reg"),
            uint("rows", 16),
            uint("cols", 16),
            uint("core_rows", 16),
            uint("core_cols", 16),
        ),
        "Load a part of a tensor into a tile.",
        "t[core] := d[row : row + rows, col : col + cols] with row = row_reg + core * core_rows, "
        "col = col_reg + core * core_cols, clipped at d's bounds; a shared tile takes core 0's "
        "part; with core_rows = core_cols = 0 the part is fetched once for all cores",
        "d is described, dtypes agree, row_reg and col_reg are not negative; core 0's part is not "
        "empty and fits the tile.",
        _DMA,
    ),
    Instruction(
        "ldm",
        0x21,
        Engine.DMA,
        (
            tile("t"),
            desc("d"),
            reg("row_reg"),
            reg("col_reg"),
            uint("rows", 16),
            uint("cols", 16),
            uint("core_rows", 16),
            uint("core_cols", 16),
            tile("mask"),
            enum("axis", MASK_AXES),
        ),
        "Load upon mask.",
        "as `ld`, but row i of d, token i of the sequence, is fetched only if the mask keeps a "
        "block of it: as a key (any written mask row) or as a query (its own mask row); else it "
        "reads as 0",
        "as `ld`; t is local, mask is a mask tile written on every live core; core_rows = 0.",
        _DMA,
    ),
    Instruction(
        "st",
        0x22,
        Engine.DMA,
        (
            desc("d"),
            tile("t"),
            reg("row_reg"),
            reg("col_reg"),
            uint("core_rows", 16),
            uint("core_cols", 16),
            flag("leave"),
        ),
        "Store a tile.",
        "d[row .., col ..] := t[core], placed and clipped as in `ld`; active cores only, a core "
        "that is active and not kept stores zeros, with leave nothing",
        "t is written and not a mask, dtypes agree, d does not lie among the weights.",
        _DMA,
    ),
    Instruction(
        "strow",
        0x23,
        Engine.DMA,
        (desc("d"), tile("t"), reg("row_reg"), reg("col_reg"), uint("core_cols", 16)),
        "Store a row again and again.",
        "every row of d from row_reg on := the row t[core], placed as in `st`; only the cores that "
        "execute it store, of those that share a head one",
        "t is written, one row and not a mask, dtypes agree, d does not lie among the weights.",
        _DMA,
    ),
    Instruction(
        "stzero",
        0x27,
        Engine.DMA,
        (desc("d"), reg("row_reg"), reg("col_reg"), uint("cols", 16), uint("core_cols", 16)),
        "Store zeros.",
        "every row of d from row_reg on := 0 in `cols` columns, placed as in `st`; of the cores that "
        "share a head one stores",
        "d does not lie among the weights.",
        _DMA,
    ),
    Instruction(
        "mm",
        0x30,
        Engine.PE,
        (tile("acc"), tile("a"), tile("b"), flag("first"), flag("b_transposed")),
        "Multiply and accumulate.",
        "acc := (first ? 0 : acc) + a b, or a b^T when b_transposed; exact",
        "a and b are i16, i8 or i4 tiles, acc is a local acc tile; inner sizes agree; "
        "acc has the product's shape unless first; |acc| < 2^47.",
        _PE_DENSE,
    ),
    Instruction(
        "drain",
        0x31,
        Engine.PE,
        (
            tile("t"),
            tile("acc"),
            tile("bias"),
            flag("has_bias"),
            uint("bias_shift", 6),
            sint("shift", 8),
        ),
        "Requantise accumulators.",
        "t := sat(RHE((acc + (has_bias ? bias << bias_shift : 0)) * 2^-shift)) in t's dtype; bias of k "
        "rows: row i of acc takes its row i mod k",
        "t is a local i8, i16 or i32 tile; bias is an i32 tile as wide as acc, of at most as many rows; "
        "with it |acc| < 2^47.",
        _DRAIN,
    ),
    Instruction(
        "drains",
        0x32,
        Engine.PE,
        (
            tile("ti"),
            tile("tf"),
            tile("acc"),
            tile("bias"),
            flag("has_bias"),
            uint("bias_shift", 6),
            sint("shift", 8),
            sint("point", 8),
        ),
        "Requantise accumulators and split.",
        "c := as `drain` into i16; ti := trunc(c * 2^-point) toward zero, tf := c - (ti << point)",
        "ti and tf are different local tiles, i16 or, where every part fits, i8: ti from point 8 "
        "on, tf up to point 7; point >= 0; bias as in `drain`.",
        _DRAIN,
    ),
    Instruction(
        "scores",
        0x33,
        Engine.PE,
        (
            tile("a"),
            tile("q"),
            tile("k"),
            tile("theta"),
            reg("col_reg"),
            tile("r"),
            flag("positive"),
        ),
        "Integer scores of some key columns, and their block sums.",
        "a[:, col : col + n] := q k^T; theta[:, col / c ..] := sums over blocks of |q k^T|, with "
        "positive of max(r60 (q k^T)_ij - r_i, 0); col = 0 begins new contents of a and theta, r60 "
        "key columns wide",
        "q (m, k) and k (n, k) are i16 or i8 tiles, q is local, a is i32 (saturating) or acc, theta is "
        "acc; with positive r is a local acc tile (m, 1); col begins a block, columns are written in "
        "ascending order without a gap, only the last n may end inside a block, col + n <= r60.",
        _PE_DENSE,
    ),
    Instruction(
        "frac",
        0x34,
        Engine.PE,
        (
            tile("f1"),
            tile("f2"),
            tile("qi"),
            tile("qf"),
            tile("ki"),
            tile("kf"),
            tile("mask"),
            reg("row_reg"),
            reg("col_reg"),
        ),
        "Fraction products on kept blocks.",
        "f1 := qf ki^T, f2 := qi kf^T on kept blocks, 0 elsewhere; the tiles' first row and column "
        "are row_reg and col_reg of the mask. folds: for each group of `rows` query rows the "
        "greatest up(kept blocks of a block row, columns / c), summed over groups, a block that is "
        "wider or higher than the array taking several; macs_f1 and macs_f2 are those of the two "
        "products",
        "f1 and f2 are local acc tiles; qi, qf (m, k) and ki, kf (n, k) are i16 or i8, ki and kf local; "
        "the mask has these rows and columns, in blocks of this size; row and col begin a block.",
        f"folds * (up(k, macs_f1) + up(k, macs_f2)) + {_FILL.format(folds='2 * folds')}",
    ),
    Instruction(
        "pv",
        0x35,
        Engine.PE,
        (
            tile("acc"),
            tile("p"),
            tile("v"),
            tile("mask"),
            reg("row_reg"),
            reg("col_reg"),
            flag("first"),
            flag("sparse"),
            tile("total"),
            flag("constant"),
        ),
        "Probabilities times values of some key columns.",
        "acc := (first ? 0 : acc) + p[:, col : col + n] v, with sparse over kept blocks only; with "
        "constant acc := (first ? c total : acc) + (p[:, col : col + n] - c) v over these, c (m, 1) "
        "being p at the first pruned column of each row, 0 where none is: where all pruned p of a "
        "row are c and total is the sum of all rows of v, this is p v; the two halves of total one after "
        "the other; depth: for each group of `rows` query rows the greatest number of key columns to "
        "add in one row (n unless sparse), over macs, rounded up, and with constant and first 2 for "
        "total, summed over groups",
        "p (m, r60) and v (n, e) are i16 or i8, v is local if sparse, acc is a local acc tile of "
        "shape (m, e) unless first; mask is read when sparse, at row_reg and col_reg as in `frac`; "
        "constant only with sparse, v is i16 then, the mask has all columns and total is a local acc row of e sums, "
        "|total| < 2^31; |acc| < 2^47.",
        f"depth * up(n, columns) + {_FILL.format(folds=_DENSE)}",
    ),
    Instruction(
        "wide",
        0x37,
        Engine.PE,
        (tile("r"), tile("x"), tile("t"), flag("as_row")),
        "Multiply by a wide row.",
        "r := x t^T, with as_row t x^T; exact, the two halves of t one after the other",
        "x (m, k) is a local i16 or i8 tile, t a local acc row of k sums, |t| < 2^31; r is a local "
        "acc tile.",
        f"up(m, rows) * 2 * up(k, macs) + {_FILL.format(folds='2 * up(m, rows)')}",
    ),
    Instruction(
        "drainc",
        0x38,
        Engine.PE,
        (tile("t"), tile("acc"), reg("col_reg"), sint("shift", 8)),
        "Requantise accumulators of some key columns.",
        "t[:, col : col + n] := sat(RHE(acc * 2^-shift)); col = 0 begins new contents of t, r60 key "
        "columns wide",
        "t is a local i32 tile, columns as in `scores`.",
        _DRAIN,
    ),
    Instruction(
        "pick",
        0x36,
        Engine.PE,
        (tile("acc"), tile("q"), tile("k"), tile("mask"), reg("row_reg"), reg("col_reg")),
        "Scores of kept blocks.",
        "acc := q k^T on kept blocks, 0 elsewhere; rows, columns and folds as in `frac`",
        "q (m, k) and k (n, k) are local i16, i8 or i4 tiles, acc is a local acc tile; the mask as in "
        "`frac`.",
        f"folds * up(k, macs) + {_FILL.format(folds='folds')}",
    ),
    Instruction(
        "drainm",
        0x39,
        Engine.PE,
        (
            tile("t"),
            tile("acc"),
            tile("mask"),
            reg("row_reg"),
            reg("col_reg"),
            sint("shift", 8),
        ),
        "Requantise scores of kept blocks.",
        "t[:, col : col + n] := sat(RHE(acc * 2^-shift)) on kept blocks, excluded elsewhere: a bit "
        "beside each score says so; col = 0 begins new contents of t. folds as in `frac`",
        "t is a local i32 tile, acc has n columns; columns as in `scores`, the mask as in `frac`.",
        "leaves(folds * columns)",
    ),
    Instruction(
        "drainp",
        0x3A,
        Engine.PE,
        (
            tile("t"),
            tile("acc"),
            tile("q_peak"),
            tile("k_peak"),
            reg("col_reg"),
            sint("shift", 8),
        ),
        "Requantise scores of low-bit codes.",
        "t[:, col : col + n] := sat(RHE(acc * 2^-(shift - n_q - n_k))), n_q and n_k the bit lengths of "
        "the peaks; col = 0 begins new contents of t",
        "t is a local i32 tile, the peaks are what `peak` wrote; columns as in `scores`.",
        _DRAIN,
    ),
    Instruction(
        "mask",
        0x40,
        Engine.SE,
        (tile("m"), tile("theta"), reg("row_reg"), f64("rho"), flag("own")),
        "END_R: thresholds and mask of block rows.",
        "m[row / r ..] := theta >= Theta per block row (rho >= 0: rho max + (1 - rho) mean; "
        "rho < 0: -rho min + (1 + rho) mean; float64), with own rho of the core's head instead; "
        "theta_head += sum of theta; row = 0 begins new contents of m",
        "theta is complete, of blocks of this size, which the sparsity engine has; m is a local i8 tile "
        "and holds one bit a block, its rows padded to bytes; row begins a block, rows are written in "
        "ascending order without a gap.",
        "up(blocks, se_lanes)",
    ),
    Instruction(
        "gate",
        0x41,
        Engine.SE,
        (f64("tau"), flag("own"), flag("positive")),
        "END_H: keep or prune the head.",
        "kept := kept and theta_head / r60^2 (with positive r60^3) >= tau (float64), with own tau of "
        "the core's head instead; none at or below 0 prunes",
        "r60 >= 1.",
        "1",
    ),
    Instruction(
        "cascade",
        0x47,
        Engine.SE,
        (tile("s"), uint("keep", 12)),
        "List the heads of a sequence by importance.",
        "until the next `all` heads are listed: the `keep` heads of the greatest s (of equal ones the "
        "first), then the others, both in ascending order; places of the list stand for heads: in "
        "`heads`, in head_reg, and with core_cols > 0 in a transfer, where col_reg = core_cols * i is "
        "place i, and the column is core_cols * head. Rounds of heads and transfers wait for the list",
        "s is a complete local i64 row of a sum a head, alike on all cores; 1 <= keep <= n; heads are "
        "not listed yet.",
        "up(n * n, se_lanes)",
    ),
    Instruction(
        "topk",
        0x42,
        Engine.SE,
        (tile("m"), tile("theta"), reg("row_reg"), f64("density")),
        "The greatest importances of block rows.",
        "m[row / r ..] := the max(1, ceil(density * n)) greatest of the n importances of a block row, "
        "of equal ones those further left; row = 0 begins new contents of m. compares: those that "
        "sort the rows in a bitonic network, each padded to N = 2^p >= n: N / 2 * p (p + 1) / 2; one "
        "more a block, against the last one that is kept, gives its bit",
        "0 < density <= 1; else as `mask`.",
        "up(compares + blocks, se_lanes)",
    ),
    Instruction(
        "filter",
        0x43,
        Engine.SE,
        (
            tile("m"),
            tile("s"),
            tile("among"),
            reg("row_reg"),
            f64("rho"),
            flag("has_among"),
        ),
        "Mean filtering of single scores.",
        "m[row ..] := score >= Theta per row, Theta of the row's signed scores as in `mask`; with "
        "has_among of those alone that this mask keeps, and the others are not kept; row = 0 begins new "
        "contents of m",
        "blocks are 1 x 1; s is a complete i32 tile, r60 wide; m as in `mask`; among is a mask of these "
        "rows and keeps no score that is excluded.",
        "up(blocks, se_lanes)",
    ),
    Instruction(
        "likely",
        0x44,
        Engine.SE,
        (tile("m"), tile("p"), reg("row_reg"), uint("code", 15)),
        "Probabilities above a threshold.",
        "m[row ..] := p > code, and the first greatest of each row; row = 0 begins new contents of m",
        "blocks are 1 x 1; p is a complete i16 tile, r60 wide; m as in `mask`.",
        "up(blocks, se_lanes)",
    ),
    Instruction(
        "add",
        0x48,
        Engine.ADDER,
        (
            tile("s"),
            tile("a"),
            tile("f1"),
            tile("f2"),
            tile("mask"),
            reg("row_reg"),
            reg("col_reg"),
            enum("pruned", PRUNED_SCORES),
            sint("point_q", 8),
            sint("point_k", 8),
            sint("point_s", 8),
            tile("r"),
            flag("constant"),
        ),
        "Merge integer and fraction parts of some key columns.",
        "s[:, col : col + n] := sat32(RHE(((a << f) + (f1 << (f - point_q)) + (f2 << (f - point_k))) "
        "* 2^-(f - point_s))), f = max(point_q, point_k, 0), on kept blocks; elsewhere 0 (zero), "
        "excluded (neginf), sat32(a * 2^point_s) (int) or the mean of the row's pruned a (mean); "
        "col = 0 begins new contents of s. s may be a: each column is read before it is written. "
        "merged: the scores of a core, under neginf the kept ones: a bit beside each score says "
        "that it is excluded; with constant the kept ones and, with col = 0, one of each row, which "
        "stands for all pruned ones; their mean then comes from r, the sums of the rows of a",
        "f1 and f2 (m, n) are acc tiles, a (m, r60) is complete (from col on where s is a, with `mean` "
        "n = r60 then), s is a local i32 tile; columns as in `scores`, mask as in `frac`; constant only "
        "for zero and mean, r is then an acc tile (m, 1) if it is a mean; "
        "0 <= point_q, point_k <= 40, -40 <= point_s <= 40.",
        "up(merged, adder_lanes)",
    ),
    Instruction(
        "divide",
        0x49,
        Engine.ADDER,
        (tile("t"), tile("acc"), reg("col_reg"), flag("wide"), sint("shift", 8)),
        "Means of sums over the sequence.",
        "t := sat(RHE(acc / r60 * 2^-shift)) in t's dtype, the quotient float64; with wide these are "
        "columns col.. of a tile r60 wide, col = 0 begins new contents",
        "t is a local i16 or i32 tile, acc is complete; columns come in ascending order without a "
        "gap.",
        "up(m * n, adder_lanes)",
    ),
    Instruction(
        "colsum",
        0x4A,
        Engine.ADDER,
        (tile("t"), tile("x"), flag("first")),
        "Sum rows.",
        "t := (first ? 0 : t) + the sum of the rows of x; exact",
        "x (k, n) is an i16 or i8 tile, t is a local acc tile, a row as wide as x unless first; "
        "|t| < 2^31.",
        "up(k * n, adder_lanes)",
    ),
    Instruction(
        "magnitude",
        0x4E,
        Engine.ADDER,
        (tile("t"), tile("x"), reg("row_reg")),
        "Sum magnitudes.",
        "t := t + the sum of |x| over the rows that a core has; exact; row = 0 begins new contents",
        "x (m, n) is a local i16 or i8 tile, t is a local acc tile, (1, 1) unless row = 0; |t| < 2^47.",
        "up(m * n, adder_lanes)",
    ),
    Instruction(
        "tally",
        0x4F,
        Engine.ADDER,
        (tile("t"), tile("acc"), tile("s"), flag("first"), reg("head_reg"), uint("shift", 6)),
        "Add to the importance of a head.",
        "t := (first ? 0 : s[0, head]) + (sum of acc over the cores that share the head) << shift, head "
        "that of item 0 in head_reg, one further a group of cores; k: the cores that share a head",
        "t is a local i64 tile, acc is a local acc tile (1, 1); s is a local i64 row that has the head, "
        "read unless first; |t| < 2^47.",
        "up(k + 1, adder_lanes)",
    ),
    Instruction(
        "peak",
        0x4B,
        Engine.ADDER,
        (tile("t"), tile("x"), flag("first")),
        "Greatest magnitude.",
        "t := max(first ? 0 : t, the greatest |x|)",
        "x (k, n) is an i16 or i8 tile, t is a local acc tile, of one element unless first.",
        "up(k * n, adder_lanes)",
    ),
    Instruction(
        "low",
        0x4C,
        Engine.ADDER,
        (tile("t"), tile("x"), tile("peak"), uint("bits", 4)),
        "Low-bit codes.",
        "t := clip(RHE(x * 2^(bits - 1 - n)), -l, l), l = 2^(bits - 1) - 1, n the bit length of peak",
        "2 <= bits <= 8; x (m, n) is an i16 or i8 tile, t is a local i8 tile, or i4 with at most 4 bits; "
        "peak is what `peak` wrote.",
        "up(m * n, adder_lanes)",
    ),
    Instruction(
        "softmax",
        0x50,
        Engine.SOFTMAX,
        (tile("p"), tile("s"), uint("multiplier", 16), sint("shift", 8), sint("point", 8)),
        "Softmax of rows.",
        "p := softmax unit of s with scores at `point` and scale multiplier * 2^-shift (log2 e "
        "included); int16 at point 14. p may begin where s begins: a row is read before it is written. "
        "taken: the scores of a core that are not excluded, those that a constant stands for once a "
        "row; longest: the most of them in a row",
        "s is a complete i32 tile, p is a local i16 tile; -14 <= point + shift - 16 <= 62, n <= 32767. Rows "
        "stream through three stages: peak, powers and their sum, scaling.",
        "up(taken, softmax_lanes) + 2 * up(longest, softmax_lanes)",
    ),
    Instruction(
        "hpack",
        0x60,
        Engine.HOST,
        (
            desc("dpos"),
            desc("dinv"),
            desc("dmask"),
            uint("batch", 16),
            uint("length", 16),
            flag("has_mask"),
        ),
        "List the real tokens.",
        "tokens: where dmask (batch, length) is not 0, or all without has_mask, in row-major order; "
        "dpos[i] := flat index of token i; dinv[j] := token at flat index j or -1; r63 := tokens; "
        "r62 := batch; sequence table for `seq`. dpos keeps its rows beyond r63",
        "dpos and dinv are i64 with at least batch * length elements, dmask is an integer tensor "
        "with as many elements.",
        _HOST.format(ops=2),
    ),
    Instruction(
        "hidx",
        0x61,
        Engine.HOST,
        (desc("dst"), desc("src"), desc("idx")),
        "Gather integers.",
        "dst[i] := src[idx[i]] for the elements i of dst; idx -1 gives 0",
        "dst, src, idx are integer tensors, idx has as many elements as dst, each within src.",
        _HOST.format(ops=1),
    ),
    Instruction(
        "hrows",
        0x6A,
        Engine.HOST,
        (
            desc("dpos"),
            desc("dinv"),
            desc("dreal"),
            desc("dmask"),
            desc("dread"),
            uint("batch", 16),
            uint("length", 16),
        ),
        "List the real tokens, and the masked positions that are read.",
        "as `hpack` with has_mask, but behind the tokens of each sequence those of its masked "
        "positions have a row that are elements of dread; dpos[i] := flat index of row i; dinv[j] := "
        "row of flat index j or -1; dreal[j] := the same, -1 where masked; r63 := rows",
        "dpos, dinv and dreal are i64 with at least batch * length elements, dmask is an integer "
        "tensor with as many elements, dread an integer tensor of ascending numbers below length; a "
        "sequence with such a row has a token.",
        _HOST.format(ops=3),
    ),
    Instruction(
        "htest",
        0x6B,
        Engine.HOST,
        (desc("dst"), desc("src"), enum("compare", COMPARISONS), f64("value")),
        "Compare with a number.",
        "dst[i] := 1 where src[i] compares so with value (==, !=, <, <=, >, >=), else 0",
        "dst is an integer tensor with as many elements as src.",
        _HOST.format(ops=1),
    ),
    Instruction(
        "hget",
        0x62,
        Engine.HOST,
        (host("h"), desc("d"), reg("row_reg"), uint("rows", 24), sint("point", 8)),
        "Read rows as float64.",
        "h := d[row : row + rows] * 2^-point, clipped at d's rows; f32 as it is",
        "row is inside d.",
        _HOST.format(ops=1),
        _PASS,
    ),
    Instruction(
        "hgeti",
        0x63,
        Engine.HOST,
        (
            host("h"),
            desc("d"),
            desc("idx"),
            reg("row_reg"),
            uint("rows", 24),
            sint("point", 8),
        ),
        "Gather rows as float64.",
        "h[i] := d[idx[row + i]] * 2^-point for i < rows, clipped at idx's elements; idx -1 gives 0",
        "idx is an integer tensor, each index read is -1 or a row of d.",
        _HOST.format(ops=1),
        _PASS,
    ),
    Instruction(
        "hadd",
        0x64,
        Engine.HOST,
        (host("h"), host("g")),
        "Add.",
        "h := h + g",
        "g has h's shape, or one row.",
        _HOST.format(ops=1),
        _PASS,
    ),
    Instruction(
        "hln",
        0x65,
        Engine.HOST,
        (host("h"), desc("gamma"), desc("beta"), f64("eps")),
        "Layer norm of rows.",
        "h := (h - mean) / sqrt(var + eps) * gamma + beta, float64",
        "gamma and beta are f32 tensors of h's width.",
        _HOST.format(ops=8),
        f"2 * {_PASS}",
    ),
    Instruction(
        "hgelu",
        0x66,
        Engine.HOST,
        (host("h"),),
        "GELU.",
        "h := 0.5 h (1 + erf(h / sqrt 2))",
        "",
        _HOST.format(ops=20),
        _PASS,
    ),
    Instruction(
        "htanh",
        0x67,
        Engine.HOST,
        (host("h"),),
        "Hyperbolic tangent.",
        "h := tanh h",
        "",
        _HOST.format(ops=20),
        _PASS,
    ),
    Instruction(
        "hrelu",
        0x68,
        Engine.HOST,
        (host("h"),),
        "Rectifier.",
        "h := max(h, 0)",
        "",
        _HOST.format(ops=1),
        _PASS,
    ),
    Instruction(
        "hput",
        0x69,
        Engine.HOST,
        (desc("d"), host("h"), reg("row_reg"), sint("point", 8)),
        "Write rows of codes.",
        "d[row ..] := sat(RHE(h * 2^point)) in d's dtype, i64 in 53 bits, f32 the value; rows beyond d's are clipped",
        "h has d's width, row is inside d, d does not lie among the weights, no value is a NaN.",
        _HOST.format(ops=4),
        _PASS,
    ),
)


def _checked(entries: tuple[Instruction, ...]) -> Mapping[str, Instruction]:
    table = {entry.mnemonic: entry for entry in sorted(entries, key=lambda e: e.opcode)}
    assert table.keys() == ENERGY.keys()
    assert VECTOR_ENERGY.keys() == {entry.mnemonic for entry in entries if entry.vector}
    assert len(table) == len(entries) == len({entry.opcode for entry in entries})
    for entry in entries:
        assert 0 < entry.opcode < 1 << OPCODE_BITS
        assert entry.bits <= WORD_BITS, f"{entry.mnemonic} needs {entry.bits} bits"
        assert len({field.name for field in entry.fields}) == len(entry.fields)
    return MappingProxyType(table)


ISA: Mapping[str, Instruction] = _checked(_ISA)
"""Instructions by mnemonic, in opcode order."""

BY_OPCODE: Mapping[int, Instruction] = MappingProxyType({i.opcode: i for i in ISA.values()})
"""Instructions by opcode."""
