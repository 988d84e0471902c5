"""What a model takes beside its linears, against what the compiler emits for it."""

from __future__ import annotations

import pytest
from timing_kit import Sizes, encoder_layer, tiled
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.hardware import load_hardware
from heatc.passes.analysis.costs import Cost, layer_cost
from heatc.passes.analysis.paths import Network
from heatc.passes.analysis.rest import rest_of_model
from heatc.passes.tiling.scratch import time_attention
from heatc.passes.tiling.timing import time_module

PRESETS = ("hdp-edge", "hdp-server")
WIDTH, HEADS, INNER, TOKENS = 384, 12, 1536, 128

RAISED = f"""
func.func @main(%x: tensor<?x{WIDTH}xf32>, %ids: tensor<?xi64>)
    -> tensor<1x{TOKENS}x{WIDTH}xf32> {{
  %p = attn.packing : () -> !attn.packing<1, {TOKENS}>
  %table = einsum.weight ["table"] : tensor<100x{WIDTH}xf32>
  %e = nn.embedding %table, %ids : (tensor<100x{WIDTH}xf32>, tensor<?xi64>) -> tensor<?x{WIDTH}xf32>
  %a = attn.sdpa %e, %e, %e packed %p : !attn.packing<1, {TOKENS}>
    {{heads = {HEADS} : i64, scale = 0.125 : f64}}
    : tensor<?x{WIDTH}xf32>, tensor<?x{WIDTH}xf32>, tensor<?x{WIDTH}xf32> -> tensor<?x{WIDTH}xf32>
  %row = einsum.weight ["row"] : tensor<{WIDTH}xf32>
  %biased = nn.add %a, %row
    : (tensor<?x{WIDTH}xf32>, tensor<{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>
  %s = nn.add %biased, %e
    : (tensor<?x{WIDTH}xf32>, tensor<?x{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>
  %n = nn.layer_norm %s, %row, %row {{eps = 1.0e-12 : f64}}
    : (tensor<?x{WIDTH}xf32>, tensor<{WIDTH}xf32>, tensor<{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>
  %w = einsum.weight ["w"] : tensor<{INNER}x{WIDTH}xf32>
  %u = einsum.contract "ti,oi->to" %n, %w
    : (tensor<?x{WIDTH}xf32>, tensor<{INNER}x{WIDTH}xf32>) -> tensor<?x{INNER}xf32>
  %g = nn.gelu %u {{approximate = "none"}} : (tensor<?x{INNER}xf32>) -> tensor<?x{INNER}xf32>
  %d = einsum.weight ["d"] : tensor<{WIDTH}x{INNER}xf32>
  %v = einsum.contract "ti,oi->to" %g, %d
    : (tensor<?x{INNER}xf32>, tensor<{WIDTH}x{INNER}xf32>) -> tensor<?x{WIDTH}xf32>
  %t = nn.add %v, %n
    : (tensor<?x{WIDTH}xf32>, tensor<?x{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>
  %y = nn.layer_norm %t, %row, %row {{eps = 1.0e-12 : f64}}
    : (tensor<?x{WIDTH}xf32>, tensor<{WIDTH}xf32>, tensor<{WIDTH}xf32>) -> tensor<?x{WIDTH}xf32>
  %z = attn.unpack %y, %p
    : (tensor<?x{WIDTH}xf32>, !attn.packing<1, {TOKENS}>) -> tensor<1x{TOKENS}x{WIDTH}xf32>
  func.return %z : tensor<1x{TOKENS}x{WIDTH}xf32>
}}
"""


def rest(hw: str, text: str = RAISED, tokens: int = TOKENS) -> Cost:
    module = Parser(make_context(), text).parse_module()
    return rest_of_model(module, tokens, load_hardware(hw))


@pytest.mark.parametrize("hw", PRESETS)
def test_the_rest_and_the_linears_are_the_model(hw: str):
    """An encoder layer as it is compiled: joules within 5 %, cycles less by what overlaps."""
    sizes = Sizes(WIDTH, HEADS, INNER)
    whole = time_module(tiled(encoder_layer(sizes, 1, TOKENS), hw), load_hardware(hw))
    ends = [*((WIDTH, WIDTH),) * 4, (WIDTH, INNER), (INNER, WIDTH)]
    parts = rest(hw)
    for inputs, outputs in ends:
        network = Network.of(["ti", "oi"], "to", {"t": TOKENS, "i": inputs, "o": outputs}, [1])
        parts = parts + layer_cost(network, ((0, 1),), load_hardware(hw), fused=False)
    assert parts.joules == pytest.approx(whole.joules, rel=0.05)
    assert whole.cycles <= 1.05 * parts.cycles
    assert parts.cycles <= 1.4 * whole.cycles


@pytest.mark.parametrize("hw", PRESETS)
def test_attention_is_that_of_the_compiler(hw: str):
    """Without its attention a module takes less by what an attention alone takes."""
    alone = Cost.of(time_attention(1, TOKENS, HEADS, WIDTH // HEADS, load_hardware(hw)))
    start = RAISED.index("  %a = attn.sdpa")
    without = RAISED[:start] + RAISED[RAISED.index("  %row") :].replace("%a,", "%e,")
    less = rest(hw) - rest(hw, without)
    assert less.cycles == alone.cycles > 0
    assert less.joules == pytest.approx(alone.joules)


def test_the_rest_grows_with_the_tokens():
    assert rest("hdp-edge", tokens=64).joules < rest("hdp-edge", tokens=128).joules


def test_a_bias_is_no_work_of_the_host():
    """A row that is added leaves the array with its product."""
    without = RAISED.replace("%s = nn.add %biased, %e", "%s = nn.add %a, %e")
    assert rest("hdp-edge", without) == rest("hdp-edge")
