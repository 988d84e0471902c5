"""The PE array: products, and how accumulators leave it."""

from __future__ import annotations

from heatc.isa.dtypes import DTYPES
from heatc.isa.table.fields import flag, reg, sint, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

_FILL = "fills({folds}) * (rows + columns - 2)"
_DENSE = "up(m, rows) * up(n, columns)"
_PE_DENSE = f"{_DENSE} * up(k, macs) + {_FILL.format(folds=_DENSE)}"
_DRAINED = "leaves(up(m, rows) * n)"
_ACC = DTYPES["acc"]
_BLOCKS = "up(m, block_rows) * up({columns}, block_columns)"
_MASK_BITS = f"cores * {_BLOCKS} / 8"
_STREAM_A = "m * k * up(n, columns) * size_a"
_STREAM_B = "n * k * up(m, rows) * size_b"
_SPILL = f"cores * (1 - first) * m * n * {_ACC}"
"""Accumulators that go on from an earlier instruction come back from their tile."""
_SUMMED = "constant * first * cores"
"""The cores whose accumulators begin with a wide product, of 32 bits."""


_DRAIN = {
    "requantise": "cores * m * n",
    "local_read": f"cores * (m * n * {_ACC} + bias_rows * n * 4)",
    "local_write": "cores * m * n * size_t",
}
_PICKED = {
    "mac": "kept * k",
    "local_read": "folds * min(m, rows) * k * size_a + kept / block_rows * k * size_b + "
    + _MASK_BITS.format(columns="n"),
    "local_write": f"kept * {_ACC}",
}

ROWS = (
    Instruction(
        "mm",
        0x30,
        Engine.PE,
        (tile("acc"), tile("a"), tile("b"), flag("first"), flag("b_transposed")),
        summary="Multiply and accumulate.",
        semantics="acc := (first ? 0 : acc) + a b, or a b^T when b_transposed; exact",
        precondition=("a and b are i16, i8 or i4 tiles, acc is a local acc tile; |acc| < 2^47."),
        reads=("a", "b", "acc if not first"),
        writes=("acc",),
        shapes={"a": "(m, k)", "b": "(n, k) if b_transposed else (k, n)", "acc": "(m, n)"},
        cycles=_PE_DENSE,
        energy={
            "mac": "cores * m * n * k",
            "local_read": f"cores * (a_local * {_STREAM_A} + b_local * {_STREAM_B}) + {_SPILL}",
            "shared_read": f"once * ((1 - a_local) * {_STREAM_A} + (1 - b_local) * {_STREAM_B})",
            "local_write": f"cores * m * n * {_ACC}",
        },
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
        summary="Requantise accumulators.",
        semantics=(
            "t := sat(RHE((acc + (has_bias ? bias << bias_shift : 0)) * 2^-shift)) in t's dtype; bias of k "
            "rows: row i of acc takes its row i mod k"
        ),
        precondition=(
            "t is a local i8, i16 or i32 tile; bias is an i32 tile as wide as acc, of at most as many rows; "
            "with it |acc| < 2^47."
        ),
        reads=("acc", "bias if has_bias"),
        writes=("t",),
        shapes={"acc": "(m, n)", "bias": "(b, n)", "t": "(m, n)"},
        cycles=_DRAINED,
        energy=_DRAIN,
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
        summary="Requantise accumulators and split.",
        semantics="c := as `drain` into i16; ti := trunc(c * 2^-point) toward zero, tf := c - (ti << point)",
        precondition=(
            "ti and tf are different local tiles, i16 or, where every part fits, i8: ti from point 8 "
            "on, tf up to point 7; point >= 0; bias as in `drain`."
        ),
        reads=("acc", "bias if has_bias"),
        writes=("ti", "tf"),
        shapes={"acc": "(m, n)", "bias": "(b, n)", "ti": "(m, n)", "tf": "(m, n)"},
        cycles=_DRAINED,
        energy=_DRAIN,
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
            flag("plain"),
        ),
        summary="Integer scores of some key columns, and their block sums.",
        semantics=(
            "a[:, col : col + n] := q k^T; theta[:, col / c ..] := sums over blocks of |q k^T|, with "
            "positive of max(r60 (q k^T)_ij - r_i, 0), with plain nothing; col = 0 begins new contents of a and "
            "theta, r60 key columns wide"
        ),
        precondition=(
            "q and k are i16 or i8 tiles, q is local, a is i32 (saturating) or acc, theta is "
            "acc; with positive r is a local acc tile; col begins a block, columns are written in "
            "ascending order without a gap, only the last n may end inside a block, col + n <= r60; plain and "
            "positive exclude each other."
        ),
        reads=("q", "k", "r if positive"),
        writes=("a", "theta"),
        shapes={
            "q": "(m, k)",
            "k": "(n, k)",
            "r": "(m, 1)",
            "a": "(m, r60)",
            "theta": "(up(m, block_rows), up(r60, block_columns))",
        },
        cycles=_PE_DENSE,
        energy={
            "mac": f"cores * (m * n * k + positive * {_BLOCKS.format(columns='n')} * 8)",
            "add": "ranked * cores * m * n * (1 + positive)",
            "local_read": f"cores * ({_STREAM_A} + b_local * {_STREAM_B} + positive * m * {_ACC})",
            "shared_read": f"once * (1 - b_local) * {_STREAM_B}",
            "local_write": "cores * (m * n * size_t + "
            + f"ranked * {_BLOCKS.format(columns='n')} * {_ACC})",
        },
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
        summary="Fraction products on kept blocks.",
        semantics=(
            "f1 := qf ki^T, f2 := qi kf^T on kept blocks, 0 elsewhere; the tiles' first row and column "
            "are row_reg and col_reg of the mask. folds: for each group of `rows` query rows the "
            "greatest up(kept blocks of a block row, columns / c), summed over groups, a block that is "
            "wider or higher than the array taking several; macs_f1 and macs_f2 are those of the two "
            "products"
        ),
        precondition=(
            "f1 and f2 are local acc tiles; qi, qf, ki and kf are i16 or i8, ki and kf local; "
            "the mask has these rows and columns, in blocks of this size; row and col begin a block."
        ),
        reads=("qi", "qf", "ki", "kf", "mask"),
        writes=("f1", "f2"),
        shapes={
            "qi": "(m, k)",
            "qf": "(m, k)",
            "ki": "(n, k)",
            "kf": "(n, k)",
            "f1": "(m, n)",
            "f2": "(m, n)",
        },
        cycles=f"folds * (up(k, macs_f1) + up(k, macs_f2)) + {_FILL.format(folds='2 * folds')}",
        energy=_PICKED,
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
        summary="Probabilities times values of some key columns.",
        semantics=(
            "acc := (first ? 0 : acc) + p[:, col : col + n] v, with sparse over kept blocks only; with "
            "constant acc := (first ? c total : acc) + (p[:, col : col + n] - c) v over these, c (m, 1) "
            "being p at the first pruned column of each row, 0 where none is: where all pruned p of a "
            "row are c and total is the sum of all rows of v, this is p v; the two halves of total one after "
            "the other; depth: for each group of `rows` query rows the greatest number of key columns to "
            "add in one row (n unless sparse), over macs, rounded up, and with constant and first 2 for "
            "total, summed over groups"
        ),
        precondition=(
            "p (m, r60) and v (n, e) are i16 or i8, v is local if sparse, acc is a local acc tile of "
            "shape (m, e) unless first; mask is read when sparse, at row_reg and col_reg as in `frac`; "
            "constant only with sparse, v is i16 then, the mask has all columns and total is a local acc row of e sums, "
            "|total| < 2^31; |acc| < 2^47."
        ),
        reads=("p", "v", "acc if not first", "mask if sparse", "total if constant and first"),
        writes=("acc",),
        shapes={"p": "(m, w)", "v": "(n, e)", "total": "(1, e)", "acc": "(m, e)"},
        cycles=f"depth * up(n, columns) + {_FILL.format(folds=_DENSE)}",
        energy={
            "mac": f"kept * n + {_SUMMED} * 2 * m * n",
            "add": "constant * kept",
            "local_read": "kept * up(n, columns) * size_a + b_local * streamed * n * size_b + "
            + f"{_SUMMED} * (m * up(n, columns) * size_a + up(m, rows) * n * {_ACC}) + "
            + f"{_SPILL} + "
            + f"sparse * {_MASK_BITS.format(columns='k')}",
            "shared_read": "once * (1 - b_local) * k * up(m, rows) * n * size_b",
            "local_write": f"cores * m * n * {_ACC}",
        },
    ),
    Instruction(
        "wide",
        0x37,
        Engine.PE,
        (tile("r"), tile("x"), tile("t"), flag("as_row")),
        summary="Multiply by a wide row.",
        semantics="r := x t^T, with as_row t x^T; exact, the two halves of t one after the other",
        precondition=(
            "x is a local i16 or i8 tile, t a local acc row of k sums, |t| < 2^31; r is a local "
            "acc tile."
        ),
        reads=("x", "t"),
        writes=("r",),
        shapes={"x": "(m, k)", "t": "(1, k)", "r": "(1, m) if as_row else (m, 1)"},
        cycles=f"up(m, rows) * 2 * up(k, macs) + {_FILL.format(folds='2 * up(m, rows)')}",
        energy={
            "mac": "cores * 2 * m * k",
            "local_read": f"cores * (m * k * size_a * 2 + k * {_ACC} * up(m, rows))",
            "local_write": f"cores * m * {_ACC}",
        },
    ),
    Instruction(
        "drainc",
        0x38,
        Engine.PE,
        (tile("t"), tile("acc"), reg("col_reg"), sint("shift", 8)),
        summary="Requantise accumulators of some key columns.",
        semantics=(
            "t[:, col : col + n] := sat(RHE(acc * 2^-shift)); col = 0 begins new contents of t, r60 key "
            "columns wide"
        ),
        precondition="t is a local i32 tile, columns as in `scores`.",
        reads=("acc",),
        writes=("t",),
        shapes={"acc": "(m, n)", "t": "(m, r60)"},
        cycles=_DRAINED,
        energy=_DRAIN,
    ),
    Instruction(
        "pick",
        0x36,
        Engine.PE,
        (tile("acc"), tile("q"), tile("k"), tile("mask"), reg("row_reg"), reg("col_reg")),
        summary="Scores of kept blocks.",
        semantics="acc := q k^T on kept blocks, 0 elsewhere; rows, columns and folds as in `frac`",
        precondition=(
            "q and k are local i16, i8 or i4 tiles, acc is a local acc tile; the mask as in `frac`."
        ),
        reads=("q", "k", "mask"),
        writes=("acc",),
        shapes={"q": "(m, k)", "k": "(n, k)", "acc": "(m, n)"},
        cycles=f"folds * up(k, macs) + {_FILL.format(folds='folds')}",
        energy=_PICKED,
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
        summary="Requantise scores of kept blocks.",
        semantics=(
            "t[:, col : col + n] := sat(RHE(acc * 2^-shift)) on kept blocks, excluded elsewhere: a bit "
            "beside each score says so; col = 0 begins new contents of t. folds as in `frac`"
        ),
        precondition="t is a local i32 tile, acc has n columns; columns as in `scores`, the mask as in `frac`.",
        reads=("acc", "mask"),
        writes=("t",),
        shapes={"acc": "(m, n)", "t": "(m, r60)"},
        cycles="leaves(folds * columns)",
        energy={
            "requantise": "kept",
            "local_read": f"kept * {_ACC} + " + _MASK_BITS.format(columns="n"),
            "local_write": "kept * size_t",
        },
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
        summary="Requantise scores of low-bit codes.",
        semantics=(
            "t[:, col : col + n] := sat(RHE(acc * 2^-(shift - n_q - n_k))), n_q and n_k the bit lengths of "
            "the peaks; col = 0 begins new contents of t"
        ),
        precondition="t is a local i32 tile, the peaks are what `peak` wrote; columns as in `scores`.",
        reads=("acc", "q_peak", "k_peak"),
        writes=("t",),
        shapes={"acc": "(m, n)", "q_peak": "(1, 1)", "k_peak": "(1, 1)", "t": "(m, r60)"},
        cycles=_DRAINED,
        energy=_DRAIN,
    ),
)
