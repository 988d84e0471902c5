"""Factorised layers on the machine: bit-identical with the fixed level, near the real layer."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.dialects.einsum import ContractOp, FuseAttr
from heatc.dialects.nn import TransposeOp
from heatc.hardware import load_hardware
from heatc.heat.formats import Format, Spec, rebuild, scaled, top_level
from heatc.interpreter import execute
from heatc.passes.analysis.normal_form import product_of
from heatc.passes.shape_products import ShapeProductsPass
from heatc.pipeline import build, run_passes
from heatc.weights import WeightStore

Array = NDArray[Any]

VOCABULARY = 17

LAYER = """
func.func @main(%x: tensor<2x5xi64> {heatc.name = "x"}, %m: tensor<2x5xi64> {heatc.name = "m"})
    -> (tensor<2x5xOUTxf32> {heatc.name = "y"}) {
  %p = attn.packing %m : (tensor<2x5xi64>) -> !attn.packing<2, 5>
  %i = attn.pack %x, %p : (tensor<2x5xi64>, !attn.packing<2, 5>) -> tensor<?xi64>
  %t = einsum.weight ["table"] : tensor<17xINxf32>
  %e = nn.embedding %t, %i : (tensor<17xINxf32>, tensor<?xi64>) -> tensor<?xINxf32>
  %g = einsum.weight ["gamma"] : tensor<INxf32>
  %h = einsum.weight ["beta"] : tensor<INxf32>
  %n = nn.layer_norm %e, %g, %h {eps = 1.000000e-12 : f64} : (tensor<?xINxf32>, tensor<INxf32>, tensor<INxf32>) -> tensor<?xINxf32>
  %w = einsum.weight ["layer.weight"] : tensor<OUTxINxf32>
  %c = einsum.contract "ti,oi->to" %n, %w : (tensor<?xINxf32>, tensor<OUTxINxf32>) -> tensor<?xOUTxf32>
  %b = einsum.weight ["layer.bias"] : tensor<OUTxf32>
  %s = nn.add %c, %b : (tensor<?xOUTxf32>, tensor<OUTxf32>) -> tensor<?xOUTxf32>
  %y = attn.unpack %s, %p : (tensor<?xOUTxf32>, !attn.packing<2, 5>) -> tensor<2x5xOUTxf32>
  func.return %y : tensor<2x5xOUTxf32>
}
"""

INPUTS = {
    "x": np.array([[1, 5, 0, 16, 3], [0, 2, 9, 9, 0]]),
    "m": np.array([[1, 1, 0, 1, 1], [0, 1, 1, 1, 0]]),
}


def layer(inputs: int, outputs: int) -> tuple[ModuleOp, WeightStore]:
    """A layer behind an embedding and a layer norm."""
    rng = np.random.default_rng(31 * inputs + outputs)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    weights = {
        "table": normal(VOCABULARY, inputs),
        "gamma": normal(inputs),
        "beta": normal(inputs),
        "layer.weight": normal(outputs, inputs),
        "layer.bias": normal(outputs),
    }
    text = LAYER.replace("IN", str(inputs)).replace("OUT", str(outputs))
    return Parser(make_context(), text).parse_module(), WeightStore(weights)


def factorised(spec: Spec, module: ModuleOp, weights: WeightStore, tile: int = 0) -> None:
    """The layer in factors, as products; with a tile as one fused group."""
    ranks = ",".join(map(str, spec.ranks)) or "1"
    options = f'format={spec.format} shape="{spec.shape}" rank={ranks} init=plain refinements=0'
    passes = f"heat-decompose{{{options}}},order-contractions,lower-contractions,shape-products"
    run_passes(make_context(weights), module, build(f"{passes},fold-weights,dce"))
    steps = [op for op in module.walk() if isinstance(op, ContractOp)]
    for op in steps[:-1] if tile else ():
        op.fuse = FuseAttr(tile)


def real(spec: Spec, weights: WeightStore) -> Array:
    """What the factors stand for, in float64."""
    factors = [weights[name] for name in weights.added if ":" not in name]
    matrix = rebuild(spec, [f.astype(np.float64) for f in factors])
    rows = weights["table"].astype(np.float64)[INPUTS["x"]]
    rows = rows - rows.mean(-1, keepdims=True)
    rows /= np.sqrt((rows**2).mean(-1, keepdims=True) + 1e-12)
    rows = rows * weights["gamma"] + weights["beta"]
    return (rows @ matrix.T + weights["layer.bias"]) * INPUTS["m"][..., None]


def _transposes(module: ModuleOp) -> bool:
    return any(isinstance(op, TransposeOp) for op in module.walk())


@st.composite
def specs(draw: st.DrawFn) -> Spec:
    format_: Format = draw(st.sampled_from(("low-rank", "tt", "ttm", "tucker")))
    count = 1 if format_ == "low-rank" else draw(st.integers(2, 3))
    other = count if format_ in ("ttm", "low-rank") else draw(st.integers(2, 3))
    ins, outs = (
        tuple(draw(st.lists(st.integers(2, 5), min_size=n, max_size=n))) for n in (count, other)
    )
    level = draw(st.integers(1, max(1, min(6, top_level(format_, ins, outs)))))
    return scaled(format_, ins, outs, level)


def on_machine(module: ModuleOp, weights: WeightStore, hw: str) -> tuple[Array, Array]:
    """What the fixed level and the machine compute."""
    run_passes(make_context(weights), module, build("partition-host,assign-fixed-point"))
    expected = execute(module, INPUTS, weights)["y"]
    hardware = load_hardware(hw)
    context = make_context(weights, hardware=hardware)
    run_passes(context, module, build("plan-tiles,tile-for-hdp"))
    return expected, run_module(module, INPUTS, weights, hardware)["y"]


@given(specs(), st.sampled_from([0, 1, 3, 64]))
@settings(max_examples=20, deadline=None)
def test_factors_on_the_machine(spec: Spec, tile: int) -> None:
    module, weights = layer(math.prod(spec.inputs), math.prod(spec.outputs))
    factorised(spec, module, weights)
    if not _transposes(module):
        module, weights = layer(math.prod(spec.inputs), math.prod(spec.outputs))
        factorised(spec, module, weights, tile)
    contracts = [op for op in module.walk() if isinstance(op, ContractOp)]
    on_host = any(product_of(op) is None for op in contracts) or _transposes(module)
    if on_host:
        # Where ranks are 1, outer products can be as cheap: they are the host's.
        assert 1 in spec.ranks
    expected, found = on_machine(module, weights, "hdp-edge")
    np.testing.assert_array_equal(found, expected)
    wanted = real(spec, weights)
    scale = np.abs(wanted).max()
    # Sums of the host are bounded term by term, so that their types are coarser.
    assert np.abs(found - wanted).max() <= (2e-2 if on_host else 2e-3) * scale


@pytest.mark.parametrize("tile", [0, 4, 32])
@pytest.mark.parametrize("hw", ["hdp-edge", "hdp-server"])
@pytest.mark.parametrize(
    ("format_", "ins", "outs", "ranks"),
    [
        ("ttm", (24, 32), (24, 32), (8,)),
        ("tt", (6, 8, 8), (8, 8, 6), (6, 48, 48, 48, 6)),
        ("tucker", (8, 12), (12, 8), (8, 8, 8, 8)),
    ],
)
def test_real_sizes(
    format_: Format,
    ins: tuple[int, ...],
    outs: tuple[int, ...],
    ranks: tuple[int, ...],
    hw: str,
    tile: int,
) -> None:
    spec = Spec(format_, ins, outs, ranks)
    module, weights = layer(math.prod(ins), math.prod(outs))
    factorised(spec, module, weights, tile)
    expected, found = on_machine(module, weights, hw)
    np.testing.assert_array_equal(found, expected)
    wanted = real(spec, weights)
    assert np.abs(found - wanted).max() <= 2e-3 * np.abs(wanted).max()


def test_a_deep_model_is_no_problem() -> None:
    """Whether a value is a weight is seen at its type, not by a walk through the whole model."""
    rows, cut = "tensor<?x8xf32>", "tensor<?x2x4xf32>"
    text = f"func.func @main(%x0: {rows}) -> tensor<?x2x5xf32> {{\n"
    for i in range(sys.getrecursionlimit()):
        text += f"  %x{i + 1} = nn.add %x{i}, %x{i} : ({rows}, {rows}) -> {rows}\n"
    text += f"""
  %r = nn.reshape %x{sys.getrecursionlimit()} : ({rows}) -> {cut}
  %w = einsum.weight ["w"] : tensor<4x5xf32>
  %y = einsum.contract "tab,bc->tac" %r, %w
    : ({cut}, tensor<4x5xf32>) -> tensor<?x2x5xf32>
  func.return %y : tensor<?x2x5xf32>
}}"""
    module = Parser(make_context(), text).parse_module()
    ShapeProductsPass().apply(make_context(), module)
    (contract,) = (op for op in module.walk() if isinstance(op, ContractOp))
    assert contract.equation.data == "tpa,oa->tpo"


BEHIND = """
  %u = einsum.weight ["up.weight"] : tensor<4096x64xf32>
  %d = einsum.contract "ti,oi->to" %n, %u : (tensor<?x64xf32>, tensor<4096x64xf32>) -> tensor<?x4096xf32>
  %f = nn.gelu %d {approximate = "none"} : (tensor<?x4096xf32>) -> tensor<?x4096xf32>
  %w = einsum.weight ["layer.weight"] : tensor<OUTx4096xf32>
  %c = einsum.contract "ti,oi->to" %f, %w : (tensor<?x4096xf32>, tensor<OUTx4096xf32>) -> tensor<?xOUTxf32>
"""
"""A dense linear and a GELU in front of the layer: what is between them lies in panels."""


@pytest.mark.parametrize("tile", [4, 64])
def test_a_group_reads_panels(tile: int) -> None:
    lines = LAYER.splitlines(keepends=True)
    first = next(i for i, line in enumerate(lines) if '"layer.weight"' in line)
    text = "".join([*lines[:first], BEHIND, *lines[first + 2 :]])
    module = Parser(make_context(), text.replace("IN", "64").replace("OUT", "64")).parse_module()
    _, weights = layer(64, 64)
    rng = np.random.default_rng(0)
    for name, shape in (("up.weight", (4096, 64)), ("layer.weight", (64, 4096))):
        array = rng.standard_normal(shape).astype(np.float32)
        weights = WeightStore({**{k: weights[k] for k in weights if k != name}, name: array})
    options = "format=low-rank rank=16 init=plain layers=layer"
    passes = f"heat-decompose{{{options}}},order-contractions,lower-contractions,shape-products"
    run_passes(make_context(weights), module, build(f"{passes},fold-weights,dce"))
    steps = [op for op in module.walk() if isinstance(op, ContractOp)]
    assert len(steps) == 3
    steps[1].fuse = FuseAttr(tile)
    run_passes(make_context(weights), module, build("partition-host,assign-fixed-point"))
    expected = execute(module, INPUTS, weights)["y"]
    run_passes(make_context(weights), module, build("plan-tiles,tile-for-hdp"))
    assert "panel2" in str(module)
    found = run_module(module, INPUTS, weights, load_hardware("hdp-edge"))["y"]
    np.testing.assert_array_equal(found, expected)
