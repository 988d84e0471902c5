"""
What each instruction does that costs energy: counts of actions, beside its `cycles`.

An expression is over the shape of the work (`WORK_VARIABLES`) and constants of the PE array, and
counts an action on all cores together. What an action costs is the hardware file's to say
(`heatc.hardware.costs`); `mac` is priced by the widths of its operands. Buffers are counted in
bytes: an output-stationary fold streams `rows` rows of a and `columns` columns of b, so that a is
read once for each fold of columns and b once for each fold of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

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
        "written": "those of `nbytes` that they write",
    }
)

Actions = Mapping[str, str]
"""Action to expression."""

_ACC = 6
_ISSUE = {"instruction": "1"}
_BLOCKS = "up(m, block_rows) * up({columns}, block_columns)"
_MASK_BITS = f"cores * {_BLOCKS} / 8"
_STREAM_A = "m * k * up(n, columns) * size_a"
_STREAM_B = "n * k * up(m, rows) * size_b"
_SPILL = f"cores * (1 - first) * m * n * {_ACC}"
"""Accumulators that go on from an earlier instruction come back from their tile."""
_SUMMED = "constant * first * cores"
"""The cores whose accumulators begin with a wide product, of 32 bits."""


_MOVED = {
    "dram_read": "from_dram * (nbytes - written)",
    "dram_write": "from_dram * written",
    "shared_read": "(1 - from_dram) * (nbytes - written)",
    "shared_write": "(1 - from_dram) * written",
}


def _host(operations: int) -> Actions:
    return {
        **_ISSUE,
        "host_operation": f"{operations} * elements",
        "host_byte": "nbytes",
        **_MOVED,
    }


def _vector(action: str, reads: int, writes: int, times: int = 1) -> Actions:
    """
    On the vector units; `reads` and `writes` are rows of the local buffers, of `_ROW` bytes each.

    What comes from DRAM or goes there passes the DMA engine.
    """
    return {
        **_ISSUE,
        action: f"{times} * elements",
        "local_read": f"{reads * times * _ROW} * elements",
        "local_write": f"{writes * _ROW} * elements",
        "dma": "nbytes",
        **_MOVED,
    }


_ROW = 4
"""Bytes of an element between two instructions of the vector units."""
_LOAD = {
    **_ISSUE,
    "dma": "nbytes",
    "dram_read": "from_dram * nbytes",
    "shared_read": "(1 - from_dram) * nbytes",
    "local_write": "in_local * copies * nbytes",
    "shared_write": "(1 - in_local) * nbytes",
}
_STORE = {
    **_ISSUE,
    "dma": "nbytes",
    "local_read": "in_local * nbytes",
    "shared_read": "(1 - in_local) * nbytes",
    "dram_write": "from_dram * nbytes",
    "shared_write": "(1 - from_dram) * nbytes",
}
_DRAIN = {
    **_ISSUE,
    "requantise": "cores * m * n",
    "local_read": f"cores * (m * n * {_ACC} + bias_rows * n * 4)",
    "local_write": "cores * m * n * size_t",
}
_PICKED = {
    **_ISSUE,
    "mac": "kept * k",
    "local_read": "folds * min(m, rows) * k * size_a + kept / block_rows * k * size_b + "
    + _MASK_BITS.format(columns="n"),
    "local_write": f"kept * {_ACC}",
}
_CONTROL = (
    *("halt", "li", "addi", "span", "loop", "end"),
    *(
        "seq",
        "all",
        "heads",
        "extra",
        "pruned",
        "param",
        "group",
        "blocks",
        "tensor",
        "window",
        "tile",
    ),
)

ENERGY: Mapping[str, Actions] = MappingProxyType(
    {
        **dict.fromkeys(_CONTROL, _ISSUE),
        "ld": _LOAD,
        "ldm": {**_LOAD, "local_read": "mask_bytes"},
        "st": _STORE,
        "strow": _STORE,
        "stzero": {
            **_ISSUE,
            "dma": "nbytes",
            "dram_write": "from_dram * nbytes",
            "shared_write": "(1 - from_dram) * nbytes",
        },
        "mm": {
            **_ISSUE,
            "mac": "cores * m * n * k",
            "local_read": f"cores * (a_local * {_STREAM_A} + b_local * {_STREAM_B}) + {_SPILL}",
            "shared_read": f"once * ((1 - a_local) * {_STREAM_A} + (1 - b_local) * {_STREAM_B})",
            "local_write": f"cores * m * n * {_ACC}",
        },
        "drain": _DRAIN,
        "drains": _DRAIN,
        "drainc": _DRAIN,
        "scores": {
            **_ISSUE,
            "mac": f"cores * (m * n * k + positive * {_BLOCKS.format(columns='n')} * 8)",
            "add": "ranked * cores * m * n * (1 + positive)",
            "local_read": f"cores * ({_STREAM_A} + b_local * {_STREAM_B} + positive * m * {_ACC})",
            "shared_read": f"once * (1 - b_local) * {_STREAM_B}",
            "local_write": "cores * (m * n * size_t + "
            + f"ranked * {_BLOCKS.format(columns='n')} * {_ACC})",
        },
        "frac": _PICKED,
        "pick": _PICKED,
        "drainm": {
            **_ISSUE,
            "requantise": "kept",
            "local_read": f"kept * {_ACC} + " + _MASK_BITS.format(columns="n"),
            "local_write": "kept * size_t",
        },
        "drainp": _DRAIN,
        "pv": {
            **_ISSUE,
            "mac": f"kept * n + {_SUMMED} * 2 * m * n",
            "add": "constant * kept",
            "local_read": "kept * up(n, columns) * size_a + b_local * streamed * n * size_b + "
            + f"{_SUMMED} * (m * up(n, columns) * size_a + up(m, rows) * n * {_ACC}) + "
            + f"{_SPILL} + "
            + f"sparse * {_MASK_BITS.format(columns='k')}",
            "shared_read": "once * (1 - b_local) * k * up(m, rows) * n * size_b",
            "local_write": f"cores * m * n * {_ACC}",
        },
        "colsum": {
            **_ISSUE,
            "add": "cores * n * k",
            "local_read": f"cores * (b_local * n * k * size_b + (1 - first) * n * {_ACC})",
            "shared_read": "once * (1 - b_local) * n * k * size_b",
            "local_write": f"cores * n * {_ACC}",
        },
        "wide": {
            **_ISSUE,
            "mac": "cores * 2 * m * k",
            "local_read": f"cores * (m * k * size_a * 2 + k * {_ACC} * up(m, rows))",
            "local_write": f"cores * m * {_ACC}",
        },
        "mask": {
            **_ISSUE,
            "block": "cores * blocks",
            "local_read": f"cores * blocks * {_ACC}",
            "local_write": "cores * blocks / 8",
        },
        "topk": {
            **_ISSUE,
            "block": "cores * (compares + blocks)",
            "local_read": f"cores * blocks * {_ACC}",
            "local_write": "cores * blocks / 8",
        },
        "filter": {
            **_ISSUE,
            "block": "cores * blocks",
            "local_read": "cores * blocks * (4 + sparse / 8)",
            "local_write": "cores * blocks / 8",
        },
        "likely": {
            **_ISSUE,
            "block": "cores * 2 * blocks",
            "local_read": "cores * blocks * 2",
            "local_write": "cores * blocks / 8",
        },
        "peak": {
            **_ISSUE,
            "add": "cores * n * k",
            "local_read": f"cores * (b_local * n * k * size_b + (1 - first) * {_ACC})",
            "shared_read": "once * (1 - b_local) * n * k * size_b",
            "local_write": f"cores * {_ACC}",
        },
        "low": {
            **_ISSUE,
            "add": "cores * m * n",
            "local_read": f"cores * (b_local * m * n * size_b + {_ACC})",
            "shared_read": "once * (1 - b_local) * m * n * size_b",
            "local_write": "cores * m * n * size_t",
        },
        "gate": {**_ISSUE, "block": "cores"},
        "cascade": {**_ISSUE, "block": "cores * n * n", "local_read": "cores * n * 8"},
        "add": {
            **_ISSUE,
            "add": "merged",
            "local_read": f"merged * size_a + kept * {2 * _ACC} + "
            + _MASK_BITS.format(columns="n"),
            "local_write": "merged * 4",
        },
        "divide": {
            **_ISSUE,
            "add": "cores * m * n",
            "local_read": f"cores * m * n * {_ACC}",
            "local_write": "cores * m * n * size_t",
        },
        "magnitude": {
            **_ISSUE,
            "add": "cores * m * n",
            "local_read": f"cores * (m * n * size_a + (1 - first) * {_ACC})",
            "local_write": f"cores * {_ACC}",
        },
        "tally": {
            **_ISSUE,
            "add": "cores * (k + 1 - first)",
            "local_read": f"cores * (k * {_ACC} + (1 - first) * 8)",
            "local_write": "cores * 8",
        },
        "softmax": {
            **_ISSUE,
            "softmax": "taken",
            "local_read": "taken * 4",
            "local_write": "cores * m * n * 2",
        },
        "hpack": _host(2),
        "hrows": _host(3),
        "htest": _host(1),
        "hidx": _host(1),
        "hget": _host(1),
        "hgeti": _host(1),
        "hadd": _host(1),
        "hln": _host(8),
        "hgelu": _host(20),
        "htanh": _host(20),
        "hrelu": _host(1),
        "hput": _host(4),
    }
)
"""
The actions of each instruction; those of the host as the host does them. `frac` counts each of its two products. A block of `positive`
importance is L times the sum of its scores above the mean, less their number times r: two
products of 32 bits, four MACs of 16 bits each.
"""

VECTOR_ENERGY: Mapping[str, Actions] = MappingProxyType(
    {
        "hget": _vector("vector_element", 0, 1),
        "hgeti": _vector("vector_element", 0, 1),
        "hadd": _vector("vector_element", 2, 1),
        "hln": _vector("vector_norm", 1, 1, times=2),
        "hgelu": _vector("vector_function", 1, 1),
        "htanh": _vector("vector_function", 1, 1),
        "hrelu": _vector("vector_element", 1, 1),
        "hput": _vector("vector_element", 1, 0),
    }
)
"""The actions of the element-wise instructions where a machine has vector units."""
