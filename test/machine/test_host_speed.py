"""The host's instructions go over whole registers: no work of Python is repeated row by row."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest
from machine_kit import Kit, Tiny

from heatc.isa.table import ISA, Engine

CASES: dict[str, dict[str, Any]] = {
    "hget": {"h": 0, "d": 0, "point": 9},
    "hgeti": {"h": 0, "d": 0, "idx": 2, "point": 9},
    "hput": {"h": 0, "d": 5, "point": 9},
    "hputc": {"h": 0, "d": 5, "point": 9},
    "hadd": {"h": 0, "g": 1},
    "hgelu": {"h": 0},
    "htanh": {"h": 0},
    "hrelu": {"h": 0},
    "hln": {"h": 0, "gamma": 1, "beta": 1, "eps": 1e-6},
    "hfun": {"h": 0, "function": "silu"},
    "hop": {"h": 0, "g": 1, "operation": "remainder"},
    "hsel": {"h": 0, "g": 1, "f": 2},
    "hrms": {"h": 0, "gamma": 1, "eps": 1e-6},
    "hsoft": {"h": 0},
    "hrope": {"h": 0, "g": 0, "f": 0, "heads": 1},
    "hdot": {"h": 0, "g": 1, "transposed": 1, "batches": 1},
    "hred": {"h": 0, "kind": "any"},
    "hredr": {"h": 0, "group": 2, "kind": "mean"},
    "hscan": {"h": 0},
    "hnum": {"h": 0, "columns": 8, "value": 1.5},
    "hiota": {"h": 0, "columns": 8, "step": 1},
    "hcopy": {"h": 0, "g": 3},
    "hcut": {"h": 0, "start": 7, "columns": 4, "step": -2},
    "hcat": {"h": 0, "g": 1},
    "hcols": {"h": 0, "idx": 3},
    "hshape": {"h": 0, "columns": 4},
    "hidx": {"dst": 6, "src": 2, "idx": 2},
    "htest": {"dst": 6, "src": 2, "compare": "ge", "value": 3.0},
    "hpack": {"dpos": 7, "dinv": 8, "dmask": 4, "length": 2, "has_mask": 1},
    "hrows": {"dpos": 7, "dinv": 8, "dreal": 9, "dmask": 4, "dread": 10, "length": 2},
}
COUNTS = {
    **dict.fromkeys(("hget", "hgeti", "hnum", "hiota"), "rows"),
    **dict.fromkeys(("hpack", "hrows"), "batch"),
}
"""The field that says how many rows."""


def _kit(mnemonic: str, rows: int) -> Kit:
    kit = Kit(Tiny(cores=1))
    kit.put(np.arange(rows * 8, dtype=np.int16).reshape(rows, 8), "i16")
    kit.put(np.ones((1, 8), np.float32), "f32")
    kit.put(np.arange(rows)[:, None], "i64")
    kit.put(np.arange(8)[None], "i64")
    kit.put(np.ones((2 * rows, 1), np.int64), "i64")
    kit.tensor((rows, 8), "i16")
    for count in (rows, 2 * rows, 2 * rows, 2 * rows):
        kit.tensor((count, 1), "i64")
    kit.put(np.array([[1]]), "i64")
    kit.emit("hget", h=0, d=0, rows=rows, point=9)
    kit.emit("hget", h=1, d=0, rows=rows, point=8)
    kit.emit("hnum", h=2, rows=1, columns=8, value=0.5)
    operands = dict(CASES[mnemonic])
    if mnemonic in COUNTS:
        operands[COUNTS[mnemonic]] = rows
    kit.emit(mnemonic, **operands)
    return kit


def _calls(kit: Kit) -> int:
    """How often anything is called while a program runs, for the second time: imports and caches are done."""
    kit.run()
    count = 0

    def note(frame: FrameType, event: str, arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        kit.run()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("mnemonic", CASES)
def test_no_row_is_worked_on_by_itself(mnemonic: str):
    """As many calls for 300 rows as for 4, but for those of a garbage collection: what repeats is NumPy's."""
    assert abs(_calls(_kit(mnemonic, 300)) - _calls(_kit(mnemonic, 4))) < 100


def test_every_instruction_is_tried():
    assert CASES.keys() == {name for name, row in ISA.items() if row.engine is Engine.HOST}
