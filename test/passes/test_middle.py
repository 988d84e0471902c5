"""Tiny BERTs through the middle of the compiler: after every pass the values are PyTorch's."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest
from numpy.typing import NDArray

from heatc.api import make_context
from heatc.capture import Captured, capture_module
from heatc.errors import HeatcError
from heatc.interpreter import execute
from heatc.pipeline import Instrument, build, run_passes
from heatc.targets import RAISE

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

Arrays = dict[str, NDArray[Any]]
LENGTH = 7
MIDDLE = (*RAISE, "insert-hdp{rule=none}", "partition-host")
MASKS = {
    "left": [0, 0, 1, 1, 1, 1, 1],
    "right": [1, 1, 1, 1, 1, 0, 0],
    "both": [0, 1, 1, 1, 1, 1, 0],
    "inside": [1, 1, 0, 1, 1, 0, 1],
}
KINDS = ["BertModel", "BertForSequenceClassification", "BertForTokenClassification"]


@cache
def bert(kind: str, attention: str) -> Any:
    """A random model; norms and biases are not at their initial values."""
    torch.manual_seed(3)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=16,
        num_labels=3,
        initializer_range=0.3,
    )
    model = getattr(transformers, kind)._from_config(config, attn_implementation=attention).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias") or "LayerNorm" in name:
                weight.add_(0.3 * torch.randn(weight.shape))
    return model


def make_inputs(masks: list[list[int]], positions: bool = False, seed: int = 0) -> Arrays:
    rng = np.random.default_rng(seed)
    mask = np.array(masks, np.int64)
    inputs = {
        "input_ids": rng.integers(0, 60, mask.shape),
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, mask.shape),
    }
    if positions:
        inputs["position_ids"] = np.maximum(np.cumsum(mask, 1) - 1, 0)
    return inputs


def as_tensors(inputs: Arrays) -> dict[str, Any]:
    return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}


def expected_of(model: Any, inputs: Arrays) -> Arrays:
    with torch.no_grad():
        return {name: value.numpy() for name, value in model(**as_tensors(inputs)).items()}


class AfterEach(Instrument):
    """Calls a check with the name of every pass that ran."""

    def __init__(self, check: Callable[[str], None]):
        self.check = check

    def after(self, pass_: Any, module: Any) -> None:
        self.check(pass_.name)


def transform(captured: Captured, passes: tuple[str, ...], check: Callable[[str], None]) -> None:
    context = make_context(captured.weights)
    run_passes(context, captured.module, build(",".join(passes)), [AfterEach(check)])


def compare(found: Arrays, expected: Arrays, mask: NDArray[Any], where: str, packed: bool) -> None:
    """At real tokens of token outputs; all of sentence outputs."""
    assert set(found) == set(expected)
    for name, value in found.items():
        assert value.dtype == np.float32
        assert np.isfinite(value).all(), where
        real = mask != 0 if value.ndim == 3 else slice(None)
        np.testing.assert_allclose(
            value[real], expected[name][real], atol=1e-5, rtol=0, err_msg=f"{where}: {name}"
        )
        if packed and value.ndim == 3:
            assert not value[mask == 0].any(), where


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 3])
def test_every_pass_keeps_the_values(kind: str, attention: str, batch: int):
    masks = [MASKS["right"], [1] * LENGTH, MASKS["inside"]][:batch]
    model, inputs = bert(kind, attention), make_inputs(masks)
    expected = expected_of(model, inputs)
    captured = capture_module(model, as_tensors(inputs))
    others = [make_inputs([m] * batch, seed=1) for m in (MASKS["right"], MASKS["inside"])]
    runs = [(inputs, expected), *((x, expected_of(model, x)) for x in others)]
    packed = False

    def check(name: str) -> None:
        nonlocal packed
        packed = packed or name == "pack-tokens"
        for arrays, outputs in runs if packed else runs[:1]:
            found = execute(captured.module, arrays, captured.weights)
            compare(found, outputs, arrays["attention_mask"], name, packed)

    check("capture")
    transform(captured, MIDDLE, check)
    text = str(captured.module)
    assert "nn.matmul" not in text
    assert "attn.packing %attention_mask" in text


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_fused_projections(attention: str):
    model, inputs = bert("BertModel", attention), make_inputs([MASKS["right"], MASKS["both"]])
    captured = capture_module(model, as_tensors(inputs))
    transform(captured, (*RAISE, "fuse-projections", "dce"), lambda name: None)
    found = execute(captured.module, inputs, captured.weights)
    mask = inputs["attention_mask"]
    compare(found, expected_of(model, inputs), mask, "fuse-projections", True)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("level", ["real", "fixed"])
def test_padding_changes_nothing(attention: str, level: str):
    """With the same positions a sentence has the same values, wherever its padding stands."""
    model = bert("BertModel", attention)
    words = make_inputs([[1] * 5], positions=True)
    passes = MIDDLE if level == "real" else (*MIDDLE, "assign-fixed-point")
    results: list[NDArray[Any]] = []
    for mask in ([1] * 5, *MASKS.values()):
        inputs = make_inputs([mask], positions=True, seed=9)
        real = np.array([mask]) != 0
        for name, array in words.items():
            if name != "attention_mask":
                inputs[name][real] = array[0]
        captured = capture_module(model, as_tensors(inputs))
        transform(captured, passes, lambda name: None)
        found = execute(captured.module, inputs, captured.weights)["last_hidden_state"]
        assert not found[~real].any()
        results.append(found[real])
    reference = expected_of(model, words)["last_hidden_state"][0]
    for result in results:
        np.testing.assert_allclose(result, reference, atol=1e-5 if level == "real" else 0.05)
        np.testing.assert_allclose(result, results[0], atol=1e-5 if level == "real" else 0)


@pytest.mark.parametrize("rule", ["rule=none", "rule=paper tau-h=0.1"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_fully_masked_sequences(attention: str, rule: str):
    """Zeros, never NaN; a pooler of such a sequence is refused, and the row is named."""
    model = bert("BertForTokenClassification", attention)
    inputs = make_inputs([[0] * LENGTH, MASKS["right"], [0] * LENGTH])
    nothing = {**inputs, "attention_mask": 0 * inputs["attention_mask"]}
    captured = capture_module(model, as_tensors(inputs))
    levels = (*RAISE, f"insert-hdp{{{rule}}}", "partition-host", "assign-fixed-point")
    outputs: list[NDArray[Any]] = []

    def check(name: str) -> None:
        if name not in RAISE[:-2]:
            outputs.append(execute(captured.module, inputs, captured.weights)["logits"])
            assert not outputs[-1][[0, 2]].any(), name
            assert not execute(captured.module, nothing, captured.weights)["logits"].any(), name

    transform(captured, levels, check)
    assert len(outputs) >= 4
    if rule == "rule=none":
        real = inputs["attention_mask"] != 0
        expected = expected_of(model, inputs)["logits"]
        np.testing.assert_allclose(outputs[-1][real], expected[real], atol=0.05)
    pooled = capture_module(bert("BertModel", attention), as_tensors(inputs))
    transform(pooled, levels, lambda name: None)
    with pytest.raises(HeatcError, match="row 0 of the batch has no real token"):
        execute(pooled.module, inputs, pooled.weights)


def test_codes_stay_inside_their_types():
    """What bounds promise: nothing saturates, for any of many inputs."""
    from heatc.dialects.fixed import QType, QuantizeOp, RequantizeOp
    from heatc.fixed_point import limits

    model = bert("BertModel", "sdpa")
    inputs = make_inputs([MASKS["left"], [1] * LENGTH])
    captured = capture_module(model, as_tensors(inputs))
    transform(captured, (*MIDDLE, "assign-fixed-point"), lambda name: None)
    seen = 0

    def observe(op: Any, results: Any) -> None:
        nonlocal seen
        for value, array in zip(op.results, results):
            type_ = getattr(value.type, "element_type", None)
            if isinstance(type_, QType) and isinstance(op, QuantizeOp | RequantizeOp):
                low, high = limits(type_.width.data)
                assert array.size == 0 or (low < array.min() and array.max() < high), op
                seen += 1

    for seed in range(10):
        more = {**make_inputs([MASKS["left"], [1] * LENGTH], seed=seed)}
        execute(captured.module, more, captured.weights, observe)
    assert seen > 100
