"""Transfers between tensors and tiles."""

from __future__ import annotations

from heatc.isa.table.fields import MASK_AXES, desc, enum, flag, reg, tile, uint
from heatc.isa.table.instruction import Engine, Instruction

_DMA = "nbytes / width"
_LOAD = {
    "dma": "nbytes",
    "dram_read": "from_dram * nbytes",
    "shared_read": "(1 - from_dram) * nbytes",
    "local_write": "in_local * copies * nbytes",
    "shared_write": "(1 - in_local) * nbytes",
}
_STORE = {
    "dma": "nbytes",
    "local_read": "in_local * nbytes",
    "shared_read": "(1 - in_local) * nbytes",
    "dram_write": "from_dram * nbytes",
    "shared_write": "(1 - from_dram) * nbytes",
}

ROWS = (
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
        summary="Load a part of a tensor into a tile.",
        semantics=(
            "t[core] := d[row : row + rows, col : col + cols] with row = row_reg + core * core_rows, "
            "col = col_reg + core * core_cols, clipped at d's bounds; a shared tile takes core 0's "
            "part; with core_rows = core_cols = 0 the part is fetched once for all cores"
        ),
        precondition=(
            "d is described, dtypes agree, row_reg and col_reg are not negative; core 0's part is not "
            "empty and fits the tile."
        ),
        reads=("d",),
        writes=("t",),
        shapes={"d": "(i, j)", "t": "(min(rows, i - row_reg), min(cols, j - col_reg))"},
        cycles=_DMA,
        energy=_LOAD,
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
        summary="Load upon mask.",
        semantics=(
            "as `ld`, but row i of d, token i of the sequence, is fetched only if the mask keeps a "
            "block of it: as a key (any written mask row) or as a query (its own mask row); else it "
            "reads as 0"
        ),
        precondition="as `ld`; t is local, mask is a mask tile written on every live core; core_rows = 0.",
        reads=("d", "mask"),
        writes=("t",),
        shapes={"d": "(i, j)", "t": "(min(rows, i - row_reg), min(cols, j - col_reg))"},
        cycles=_DMA,
        energy={**_LOAD, "local_read": "mask_bytes"},
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
        summary="Store a tile.",
        semantics=(
            "d[row .., col ..] := t[core], placed and clipped as in `ld`; active cores only, a core "
            "that is active and not kept stores zeros, with leave nothing"
        ),
        precondition="t is written and not a mask, dtypes agree, d does not lie among the weights.",
        reads=("t",),
        writes=("d",),
        cycles=_DMA,
        energy=_STORE,
    ),
    Instruction(
        "strow",
        0x23,
        Engine.DMA,
        (desc("d"), tile("t"), reg("row_reg"), reg("col_reg"), uint("core_cols", 16)),
        summary="Store a row again and again.",
        semantics=(
            "every row of d from row_reg on := the row t[core], placed as in `st`; only the cores that "
            "execute it store, of those that share a head one"
        ),
        precondition="t is written, one row and not a mask, dtypes agree, d does not lie among the weights.",
        reads=("t",),
        writes=("d",),
        shapes={"t": "(1, n)"},
        cycles=_DMA,
        energy=_STORE,
    ),
    Instruction(
        "stzero",
        0x27,
        Engine.DMA,
        (desc("d"), reg("row_reg"), reg("col_reg"), uint("cols", 16), uint("core_cols", 16)),
        summary="Store zeros.",
        semantics=(
            "every row of d from row_reg on := 0 in `cols` columns, placed as in `st`; of the cores that "
            "share a head one stores"
        ),
        precondition="d does not lie among the weights.",
        writes=("d",),
        cycles=_DMA,
        energy={
            "dma": "nbytes",
            "dram_write": "from_dram * nbytes",
            "shared_write": "(1 - from_dram) * nbytes",
        },
    ),
)
