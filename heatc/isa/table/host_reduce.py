"""The host's reductions: of each row, of groups of rows, and running sums."""

from __future__ import annotations

from heatc.isa.table.fields import enum, host, uint
from heatc.isa.table.host_actions import HOST, PASS, host_actions, vector_actions
from heatc.isa.table.instruction import Engine, Instruction

GROUP_KINDS = ("sum", "mean", "max", "min", "any", "all", "prod")
KINDS = (*GROUP_KINDS, "argmax")
"""What reductions are; some are of single rows alone."""

NEEDS_ELEMENTS = ("mean", "max", "min", "argmax")
"""Those that nothing has."""

_MEANING = (
    "any and all give 1 or 0, of numbers that are not 0; max and min of a NaN are a NaN; what has no "
    "elements has sum 0, product 1, any 0, all 1"
)

ROWS = (
    Instruction(
        "hred",
        0x78,
        Engine.HOST,
        (host("h"), enum("kind", KINDS)),
        summary="Reduce each row.",
        semantics=f"h := kind of each row; argmax is the first of equals, a NaN the greatest; {_MEANING}",
        precondition="h has a column, for mean, max, min and argmax.",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        becomes={"h": "(m, 1)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 1, 1),
    ),
    Instruction(
        "hredr",
        0x79,
        Engine.HOST,
        (host("h"), uint("group", 24), enum("kind", GROUP_KINDS)),
        summary="Reduce groups of rows.",
        semantics=f"row i of h := kind of its rows i * group .. i * group + group - 1, by columns; {_MEANING}",
        precondition="group is not 0 and divides h's rows.",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        becomes={"h": "(m // group, n)"},
        cycles=HOST.format(ops=1),
        vector=PASS,
        energy=host_actions(1),
        vector_energy=vector_actions("vector_element", 1, 1),
    ),
    Instruction(
        "hscan",
        0x7A,
        Engine.HOST,
        (host("h"),),
        summary="Running sums of rows.",
        semantics="h[i, j] := sum of h[i, 0 .. j], added up from the left",
        reads=("h",),
        writes=("h",),
        shapes={"h": "(m, n)"},
        cycles=HOST.format(ops=1),
        energy=host_actions(1),
    ),
)
