"""The sparsity engine: which blocks, scores and heads are kept."""

from __future__ import annotations

from heatc.isa.dtypes import DTYPES
from heatc.isa.table.fields import f64, flag, reg, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

_ACC = DTYPES["acc"]

ROWS = (
    Instruction(
        "mask",
        0x40,
        Engine.SE,
        (tile("m"), tile("theta"), reg("row_reg"), f64("rho"), flag("own")),
        summary="END_R: thresholds and mask of block rows.",
        semantics=(
            "m[row / r ..] := theta >= Theta per block row (rho >= 0: rho max + (1 - rho) mean; "
            "rho < 0: -rho min + (1 + rho) mean; float64), with own rho of the core's head instead; "
            "theta_head += sum of theta; row = 0 begins new contents of m"
        ),
        precondition=(
            "theta is complete, of blocks of this size, which the sparsity engine has; m is a local i8 tile "
            "and holds one bit a block, its rows padded to bytes; row begins a block, rows are written in "
            "ascending order without a gap."
        ),
        reads=("theta",),
        writes=("m",),
        decides="mask",
        shapes={
            "theta": "(b, up(r60, block_columns))",
            "m": "(row_reg // parts // block_rows + b, up(r60, block_columns))",
        },
        cycles="up(blocks, se_lanes)",
        energy={
            "block": "cores * blocks",
            "local_read": f"cores * blocks * {_ACC}",
            "local_write": "cores * blocks / 8",
        },
    ),
    Instruction(
        "gate",
        0x41,
        Engine.SE,
        (f64("tau"), flag("own"), flag("positive"), flag("visible")),
        summary="END_H: keep or prune the head.",
        semantics=(
            "kept := kept and theta_head / r60^2 (with positive r60^3, with visible what `weigh` added up "
            "for the head, at least 1) >= tau (float64), with own tau of the core's head instead; none at or "
            "below 0 prunes"
        ),
        precondition="r60 >= 1.",
        decides="heads",
        cycles="1",
        energy={"block": "cores"},
    ),
    Instruction(
        "cascade",
        0x47,
        Engine.SE,
        (tile("s"), uint("keep", 12)),
        summary="List the heads of a sequence by importance.",
        semantics=(
            "until the next `all` heads are listed: the `keep` heads of the greatest s (of equal ones the "
            "first), then the others, both in ascending order; places of the list stand for heads: in "
            "`heads`, in head_reg, and with core_cols > 0 in a transfer, where col_reg = core_cols * i is "
            "place i, and the column is core_cols * head. Rounds of heads and transfers wait for the list"
        ),
        precondition=(
            "s is a complete local i64 row of a sum a head, alike on all cores; 1 <= keep <= n; heads are "
            "not listed yet."
        ),
        reads=("s",),
        decides="heads",
        shapes={"s": "(1, n)"},
        cycles="up(n * n, se_lanes)",
        energy={"block": "cores * n * n", "local_read": "cores * n * 8"},
    ),
    Instruction(
        "topk",
        0x42,
        Engine.SE,
        (tile("m"), tile("theta"), reg("row_reg"), f64("density")),
        summary="The greatest importances of block rows.",
        semantics=(
            "m[row / r ..] := the max(1, ceil(density * n)) greatest of the n importances of a block row, "
            "of equal ones those further left; row = 0 begins new contents of m. compares: those that "
            "sort the rows in a bitonic network, each padded to N = 2^p >= n: N / 2 * p (p + 1) / 2; one "
            "more a block, against the last one that is kept, gives its bit"
        ),
        precondition="0 < density <= 1; else as `mask`.",
        reads=("theta",),
        writes=("m",),
        decides="mask",
        shapes={
            "theta": "(b, up(r60, block_columns))",
            "m": "(row_reg // parts // block_rows + b, up(r60, block_columns))",
        },
        cycles="up(compares + blocks, se_lanes)",
        energy={
            "block": "cores * (compares + blocks)",
            "local_read": f"cores * blocks * {_ACC}",
            "local_write": "cores * blocks / 8",
        },
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
        summary="Mean filtering of single scores.",
        semantics=(
            "m[row ..] := score >= Theta per row, Theta of the row's signed scores as in `mask`; with "
            "has_among of those alone that this mask keeps, and the others are not kept; row = 0 begins new "
            "contents of m"
        ),
        precondition=(
            "blocks are 1 x 1; s is a complete i32 tile; m as in `mask`; among is a mask of these "
            "rows and keeps no score that is excluded."
        ),
        reads=("s", "among if has_among"),
        writes=("m",),
        decides="mask",
        shapes={"s": "(b, r60)", "m": "(row_reg // parts + b, r60)"},
        cycles="up(blocks, se_lanes)",
        energy={
            "block": "cores * blocks",
            "local_read": "cores * blocks * (4 + sparse / 8)",
            "local_write": "cores * blocks / 8",
        },
    ),
    Instruction(
        "likely",
        0x44,
        Engine.SE,
        (tile("m"), tile("p"), reg("row_reg"), uint("code", 15)),
        summary="Probabilities above a threshold.",
        semantics="m[row ..] := p > code, and the first greatest of each row; row = 0 begins new contents of m",
        precondition="blocks are 1 x 1; p is a complete i16 tile; m as in `mask`.",
        reads=("p",),
        writes=("m",),
        decides="mask",
        shapes={"p": "(b, r60)", "m": "(row_reg // parts + b, r60)"},
        cycles="up(blocks, se_lanes)",
        energy={
            "block": "cores * 2 * blocks",
            "local_read": "cores * blocks * 2",
            "local_write": "cores * blocks / 8",
        },
    ),
)
