"""HDP attention under masks of the model's own: causal, windows, biases, masks that are inputs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from heatc.capture import Captured, capture_module
from heatc.errors import HeatcError
from heatc.hardware import load_hardware
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.pipeline import build

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from compiled_kit import Compiled, as_tensors, worst_cosine  # noqa: E402
from masked_models import KINDS, LOWEST, Array, Encoder, PaddedEncoder, batch, padded_batch  # noqa: E402

RULES = (
    "paper rho_b=0.1",
    "paper rho_b=0.1 pruned_score=mean",
    "paper rho_b=0.1 pruned_score=neginf block=1,2",
    "paper rho_b=0.1 pruned_score=int tau_h=4.0",
    "ours",
    "ours tau_h=1.0 gated=zero block=4,4",
    "topk density=0.3",
    "topk density=0.4 pruned_score=mean block=2,4",
)


UNPADDED = [kind for kind in KINDS if "padded" not in kind]
PADDED = [kind for kind in KINDS if "padded" in kind]


@pytest.mark.parametrize("kind", UNPADDED)
def test_without_pruning_it_is_the_model(kind: str):
    kinds = (kind, kind)
    assert worst_cosine(*_found(Compiled(Encoder(kinds), batch(kinds)))) >= 0.999


def _found(compiled: Compiled) -> tuple[Array, Array]:
    return compiled.run(), compiled.expected


@pytest.mark.parametrize(
    ("kinds", "tokens", "width", "heads"),
    [
        (("none", "causal"), 12, 32, 4),
        (("causal", "window", "alibi"), 13, 32, 2),
        (("alibi", "given"), 9, 24, 3),
        (("causal alibi",), 1, 16, 2),
        (("causal",), 70, 16, 1),
        (("learned", "causal"), 10, 256, 1),
        (("causal", "learned"), 10, 32, 4),
        (("given causal",), 12, 96, 2),
    ],
)
def test_shapes_and_masks_that_differ(kinds: tuple[str, ...], tokens: int, width: int, heads: int):
    """One token, one head, heads of 8 to 256 columns, several row tiles, each attention its own."""
    model = Encoder(kinds, tokens, width, heads)
    assert worst_cosine(*_found(Compiled(model, batch(kinds, 3, tokens)))) >= 0.999


@pytest.mark.parametrize("kind", PADDED)
def test_padding_beside_other_masks(kind: str):
    """Rows and keys of packed tokens have the mask's entries at their positions."""
    inputs = padded_batch()
    compiled = Compiled(PaddedEncoder((kind, kind)), inputs)
    assert any(op.name == "attn.packing" and op.operands for op in compiled.fixed.walk())
    real = inputs["attention_mask"] > 0
    assert worst_cosine(compiled.run()[real], compiled.expected[real]) >= 0.999


@pytest.mark.parametrize("rule", ["none", "ours rho_b=0.2", "paper tau_h=3.0", "topk"])
@pytest.mark.parametrize("kind", PADDED)
def test_padding_where_keys_stream(kind: str, rule: str):
    """Two cores with little room: rows come in several tiles, keys pass by."""
    small = replace(load_hardware("hdp-edge"), name="small", cores=2, local_buffer_bytes=8192)
    compiled = Compiled(PaddedEncoder((kind, kind)), padded_batch(), rule, small)
    np.testing.assert_array_equal(compiled.run(), compiled.interpreted())


@cache
def encoder(kind: str) -> tuple[Encoder, dict[str, Array], Captured]:
    """An encoder with a mask in its first attention, its inputs, and what is captured of it."""
    kinds = (kind, "none")
    model, inputs = Encoder(kinds, 14).eval(), batch(kinds, 2, 14)
    return model, inputs, capture_module(model, as_tensors(inputs))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("kind", ["causal", "window", "causal alibi", "learned", "given"])
def test_rules_compute_the_fixed_level(kind: str, rule: str):
    """The machine's bits are those of the ops, and some blocks are pruned."""
    model, inputs, captured = encoder(kind)
    compiled = Compiled(model, inputs, rule, captured=captured)
    found = compiled.run()
    np.testing.assert_array_equal(found, compiled.interpreted())
    assert np.abs(found - compiled.expected).max() > 1e-2


@pytest.mark.parametrize(
    "rule", ["ours tau_h=1.0", "ours tau_h=1.0 gated=mean", "energon", "sanger"]
)
def test_what_has_no_unit_is_refused(rule: str):
    kinds = ("causal",)
    with pytest.raises(Exception, match=r"the machine has no unit for .* mask of its own"):
        Compiled(Encoder(kinds), batch(kinds), rule)


@pytest.mark.parametrize("rule", ["ours", "paper rho_b=0.1"])
def test_queries_that_no_linear_computes(rule: str):
    """They are sent through the array once, which splits them."""
    kinds = ("turned causal",)
    compiled = Compiled(Encoder(kinds), batch(kinds), rule)
    found = compiled.run()
    np.testing.assert_array_equal(found, compiled.interpreted())
    assert "identity:32x32" in compiled.weights.added
    assert np.abs(found - compiled.expected).max() > 1e-2


def test_spatten_ranks_heads_under_masks():
    kinds = ("causal", "window", "alibi")
    model, inputs = Encoder(kinds), batch(kinds)
    compiled = Compiled(model, inputs, "spatten ratio=0.4")
    np.testing.assert_array_equal(compiled.run(), compiled.interpreted())


def test_rows_without_a_key():
    """A mask that is given at run time: NaN is refused, the program says where to look."""
    kinds = ("given",)
    compiled = Compiled(Encoder(kinds), batch(kinds))
    blind = {**compiled.inputs, "keep": compiled.inputs["keep"].copy()}
    blind["keep"][1, 0, 3] = False
    with pytest.raises(HeatcError, match="a row sees no key"):
        compiled.run_on(blind)


class Biased(torch.nn.Module):
    """One attention of 4 heads with a bias of its queries, and masks (B, 1, S, S) that inputs say."""

    def __init__(self, spelling: str):
        super().__init__()
        torch.manual_seed(5)
        self.spelling = spelling
        self.q, self.k, self.v, self.o = (torch.nn.Linear(32, 32) for _ in range(4))
        self.table = torch.nn.Parameter(torch.randn(12, 8))

    def forward(self, x: Any, keep: Any, near: Any) -> Any:
        q, k, v = (f(x).unflatten(-1, (4, 8)).transpose(1, 2) for f in (self.q, self.k, self.v))
        scores = (q @ k.transpose(-1, -2) + q @ self.table.T) / 8**0.5
        if self.spelling == "filled":
            scores = scores.masked_fill(~(keep & near), torch.finfo(torch.float32).min)
        else:
            scores = scores + (~keep).float() * -1e9 + (~near).float() * -1e9
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(2))


def biased_batch() -> dict[str, Array]:
    """Query 3 of sequence 1 sees no key; what `near` hides of it is not what `keep` does."""
    random = np.random.default_rng(4)
    keep, near = np.ones((2, 1, 12, 12), np.bool_), np.ones((2, 1, 12, 12), np.bool_)
    keep[0, :, :, 7:] = False
    keep[1, 0, 3, 2:], near[1, 0, 3, :5] = False, False
    return {"x": random.standard_normal((2, 12, 32)).astype(np.float32), "keep": keep, "near": near}


def test_a_filled_row_is_a_mean_beside_a_computed_bias():
    """A bias as DeBERTa's hides nothing, so that only the fill says what a row without a key gives."""
    compiled = Compiled(Biased("filled"), biased_batch())
    assert worst_cosine(*_found(compiled)) >= 0.999
    np.testing.assert_array_equal(compiled.run(), compiled.interpreted())


def test_a_row_that_is_hidden_by_different_numbers_looks_at_the_least_hidden():
    """What is hidden once is above what is hidden twice, and decides in a row without a key."""
    compiled = Compiled(Biased("added"), biased_batch())
    assert worst_cosine(*_found(compiled)) >= 0.999
    np.testing.assert_array_equal(compiled.run(), compiled.interpreted())


class Weighed(torch.nn.Module):
    """nn.MultiheadAttention and its weights, under a float padding mask and a bias of positions."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.attention = torch.nn.MultiheadAttention(32, 4, batch_first=True)
        steps = torch.arange(12)
        self.register_buffer("bias", -0.3 * (steps[:, None] - steps).abs().float())

    def forward(self, x: Any, hidden: Any) -> Any:
        keys = hidden.float() * -1e9
        y, p = self.attention(x, x, x, key_padding_mask=keys, attn_mask=self.bias)
        return torch.cat([y, p], -1)


def test_a_bias_beside_numbers_that_hide_keeps_its_codes():
    """Neither what is added to scores, nor what the weights' own task adds, has codes that hold -1e9."""
    hidden = np.zeros((3, 12), np.bool_)
    hidden[0, :4], hidden[1, 1:] = True, True
    x = np.random.default_rng(7).standard_normal((3, 12, 32)).astype(np.float32)
    compiled = Compiled(Weighed(), {"x": x, "hidden": hidden})
    assert np.abs(compiled.run() - compiled.expected).max() < 2e-2


def test_what_an_input_adds():
    """It hides, or it is a bias within the input's range; all else is refused."""
    kinds = ("given added",)
    inputs = batch(kinds)
    inputs["added"] = np.where(inputs["added"] == 0.0, inputs["added"] - 0.75, LOWEST / 2)
    inputs["added"][1, 0, :, 3] = 2.5
    compiled = Compiled(Encoder(kinds), inputs)
    assert worst_cosine(*_found(compiled)) >= 0.999
    other = {**inputs, "added": inputs["added"].copy()}
    other["added"][0, 0, 0, 0] = -100.0
    message = (
        r"'added': -100 at \[0, 0, 0, 0\] is outside -16 to 16, .*\(-10000 and less hide a score\)"
    )
    with pytest.raises(HeatcError, match=message) as raised:
        compiled.run_on(other)
    assert "--input-range added=-100:2.5" in "\n".join(raised.value.notes)


def test_masks_are_not_multiplied_in_memory():
    """One causal mask serves all layers, heads and sequences."""
    kinds = ("causal", "causal added", "causal")
    compiled = Compiled(Encoder(kinds), batch(kinds, 4))
    assert [compiled.weights[name].shape for name in compiled.weights.added] == [(1, 1, 12, 12)]


def test_the_options_are_those_of_the_pass():
    """The rules of this file are spelled as the pass takes them."""
    for rule in RULES:
        (made,) = build(f"insert-hdp{{rule={rule.replace('_', '-')}}}")
        assert isinstance(made, InsertHdpPass)
