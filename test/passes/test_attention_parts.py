"""Steps that the machine has no unit for are refused, not read as others that it has one for."""

from __future__ import annotations

import pytest
from xdsl.parser import Parser
from xdsl.utils.exceptions import PassFailedException

from heatc.api import make_context
from heatc.dialects import attn
from heatc.passes.tiling.attention_parts import AttentionParts, read_attention

TYPES = {
    "$K": "!attn.packing<1, 4>",
    "$X": "tensor<?x8x!fixed.q<16, 10>>",
    "$I": "tensor<?x8x!fixed.q<16, 0>>",
    "$A": "tensor<1x2x4x4x!fixed.q<32, 0>>",
    "$S": "tensor<1x2x4x4x!fixed.q<32, 20>>",
    "$T": "tensor<1x2x2x2x!fixed.q<48, 0>>",
    "$W": "tensor<1x2x4x4x!fixed.q<16, 14>>",
    "$M": "tensor<1x2x2x2xi1>",
    "$G": "tensor<1x2xi1>",
    "$B": "block = array<i64: 2, 2>",
}

BLOCKS = """
    %qi, %qf = attn.split %q : ($X) -> ($I, $X)
    %ki, %kf = attn.split %k : ($X) -> ($I, $X)
    %a = attn.integer_scores %qi, %ki, %p {heads = 2 : i64} : ($I, $I, $K) -> $A
    %other = attn.integer_scores %ki, %qi, %p {heads = 2 : i64} : ($I, $I, $K) -> $A
    %t = attn.block_importance %a, %p {$B, importance = "abs"} : ($A, $K) -> $T
    %u = attn.block_importance %other, %p {$B, importance = "abs"} : ($A, $K) -> $T
    %n = attn.block_mask %u, %p {rho_b = 0.5 : f64, $B} : ($T, $K) -> $M
    %m = attn.block_mask %t, %p {rho_b = 0.5 : f64, $B} : ($T, $K) -> $M
    %g = attn.head_gate %t, %p {tau_h = 0.5 : f64, importance = "abs", $B} : ($T, $K) -> $G
    %s = attn.merge_scores %a, %qi, %qf, %ki, %kf, %m, %p {heads = 2 : i64, $B, pruned = "zero"} : ($A, $I, $X, $I, $X, $M, $K) -> $S
    %w = attn.softmax %s, %p {scale = 0.5 : f64} : ($S, $K) -> $W
    %o = attn.weighted_values %w, %v, %p, %g {heads = 2 : i64, gated = "zero"} : ($W, $X, $K, $G) -> $X
"""

SINGLE = """
    %s = attn.scores %q, %k, %p {heads = 2 : i64} : ($X, $X, $K) -> $S
    %lq, %pq = attn.low_bits %q, %p {heads = 2 : i64, bits = 4 : i64} : ($X, $K) -> (tensor<?x8xi8>, tensor<1x2xi64>)
    %lk, %pk = attn.low_bits %k, %p {heads = 2 : i64, bits = 4 : i64} : ($X, $K) -> (tensor<?x8xi8>, tensor<1x2xi64>)
    %c = attn.integer_scores %lq, %lk, %p {heads = 2 : i64} : (tensor<?x8xi8>, tensor<?x8xi8>, $K) -> tensor<1x2x4x4xi32>
    %f = attn.scale_scores %c, %pq, %pk, %p : (tensor<1x2x4x4xi32>, tensor<1x2xi64>, tensor<1x2xi64>, $K) -> $S
    %l = attn.softmax %f, %p {scale = 0.5 : f64} : ($S, $K) -> $W
    %m = attn.probability_mask %l, %p {threshold = 0.01 : f64} : ($W, $K) -> tensor<1x2x4x4xi1>
    %e = attn.exclude_scores %s, %m, %p : ($S, tensor<1x2x4x4xi1>, $K) -> $S
    %w = attn.softmax %e, %p {scale = 0.5 : f64} : ($S, $K) -> $W
    %o = attn.weighted_values %w, %v, %p {heads = 2 : i64} : ($W, $X, $K) -> $X
"""

MEAN = """    %b = attn.mean_query %s, %a, %g, %p : ($S, $A, $G, $K) -> $S
    %w = attn.softmax %b,"""


def parts(steps: str) -> AttentionParts:
    text = f"""
func.func @main(%x: $X, %y: $X, %z: $X, %one: $K, %two: $K) -> $X {{
  %r = attn.pruned (%q = %x : $X, %k = %y : $X, %v = %z : $X, %p = %one : $K, %p2 = %two : $K)
      -> ($X) attributes {{rule = #attn.rule<"none", {{}}>}} {{
{steps}
    attn.yield %o : $X
  }}
  func.return %r : $X
}}
"""
    for name, type_ in TYPES.items():
        text = text.replace(name, type_)
    module = Parser(make_context(), text).parse_module()
    module.verify()
    (attention,) = (op for op in module.walk() if isinstance(op, attn.PrunedOp))
    return read_attention(attention)


def test_what_the_machine_has_units_for_is_read():
    found = parts(BLOCKS)
    assert found.pruning is not None
    assert (found.pruning.rho_b, found.pruning.tau_h) == ((0.5,), (0.5,))
    assert found.heads == 2
    single = parts(SINGLE).prediction
    assert single is not None
    assert single.bits == (4,)
    ungated = BLOCKS.replace(", %g {heads", " {heads").replace(', gated = "zero"', "")
    ungated = ungated.replace("($W, $X, $K, $G) -> $X", "($W, $X, $K) -> $X")
    assert parts(ungated.replace("    %w = attn.softmax %s,", MEAN)).gated == "col"


@pytest.mark.parametrize(
    ("steps", "change", "message"),
    [
        (BLOCKS, ("block_mask %t, %p {rho_b = 0.5 : f64, $B} : ($T, $K)", "block_mask %t, %p, %n {rho_b = 0.5 : f64, $B} : ($T, $K, $M)"), "blocks among those of another mask"),
        (BLOCKS, ("block_mask %t", "block_mask %u"), "the importance of other scores"),
        (BLOCKS, ("head_gate %t", "head_gate %u"), "a gate by another importance"),
        (BLOCKS, ('{tau_h = 0.5 : f64, importance = "abs"', '{tau_h = 0.5 : f64, importance = "positive"'), "a gate by another importance"),
        (BLOCKS, ("head_gate %t, %p {tau_h = 0.5 : f64, importance = \"abs\", $B}", "head_gate %t, %p {tau_h = 0.5 : f64, importance = \"abs\", block = array<i64: 4, 4>}"), "blocks of several sizes"),
        (BLOCKS, ("merge_scores %a, %qi, %qf", "merge_scores %a, %qi, %kf"), "integer and fraction parts of other values"),
        (BLOCKS, ("merge_scores %a, %qi, %qf, %ki, %kf", "merge_scores %a, %ki, %kf, %qi, %qf"), "integer scores of other parts"),
        (BLOCKS, ("    %w = attn.softmax %s,", MEAN), "a gate behind heads"),
        (BLOCKS, ("softmax %s, %p {", "softmax %s, %p2 {"), "steps of several packings"),
        (SINGLE, ("%c, %pq, %pk", "%c, %pk, %pq"), "low-bit scores at points of other codes"),
    ],
)  # fmt: skip
def test_other_steps_are_refused(steps: str, change: tuple[str, str], message: str):
    assert change[0] in steps
    with pytest.raises(PassFailedException, match=message):
        parts(steps.replace(*change))
