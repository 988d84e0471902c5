"""The softmax unit."""

from __future__ import annotations

from heatc.isa.table.fields import sint, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

ROWS = (
    Instruction(
        "softmax",
        0x50,
        Engine.SOFTMAX,
        (tile("p"), tile("s"), uint("multiplier", 16), sint("shift", 8), sint("point", 8)),
        summary="Softmax of rows.",
        semantics=(
            "p := softmax unit of s with scores at `point` and scale multiplier * 2^-shift (log2 e "
            "included); int16 at point 14. p may begin where s begins: a row is read before it is written. "
            "taken: the scores of a core that are not excluded, those that a constant stands for once a "
            "row; longest: the most of them in a row"
        ),
        precondition=(
            "s is a complete i32 tile, p is a local i16 tile; -14 <= point + shift - 16 <= 62, n <= 32767. Rows "
            "stream through three stages: peak, powers and their sum, scaling."
        ),
        reads=("s",),
        writes=("p",),
        shapes={"s": "(m, n)", "p": "(m, n)"},
        in_place=True,
        cycles="up(taken, softmax_lanes) + 2 * up(longest, softmax_lanes)",
        energy={
            "softmax": "taken",
            "local_read": "taken * 4",
            "local_write": "cores * m * n * 2",
        },
    ),
)
