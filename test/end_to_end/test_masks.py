"""Masks of every kind beside key padding: outputs are PyTorch's, whatever is packed away."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from attention_spellings import distances, merged, split
from padded_models import masks, run_numpy

from heatc.api import make_context
from heatc.capture import capture_module
from heatc.dialects import attn
from heatc.pipeline import build, run_passes
from heatc.targets import Numpy, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
nn: Any = torch.nn

TOKENS, WIDTH, HEADS = 12, 16, 4
LOWEST = torch.finfo(torch.float32).min

Scores = Callable[[Any, Any, Any], Any]
"""Scores (batch, heads, S, S), masked, of the model, the scores and `keep`, bool (batch, S)."""


def _seen(keep: Any) -> Any:
    return keep[:, None, None, :]


PADDINGS: dict[str, Scores] = {
    "filled with -1e9": lambda m, s, keep: s.masked_fill(~_seen(keep), -1e9),
    "filled with -inf": lambda m, s, keep: s.masked_fill(~_seen(keep), -math.inf),
    "added": lambda m, s, keep: s + (1.0 - _seen(keep).float()) * LOWEST,
    "outer product": lambda m, s, keep: s.masked_fill(
        (keep.long()[:, None, None, :] * keep.long()[:, None, :, None]) == 0, LOWEST
    ),
    "outer product of integers": lambda m, s, keep: s.masked_fill(
        ~(m.numbers[:, None, None, :] * m.numbers[:, None, :, None]).bool(), LOWEST
    ),
    "but for itself": lambda m, s, keep: s.masked_fill(
        ~(_seen(keep) | (distances(TOKENS) == 0)), -1e9
    ),
}

OTHERS: dict[str, Scores] = {
    "nothing": lambda m, s, keep: s,
    "causal, -inf": lambda m, s, keep: s.masked_fill(distances(TOKENS) < 0, -math.inf),
    "causal, finite": lambda m, s, keep: s.masked_fill(distances(TOKENS) < 0, -1e9),
    "window, added": lambda m, s, keep: s + torch.where(distances(TOKENS) > 2, LOWEST, 0.0),
    "later tokens alone": lambda m, s, keep: s.masked_fill(distances(TOKENS) >= 0, -1e9),
    "a weak mask": lambda m, s, keep: s.masked_fill(distances(TOKENS) < 0, 0.0),
    "a learned bias": lambda m, s, keep: s + m.bias,
    "a bias and a causal mask in one": lambda m, s, keep: (
        s + (m.bias + torch.where(distances(TOKENS) < 0, -1e4, 0.0))
    ),
    "a bias of tokens": lambda m, s, keep: s + torch.einsum("bhqd,ed->bhqe", m.queries, m.places),
    "a bias of keys": lambda m, s, keep: s + torch.einsum("bhkd,ed->bhek", m.queries, m.places),
    "a chosen bias": lambda m, s, keep: s + torch.where(_seen(keep), m.bias, torch.tensor(-1e9)),
    "a bias of the mask": lambda m, s, keep: s + keep.float()[:, None, :, None] * m.bias,
    "a raised mask": lambda m, s, keep: s + 2e9 * (distances(TOKENS) == 1).float(),
}


class Masked(nn.Module):
    """Two attentions under one padding; the second has another mask beside it."""

    def __init__(self, padding: str, other: str, first: bool):
        super().__init__()
        torch.manual_seed(7)
        self.padding, self.other = PADDINGS[padding], OTHERS[other]
        # What is beside the padding comes before it in one half of the cases, and after it in the other.
        self.first, self.is_padding_first = first, first == (len(padding) % 2 == 0)
        self.words = nn.Embedding(40, WIDTH)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.bias = nn.Parameter(torch.randn(1, HEADS, TOKENS, TOKENS))
        self.places = nn.Parameter(torch.randn(TOKENS, WIDTH // HEADS))
        self.classify = nn.Linear(WIDTH, 3)

    def attend(self, qkv: Any, keep: Any, both: bool) -> Any:
        """One attention: padding first, or what is beside it."""
        q, k, v = split(*qkv.chunk(3, -1))
        self.queries = q
        scores = q @ k.transpose(-1, -2) / 2.0
        steps = [self.padding, self.other] if both else [self.padding]
        for step in steps if self.is_padding_first else steps[::-1]:
            scores = step(self, scores, keep)
        return merged(scores.softmax(-1) @ v)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Outputs by name; "tokens" has a token axis."""
        self.numbers = attention_mask
        x = self.words(input_ids)
        for both, layer in enumerate(self.layers):
            x = x + self.attend(layer(x), attention_mask > 0, bool(both))
        return {"tokens": x, **({"first": self.classify(x[:, 0])} if self.first else {})}


def compiled(model: Any, inputs: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """The program's outputs and the module."""
    captured = capture_module(model.eval(), inputs)
    context = make_context(captured.weights)
    context.remarks = lambda remark: None
    run_passes(context, captured.module, build(pipeline_text(Options(Numpy()))))
    run = run_numpy(captured.module, captured.weights, folder)
    with np.errstate(invalid="ignore"):
        return run({name: value.numpy() for name, value in inputs.items()}), captured.module


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize(("padding", "other"), itertools.product(PADDINGS, OTHERS))
def test_masks_are_the_models(padding: str, other: str, first: bool, tmp_path: Path):
    """Both orders, masked positions read or not: what PyTorch gives, NaN included."""
    mask = masks(TOKENS)
    ids = torch.tensor(np.random.default_rng(1).integers(1, 40, mask.shape))
    inputs = {"input_ids": ids, "attention_mask": torch.tensor(mask)}
    model = Masked(padding, other, first)
    found, module = compiled(model, inputs, tmp_path)
    with torch.no_grad():
        wanted = {name: y.numpy() for name, y in model(**inputs).items()}
    for name, value in found.items():
        own, want = (x[mask > 0] if name == "tokens" else x for x in (value, wanted[name]))
        np.testing.assert_allclose(own, want, atol=3e-5, err_msg=name)
    assert sum(isinstance(op, attn.SdpaOp) for op in module.walk()) == 2


@pytest.mark.parametrize(
    "other",
    ["causal, finite", "window, added", "a learned bias", "a bias of tokens", "a chosen bias"],
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_padding_has_no_rows(padding: str, other: str, tmp_path: Path):
    """What is kept beside padding is what is not padding: no row is computed for nothing."""
    if (padding, other) == ("outer product of integers", "a chosen bias"):
        pytest.skip("one takes negative numbers for real tokens, the other does not")
    mask = masks(TOKENS)
    ids = torch.tensor(np.random.default_rng(1).integers(1, 40, mask.shape))
    inputs = {"input_ids": ids, "attention_mask": torch.tensor(mask)}
    _, module = compiled(Masked(padding, other, first=False), inputs, tmp_path)
    (packing,) = (op for op in module.walk() if isinstance(op, attn.PackingOp))
    assert packing.mask is not None
    assert attn.packing_of(packing.result).reads == ()
