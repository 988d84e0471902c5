"""
The tiles that are chosen, what they are estimated to cost, and the bytes that they take.

None of it is right or wrong by itself. A choice that changes shows here as a difference of
plans.json, so that nobody changes one without knowing. To accept new ones:

    PYTHONPATH=test python test/passes/test_pinned_plans.py
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from timing_kit import Sizes, encoder_layer, machine_run, tiled

from heatc.hardware import Hardware, load_hardware
from heatc.heat.formats import FORMATS, Format, default_modes
from heatc.passes.analysis.costs import weigh
from heatc.passes.analysis.ranks import largest_within, layer_network
from heatc.passes.tiling.attention_cost import expected_cycles
from heatc.passes.tiling.attention_plan import AttentionPlan, AttentionShape
from heatc.passes.tiling.attention_planner import attention_plans, plan_attention
from heatc.passes.tiling.left import MOST_CHUNKS, LeftPlan, LeftShape, _plans, plan_left
from heatc.passes.tiling.linear_plan import (
    LinearPlan,
    LinearShape,
    _linear_plans,
    panel_count,
    plan_linear,
)

PINS = Path(__file__).with_name("plans.json")
PRESETS = ("hdp-edge", "hdp-server", "hdp-edge-vector", "hdp-server-vector")

LINEARS = {
    "128x384x384": LinearShape(128, 384, 384),
    "30x768x3072": LinearShape(30, 768, 3072),
    "512x3072x768": LinearShape(512, 3072, 768),
    "64x96x40, two planes": LinearShape(64, 96, 40, ("i16", "i8")),
    "1x100x7, no bias": LinearShape(1, 100, 7, bias=False),
    "128x384x1536, panels": LinearShape(128, 384, 1536, panel=384),
    "96x64x64, three rows a token": LinearShape(96, 64, 64, pre=3),
}
LEFTS = {
    "16 items 24x32x64": LeftShape(16, 24, 32, 64),
    "5 items 100x7x33, bias": LeftShape(5, 100, 7, 33, bias=True),
    "128 items 16x16x48, two planes": LeftShape(128, 16, 16, 48, ("i16", "i8"), bias=True),
}
NARROW = (("q", "i8"), ("k", "i8"))
PLANES = (*NARROW, ("q.fraction", "i8"), ("k.fraction", "i8"))
ATTENTIONS = {
    "dense 128": AttentionShape(128, 12, 32, False, False),
    "dense 200": AttentionShape(200, 12, 64, False, False),
    "dense 37, odd heads": AttentionShape(37, 5, 24, False, False),
    "pruned 128": AttentionShape(128, 12, 32, True, False),
    "pruned 64, gated": AttentionShape(64, 4, 64, True, True),
    "pruned 160, narrow": AttentionShape(160, 12, 32, True, False, PLANES, "neginf"),
    "pruned 128, mean": AttentionShape(128, 4, 32, True, False, score="mean", row_sums=True),
    "pruned 96, tail": AttentionShape(96, 4, 32, True, True, gated="attention"),
    "pruned 96, tail of means": AttentionShape(96, 4, 32, True, True, gated="mean"),
    "pruned 128, ranked": AttentionShape(128, 3, 32, True, False, ranked=4, counted=True),
    "pruned 128, density": AttentionShape(128, 4, 32, True, False, block=(1, 1), density=0.25),
    "pruned 200, large blocks": AttentionShape(200, 4, 32, True, False, NARROW, block=(4, 2)),
    "two rounds": AttentionShape(128, 4, 32, False, False, block=(1, 1), bits=(2, 4)),
    "one round, likely": AttentionShape(
        128, 4, 32, False, False, NARROW, block=(1, 1), bits=(4,), likely=True
    ),
}
TASKS = {
    "128x384x1536x384": (LinearShape(128, 384, 1536), LinearShape(128, 1536, 384)),
    "512x768x3072x768": (LinearShape(512, 768, 3072), LinearShape(512, 3072, 768)),
    "64x256x96x256": (LinearShape(64, 256, 96), LinearShape(64, 96, 256)),
}
SOME = 12
"""Of the plans that are weighed, about so many are pinned too."""

Plan = LinearPlan | LeftPlan | AttentionPlan


def pinned(choose: Callable[[], Plan], plans: Callable[[], Iterator[Plan]], hw: Hardware) -> Any:
    """What is chosen, and what a part of all plans costs and takes."""
    weighed = list(plans())
    some = weighed[:: max(1, len(weighed) // SOME)]
    return {
        "chosen": shown(choose(), hw),
        "plans": len(weighed),
        "mean cost": mean([cost(plan, hw) for plan in some]),
        "mean local bytes": mean([plan.local_bytes for plan in some]),
        "mean shared bytes": mean([plan.shared_bytes for plan in some]),
    }


def shown(plan: Plan, hw: Hardware) -> dict[str, Any]:
    """A plan as JSON has it."""
    own = {f.name: getattr(plan, f.name) for f in fields(plan) if f.name != "shape"}
    sizes = {"local bytes": plan.local_bytes, "shared bytes": plan.shared_bytes}
    return {**own, **sizes, "cost": cost(plan, hw)}


def cost(plan: Plan, hw: Hardware) -> float:
    """Estimated cycles."""
    return expected_cycles(plan, hw) if isinstance(plan, AttentionPlan) else plan.cost(hw)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def pins(preset: str) -> dict[str, Any]:
    """Everything of one machine."""
    hw = load_hardware(preset)
    found: dict[str, Any] = {}
    for name, shape in LINEARS.items():
        found[f"linear {name}"] = pinned(
            lambda s=shape: plan_linear(s, hw), lambda s=shape: _linear_plans(s, hw), hw
        )
    for name, shape in LEFTS.items():
        found[f"left {name}"] = pinned(
            lambda s=shape: plan_left(s, hw), lambda s=shape: _plans(s), hw
        )
    for name, shape in ATTENTIONS.items():
        found[f"attention {name}"] = pinned(
            lambda s=shape: plan_attention(s, hw), lambda s=shape: attention_plans(s, hw), hw
        )
    for name, (first, second) in TASKS.items():
        found[f"panels {name}"] = panel_count(first, second, hw)
    return found


def layer_pins(format_: Format) -> dict[str, list[float]]:
    """The cycles of every way through a factorised layer, on the smallest machine."""
    spec = largest_within(format_, *default_modes(format_, 96, 64), 0.5, 24)
    assert spec is not None
    return {
        "fused" if fused else "one by one": sorted(
            way.cost.cycles
            for way in weigh(layer_network(spec, 24), load_hardware("hdp-edge"), fused=fused)
            if way.cost.is_possible
        )
        for fused in (False, True)
    }


ENCODERS = {
    "MiniLM 1x128": (Sizes(384, 12, 1536), [128], 128),
    "odd 2x30, one padded": (Sizes(120, 5, 200), [30, 17], 30),
}


def encoder_pins(preset: str) -> dict[str, dict[str, int]]:
    """What an encoder layer with dense attention counts on the machine; panels are in it."""
    found: dict[str, dict[str, int]] = {}
    for name, (sizes, lengths, length) in ENCODERS.items():
        module = tiled(encoder_layer(sizes, len(lengths), length), preset)
        result, _ = machine_run(module, load_hardware(preset), lengths)
        found[name] = {
            "panels": str(module).count(".panel"),
            "steps": result.steps,
            "cycles": result.cycles,
            "read": result.dram_bytes_read,
            "written": result.dram_bytes_written,
            "macs": result.macs,
        }
    return found


def differences(known: Any, found: Any, path: str = "") -> Iterator[str]:
    """Where two pins differ; sums of floats may differ in their last digits."""
    if isinstance(known, dict) and isinstance(found, dict):
        for key in {**known, **found}:
            yield from differences(known.get(key), found.get(key), f"{path}/{key}")
    elif isinstance(known, float) and isinstance(found, float):
        if not math.isclose(known, found, rel_tol=1e-9):
            yield f"{path}: {known} became {found}"
    elif known != found:
        yield f"{path}: {known} became {found}"


@pytest.mark.parametrize("preset", PRESETS)
def test_no_choice_changes_unnoticed(preset: str):
    found = json.loads(json.dumps(pins(preset)))
    assert not list(differences(json.loads(PINS.read_text())[preset], found))


@pytest.mark.parametrize(
    ("choose", "shape"),
    [
        (plan_linear, LINEARS["64x96x40, two planes"]),
        (plan_left, LEFTS["5 items 100x7x33, bias"]),
        (plan_attention, ATTENTIONS["pruned 96, tail"]),
        (plan_attention, ATTENTIONS["dense 128"]),
    ],
)
def test_what_fits_to_the_byte_is_chosen(choose: Callable[[Any, Hardware], Plan], shape: Any):
    hw = load_hardware("hdp-edge")
    chosen = choose(shape, hw)
    exact = replace(
        hw, local_buffer_bytes=chosen.local_bytes, shared_buffer_bytes=chosen.shared_bytes
    )
    assert choose(shape, exact) == chosen


@pytest.mark.parametrize("format_", FORMATS)
def test_no_layer_changes_unnoticed(format_: Format):
    assert layer_pins(format_) == json.loads(PINS.read_text())["layers"][format_]


@pytest.mark.parametrize("preset", PRESETS)
def test_no_encoder_changes_unnoticed(preset: str):
    assert encoder_pins(preset) == json.loads(PINS.read_text())["encoders"][preset]


@pytest.mark.parametrize("new", [7, 34, 100])
def test_a_weight_is_cut_into_so_many_chunks_at_most(new: int):
    """Of 34 rows there are 17 chunks of 2, one more than there are tile numbers."""
    chunks = {plan.chunks for plan in _plans(LeftShape(1, 8, new, 16))}
    assert 1 in chunks
    assert max(chunks) <= MOST_CHUNKS


if __name__ == "__main__":
    every = {p: pins(p) for p in PRESETS}
    every["layers"] = {f: layer_pins(f) for f in FORMATS}
    every["encoders"] = {p: encoder_pins(p) for p in PRESETS}
    PINS.write_text(json.dumps(every, indent=1) + "\n")
