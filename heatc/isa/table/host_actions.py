"""What the host's instructions cost, as formulas that their rows share."""

from __future__ import annotations

from typing import NamedTuple

from heatc.isa.table.instruction import Actions

HOST = "call + {ops} * elements / host_ops + nbytes / host_width"
PASS = "up(elements, vector_lanes)"
_MOVED = {
    "dram_read": "from_dram * (nbytes - written)",
    "dram_write": "from_dram * written",
    "shared_read": "(1 - from_dram) * (nbytes - written)",
    "shared_write": "(1 - from_dram) * written",
}
ROW = 4
"""Bytes of an element between two instructions of the vector units."""


class ElementCost(NamedTuple):
    """
    What an element costs where a field of the instruction decides it.

    `operations` are the host's. A vector unit passes `steps` times over it that an adder or comparator
    does at once, and takes `functions` of it, each in a pass of its own.
    """

    operations: int
    steps: int = 1
    functions: int = 0


CHOSEN_HOST = HOST.format(ops="operations")
CHOSEN_PASSES = f"(steps + functions) * {PASS}"


def host_actions(operations: int | str) -> Actions:
    """On the host."""
    return {
        "host_operation": f"{operations} * elements",
        "host_byte": "nbytes",
        **_MOVED,
    }


def vector_actions(action: str, reads: int, writes: int, times: int = 1) -> Actions:
    """
    On the vector units; `reads` and `writes` are rows of the local buffers, of `ROW` bytes each.

    What comes from DRAM or goes there passes the DMA engine.
    """
    return {
        action: f"{times} * elements",
        "local_read": f"{reads * times * ROW} * elements",
        "local_write": f"{writes * ROW} * elements",
        "dma": "nbytes",
        **_MOVED,
    }


def chosen_actions(reads: int) -> Actions:
    """On the vector units, where a field decides; each pass reads `reads` rows and writes one."""
    return {
        "vector_element": "steps * elements",
        "vector_function": "functions * elements",
        "local_read": f"{reads * ROW} * (steps + functions) * elements",
        "local_write": f"{ROW} * (steps + functions) * elements",
        "dma": "nbytes",
        **_MOVED,
    }
