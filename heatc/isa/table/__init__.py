"""
The instruction set, declared once: a file an engine, a row an instruction.

A row gives an instruction's fields (hence its encoding, text form and IR operation), what it computes
and needs, what it reads, writes and decides, the shapes of its operands and results, its cycles, and
the actions that cost energy. Encoder, decoder, assembler, disassembler, machine, `hdp` dialect and
docs/isa.md follow from the rows; what an instruction computes is a function of its own in
`heatc.machine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from heatc.isa.dtypes import ACC_BITS, BITS, DTYPES, TILE_DTYPES
from heatc.isa.table import (
    adder,
    control,
    dma,
    host,
    host_math,
    host_moves,
    host_reduce,
    pe_array,
    score_masks,
    softmax,
    sparsity,
)
from heatc.isa.table.fields import (
    BLOCK,
    COMPARISONS,
    DESCRIPTORS,
    HEADS,
    HOST_REGISTERS,
    INDEX_KINDS,
    ISA_VERSION,
    KEYLESS_ROWS,
    MASK_AXES,
    OPCODE_BITS,
    PARAMETERS,
    PRUNED_SCORES,
    R_BATCH,
    R_EXTRA,
    R_EXTRA_START,
    R_LENGTH,
    R_START,
    R_TOKENS,
    R_ZERO,
    REGISTERS,
    SPACES,
    TILES,
    WORD_BITS,
    WORD_BYTES,
    Field,
    FieldKind,
    PrunedScore,
    sorting_compares,
    split_dtypes,
)
from heatc.isa.table.host_actions import ElementCost
from heatc.isa.table.host_math import FUNCTION_COSTS, OPERATION_COSTS
from heatc.isa.table.instruction import (
    CORE_ENGINES,
    CYCLE_CONSTANTS,
    ENERGY_CONSTANTS,
    MAC_ACTION,
    SHAPE_NAMES,
    WORK_VARIABLES,
    Access,
    Actions,
    Engine,
    Instruction,
)

__all__ = [
    "ACC_BITS",
    "BITS",
    "BLOCK",
    "BY_OPCODE",
    "COMPARISONS",
    "CORE_ENGINES",
    "CYCLE_CONSTANTS",
    "DESCRIPTORS",
    "DTYPES",
    "ENERGY_CONSTANTS",
    "FUNCTION_COSTS",
    "HEADS",
    "HOST_REGISTERS",
    "INDEX_KINDS",
    "ISA",
    "ISA_VERSION",
    "KEYLESS_ROWS",
    "MAC_ACTION",
    "MASK_AXES",
    "OPCODE_BITS",
    "OPERATION_COSTS",
    "PARAMETERS",
    "PRUNED_SCORES",
    "REGISTERS",
    "R_BATCH",
    "R_EXTRA",
    "R_EXTRA_START",
    "R_LENGTH",
    "R_START",
    "R_TOKENS",
    "R_ZERO",
    "SHAPE_NAMES",
    "SPACES",
    "TILES",
    "TILE_DTYPES",
    "WORD_BITS",
    "WORD_BYTES",
    "WORK_VARIABLES",
    "Access",
    "Actions",
    "ElementCost",
    "Engine",
    "Field",
    "FieldKind",
    "Instruction",
    "PrunedScore",
    "sorting_compares",
    "split_dtypes",
]


def _checked(*tables: tuple[Instruction, ...]) -> Mapping[str, Instruction]:
    """The rows of all tables, in opcode order."""
    rows = sorted((row for rows in tables for row in rows), key=lambda row: row.opcode)
    found = {row.mnemonic: row for row in rows}
    assert len(found) == len(rows) == len({row.opcode for row in rows})
    for row in rows:
        names = {field.name for field in row.fields}
        assert 0 < row.opcode < 1 << OPCODE_BITS
        assert row.bits <= WORD_BITS, f"{row.mnemonic} needs {row.bits} bits"
        assert len(names) == len(row.fields)
        assert {*row.writes, *(access.field for access in row.accesses)} <= names, row.mnemonic
        assert row.defines in {"", *names}
        assert {*row.results} <= row.shapes.keys() <= names, row.mnemonic
        assert row.becomes.keys() <= {*row.results}, row.mnemonic
        assert bool(row.vector) == bool(row.vector_energy)
    return MappingProxyType(found)


ISA: Mapping[str, Instruction] = _checked(
    control.ROWS,
    dma.ROWS,
    pe_array.ROWS,
    sparsity.ROWS,
    adder.ROWS,
    score_masks.ROWS,
    softmax.ROWS,
    host.ROWS,
    host_math.ROWS,
    host_reduce.ROWS,
    host_moves.ROWS,
)
"""Instructions by mnemonic, in opcode order."""

BY_OPCODE: Mapping[int, Instruction] = MappingProxyType({row.opcode: row for row in ISA.values()})
"""Instructions by opcode."""
