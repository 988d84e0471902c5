"""Masked positions that are read: the machine is the fixed level's, and real rows do not notice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from encode_kit import expect_same
from padded_models import Reader, batch

from heatc.api import make_context
from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.emit import write_module
from heatc.backends.hdp.simulation import simulate, simulate_timing
from heatc.capture import capture_module
from heatc.dialects import attn
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.rules import make_rule
from heatc.targets import Hdp, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

HW = "hdp-edge"
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("none", {}),
    "paper": ("paper", {"tau_h": 28.0}),
    "paper neginf": ("paper", {"rho_b": 0.3, "pruned_score": "neginf"}),
    "paper mean": ("paper", {"pruned_score": "mean", "tau_h": 28.0}),
    "ours": ("ours", {"tau_h": 2.5}),
    "ours block": ("ours", {"block": (4, 2), "tau_h": 2.5}),
    "topk": ("topk", {}),
    "topk single": ("topk", {"block": (1, 1)}),
    "energon": ("energon", {}),
    "sanger": ("sanger", {}),
    "spatten": ("spatten", {"ratio": 0.4}),
}


class Seen:
    """Which heads the gates of a run keep."""

    def __init__(self) -> None:
        self.kept: list[bool] = []

    def observe(self, op: Any, results: Any) -> None:
        if isinstance(op, attn.HeadGateOp):
            self.kept += np.ravel(results[0]).tolist()


def outputs(
    reading: str, rule: str, tokens: int, inputs: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """
    Outputs of the machine, which are those of the fixed level bit for bit.

    A run on the masks of this one, without values, counts the same.
    """
    model = Reader(reading, tokens, layers=2, sharpness=6.0).eval()
    example = {name: torch.tensor(value) for name, value in inputs.items()}
    captured = capture_module(model, example)
    text = pipeline_text(Options(Hdp(HW), make_rule(*RULES[rule])))
    above, tiling, below = text.partition("plan-tiles")
    hardware = load_hardware(HW)
    context = make_context(captured.weights, hardware=hardware)
    run_passes(context, captured.module, build(above.rstrip(",")))
    seen = Seen()
    expected = execute(captured.module, inputs, captured.weights, seen.observe)
    if "tau_h" in RULES[rule][1] and len(inputs["attention_mask"]) > 1:
        assert 0 < np.mean(seen.kept) < 1, "no gate is tested"
    run_passes(context, captured.module, build(tiling + below))
    path = folder / "program.hdp"
    with path.open("wb") as stream:
        write_module(stream, captured.module, captured.weights, hardware)
    program = open_program(path)
    run = simulate(program, inputs, masks=True)
    for name, value in expected.items():
        np.testing.assert_array_equal(run.outputs[name], value, err_msg=name)
    expect_same(simulate_timing(program, run.masks).result, run.result)
    return dict(run.outputs)


@pytest.mark.parametrize("rule", RULES)
def test_real_rows_do_not_notice_what_is_read(rule: str, tmp_path: Path):
    """The machine's bits are the fixed level's; a reader of masked positions changes no token."""
    inputs = batch(12)
    alone = outputs("tokens", rule, 12, inputs, tmp_path)["tokens"]
    read = outputs("first", rule, 12, inputs, tmp_path)
    np.testing.assert_array_equal(read["tokens"], alone)
    assert np.abs(read["first"]).max() > 0


@pytest.mark.parametrize("rule", ["none", "ours", "spatten"])
def test_every_position_is_read(rule: str, tmp_path: Path):
    """All masked positions are queries: more rows than one tile has."""
    inputs = batch(70)
    outputs("flat", rule, 70, inputs, tmp_path)


@pytest.mark.parametrize("rule", ["none", "paper", "ours block", "topk"])
def test_real_rows_are_those_of_the_sequence_alone(rule: str, tmp_path: Path):
    """Padding and what is read of it change no bit of a real token."""
    inputs = batch(12)
    together = outputs("first", rule, 12, inputs, tmp_path)["tokens"]
    mask = inputs["attention_mask"] > 0
    for row in range(len(mask)):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        found = outputs("tokens", rule, 12, alone, tmp_path)["tokens"]
        np.testing.assert_array_equal(found[0, mask[row]], together[row, mask[row]])
