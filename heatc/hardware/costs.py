"""
What the actions of a machine cost: energy an action, leakage and area a part.

`ROWS` are the keys of the file's sections `energy`, `leakage` and `area`. Attributes are integers
of small units, so that a file is read exactly: attojoules, nanowatts, square nanometres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

from heatc.hardware import units
from heatc.hardware.units import Unit

MAC_WIDTHS = ("16x16", "8x16", "8x8", "4x16", "4x8", "4x4")
"""Operand widths in bits with an energy of their own; a narrow operand takes the next wider row."""


SPLITS = (4, 8, 16)
"""Bits of the narrowest multipliers that a PE may split into; 16 is one that does not split."""


def multiplier_bits(bits: int, split: int) -> int:
    """The width at which a PE that splits down to `split` bits multiplies operands of `bits`."""
    return min(width for width in SPLITS if width >= min(max(bits, split), SPLITS[-1]))


@cache
def macs_per_pe(bits_a: int, bits_b: int, split: int) -> int:
    """
    Multiply-accumulates a PE and cycle of operands of two widths.

    A 16-bit multiplier is 16 / a times 16 / b multipliers of a x b bits, whose products are added
    up with shifts (16 x 16) or as they are (spatial fusion): H. Sharma et al., Bit Fusion, ISCA
    2018, section III.
    """
    widths = (multiplier_bits(bits, split) for bits in (bits_a, bits_b))
    return math.prod(SPLITS[-1] // width for width in widths)


class Row(NamedTuple):
    """A key of the file, in the order of `heatc.hardware.description.Key`."""

    path: str
    attribute: str
    units: tuple[Unit, ...]
    low: int
    high: int
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Energy, leakage and area rows; units are in the names."""

    energy_mac_16x16_aj: int
    """Of a multiply-accumulate of these operand widths in bits."""
    energy_mac_8x16_aj: int
    energy_mac_8x8_aj: int
    energy_mac_4x16_aj: int
    energy_mac_4x8_aj: int
    energy_mac_4x4_aj: int
    energy_fuse_8_aj: int
    """Of a cycle of a PE that splits into 8-bit multipliers, beside its multiply-accumulates."""
    energy_fuse_4_aj: int
    energy_requantise_aj: int
    """Of an accumulator that is drained."""
    energy_block_aj: int
    """Of a block importance that the sparsity engine ranks."""
    energy_add_aj: int
    """Of a score that the adder merges, or adds to a block's importance."""
    energy_softmax_aj: int
    """Of a score."""
    energy_local_read_aj: int
    """Of a byte, like those of the other memories."""
    energy_local_write_aj: int
    energy_shared_read_aj: int
    energy_shared_write_aj: int
    energy_dram_read_aj: int
    energy_dram_write_aj: int
    energy_dma_aj: int
    """Of a byte that the DMA engine moves."""
    energy_vector_element_aj: int
    """Of an element that a vector unit aligns, adds or rounds."""
    energy_vector_function_aj: int
    """Of an element of which it takes a function (GELU, tanh)."""
    energy_vector_norm_aj: int
    """Of an element in each of the two passes of a layer norm."""
    energy_host_operation_aj: int
    energy_host_byte_aj: int
    energy_instruction_aj: int
    """Of an instruction that the sequencer issues."""
    leakage_pe_nw: int
    """Of each processing element, one that does not split."""
    leakage_pe_split_8_nw: int
    leakage_pe_split_4_nw: int
    leakage_se_lane_nw: int
    leakage_adder_lane_nw: int
    leakage_softmax_lane_nw: int
    leakage_vector_lane_nw: int
    leakage_local_buffer_nw: int
    """Of a MiB."""
    leakage_shared_buffer_nw: int
    """Of a MiB."""
    leakage_sequencer_nw: int
    """Of sequencer and DMA engine."""
    area_pe_nm2: int
    area_pe_split_8_nm2: int
    area_pe_split_4_nm2: int
    area_se_lane_nm2: int
    area_adder_lane_nm2: int
    area_softmax_lane_nm2: int
    area_vector_lane_nm2: int
    area_local_buffer_nm2: int
    """Of a MiB."""
    area_shared_buffer_nm2: int
    """Of a MiB."""
    area_sequencer_nm2: int


_JOULE, _WATT, _LARGEST_AREA = 10**18, 10**9, 10**15
_EACH = (
    *(f"mac_{width}" for width in MAC_WIDTHS),
    *("fuse_8", "fuse_4"),
    *("requantise", "block", "add", "softmax"),
    *("vector_element", "vector_function", "vector_norm"),
    *("host_operation", "instruction"),
)
_BYTES = (
    *(f"{memory}_{way}" for memory in ("local", "shared", "dram") for way in ("read", "write")),
    *("dma", "host_byte"),
)
ACTIONS: tuple[str, ...] = (*_EACH, *_BYTES)
"""The rows of `energy`: what an action may be."""

_PARTS = (
    *("pe", "pe_split_8", "pe_split_4"),
    *("se_lane", "adder_lane", "softmax_lane", "vector_lane"),
)
_BUFFERS = ("local_buffer", "shared_buffer")


_ENERGY = {
    **{f"mac_{width}": f"a multiply-accumulate of {width}-bit operands" for width in MAC_WIDTHS},
    "fuse_8": "a cycle of a PE that splits into 8-bit multipliers, beside its multiply-accumulates",
    "fuse_4": "the same of one that splits into 4-bit multipliers",
    "requantise": "an accumulator that is drained: bias, shift, clip",
    "block": "a block importance that the sparsity engine ranks",
    "add": "a score that the adder merges, or adds to a block's importance",
    "softmax": "a score",
    "vector_element": "an element that a vector unit aligns, adds or rounds",
    "vector_function": "an element of which it takes a function (GELU, tanh)",
    "vector_norm": "an element in each of the two passes of a layer norm",
    "host_operation": "an operation of the host",
    "instruction": "an instruction that the sequencer issues",
    "local_read": "a byte from the local buffer",
    "local_write": "a byte to it",
    "shared_read": "a byte from the shared buffer",
    "shared_write": "a byte to it",
    "dram_read": "a byte from DRAM",
    "dram_write": "a byte to it",
    "dma": "a byte that the DMA engine moves",
    "host_byte": "a byte that the host reads or writes in its cache",
}
_PLACE = {
    "pe": "a processing element that does not split",
    "pe_split_8": "one that splits down to 8 bit",
    "pe_split_4": "one that splits down to 4 bit",
    "se_lane": "a lane of the sparsity engine",
    "adder_lane": "a lane of the adder",
    "softmax_lane": "a lane of the softmax unit",
    "vector_lane": "a lane of the vector unit",
    "local_buffer": "the local buffer of a core",
    "shared_buffer": "the shared buffer",
    "sequencer": "sequencer and DMA engine",
}
"""What each row is of."""


def _energy(name: str) -> Row:
    unit = units.ENERGY if name in _EACH else units.ENERGY_PER_BYTE
    return Row(f"energy.{name}", f"energy_{name}_aj", (unit,), 0, _JOULE, _ENERGY[name])


def _leakage(name: str) -> Row:
    unit = units.POWER_PER_MIB if name in _BUFFERS else units.POWER
    return Row(f"leakage.{name}", f"leakage_{name}_nw", (unit,), 0, 1000 * _WATT, _PLACE[name])


def _area(name: str) -> Row:
    unit = units.AREA_PER_MIB if name in _BUFFERS else units.AREA
    return Row(f"area.{name}", f"area_{name}_nm2", (unit,), 0, _LARGEST_AREA, _PLACE[name])


_PLACES = (*_PARTS, *_BUFFERS, "sequencer")

ROWS: tuple[Row, ...] = (
    *map(_energy, ACTIONS),
    *map(_leakage, _PLACES),
    *map(_area, _PLACES),
)


# --- Sums over a machine ----------------------------------------------------------------------

_NANO, _ATTO, _MIB, _NM2_PER_MM2 = 1e-9, 1e-18, 1 << 20, 1e12


def action_joules(costs: Costs) -> tuple[float, ...]:
    """Joules of one action each, in the order of `ACTIONS`."""
    return tuple(_ATTO * getattr(costs, f"energy_{action}_aj") for action in ACTIONS)


class Sizes(Protocol):
    """How many of each part a machine has."""

    @property
    def cores(self) -> int: ...
    @property
    def pe_rows(self) -> int: ...
    @property
    def pe_columns(self) -> int: ...
    @property
    def split_bits(self) -> int: ...
    @property
    def se_lanes(self) -> int: ...
    @property
    def adder_lanes(self) -> int: ...
    @property
    def softmax_lanes(self) -> int: ...
    @property
    def vector_lanes(self) -> int: ...
    @property
    def local_buffer_bytes(self) -> int: ...
    @property
    def shared_buffer_bytes(self) -> int: ...


def _places(hardware: Sizes) -> dict[str, tuple[str, float]]:
    """The row of `leakage` and `area` of each unit, and how many of it (MiB of a buffer)."""
    cores, split = hardware.cores, hardware.split_bits
    return {
        "pe": (
            "pe" if split == SPLITS[-1] else f"pe_split_{split}",
            cores * hardware.pe_rows * hardware.pe_columns,
        ),
        "se": ("se_lane", cores * hardware.se_lanes),
        "adder": ("adder_lane", cores * hardware.adder_lanes),
        "softmax": ("softmax_lane", cores * hardware.softmax_lanes),
        "vector": ("vector_lane", cores * hardware.vector_lanes),
        "local": ("local_buffer", cores * hardware.local_buffer_bytes / _MIB),
        "shared": ("shared_buffer", hardware.shared_buffer_bytes / _MIB),
        "sequencer": ("sequencer", 1),
    }


def leakage_watts(hardware: Sizes) -> dict[str, float]:
    """Leakage by unit. DRAM and host have none: standby and an idle host are not modelled."""
    return {
        unit: _NANO * getattr(hardware, f"leakage_{row}_nw") * count
        for unit, (row, count) in _places(hardware).items()
    }


def area_mm2(hardware: Sizes) -> dict[str, float]:
    """Area by unit, without wires between units, pads, DRAM and host."""
    return {
        unit: getattr(hardware, f"area_{row}_nm2") * count / _NM2_PER_MM2
        for unit, (row, count) in _places(hardware).items()
    }
