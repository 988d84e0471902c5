"""The adder: merged scores, and sums."""

from __future__ import annotations

from heatc.isa.dtypes import DTYPES
from heatc.isa.table.fields import PRUNED_SCORES, enum, flag, reg, sint, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

_ACC = DTYPES["acc"]
_MASK_BITS = "cores * up(m, block_rows) * up(n, block_columns) / 8"

ROWS = (
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
            flag("hides"),
        ),
        summary="Merge integer and fraction parts of some key columns.",
        semantics=(
            "s[:, col : col + n] := sat32(RHE(((a << f) + (f1 << (f - point_q)) + (f2 << (f - point_k))) "
            "* 2^-(f - point_s))), f = max(point_q, point_k, 0), on kept blocks; elsewhere 0 (zero), "
            "excluded (neginf), sat32(a * 2^point_s) (int) or the mean of the row's pruned a (mean), with "
            "hides of those that r keeps; "
            "col = 0 begins new contents of s. s may be a: each column is read before it is written. "
            "merged: the scores of a core, under neginf the kept ones: a bit beside each score says "
            "that it is excluded; with constant the kept ones and, with col = 0, one of each row, which "
            "stands for all pruned ones; their mean then comes from r, the sums of the rows of a"
        ),
        precondition=(
            "f1 and f2 are acc tiles, a is complete (from col on where s is a, with `mean` "
            "n = r60 then), s is a local i32 tile; columns as in `scores`, mask as in `frac`; constant only "
            "for zero and mean, r is then an acc tile if it is a mean; "
            "hides only for mean and not constant, r is then what `ldv` wrote; "
            "0 <= point_q, point_k <= 40, -40 <= point_s <= 40."
        ),
        reads=("a", "f1", "f2", "mask", "r if hides or (constant and pruned == 'mean')"),
        writes=("s",),
        shapes={
            "f1": "(m, n)",
            "f2": "(m, n)",
            "a": "(m, r60)",
            "r": "(m, r60) if hides else (m, 1)",
            "s": "(m, r60)",
        },
        cycles="up(merged, adder_lanes)",
        energy={
            "add": "merged",
            "local_read": f"merged * size_a + kept * {2 * _ACC} + " + _MASK_BITS,
            "local_write": "merged * 4",
        },
    ),
    Instruction(
        "divide",
        0x49,
        Engine.ADDER,
        (tile("t"), tile("acc"), reg("col_reg"), flag("wide"), sint("shift", 8)),
        summary="Means of sums over the sequence.",
        semantics=(
            "t := sat(RHE(acc / r60 * 2^-shift)) in t's dtype, the quotient float64; with wide these are "
            "columns col.. of a tile r60 wide, col = 0 begins new contents"
        ),
        precondition=(
            "t is a local i16 or i32 tile, acc is complete; columns come in ascending order without a "
            "gap."
        ),
        reads=("acc",),
        writes=("t",),
        shapes={"acc": "(m, n)", "t": "(m, r60) if wide else (m, n)"},
        cycles="up(m * n, adder_lanes)",
        energy={
            "add": "cores * m * n",
            "local_read": f"cores * m * n * {_ACC}",
            "local_write": "cores * m * n * size_t",
        },
    ),
    Instruction(
        "colsum",
        0x4A,
        Engine.ADDER,
        (tile("t"), tile("x"), flag("first")),
        summary="Sum rows.",
        semantics="t := (first ? 0 : t) + the sum of the rows of x; exact",
        precondition=("x is an i16 or i8 tile, t is a local acc tile; |t| < 2^31."),
        reads=("x", "t if not first"),
        writes=("t",),
        shapes={"x": "(k, n)", "t": "(1, n)"},
        cycles="up(k * n, adder_lanes)",
        energy={
            "add": "cores * n * k",
            "local_read": f"cores * (b_local * n * k * size_b + (1 - first) * n * {_ACC})",
            "shared_read": "once * (1 - b_local) * n * k * size_b",
            "local_write": f"cores * n * {_ACC}",
        },
    ),
    Instruction(
        "magnitude",
        0x4E,
        Engine.ADDER,
        (tile("t"), tile("x"), reg("row_reg")),
        summary="Sum magnitudes.",
        semantics="t := t + the sum of |x| over the rows that a core has; exact; row = 0 begins new contents",
        precondition="x is a local i16 or i8 tile, t is a local acc tile; |t| < 2^47.",
        reads=("x", "t if row_reg"),
        writes=("t",),
        shapes={"x": "(m, n)", "t": "(1, 1)"},
        cycles="up(m * n, adder_lanes)",
        energy={
            "add": "cores * m * n",
            "local_read": f"cores * (m * n * size_a + (1 - first) * {_ACC})",
            "local_write": f"cores * {_ACC}",
        },
    ),
    Instruction(
        "tally",
        0x4F,
        Engine.ADDER,
        (tile("t"), tile("acc"), tile("s"), flag("first"), reg("head_reg"), uint("shift", 6)),
        summary="Add to the importance of a head.",
        semantics=(
            "t := (first ? 0 : s[0, head]) + (sum of acc over the cores that share the head) << shift, head "
            "that of item 0 in head_reg, one further a group of cores; k: the cores that share a head"
        ),
        precondition=(
            "t is a local i64 tile, acc is a local acc tile; s is a local i64 row that has the head, "
            "read unless first; |t| < 2^47."
        ),
        reads=("acc", "s if not first"),
        writes=("t",),
        shapes={"acc": "(1, 1)", "s": "(1, heads)", "t": "(1, 1)"},
        cycles="up(k + 1, adder_lanes)",
        energy={
            "add": "cores * (k + 1 - first)",
            "local_read": f"cores * (k * {_ACC} + (1 - first) * 8)",
            "local_write": "cores * 8",
        },
    ),
    Instruction(
        "peak",
        0x4B,
        Engine.ADDER,
        (tile("t"), tile("x"), flag("first")),
        summary="Greatest magnitude.",
        semantics="t := max(first ? 0 : t, the greatest |x|)",
        precondition="x is an i16 or i8 tile, t is a local acc tile.",
        reads=("x", "t if not first"),
        writes=("t",),
        shapes={"x": "(k, n)", "t": "(1, 1)"},
        cycles="up(k * n, adder_lanes)",
        energy={
            "add": "cores * n * k",
            "local_read": f"cores * (b_local * n * k * size_b + (1 - first) * {_ACC})",
            "shared_read": "once * (1 - b_local) * n * k * size_b",
            "local_write": f"cores * {_ACC}",
        },
    ),
    Instruction(
        "low",
        0x4C,
        Engine.ADDER,
        (tile("t"), tile("x"), tile("peak"), uint("bits", 4)),
        summary="Low-bit codes.",
        semantics="t := clip(RHE(x * 2^(bits - 1 - n)), -l, l), l = 2^(bits - 1) - 1, n the bit length of peak",
        precondition=(
            "2 <= bits <= 8; x is an i16 or i8 tile, t is a local i8 tile, or i4 with at most 4 bits; "
            "peak is what `peak` wrote."
        ),
        reads=("x", "peak"),
        writes=("t",),
        shapes={"x": "(m, n)", "peak": "(1, 1)", "t": "(m, n)"},
        cycles="up(m * n, adder_lanes)",
        energy={
            "add": "cores * m * n",
            "local_read": f"cores * (b_local * m * n * size_b + {_ACC})",
            "shared_read": "once * (1 - b_local) * m * n * size_b",
            "local_write": "cores * m * n * size_t",
        },
    ),
)
