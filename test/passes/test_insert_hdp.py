"""What `insert-hdp` says of the rules it was told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser
from xdsl.passes import ModulePass

from heatc.api import make_context
from heatc.passes.apply_plan import ApplyPlanPass
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.plan import Plan, read_plan

PLAN = {
    "producer": "heatc 0.1.0 plan",
    "schema": 1,
    "model_sha256": None,
    "hw_sha256": None,
    "seed": 0,
    "layers": {"layer.0": {"hdp": {"rule": "none"}}},
}


def attentions(count: int) -> ModuleOp:
    """So many attentions of two heads, one after the other."""
    x = "tensor<?x4xf32>"
    ops = [
        f"%{n + 1} = attn.sdpa %{n}, %{n}, %{n} packed %p : !attn.packing<1, 6> "
        f"{{heads = 2 : i64, scale = 0.5 : f64}} : {x}, {x}, {x} -> {x} "
        f'loc("layer.{n}"("model.py":10:0))'
        for n in range(count)
    ]
    head = f"func.func @main(%0: {x}, %p: !attn.packing<1, 6>) -> {x} {{"
    text = "\n".join((head, *ops, f"func.return %{count} : {x}", "}"))
    return Parser(make_context(), text).parse_module()


@pytest.mark.parametrize(("count", "pruning"), [(0, ()), (1, ()), (2, ("spatten",))])
def test_heads_are_ranked_by_layers_before(count: int, pruning: tuple[str, ...]):
    pass_ = InsertHdpPass(rule="spatten", ratio=0.4)
    assert pass_.pruning(attentions(count)) == pruning
    said = remarks(pass_, attentions(count))
    assert any("leaves out none" in text for text in said) == (count == 1)


def test_other_rules_prune_one_attention():
    assert InsertHdpPass(rule="ours").pruning(attentions(1)) == ("ours",)
    assert InsertHdpPass().pruning(attentions(1)) == ()


def test_a_plan_may_name_a_layer_that_stays_dense(tmp_path: Path):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(PLAN))
    said = remarks(ApplyPlanPass(), attentions(2), read_plan(path))
    assert said == [
        f"attention rule none: by {path}",
        f"attention rule none: not named in {path}",
    ]


def remarks(pass_: ModulePass, module: ModuleOp, plan: Plan | None = None) -> list[str]:
    """What the pass says of a module."""
    said: list[str] = []
    context = make_context()
    context.plan = plan
    context.remarks = lambda remark: said.append(remark.message)
    pass_.apply(context, module)
    return said
