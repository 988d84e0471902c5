"""Control: registers, loops, sequences, cores, and what tensors and tiles are."""

from __future__ import annotations

from heatc.isa.dtypes import DTYPES
from heatc.isa.table.fields import (
    PARAMETERS,
    SPACES,
    desc,
    enum,
    f64,
    reg,
    sint,
    tile,
    uint,
)
from heatc.isa.table.instruction import Engine, Instruction

ROWS = (
    Instruction(
        "halt",
        0x01,
        Engine.CONTROL,
        (),
        summary="End of the program.",
        semantics="The run ends.",
        precondition="No loop is open.",
        cycles="1",
    ),
    Instruction(
        "li",
        0x02,
        Engine.CONTROL,
        (reg("rd"), sint("imm", 64)),
        summary="Load an immediate.",
        semantics="rd := imm",
        defines="rd",
        cycles="1",
    ),
    Instruction(
        "addi",
        0x03,
        Engine.CONTROL,
        (reg("rd"), reg("ra"), sint("imm", 32)),
        summary="Add an immediate.",
        semantics="rd := ra + imm",
        precondition="The sum fits 64 bits.",
        defines="rd",
        cycles="1",
    ),
    Instruction(
        "span",
        0x0C,
        Engine.CONTROL,
        (reg("rd"), reg("ra"), reg("rb"), uint("limit", 20), uint("scale", 20)),
        summary="Rows of a tile of tokens.",
        semantics="rd := min(max(ra - rb, 0), limit) * scale",
        defines="rd",
        cycles="1",
    ),
    Instruction(
        "loop",
        0x04,
        Engine.CONTROL,
        (reg("r"), reg("bound"), uint("step", 20), uint("skip", 20)),
        summary="Begin of a loop.",
        semantics="r := 0; if r >= bound, go to pc + skip (the instruction after the matching `end`)",
        precondition="r is not r0; step >= 1; pc + skip - 1 is an `end` whose back is skip - 1.",
        defines="r",
        cycles="1",
    ),
    Instruction(
        "end",
        0x05,
        Engine.CONTROL,
        (uint("back", 20),),
        summary="End of a loop.",
        semantics="with the `loop` at pc - back: r := r + step; if r < bound, go to pc - back + 1",
        precondition="pc - back is the `loop` of the innermost open loop.",
        cycles="1",
    ),
    Instruction(
        "seq",
        0x06,
        Engine.CONTROL,
        (reg("rb"),),
        summary="Make a sequence the current one.",
        semantics=(
            "r61, r60 := first packed row and length of sequence rb; r59, r58 := first packed row and "
            "number of its rows that are no keys"
        ),
        precondition="0 <= rb < r62 as `hpack` set it.",
        cycles="1",
    ),
    Instruction(
        "all",
        0x07,
        Engine.CONTROL,
        (),
        summary="Activate all cores.",
        semantics="active := kept := true on every core",
        cycles="1",
    ),
    Instruction(
        "heads",
        0x08,
        Engine.CONTROL,
        (reg("rc"), uint("stride", 16), uint("limit", 16)),
        summary="Begin of a round of heads.",
        semantics="active := kept := rc + core * stride < limit; theta_head := 0",
        cycles="1",
    ),
    Instruction(
        "param",
        0x09,
        Engine.CONTROL,
        (enum("which", PARAMETERS), uint("head", 12), f64("value")),
        summary="Set a parameter of a head.",
        semantics="parameter `which` of head `head` := value, for a `mask` or `gate` with own",
        cycles="1",
    ),
    Instruction(
        "group",
        0x0A,
        Engine.CONTROL,
        (uint("parts", 8), uint("rows", 16)),
        summary="Let groups of cores share a head.",
        semantics=(
            "until the next `all`: core c is part c mod parts of item c / parts, and has rows part * rows "
            "on from those an instruction names. `heads`, core_cols count items instead of cores, core_rows "
            "count parts; a load with core_rows = 0 is fetched once a group, with core_cols = 0 once for the same "
            "part of all groups; a mask has the rows of its "
            "core one after the other, mask row row_reg / parts is the first; theta_head is summed over "
            "a group"
        ),
        precondition="parts >= 1 divides the cores; rows is a multiple of the block, 0 only with parts = 1.",
        cycles="1",
    ),
    Instruction(
        "extra",
        0x0E,
        Engine.CONTROL,
        (),
        summary="Turn to the rows that are no keys.",
        semantics=(
            "until the next `heads` or `all` rows of a sequence are its r58 rows that are no keys: what "
            "`mask`, `topk`, `filter` and `likely` decide is theirs, and does not count for a head"
        ),
        cycles="1",
    ),
    Instruction(
        "pruned",
        0x0B,
        Engine.CONTROL,
        (),
        summary="Turn to the pruned heads.",
        semantics=(
            "the active cores whose heads `gate` pruned in this round execute what follows, the others "
            "do not, until the next `heads` or `all`"
        ),
        cycles="1",
    ),
    Instruction(
        "blocks",
        0x0D,
        Engine.CONTROL,
        (uint("rows", 7), uint("columns", 7)),
        summary="Set the size of a block of scores.",
        semantics="until the next `all`: a block has rows (r) x columns (c) scores; else 2 x 2",
        precondition=(
            "the sparsity engine has such blocks (`sparsity_engine.blocks`); r divides the rows that "
            "`group` gave each core."
        ),
        cycles="1",
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
        summary="Describe a row-major tensor.",
        semantics="d := (space, dtype, base, rows, cols); rows = rows_reg if that is not r0, else rows_imm",
        precondition=(
            "space is dram or shared, dtype is neither acc nor i4; base is a multiple of the element; the tensor "
            "lies inside its space."
        ),
        defines="d",
        cycles="1",
    ),
    Instruction(
        "window",
        0x11,
        Engine.CONTROL,
        (desc("d"), desc("src"), reg("start_reg"), reg("rows_reg")),
        summary="Describe some rows of a tensor.",
        semantics="d := rows start_reg .. start_reg + rows_reg of src",
        precondition="src is described and has these rows.",
        defines="d",
        reads=("src",),
        cycles="1",
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
        summary="Place a tile in a buffer.",
        semantics="t := (space, dtype, address, capacity in bytes), without contents",
        precondition="space is local or shared; address + bytes <= the buffer.",
        defines="t",
        cycles="1",
    ),
)
