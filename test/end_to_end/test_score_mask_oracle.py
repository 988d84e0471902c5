"""
Attention under masks against the oracle, which was written from docs/design/rules.md alone.

What is visible and what is added is said here once more, without a look at the compiler's masks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.ir import Operation

from heatc.api import make_context
from heatc.capture import capture_module
from heatc.dialects import attn
from heatc.hardware import load_hardware
from heatc.interpreter import execute
from heatc.interpreter.values import fixed_type
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.pipeline import build, run_passes
from heatc.targets import Hdp, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from masked_models import Attention, Encoder, batch  # noqa: E402

from oracle import bert as oracle  # noqa: E402
from oracle import rules  # noqa: E402

TOKENS, WIDTH, HEADS, SEQUENCES = 14, 32, 4, 2
PLACES = torch.arange(TOKENS)
APART = PLACES[:, None] - PLACES[None]
RULES = (
    "none",
    "paper rho-b=0.1",
    "paper rho-b=0.2 pruned-score=mean tau-h=2.0,0.0,5.0,3.0",
    "paper rho-b=-0.3 pruned-score=neginf",
    "ours",
    "ours rho-b=0.2 finer=1 tau-h=1.0 gated=zero block=4,2",
    "ours pruned-score=int block=1,2",
    "topk density=0.3",
    "topk density=0.2 finer=2 pruned-score=mean block=2,4",
)


def shown(kind: str, inputs: dict[str, Any]) -> Any:
    """What is visible, bool, or None."""
    if "given" in kind:
        keep = torch.tensor(inputs["keep"])
        return keep & (APART >= 0) if kind in ("given causal", "given summed") else keep
    if "causal" in kind:
        return APART >= 0
    return APART.abs() <= 2 if kind == "window" else None


def least(kind: str, inputs: dict[str, Any]) -> Any:
    """The scores that the fewest numbers hide in their row, or None."""
    if kind != "given summed":
        return None
    times = (~torch.tensor(inputs["keep"])).int() + (APART < 0).int()
    return times == times.amin(-1, keepdim=True)


def added(kind: str, layer: Attention) -> Any:
    """The bias of scaled scores, float64 (H, S, S), or None."""
    if "alibi" in kind:
        slopes = torch.tensor([2.0**-i for i in range(1, HEADS + 1)], dtype=torch.float64)
        return -slopes[:, None, None] * APART.abs()
    if kind in ("learned", "unscaled"):
        table = layer.relative.weight.detach().double()
        return table[APART + TOKENS - 1].permute(2, 0, 1)
    return None


class Seen:
    """Every value of a run, and the attentions by their last step."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] = {}
        self.found: list[attn.WeightedValuesOp] = []

    def observe(self, op: Operation, results: Any) -> None:
        self.values.update(zip(op.results, results))
        if isinstance(op, attn.WeightedValuesOp):
            self.found.append(op)

    def steps(self, op: attn.WeightedValuesOp) -> dict[str, Any]:
        """The steps of an attention, by name; of each kind the last."""
        parent = op.parent_op()
        assert isinstance(parent, attn.PrunedOp)
        return {step.name: step for step in parent.steps}


def _codes(values: Any, heads: int) -> Any:
    return torch.tensor(values).reshape(SEQUENCES, TOKENS, heads, -1).transpose(1, 2)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "kind",
    [
        "causal",
        "window",
        "alibi",
        "causal alibi",
        "learned",
        "unscaled",
        "given causal",
        "given summed",
    ],
)
def test_outputs_and_masks_are_the_oracles(kind: str, rule: str):
    kinds = (kind, kind)
    model, inputs = Encoder(kinds, TOKENS, WIDTH, HEADS).eval(), batch(kinds, SEQUENCES, TOKENS)
    captured = capture_module(model, {n: torch.tensor(x) for n, x in inputs.items()})
    above, _, _ = pipeline_text(Options(Hdp())).partition(",plan-tiles")
    passes = build(above.replace("rule=none", f"rule={rule}"))
    context = make_context(captured.weights, hardware=load_hardware("hdp-edge"))
    run_passes(context, captured.module, passes)
    seen = Seen()
    execute(captured.module, inputs, captured.weights, seen.observe)
    (options,) = (p.one_rule() for p in passes if isinstance(p, InsertHdpPass))
    fields: dict[str, Any] = {**vars(options), "block": tuple(options.block)}
    assert fields.pop("own") == ()
    assert len(seen.found) == len(kinds)
    for op, layer in zip(seen.found, model.layers):
        _compare(op, seen, rules.Rule(**fields), (kind, layer, inputs))


def _compare(
    op: attn.WeightedValuesOp,
    seen: Seen,
    rule: rules.Rule,
    model: tuple[str, Attention, dict[str, Any]],
) -> None:
    steps, (kind, layer, inputs) = seen.steps(op), model
    scale = 1.0 if kind == "unscaled" else (WIDTH // HEADS) ** -0.5
    first = steps.get("attn.scores")
    if first is None:
        splits = [s for s in steps["attn.split"].parent.ops if isinstance(s, attn.SplitOp)]
        operands = [s.x for s in splits]
    else:
        operands = [first.q, first.k]
    operands = [attn.outside(value) for value in (*operands, op.v)]
    scored = steps["attn.softmax"].scores
    points = [fixed_type(v).point.data for v in (*operands, scored, op.result)]
    keyless = "mean" if kind == "given summed" else "zero"
    masks = rules.Masks(shown(kind, inputs), keyless=keyless, least=least(kind, inputs))
    bias = added(kind, layer)
    if bias is not None:
        point = fixed_type(attn.outside(steps["attn.bias_scores"].bias)).point.data
        exact = (bias / scale).float().double()
        masks = rules.Masks(masks.visible, torch.round(exact * 2.0**point).long(), point)
    q, k, v = (_codes(seen.values[x], HEADS) for x in operands)
    found = rules.attention(
        q, k, v, oracle.AttentionPoints(*points), rule, masks=masks, scale=scale
    )
    expected = found.output.transpose(1, 2).reshape(SEQUENCES * TOKENS, WIDTH).numpy()
    decided = steps.get("attn.block_mask", steps.get("attn.topk_mask"))
    if decided is not None:
        assert found.blocks is not None
        np.testing.assert_array_equal(seen.values[decided.result], found.blocks.numpy())
        assert 0 < found.blocks.double().mean() < 1
    np.testing.assert_array_equal(seen.values[op.result], expected)
