"""
What a row of the table says of an instruction.

Expressions are Python: `cycles` and `energy` over the shape of the work (`WORK_VARIABLES`) and
constants of the hardware (`CYCLE_CONSTANTS`), conditions of `reads` over the operands, `shapes` over
sizes, operands and the state of the machine (`SHAPE_NAMES`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import Literal, NamedTuple

from heatc.isa.table.fields import OPCODE_BITS, Field, FieldKind


class Engine(StrEnum):
    """
    What executes an instruction; `pe`, `se`, `adder` and `softmax` exist once a core.

    `vector` stands for the vector units of all cores, which work as one. No instruction names it:
    on a machine that has them they execute the element-wise instructions of the host.
    """

    CONTROL = "control"
    DMA = "dma"
    PE = "pe"
    SE = "se"
    ADDER = "adder"
    SOFTMAX = "softmax"
    VECTOR = "vector"
    HOST = "host"


CORE_ENGINES = (Engine.PE, Engine.SE, Engine.ADDER, Engine.SOFTMAX)

CYCLE_CONSTANTS: Mapping[str, str] = MappingProxyType(
    {
        "up": "up(x, y) = x / y rounded up",
        "rows": "rows of the PE array",
        "columns": "columns of the PE array",
        "fills": "fills(x) = how often x folds fill the PE array: once if folds overlap, else x times",
        "leaves": "leaves(x) = x if folds overlap, else 0: results then leave within their fold",
        "se_lanes": "block importances per cycle and sparsity engine",
        "adder_lanes": "scores per cycle and adder",
        "softmax_lanes": "scores per cycle and softmax unit",
        "width": "bytes per cycle between DMA and DRAM, or DMA and shared buffer",
        "vector_lanes": "elements per cycle of the vector units of all cores",
        "call": "cycles to start a host operation",
        "host_ops": "host operations per machine cycle",
        "host_width": "host bytes per machine cycle",
    }
)


SHAPE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "up": "as in cycles",
        "min": "the less of two numbers",
        "wider": "wider(x, y) = y where x is 1, else x, which then is y or y is 1: sides that are repeated",
        "r60": "the length of the current sequence",
        "parts": "cores that share a head, see `group`",
        "block_rows": "query rows of a block",
        "block_columns": "key columns of a block",
    }
)
"""What shapes are over beside sizes and operands, of which registers stand for their values."""

MAC_ACTION = "mac"

ENERGY_CONSTANTS = ("up", "min", "rows", "columns")
"""Names of an expression that are no variables; the first two as in Python and CYCLE_CONSTANTS."""

WORK_VARIABLES: Mapping[str, str] = MappingProxyType(
    {
        "cores": "live cores that do this work",
        "once": "1 where a broadcast of a shared tile is counted, else 0",
        "m": "rows of a core's result",
        "n": "columns of a core's result (`pv`: of the values; `scores`, `frac`, `add`: keys; `cascade`: heads)",
        "k": "depth of a core's product (`pv`: keys; `tally`: cores that share a head)",
        "bits_a": "width of the left operands in bits",
        "bits_b": "width of the right operands in bits",
        "size_a": "bytes of an element of the left operand, or of the adder's integer scores",
        "size_b": "bytes of an element of the right operand",
        "size_t": "bytes of an element of the result, of both results of `drains`",
        "a_local": "1 if the left operand lies in the local buffer, 0 if in the shared one",
        "b_local": "the same of the right operand",
        "first": "1 if the accumulators start from 0",
        "bias_rows": "rows of the bias, 0 without one",
        "positive": "1 if importance is what lies above the mean of the row of scores",
        "sparse": "1 if only kept blocks are computed",
        "constant": "1 if the sum of all values stands for those of pruned blocks",
        "ranked": "1 if blocks are ranked, 0 if the scores are accumulators, as in dense attention",
        "kept": "kept scores of all cores",
        "merged": "scores of all cores that the adder computes: kept ones only where others are excluded",
        "taken": "scores of all cores that have a part in the softmax",
        "folds": "masked folds of all cores, of one of the two products",
        "streamed": "rows of v that are read, of all cores",
        "blocks": "block importances of a core",
        "compares": "comparisons of importances of a core, beside one a block",
        "block_rows": "query rows of a block",
        "block_columns": "key columns of a block",
        "nbytes": "bytes that are moved, of all cores together",
        "copies": "local buffers that take what is loaded once",
        "mask_bytes": "bytes of masks that are read, of all cores",
        "from_dram": "1 if the tensor lies in DRAM, 0 if in the shared buffer",
        "in_local": "1 if the tile lies in the local buffer, 0 if in the shared one",
        "elements": "elements that the host or the vector units handle",
        "operations": "operations of the host an element, where a field or an operand decides that",
        "steps": "passes of the vector units in which an adder or comparator does one step, likewise",
        "functions": "passes in which they take a function, likewise",
        "written": "those of `nbytes` that they write",
    }
)

Actions = Mapping[str, str]
"""Action to expression."""


class Access(NamedTuple):
    """A tile, tensor or host register that an instruction reads: its field, and on what condition."""

    field: str
    condition: str = ""


@dataclass(frozen=True)
class Instruction:
    """
    One instruction: its word, and in words and formulas what it does.

    `semantics` and `precondition` are statements over the operands. `defines` is the field of the
    state that it declares, which is the result of its op. `reads` and `writes` name fields of tiles,
    tensors and host registers: a read may have a condition over the operands, where registers stand
    for their values (`acc if not first`). `in_place`: what is written may begin where an operand does;
    otherwise no bytes are both. `shapes` has the shape of each tile and host register, (rows, columns):
    what is read names sizes, the same name has the same size, and what is written follows from them.
    `becomes` has the shapes of host registers that are read, and written in another shape.
    `decides` says what it decides: blocks of a mask, or heads.

    `cycles` is how long its engine is occupied. `energy` counts actions on all cores together; what
    an action costs is the hardware file's to say (`heatc.hardware.costs`), `mac` is priced by the
    widths of its operands, and being issued is an action that needs no mention. `vector` and
    `vector_energy` are those of the vector units, where a machine has them and they do the work.
    """

    mnemonic: str
    opcode: int
    engine: Engine
    fields: tuple[Field, ...]
    summary: str
    semantics: str
    cycles: str
    precondition: str = ""
    defines: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    shapes: Mapping[str, str] = field(default_factory=dict[str, str])
    becomes: Mapping[str, str] = field(default_factory=dict[str, str])
    in_place: bool = False
    decides: Literal["", "mask", "heads"] = ""
    energy: Actions = field(default_factory=dict[str, str])
    vector: str = ""
    vector_energy: Actions = field(default_factory=dict[str, str])

    def field_index(self, name: str) -> int:
        """The position of a field among the operands."""
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {entry.name: i for i, entry in enumerate(self.fields)}

    def field(self, name: str) -> Field:
        """A field by name."""
        return self.fields[self._places[name]]

    @cached_property
    def accesses(self) -> tuple[Access, ...]:
        """`reads`, apart from their conditions."""
        return tuple(Access(*text.split(" if ")) for text in self.reads)

    @property
    def tensors_written(self) -> tuple[str, ...]:
        """The fields of tensors that it writes."""
        return tuple(n for n in self.writes if self.field(n).kind is FieldKind.DESC)

    @cached_property
    def results(self) -> tuple[str, ...]:
        """The fields of tiles and host registers that it writes: they have no shape but its own."""
        return tuple(n for n in self.writes if self.field(n).kind is not FieldKind.DESC)

    @property
    def bits(self) -> int:
        """Bits used of the word, opcode included."""
        return OPCODE_BITS + sum(entry.bits for entry in self.fields)
