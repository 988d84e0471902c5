"""Plans of attentions that a planner would not choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xdsl.dialects.builtin import ModuleOp

from heatc.dialects import attn
from heatc.hardware import Hardware, load_hardware
from heatc.passes.plan_tiles import attach_attention
from heatc.passes.tiling.attention_parts import read_attention
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.passes.tiling.attention_planner import attention_plans, cheapest
from heatc.passes.tiling.packing import PLANNED_TOKENS, align


def replan(
    module: ModuleOp, hw: str, wanted: Callable[[AttentionPlan], bool]
) -> list[AttentionPlan]:
    """Give every planned attention the cheapest plan that is wanted; returns these."""
    hardware = load_hardware(hw)
    found = [
        _replanned(op, hardware, wanted) for op in module.walk() if isinstance(op, attn.PrunedOp)
    ]
    assert found
    return found


def _replanned(
    op: attn.PrunedOp, hardware: Hardware, wanted: Callable[[AttentionPlan], bool]
) -> AttentionPlan:
    shape = read_attention(op).shape()
    # Planned for a multiple of tokens where that fits, as the planner does.
    for length in (align(shape.length, PLANNED_TOKENS), shape.length):
        plans = attention_plans(replace(shape, length=length), hardware)
        plan = cheapest([plan for plan in plans if wanted(plan)], hardware)
        if plan is not None:
            attach_attention(op, plan, hardware)
            return plan
    raise AssertionError("no wanted plan fits")
