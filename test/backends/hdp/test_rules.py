"""Every pruning rule on the machine: the bits of the fixed level, whose ops the interpreter runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from encode_kit import hardware, write_hardware
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.dialects import attn
from heatc.errors import InfeasibleError
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.interpreter.values import fixed_type
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.pipeline import build, run_passes
from heatc.targets import RAISE

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from replan_kit import replan  # noqa: E402
from rules_kit import LENGTHS, Attentions, captured, inputs  # noqa: E402

BLOCKS = (
    "paper rho-b=0.25",
    "paper rho-b=0.1,-0.2,0.3 pruned-score=mean",
    "paper rho-b=0.1 tau-h=6.2,6.0,0.0 pruned-score=neginf",
    "ours",
    "ours rho-b=-0.3 finer=5",
    "ours finer=0 rho-b=0.5,0.0,-0.5",
    "ours finer=3 importance=abs pruned-score=int rho-b=0.3",
    "ours tau-h=3.2,0.0,2.0 gated=zero",
    "ours tau-h=8.4 gated=zero importance=abs pruned-score=zero",
    "ours tau-h=3.2,0.0,2.0",
    "ours tau-h=3.2 gated=mean",
    "ours tau-h=1000.0",
    "paper rho-b=0.2 block=4,4",
    "paper rho-b=0.1 tau-h=6.2,6.0,0.0 pruned-score=neginf block=2,4",
    "ours block=1,1",
    "ours tau-h=3.2,0.0,2.0 block=4,2 rho-b=0.2",
    "ours rho-b=-0.2 pruned-score=int block=8,8",
    "ours pruned-score=neginf block=1,2",
    "topk density=0.3",
    "topk density=0.5 finer=2 pruned-score=int block=4,4",
    "topk density=0.1 finer=3 pruned-score=mean block=1,2",
    "topk density=0.2 finer=2 pruned-score=zero block=1,1",
    "energon alpha=0.2,-0.1",
    "energon alpha=-0.3,0.4",
    "sanger threshold=0.05",
    "sanger threshold=0.9",
)


class Gates:
    """How many heads the gates of a run keep."""

    def __init__(self) -> None:
        self.heads = self.all_heads = 0

    def observe(self, op: Any, results: Any) -> None:
        if isinstance(op, attn.HeadGateOp):
            self.heads += int(results[0].sum())
            self.all_heads += results[0].size


def fixed_level(rule: str, hw: str) -> tuple[ModuleOp, dict[str, Any], Gates]:
    """The encoder at the fixed level, what it computes there, and its gates."""
    module, weights = captured().module.clone(), captured().weights
    context = make_context(weights, hardware=load_hardware(hw))
    passes = ",".join((*RAISE, f"insert-hdp{{rule={rule}}}", "partition-host"))
    run_passes(context, module, build(f"{passes},assign-fixed-point"))
    counted = Gates()
    return module, execute(module, inputs(), weights, counted.observe), counted


@cache
def dense() -> dict[str, Any]:
    """What the encoder computes without pruning, which no machine changes."""
    return fixed_level("none", "hdp-edge")[1]


def compare(
    rule: str, hw: str, wanted: Callable[[AttentionPlan], bool] | None = None
) -> list[AttentionPlan]:
    """
    The machine's outputs are those of the fixed level, and not those of dense attention.

    Returns the plans that are `wanted`, if any are.
    """
    plans: list[AttentionPlan] = []
    module, expected, counted = fixed_level(rule, hw)
    kept = counted.heads / max(counted.all_heads, 1)
    assert not counted.all_heads or 0 < kept < 1 or "1000" in rule
    weights, hardware = captured().weights, load_hardware(hw)
    context = make_context(weights, hardware=hardware)
    run_passes(context, module, build("plan-tiles"))
    if wanted is not None:
        plans = replan(module, hw, wanted)
    run_passes(context, module, build("tile-for-hdp"))
    actual = run_module(module, inputs(), weights, hardware)
    for key, value in expected.items():
        np.testing.assert_array_equal(actual[key], value, err_msg=key)
        assert np.abs(value - dense()[key]).max() > 1e-3
    return plans


@pytest.mark.parametrize(
    "rule",
    [
        *BLOCKS,
        "ours tau-h=3.2,0.0,2.0 block=4,2 rho-b=0.2",
        "topk density=0.3 block=1,3",
        "topk density=0.5 finer=2 pruned-score=int",
        "energon alpha=0.2,-0.1",
        "sanger threshold=0.05",
        "spatten ratio=0.4",
    ],
)
def test_the_fixed_level_is_the_oracle(rule: str):
    """Output codes of every attention, by the PyTorch model that was written from the pages alone."""
    from oracle import bert as oracle
    from oracle import rules

    module, weights = captured().module.clone(), captured().weights
    passes = ",".join((*RAISE, f"insert-hdp{{rule={rule}}}", "partition-host"))
    built = build(f"{passes},assign-fixed-point")
    run_passes(make_context(weights), module, built)
    seen = Attentions()
    execute(module, inputs(), weights, seen.observe)
    (options,) = (p.one_rule() for p in built if isinstance(p, InsertHdpPass))
    fields: dict[str, Any] = {**vars(options), "block": tuple(options.block)}
    assert fields.pop("own") == ()
    expected = rules.Rule(**fields)
    rankings = {length: rules.Ranking(len(seen.found)) for length in LENGTHS}
    for op in seen.found:
        values = seen.operands(op)
        points = [fixed_type(v).point.data for v in (*values, op.result)]
        start = 0
        for length in filter(None, LENGTHS):
            rows = slice(start, start + length)
            start += length
            q, k, v = (
                torch.tensor(seen.values[x][rows]).reshape(1, length, 3, 16).transpose(1, 2)
                for x in values[:3]
            )
            found = rules.attention(
                q, k, v, oracle.AttentionPoints(*points), expected, rankings[length]
            )
            codes = found.output.transpose(1, 2).reshape(length, 48).numpy()
            np.testing.assert_array_equal(seen.values[op.result][rows], codes)


@pytest.mark.parametrize("rule", BLOCKS)
def test_the_bits_of_the_fixed_level(rule: str):
    compare(rule, "hdp-edge")


@pytest.mark.parametrize("rule", BLOCKS[1:])
def test_with_streamed_keys(rule: str, tmp_path: Path):
    """Keys and values that do not fit the local buffer pass by in tiles, rows come in several."""
    small = replace(hardware("hdp-edge"), name="small", cores=2, local_buffer_bytes=8192)
    compare(rule, write_hardware(small, tmp_path))


@pytest.mark.parametrize(("cores", "summed"), [(2, False), (3, True)])
@pytest.mark.parametrize(
    "rule", ["paper rho-b=0.1,-0.2,0.3 pruned-score=mean", "ours", "ours tau-h=3.2,0.0,2.0"]
)
def test_all_values_or_kept_ones_and_their_sum(rule: str, cores: int, summed: bool, tmp_path: Path):
    """Streamed values, whichever of the two the planner would choose."""

    def wanted(plan: AttentionPlan) -> bool:
        streamed = not plan.resident and plan.key_parts > 1
        return streamed and plan.summed == (summed and plan.shape.even)

    small = replace(hardware("hdp-edge"), name="small", cores=cores, local_buffer_bytes=8192)
    plans = compare(rule, write_hardware(small, tmp_path), wanted)
    assert {plan.summed for plan in plans} == {summed}


@pytest.mark.parametrize("rule", [r for r in BLOCKS if "tau" in r])
def test_without_early_exit(rule: str, tmp_path: Path):
    """Pruned heads that work on change no value."""
    slow = replace(hardware("hdp-edge"), name="slow", early_head_exit=False)
    compare(rule, write_hardware(slow, tmp_path))


def test_blocks_that_the_hardware_does_not_list_are_refused(tmp_path: Path):
    """Those of the default size too: the file says what there is."""
    for rule, blocks in (("ours", ((1, 1), (4, 4))), ("ours block=3,2", ((2, 2),))):
        other = replace(hardware("hdp-edge"), name="other", blocks=blocks)
        with pytest.raises(InfeasibleError, match="sparsity engine of other has no blocks of") as e:
            compare(rule, write_hardware(other, tmp_path))
        sizes = ", ".join(f"{r}x{c}" for r, c in blocks)
        assert list(e.value.notes) == [
            f"it has {sizes}: sparsity_engine.blocks in the hardware file says so"
        ]


def test_blocks_larger_than_the_array(tmp_path: Path):
    """A block row that is higher than the array takes several folds, a wide block too."""
    small = replace(hardware("hdp-edge"), name="small", cores=2, pe_rows=3, pe_columns=4)
    path = write_hardware(small, tmp_path)
    for rule in (
        "paper rho-b=0.2 block=8,8",
        "ours rho-b=0.2 block=4,2",
        "ours pruned-score=neginf block=8,8",
    ):
        compare(rule, path)
