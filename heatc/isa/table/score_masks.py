"""What the model's own masks do to scores: parts of masks, hidden scores and biases."""

from __future__ import annotations

from heatc.isa.dtypes import DTYPES
from heatc.isa.table.fields import KEYLESS_ROWS, desc, enum, flag, reg, sint, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

_ACC = DTYPES["acc"]
_PLACE = (
    desc("d"),
    desc("dq"),
    desc("dk"),
    reg("row_reg"),
    uint("rows", 16),
    uint("core_rows", 16),
    uint("heads", 12),
    flag("by_batch"),
    flag("by_head"),
    flag("by_row"),
)
_WHERE = (
    "of d, rows of as many columns as a padded sequence has positions (S): at column pk mod S of row "
    "((b * by_batch) * heads + h * by_head) * S + p * by_row (factors heads only with by_head, S only "
    "with by_row), for query positions pq = dq[row_reg + part * core_rows ..], b = pq / S, p = pq mod S, "
    "key positions pk = dk, h the head of the core's item in the round; clipped at dq's rows. What "
    "cores have in common is fetched once"
)
_NEEDS = (
    "d is as long as its axes say; dq and dk are i64 columns of flat positions, dk has r60 rows; with "
    "by_head a round of heads has begun; core 0's part is not empty."
)
_SHAPES = {"dq": "(i, 1)", "dk": "(r60, 1)", "t": "(min(rows, i - row_reg), r60)"}
_MOVED = {
    "dma": "nbytes",
    "dram_read": "from_dram * nbytes",
    "shared_read": "(1 - from_dram) * nbytes",
}

ROWS = (
    Instruction(
        "ldv",
        0x24,
        Engine.DMA,
        (tile("t"), *_PLACE, flag("also")),
        summary="Load what rows see.",
        semantics=(
            f"t := a mask of 1 x 1 blocks, a bit a score, that keeps where the element is not 0 {_WHERE}; "
            "with also keeps no more than t before"
        ),
        precondition=f"t is a local i8 tile, d holds i8; with also t is such a mask; {_NEEDS}",
        reads=("d", "dq", "dk", "t if also"),
        writes=("t",),
        shapes=_SHAPES,
        cycles="nbytes / width",
        energy={
            **_MOVED,
            "local_read": "(1 - first) * cores * m * n / 8",
            "local_write": "cores * m * n / 8",
        },
    ),
    Instruction(
        "ldb",
        0x25,
        Engine.DMA,
        (tile("t"), *_PLACE),
        summary="Load a part of a bias.",
        semantics=f"t := the elements {_WHERE}",
        precondition=f"t is a local i16 or i32 tile, dtypes agree; {_NEEDS}",
        reads=("d", "dq", "dk"),
        writes=("t",),
        shapes=_SHAPES,
        cycles="nbytes / width",
        energy={**_MOVED, "local_write": "cores * m * n * size_t"},
    ),
    Instruction(
        "weigh",
        0x4D,
        Engine.ADDER,
        (tile("theta"), tile("a"), tile("v"), flag("positive")),
        summary="Importance of visible scores.",
        semantics=(
            "theta := sums over blocks of |a| over the scores that v keeps, with positive of "
            "max(n_i a_ij - r_i, 0): n_i and r_i are number and sum of what v keeps of row i. Blocks of "
            "which v keeps nothing are excluded: `mask` and `topk` do not rank them. Adds up the n_i (with "
            "positive n_i^2) of the rows that are keys, for `gate` with visible"
        ),
        precondition=(
            "a is a complete i32 tile, v is what `ldv` wrote, theta is a local acc tile. elements: those of a "
            "that are looked at, twice with positive"
        ),
        reads=("a", "v"),
        writes=("theta",),
        shapes={
            "a": "(m, r60)",
            "v": "(m, r60)",
            "theta": "(up(m, block_rows), up(r60, block_columns))",
        },
        cycles="up(elements, adder_lanes)",
        energy={
            "mac": "positive * cores * m * up(n, block_columns) * 2",
            "add": "cores * m * n * (1 + positive)",
            "local_read": "cores * m * n * (1 + positive) * (4 + 1 / 8)",
            "local_write": f"cores * up(m, block_rows) * up(n, block_columns) * {_ACC}",
        },
    ),
    Instruction(
        "offset",
        0x51,
        Engine.ADDER,
        (
            tile("s"),
            tile("b"),
            tile("v"),
            flag("has_bias"),
            flag("has_visible"),
            sint("shift", 8),
            enum("keyless", KEYLESS_ROWS),
        ),
        summary="Add a bias to scores, exclude what is hidden.",
        semantics=(
            "scores that are not excluded: with has_bias s := sat32(s + RHE(b * 2^-shift)); then with "
            "has_visible those that v does not keep are excluded. A row of which v keeps nothing: all "
            "excluded (zero), a trap (refuse), none excluded by v (all), or none and s := 0 (mean)"
        ),
        precondition=(
            "s is a complete local i32 tile, b a complete i16 or i32 tile, v is what `ldv` wrote; "
            "-40 <= shift <= 40; there is a bias or a mask."
        ),
        reads=("s", "b if has_bias", "v if has_visible"),
        writes=("s",),
        shapes={
            "s": "(m, n)",
            "b": "(m, n) if has_bias else (i, j)",
            "v": "(m, n) if has_visible else (i, j)",
        },
        cycles="up(m * n, adder_lanes)",
        energy={
            "add": "cores * m * n",
            "local_read": "cores * m * n * (4 + bias_rows * size_b + sparse / 8)",
            "local_write": "cores * m * n * 4",
        },
    ),
)
