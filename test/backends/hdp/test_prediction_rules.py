"""Rules that predict, and blocks of other sizes: programs against the fixed level."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encode_kit import expect_same, hardware

from heatc.api import make_context
from heatc.backends.hdp import open_program, simulate
from heatc.backends.hdp.emit import write_module
from heatc.backends.hdp.simulation import simulate_timing
from heatc.dialects import attn
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import RAISE

pytestmark = pytest.mark.torch
pytest.importorskip("transformers")

import rules_kit  # noqa: E402

RULES = (
    "energon alpha=0.2,-0.1",
    "sanger threshold=0.05",
    "topk density=0.3 block=4,4",
    "topk density=0.2 finer=2 block=1,1",
    "ours tau-h=3.2,0.0,2.0 block=4,2 rho-b=0.2",
)


@pytest.mark.parametrize("hw", ["hdp-edge", "hdp-server", "small", "split"])
@pytest.mark.parametrize("rule", RULES)
def test_masks_and_codes_of_every_layer(rule: str, hw: str, tmp_path: Path):
    """Those of the fixed level; a run on stored masks costs the same."""
    edge = hardware("hdp-edge")
    others = {
        "small": replace(edge, name="small", cores=2, local_buffer_bytes=8192),
        "split": replace(edge, name="split", split_bits=4),
    }
    machine = others[hw] if hw in others else hardware(hw)
    captured = rules_kit.captured()
    module, weights, inputs = captured.module.clone(), captured.weights, rules_kit.inputs()
    context = make_context(weights, hardware=machine)
    passes = ",".join((*RAISE, f"insert-hdp{{rule={rule}}}", "partition-host"))
    run_passes(context, module, build(f"{passes},assign-fixed-point"))
    seen = rules_kit.Attentions()
    execute(module, inputs, weights, seen.observe)
    run_passes(context, module, build("plan-tiles,tile-for-hdp,lower-to-hdp,allocate-buffers"))
    with (tmp_path / "m.hdp").open("wb") as stream:
        write_module(stream, module, weights, machine)
    program = open_program(tmp_path / "m.hdp")
    found = simulate(program, inputs, layers=True, masks=True)
    names = [name.removeprefix("mask/") for name in found.layers if name.startswith("mask/")]
    assert len(names) == len(seen.found) == 2
    for name, op in zip(names, seen.found):
        np.testing.assert_array_equal(found.layers[f"codes/{name}"], seen.values[op.result])
        for key, mask in _masks(op).items():
            np.testing.assert_array_equal(found.layers[f"{key}/{name}"], seen.values[mask])
            assert 0 < seen.values[mask].mean() < 1
    timed = simulate_timing(program, found.masks)
    for one, other in zip(timed.results, found.results):
        expect_same(one, other)


def _masks(op: Any) -> dict[str, Any]:
    """The masks of an attention, by their key in the layers of a run."""
    scores: Any = op.probabilities.owner.scores.owner
    if isinstance(scores, attn.MeanQueryOp):
        scores = scores.scores.owner
    mask = scores.mask
    before = getattr(mask.owner, "among", None)
    return {"mask": mask} | ({} if before is None else {"round": before})
