"""The model in pieces is the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_classifier import HEADS, LAYERS, VOCABULARY, WIDTH, ir_text, weights

from heatc.api import make_context
from heatc.errors import HeatcError
from heatc.interpreter import execute
from heatc.parsing import parse_module
from heatc.tuning.calibrate.attention import attend
from heatc.tuning.common.packed_model import PackedModel, Paused
from heatc.weights import WeightStore


def run(model: PackedModel, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    state = model.run_to_first(inputs)
    while isinstance(state, Paused):
        state = model.resume(state, attend(state, None)[0])
    return state


def test_dense_pieces_give_what_the_interpreter_gives(tiny: Path):
    store = WeightStore(weights(0))
    module = parse_module(make_context(), ir_text(8).encode(), "tiny.mlir")
    model = PackedModel(module, store)
    data = np.load(tiny / "data.npz")
    inputs = {name: data[name][:8] for name in ("input_ids", "attention_mask")}
    expected = execute(module, inputs, store)
    found = run(model, inputs)
    np.testing.assert_allclose(found["logits"], expected["logits"], atol=1e-5)
    assert tuple(a.path for a in model.attentions) == LAYERS
    assert model.batch == 8
    assert model.limits == {"input_ids": VOCABULARY}


def test_the_metric_is_that_of_the_projection(tiny: Path):
    model = PackedModel(
        parse_module(make_context(), ir_text(8).encode(), "t.mlir"), WeightStore(weights(0))
    )
    output = weights(0)["l1.o.weight"].astype(np.float64)
    dim = WIDTH // HEADS
    for head in range(HEADS):
        own = output[:, head * dim : (head + 1) * dim]
        np.testing.assert_allclose(model.attentions[1].metric[head], own.T @ own, atol=1e-6)


def test_a_nameless_attention_is_refused():
    text = ir_text(8).replace('loc("encoder.layer.0.attention"("tiny.py":1:0))', "")
    module = parse_module(make_context(), text.encode(), "t.mlir")
    with pytest.raises(HeatcError, match="no module path"):
        PackedModel(module, WeightStore(weights(0)))


def test_a_model_without_attention_has_shapes():
    text = """func.func @main(%x: tensor<1x4xf32>) -> tensor<1x4xf32> {
  %y = nn.tanh %x : (tensor<1x4xf32>) -> tensor<1x4xf32>
  func.return %y : tensor<1x4xf32>
}"""
    model = PackedModel(parse_module(make_context(), text.encode(), "t.mlir"), WeightStore({}))
    assert model.attentions == ()
    assert model.shapes == {"input_0": (1, 4)}
