"""
Programs word by word, and what they cost in the model on given masks.

None of it is right or wrong by itself: other tests hold values and formulas. A program or a figure
that changes shows here as a difference of runs.json, so that nobody changes one without knowing.
To accept new ones:

    python test/backends/hdp/test_pinned_runs.py
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from encode_kit import hardware
from machine_kit import Given

from heatc.api import make_context
from heatc.backends.hdp.encode import Encoded, encode_module
from heatc.capture import Captured, capture_module
from heatc.hardware import Hardware
from heatc.isa.words import encode_program
from heatc.machine.energy import ACTIONS, action_counts
from heatc.machine.machine import Machine, Memory
from heatc.machine.values import Shapes
from heatc.pipeline import build, run_passes
from heatc.targets import RAISE

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from rules_kit import LENGTHS, SIZE, inputs, model  # noqa: E402

PINS = Path(__file__).with_name("runs.json")

EDGE = hardware("hdp-edge")
MACHINES: dict[str, Hardware] = {
    "edge": EDGE,
    "small": replace(EDGE, name="small", cores=2, local_buffer_bytes=8192),
    "odd": replace(EDGE, name="odd", cores=3, pe_rows=8, pe_columns=4, fold_overlap=False),
    "refetching": replace(
        EDGE,
        name="refetching",
        local_a_stationary=False,
        fetch_upon_mask=False,
        stage_overlap=False,
    ),
    "splitting": replace(EDGE, name="splitting", split_bits=8),
    "server-vector": hardware("hdp-server-vector"),
}
RULES = {
    "none": tuple(MACHINES),
    "paper rho-b=0.25": ("edge", "small"),
    "paper rho-b=0.1 tau-h=6.2,6.0,0.0 pruned-score=neginf": ("edge", "refetching"),
    "ours tau-h=3.2,0.0,2.0": ("edge", "small", "odd", "splitting", "server-vector"),
    "ours tau-h=3.2 gated=mean": ("edge", "refetching"),
    "ours pruned-score=neginf block=1,2": ("edge",),
    "topk density=0.3": ("edge", "odd"),
    "energon alpha=0.2,-0.1": ("edge", "refetching", "splitting"),
    "sanger threshold=0.05": ("edge",),
    "spatten ratio=0.4": ("edge", "small"),
}
CASES = [(rule, machine) for rule, machines in RULES.items() for machine in machines]


@cache
def captured() -> Captured:
    """An encoder whose weights no release of a library changes."""
    encoder, rng = copy.deepcopy(model()), np.random.default_rng(11)
    for name, parameter in sorted(encoder.named_parameters()):
        values = rng.normal(scale=0.25, size=tuple(parameter.shape))
        values += name.endswith("LayerNorm.weight")
        parameter.data.copy_(torch.from_numpy(values))
    example = {name: torch.ones(len(LENGTHS), SIZE, dtype=torch.int64) for name in inputs()}
    return capture_module(encoder, example)


@cache
def program_of(rule: str, hw: Hardware) -> Encoded:
    """The program of that encoder; several tests run it."""
    module, weights = captured().module.clone(), captured().weights
    passes = (
        *RAISE,
        f"insert-hdp{{rule={rule}}}",
        "partition-host",
        "assign-fixed-point",
        "plan-tiles,tile-for-hdp",
        "lower-to-hdp",
        "allocate-buffers",
    )
    run_passes(make_context(weights, hardware=hw), module, build(",".join(passes)))
    return encode_module(module)


def pins(rule: str, hw: Hardware) -> dict[str, Any]:
    """The program's words, and what it counts where 60 % of the blocks and 80 % of the heads stay."""
    encoded = program_of(rule, hw)
    memory = Memory(np.zeros(0, np.uint8), encoded.dram_bytes)
    for port in encoded.inputs:
        memory.write(port.address, inputs()[port.name], "i64")
    values = Shapes(Given(seed=5, kept=0.6, heads=0.8))
    result = Machine(hw, memory).run(encoded.program, values=values)
    actions = action_counts(result, hw).sum(axis=0)
    return {
        "words": hashlib.sha256(encode_program(encoded.program)).hexdigest()[:16],
        "steps": result.steps,
        "cycles": result.cycles,
        "busy": {name: int(cycles.sum()) for name, cycles in result.busy.items()},
        "read": result.dram_bytes_read,
        "written": result.dram_bytes_written,
        "macs": result.macs,
        "blocks": [result.blocks_kept, result.blocks_total],
        "heads": [result.heads_kept, result.heads_total],
        "actions": {name: count for name, count in zip(ACTIONS, actions.tolist()) if count},
    }


def same(known: Any, found: Any) -> bool:
    """Equal but for the last digits of sums."""
    if isinstance(known, float):
        return math.isclose(known, found, rel_tol=1e-12)
    return known == found


@pytest.mark.parametrize(("rule", "machine"), CASES)
def test_no_figure_changes_unnoticed(rule: str, machine: str):
    known = json.loads(PINS.read_text())[f"{rule} on {machine}"]
    found = json.loads(json.dumps(pins(rule, MACHINES[machine])))
    actions = known.pop("actions"), found.pop("actions")
    assert found == known
    assert actions[0].keys() == actions[1].keys()
    assert all(same(count, actions[1][name]) for name, count in actions[0].items())


if __name__ == "__main__":
    found = {f"{rule} on {machine}": pins(rule, MACHINES[machine]) for rule, machine in CASES}
    PINS.write_text(json.dumps(found, indent=1) + "\n")
