"""The host, and the vector units where a machine has them."""

from __future__ import annotations

from heatc.isa.table.fields import COMPARISONS, desc, enum, f64, flag, host, reg, sint, uint
from heatc.isa.table.host_actions import HOST, PASS, host_actions, vector_actions
from heatc.isa.table.instruction import Engine, Instruction

ROWS = (
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
        summary="List the real tokens.",
        semantics=(
            "tokens: where dmask (batch, length) is not 0, or all without has_mask, in row-major order; "
            "dpos[i] := flat index of token i; dinv[j] := token at flat index j or -1; r63 := tokens; "
            "r62 := batch; sequence table for `seq`. dpos keeps its rows beyond r63"
        ),
        precondition=(
            "dpos and dinv are i64 with at least batch * length elements, dmask is an integer tensor "
            "with as many elements."
        ),
        reads=("dmask if has_mask",),
        writes=("dpos", "dinv"),
        cycles=HOST.format(ops=2),
        energy=host_actions(2),
    ),
    Instruction(
        "hidx",
        0x61,
        Engine.HOST,
        (desc("dst"), desc("src"), desc("idx")),
        summary="Gather integers.",
        semantics="dst[i] := src[idx[i]] for the elements i of dst; idx -1 gives 0",
        precondition="dst, src, idx are integer tensors, idx has as many elements as dst, each within src.",
        reads=("src", "idx"),
        writes=("dst",),
        cycles=HOST.format(ops=1),
        energy=host_actions(1),
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
        summary="List the real tokens, and the masked positions that are read.",
        semantics=(
            "as `hpack` with has_mask, but behind the tokens of each sequence those of its masked "
            "positions have a row that are elements of dread; dpos[i] := flat index of row i; dinv[j] := "
            "row of flat index j or -1; dreal[j] := the same, -1 where masked; r63 := rows"
        ),
        precondition=(
            "dpos, dinv and dreal are i64 with at least batch * length elements, dmask is an integer "
            "tensor with as many elements, dread an integer tensor of ascending numbers below length; a "
            "sequence with such a row has a token."
        ),
        reads=("dmask", "dread"),
        writes=("dpos", "dinv", "dreal"),
        cycles=HOST.format(ops=3),
        energy=host_actions(3),
    ),
    Instruction(
        "htest",
        0x6B,
        Engine.HOST,
        (desc("dst"), desc("src"), enum("compare", COMPARISONS), f64("value")),
        summary="Compare with a number.",
        semantics="dst[i] := 1 where src[i] compares so with value (==, !=, <, <=, >, >=), else 0",
        precondition="dst is an integer tensor with as many elements as src.",
        reads=("src",),
        writes=("dst",),
        cycles=HOST.format(ops=1),
        energy=host_actions(1),
    ),
    Instruction(
        "hget",
        0x62,
        Engine.HOST,
        (host("h"), desc("d"), reg("row_reg"), uint("rows", 24), sint("point", 8)),
        summary="Read rows as float64.",
        semantics="h := d[row : row + rows] * 2^-point, clipped at d's rows; f32 as it is",
        precondition="row is inside d, an i64 is at most 2^53 from 0, beyond which float64 skips integers.",
        reads=("d",),
        writes=("h",),
        shapes={"d": "(i, n)", "h": "(min(rows, i - row_reg), n)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 0, 1),
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
        summary="Gather rows as float64.",
        semantics="h[i] := d[idx[row + i]] * 2^-point for i < rows, clipped at idx's elements; idx -1 gives 0",
        precondition=(
            "idx is an integer tensor, each index read is -1 or a row of d, an i64 of d is at most 2^53 "
            "from 0."
        ),
        reads=("d", "idx"),
        writes=("h",),
        shapes={"d": "(i, n)", "idx": "(j, k)", "h": "(min(rows, j * k - row_reg), n)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 0, 1),
    ),
    Instruction(
        "hadd",
        0x64,
        Engine.HOST,
        (host("h"), host("g")),
        summary="Add.",
        semantics="h := h + g",
        precondition="g has h's shape, or one row.",
        reads=("h", "g"),
        writes=("h",),
        shapes={"h": "(m, n)", "g": "(k, n)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 2, 1),
    ),
    Instruction(
        "hln",
        0x65,
        Engine.HOST,
        (host("h"), desc("gamma"), desc("beta"), f64("eps")),
        summary="Layer norm of rows.",
        semantics="h := (h - mean) / sqrt(var + eps) * gamma + beta, float64",
        precondition="gamma and beta are f32 tensors of h's width.",
        reads=("h", "gamma", "beta"),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=8),
        vector=f"2 * {PASS}",
        energy=host_actions(8),
        vector_energy=vector_actions("vector_norm", 1, 1, times=2),
    ),
    Instruction(
        "hgelu",
        0x66,
        Engine.HOST,
        (host("h"),),
        summary="GELU.",
        semantics="h := 0.5 h (1 + erf(h / sqrt 2))",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=20),
        vector=PASS,
        energy=host_actions(20),
        vector_energy=vector_actions("vector_function", 1, 1),
    ),
    Instruction(
        "htanh",
        0x67,
        Engine.HOST,
        (host("h"),),
        summary="Hyperbolic tangent.",
        semantics="h := tanh h",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=20),
        vector=PASS,
        energy=host_actions(20),
        vector_energy=vector_actions("vector_function", 1, 1),
    ),
    Instruction(
        "hrelu",
        0x68,
        Engine.HOST,
        (host("h"),),
        summary="Rectifier.",
        semantics="h := max(h, 0)",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 1, 1),
    ),
    Instruction(
        "hput",
        0x69,
        Engine.HOST,
        (desc("d"), host("h"), reg("row_reg"), sint("point", 8)),
        summary="Write rows of codes.",
        semantics=(
            "d[row ..] := sat(RHE(h * 2^point)) in d's dtype, i64 in 53 bits (beyond +-2^52 it saturates), "
            "f32 the value; rows beyond d's are clipped"
        ),
        precondition="h has d's width, row is inside d, d does not lie among the weights, no value is a NaN.",
        reads=("h",),
        writes=("d",),
        shapes={"d": "(i, n)", "h": "(m, n)"},
        cycles=HOST.format(ops=4),
        vector=PASS,
        energy=host_actions(4),
        vector_energy=vector_actions("vector_element", 1, 0),
    ),
)
