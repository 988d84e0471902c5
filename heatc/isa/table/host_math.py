"""The host's arithmetic on registers: functions, operations, choices, norms, rotations, products."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from heatc.functions import FUNCTIONS
from heatc.isa.table.fields import desc, enum, f64, flag, host, uint
from heatc.isa.table.host_actions import (
    CHOSEN_HOST,
    CHOSEN_PASSES,
    HOST,
    PASS,
    ROW,
    ElementCost,
    chosen_actions,
    host_actions,
    vector_actions,
)
from heatc.isa.table.instruction import Engine, Instruction

FUNCTION_COSTS: Mapping[str, ElementCost] = MappingProxyType(
    {
        "gelu_tanh": ElementCost(28, 0, 1),
        "gelu_quick": ElementCost(22, 0, 1),
        **{
            name: ElementCost(row.operations, int(row.is_simple), int(not row.is_simple))
            for name, row in FUNCTIONS.items()
        },
    }
)
"""
By name, in the order of their codes: what the table of functions gets at its end has the next code.

gelu_tanh is a hyperbolic tangent (20) and 8 operations, gelu_quick a sigmoid (20) and 2 products.
"""

_QUOTIENT, _POWER = FUNCTIONS["reciprocal"].operations, 2 * FUNCTIONS["exp"].operations + 1

OPERATION_COSTS: Mapping[str, ElementCost] = MappingProxyType(
    {
        **dict.fromkeys(("add", "sub", "rsub", "mul"), ElementCost(1)),
        **dict.fromkeys(("div", "rdiv"), ElementCost(_QUOTIENT, 0, 1)),
        **dict.fromkeys(("max", "min"), ElementCost(1)),
        **dict.fromkeys(("pow", "rpow"), ElementCost(_POWER, 1, 2)),
        **dict.fromkeys(("floor_div", "rfloor_div"), ElementCost(_QUOTIENT + 1, 1, 1)),
        **dict.fromkeys(("remainder", "rremainder"), ElementCost(_QUOTIENT + 3, 2, 1)),
        **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), ElementCost(1)),
    }
)
"""
By name, in the order of their codes.

A quotient is a function of the divisor. x^y is exp(y log x): two functions and a product. A remainder
is x - y floor(x / y), whose product and difference are one step.
"""


def _costs(costs: Mapping[str, ElementCost]) -> str:
    """The host's operations by name, those of equal cost together."""
    found: dict[int, list[str]] = {}
    for name, cost in costs.items():
        found.setdefault(cost.operations, []).append(name)
    return "; ".join(f"{cost} of {', '.join(names)}" for cost, names in sorted(found.items()))


ROWS = (
    Instruction(
        "hfun",
        0x70,
        Engine.HOST,
        (host("h"), enum("function", tuple(FUNCTION_COSTS))),
        summary="A function of each element.",
        semantics=(
            "h := function(h), float64; round is half to even, gelu_tanh 0.5 h (1 + tanh(sqrt(2 / pi) "
            "(h + 0.044715 h^3))), gelu_quick h / (1 + exp(-1.702 h)). Host operations an element: "
            f"{_costs(FUNCTION_COSTS)}"
        ),
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=CHOSEN_HOST,
        vector=CHOSEN_PASSES,
        energy=host_actions("operations"),
        vector_energy=chosen_actions(1),
    ),
    Instruction(
        "hop",
        0x71,
        Engine.HOST,
        (host("h"), host("g"), enum("operation", tuple(OPERATION_COSTS))),
        summary="An operation of two registers.",
        semantics=(
            "h := h operation g, float64, a side of one row or column repeated; rsub, rdiv, rpow, "
            "rfloor_div and rremainder have g on the left; comparisons give 1 or 0; max and min of a NaN "
            "are a NaN; floor_div is floor(h / g), remainder has the sign of g. Host operations an "
            f"element: {_costs(OPERATION_COSTS)}"
        ),
        precondition="h and g have as many rows, or one of them has 1; columns alike.",
        reads=("h", "g"),
        writes=("h",),
        shapes={"h": "(m, n)", "g": "(k, j)"},
        becomes={"h": "(wider(m, k), wider(n, j))"},
        cycles=CHOSEN_HOST,
        vector=CHOSEN_PASSES,
        energy=host_actions("operations"),
        vector_energy=chosen_actions(2),
    ),
    Instruction(
        "hsel",
        0x72,
        Engine.HOST,
        (host("h"), host("g"), host("f")),
        summary="Choose by elements.",
        semantics="h := g where h is not 0, else f, sides of one row or column repeated; a NaN is not 0",
        precondition="h, g and f have as many rows, or 1; columns alike.",
        reads=("h", "g", "f"),
        writes=("h",),
        shapes={"h": "(m, n)", "g": "(k, j)", "f": "(p, q)"},
        becomes={"h": "(wider(wider(m, k), p), wider(wider(n, j), q))"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 3, 1),
    ),
    Instruction(
        "hrms",
        0x73,
        Engine.HOST,
        (host("h"), desc("gamma"), f64("eps")),
        summary="Root-mean-square norm of rows.",
        semantics="h := h / sqrt(mean(h^2) + eps) * gamma, float64",
        precondition="gamma is an f32 tensor of h's width.",
        reads=("h", "gamma"),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=5),
        vector=f"2 * {PASS}",
        energy=host_actions(5),
        vector_energy=vector_actions("vector_norm", 1, 1, times=2),
    ),
    Instruction(
        "hsoft",
        0x74,
        Engine.HOST,
        (host("h"),),
        summary="Softmax of rows.",
        semantics=(
            "h := exp(h - max) / sum(exp(h - max)) of each row, float64; a row of nothing but -inf is one "
            "of NaN"
        ),
        precondition="h has a column.",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=27),
        vector=f"3 * {PASS}",
        energy=host_actions(27),
        vector_energy={
            **vector_actions("vector_function", 1, 2, times=2),
            "vector_element": "2 * elements",
            "local_read": f"{3 * ROW} * elements",
        },
    ),
    Instruction(
        "hrope",
        0x75,
        Engine.HOST,
        (host("h"), host("g"), host("f"), uint("heads", 12)),
        summary="Rotate heads.",
        semantics=(
            "of each head (x1, x2), halves of its columns: h := h * g + (-x2, x1) * f; g are cosines, f "
            "sines, one row for all rows or a row each"
        ),
        precondition=(
            "heads divides h's columns into an even number each, which is the width of g and f; these "
            "have h's rows, or one."
        ),
        reads=("h", "g", "f"),
        writes=("h",),
        shapes={"h": "(m, n)", "g": "(k, j)", "f": "(k, j)"},
        cycles=HOST.format(ops=3),
        vector=f"2 * {PASS}",
        energy=host_actions(3),
        vector_energy=vector_actions("vector_element", 2, 2, times=2),
    ),
    Instruction(
        "hdot",
        0x76,
        Engine.HOST,
        (host("h"), host("g"), flag("transposed"), uint("batches", 24)),
        summary="Products of matrices.",
        semantics=(
            "h and g are batches below each other; of each batch h := h g, or h g^T if transposed; "
            "float64, in no certain order of sums"
        ),
        precondition=(
            "batches is not 0 and divides the rows of h and g; a batch of g has as many rows (columns, if "
            "transposed) as h has columns; at most 2^34 products."
        ),
        reads=("h", "g"),
        writes=("h",),
        shapes={"h": "(m, k)", "g": "(p, k) if transposed else (k * batches, p)"},
        becomes={"h": "(m, p // batches) if transposed else (m, p)"},
        cycles=CHOSEN_HOST,
        energy=host_actions("operations"),
    ),
)
