"""
The keys of a hardware file: path, attribute of `Hardware`, unit, bounds, meaning.

A new key is one row here, or in `heatc.hardware.costs` for what an action costs. Files, manifests, sweeps
and docs/reference/hardware.md follow.
"""

from __future__ import annotations

from dataclasses import dataclass

from heatc.hardware import costs, units
from heatc.hardware.units import Unit
from heatc.rules import MOST_BLOCK

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Key:
    """
    One key of the file.

    `units` are the units it may be written in (none: a plain integer); a time is converted to
    cycles of the clock, rounded up. `low` and `high` bound the attribute, `meaning` says what it is,
    `choices` are all of its values if there are few.
    """

    path: str
    attribute: str
    units: tuple[Unit, ...]
    low: int
    high: int
    meaning: str
    choices: tuple[int, ...] = ()

    @property
    def kind(self) -> type[int]:
        """The attribute's type, or that of its numbers: `bool` of a switch, else `int`."""
        return bool if self.units == (units.SWITCH,) else int

    @property
    def is_blocks(self) -> bool:
        """Whether the attribute is sizes of blocks, whose extents the bounds are of."""
        return self.units == (units.BLOCKS,)


_KIB, _GIGA, _TERA = 1 << 10, 10**9, 10**12

SCHEMA: tuple[Key, ...] = (
    Key("clock", "clock_hz", (units.FREQUENCY,), 10**6, 100 * _GIGA, "of all cores and engines"),
    Key("cores", "cores", (), 1, 1024, "each has a PE array, engines and a local buffer"),
    Key("pe_array.rows", "pe_rows", (), 1, 1024, "of a core's array: rows of outputs of a fold"),
    Key("pe_array.columns", "pe_columns", (), 1, 1024, "columns of outputs of a fold"),
    Key(
        "pe_array.fold_overlap",
        "fold_overlap",
        (units.SWITCH,),
        0,
        1,
        "whether a fold of the array fills while the one before it empties",
    ),
    Key(
        "pe_array.split",
        "split_bits",
        (units.WIDTH,),
        costs.SPLITS[0],
        costs.SPLITS[-1],
        "width of the narrowest multipliers that a PE splits into; 16 bit: it does not split",
        costs.SPLITS,
    ),
    Key("buffers.local", "local_buffer_bytes", (units.BYTES,), _KIB, 1 << 26, "of each core"),
    Key("buffers.shared", "shared_buffer_bytes", (units.BYTES,), _KIB, 1 << 30, "of all cores"),
    Key(
        "buffers.shared_bandwidth",
        "shared_bytes_per_cycle",
        (units.BYTES_PER_CYCLE,),
        1,
        1 << 20,
        "what the shared buffer moves from and to all cores together",
    ),
    Key(
        "dram.bandwidth",
        "dram_bytes_per_second",
        (units.BANDWIDTH,),
        10**6,
        1000 * _TERA,
        "of reads and writes together",
    ),
    Key(
        "dram.latency",
        "dram_latency_cycles",
        (units.TIME, units.CYCLES),
        0,
        10**6,
        "from a request to its first byte",
    ),
    Key(
        "dram.capacity",
        "dram_capacity_bytes",
        (units.BYTES,),
        _KIB,
        1 << 40,
        "for weights, inputs, outputs and what does not fit the shared buffer",
    ),
    Key("sparsity_engine.lanes", "se_lanes", (), 1, 1 << 16, "blocks of scores ranked a cycle"),
    Key(
        "sparsity_engine.blocks",
        "blocks",
        (units.BLOCKS,),
        1,
        MOST_BLOCK,
        "sizes of blocks (query rows x key columns) that are ranked and pruned",
    ),
    Key("adder.lanes", "adder_lanes", (), 1, 1 << 16, "scores merged a cycle"),
    Key("softmax_unit.lanes", "softmax_lanes", (), 1, 1 << 16, "scores a cycle"),
    Key(
        "vector_unit.lanes",
        "vector_lanes",
        (),
        0,
        1 << 16,
        "elements a cycle of a core's vector unit; 0: element-wise work is the host's",
    ),
    *(Key(*row) for row in costs.ROWS),
    Key(
        "host.operations",
        "host_ops_per_second",
        (units.OPERATIONS,),
        10**6,
        1000 * _TERA,
        "float64 operations of the processor beside the machine",
    ),
    Key(
        "host.bandwidth",
        "host_bytes_per_second",
        (units.BANDWIDTH,),
        10**6,
        1000 * _TERA,
        "of the processor beside the machine",
    ),
    Key(
        "host.call",
        "host_call_cycles",
        (units.TIME, units.CYCLES),
        0,
        10**9,
        "from the machine's request to the host's answer, its work left out",
    ),
    Key(
        "mechanisms.fetch_upon_mask",
        "fetch_upon_mask",
        (units.SWITCH,),
        0,
        1,
        "a masked load fetches only the rows that its mask wants",
    ),
    Key(
        "mechanisms.early_head_exit",
        "early_head_exit",
        (units.SWITCH,),
        0,
        1,
        "a head that the gate prunes executes nothing more",
    ),
    Key(
        "mechanisms.stage_overlap",
        "stage_overlap",
        (units.SWITCH,),
        0,
        1,
        "the engines of a core work at the same time",
    ),
    Key(
        "mechanisms.local_a_stationary",
        "local_a_stationary",
        (units.SWITCH,),
        0,
        1,
        "the queries stay in the local buffer while keys pass",
    ),
    Key(
        "mechanisms.block_importance_in_array",
        "block_importance_in_array",
        (units.SWITCH,),
        0,
        1,
        "the PE array's accumulators emit the block sums",
    ),
)
