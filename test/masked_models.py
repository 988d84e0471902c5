"""Small encoders whose attentions have masks of their own: every kind of mask and bias."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn

Array = np.ndarray[Any, Any]
LOWEST = torch.finfo(torch.float32).min
VOCABULARY = 50

Scores = Callable[["Attention", Any, dict[str, Any]], Any]
"""An attention, its scaled scores (B, H, S, S) and the inputs of the model, to masked scores."""


def _apart(tokens: int) -> Any:
    """How far keys lie behind queries, (S, S)."""
    places = torch.arange(tokens)
    return places[:, None] - places[None]


def _past(tokens: int) -> Any:
    return _apart(tokens) >= 0


def _near(tokens: int, reach: int = 2) -> Any:
    apart = _apart(tokens)
    return (apart <= reach) & (apart >= -reach)


def _slopes(heads: int, tokens: int) -> Any:
    """ALiBi's bias, -|i - j| by slopes that halve from head to head."""
    apart = _apart(tokens)
    distance = torch.where(apart > 0, apart, -apart).float()
    return -distance[None] * torch.tensor([0.5 ** (i + 1) for i in range(heads)])[:, None, None]


KINDS: dict[str, Scores] = {
    "causal": lambda m, s, x: s.masked_fill(~_past(m.tokens), -math.inf),
    "causal added": lambda m, s, x: s + torch.where(_past(m.tokens), 0.0, LOWEST),
    "window": lambda m, s, x: s.masked_fill(~_near(m.tokens), -1e4),
    "alibi": lambda m, s, x: s + _slopes(m.heads, m.tokens),
    "causal alibi": lambda m, s, x: (s + _slopes(m.heads, m.tokens)).masked_fill(
        ~_past(m.tokens), -math.inf
    ),
    "learned": lambda m, s, x: s + m.relative(_apart(m.tokens) + m.tokens - 1).permute(2, 0, 1),
    "unscaled": lambda m, s, x: s + m.relative(_apart(m.tokens) + m.tokens - 1).permute(2, 0, 1),
    "given": lambda m, s, x: s.masked_fill(~x["keep"], -math.inf),
    "given added": lambda m, s, x: s + x["added"],
    "given causal": lambda m, s, x: s.masked_fill(~x["keep"], -math.inf).masked_fill(
        ~_past(m.tokens), -math.inf
    ),
    "given summed": lambda m, s, x: (
        s + torch.where(x["keep"], 0.0, -1e9) + torch.where(_past(m.tokens), 0.0, -1e9)
    ),
    "turned causal": lambda m, s, x: s.masked_fill(~_past(m.tokens), -math.inf),
    "none": lambda m, s, x: s,
    "padded causal": lambda m, s, x: s + torch.where(_past(m.tokens) & x["keep"], 0.0, LOWEST),
    "padded alibi": lambda m, s, x: (s + _slopes(m.heads, m.tokens)).masked_fill(~x["keep"], -1e9),
    "padded window": lambda m, s, x: (
        s + m.relative(_apart(m.tokens) + m.tokens - 1).permute(2, 0, 1)
    ).masked_fill(~x["keep"] | ~_near(m.tokens, 3), -1e9),
}
"""What an attention does to its scores, by a name for the test's report."""


class Attention(nn.Module):
    """One post-norm attention block; `sharpness` spreads its scores over integers."""

    def __init__(self, kind: str, tokens: int, width: int, heads: int, sharpness: float):
        super().__init__()
        self.kind, self.tokens, self.heads = kind, tokens, heads
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.norm = nn.LayerNorm(width)
        self.relative = nn.Embedding(2 * tokens - 1, heads)
        for layer in (self.q, self.k):
            layer.weight.data *= sharpness

    def forward(self, x: Any, inputs: dict[str, Any]) -> Any:
        """`x` is (B, S, width)."""
        batch, tokens, width = x.shape

        def heads(y: Any) -> Any:
            return y.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)

        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        if "turned" in self.kind:
            # As a rotary embedding does: the host, not a linear, makes queries and keys.
            angles = torch.arange(tokens)[:, None] * 0.2 + torch.arange(width // self.heads)
            q, k = q * torch.cos(angles), k * torch.sin(angles)
        scores = q @ k.transpose(-1, -2)
        if self.kind != "unscaled":
            scores = scores / math.sqrt(width // self.heads)
        y = KINDS[self.kind](self, scores, inputs).softmax(-1) @ v
        return self.norm(x + self.o(y.transpose(1, 2).reshape(batch, tokens, width)))


class Encoder(nn.Module):
    """Embeddings and attentions, a kind for each."""

    def __init__(
        self,
        kinds: tuple[str, ...],
        tokens: int = 12,
        width: int = 32,
        heads: int = 4,
        sharpness: float = 3.0,
    ):
        super().__init__()
        torch.manual_seed(5)
        self.words = nn.Embedding(VOCABULARY, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            Attention(kind, tokens, width, heads, sharpness) for kind in kinds
        )

    def forward(self, ids: Any, keep: Any = None, added: Any = None) -> Any:
        """(B, S) to (B, S, width)."""
        return self.encode(ids, {"keep": keep, "added": added})

    def encode(self, ids: Any, inputs: dict[str, Any]) -> Any:
        """The same with masks by name."""
        x = self.norm(self.words(ids))
        for layer in self.layers:
            x = layer(x, inputs)
        return x


class PaddedEncoder(nn.Module):
    """The same on sequences with padding: `attention_mask` is (B, S), 1 for real tokens."""

    def __init__(self, kinds: tuple[str, ...], tokens: int = 12):
        super().__init__()
        self.encoder = Encoder(kinds, tokens)

    def forward(self, ids: Any, attention_mask: Any) -> Any:
        """(B, S) to (B, S, width)."""
        return self.encoder.encode(ids, {"keep": (attention_mask > 0)[:, None, None, :]})


def padded_batch(tokens: int = 12) -> dict[str, Array]:
    """No padding, right, left, holes, one token."""
    mask = np.ones((5, tokens), np.int64)
    mask[1, 7:] = mask[2, :5] = mask[4] = 0
    mask[3, [1, 4, 5, 9]] = 0
    mask[4, 3] = 1
    ids = np.random.default_rng(3).integers(0, VOCABULARY, mask.shape)
    return {"ids": ids, "attention_mask": mask}


def batch(kinds: tuple[str, ...], sequences: int = 2, tokens: int = 12) -> dict[str, Array]:
    """
    Inputs: ids, and masks (B, 1, S, S) in which every query sees itself, where a kind takes one.

    A query of "given summed" sees no key.
    """
    rng = np.random.default_rng(3)
    found: dict[str, Array] = {"ids": rng.integers(0, VOCABULARY, (sequences, tokens))}
    keep = rng.random((sequences, 1, tokens, tokens)) < 0.6
    keep |= np.eye(tokens, dtype=bool)
    if "given summed" in kinds:
        keep[0, :, 3, :4] = False
    if any("given" in kind and kind != "given added" for kind in kinds):
        found["keep"] = keep
    if "given added" in kinds:
        found["added"] = np.where(keep, 0.0, LOWEST).astype(np.float32)
    return found
