"""What people put behind an encoder: norms of each token, poolings, mixers of tokens, attention of other queries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from bench.support.families.entry import (
    HEADS,
    LABELS,
    LENGTH,
    MASKS,
    VOCABULARY,
    WIDTH,
    Entry,
    padded_tokens,
    token_inputs,
)
from bench.support.families.layers import AS_WRITTEN

LOWEST = torch.finfo(torch.float32).min
QUERIES = 3
"""Of a pooling by several learned queries"""


class Headed(nn.Module):
    """
    Embedded tokens, one attention under the mask, a norm, then `head(model, x, keep)`.

    `x` is (batch, length, width), `keep` (batch, length) bool.
    """

    def __init__(self, head: Head, length: int = LENGTH, labels: int = LABELS):
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = head
        self.classify, self.wide = nn.Linear(WIDTH, labels), nn.Linear(2 * WIDTH, labels)
        self.score, self.inner = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(length, 2 * length), nn.Linear(2 * length, length)
        self.matrix = nn.Parameter(torch.zeros(length, length))
        self.probe = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.queries = nn.Parameter(torch.zeros(1, QUERIES, WIDTH))
        self.pool = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.biased = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_bias_kv=True)
        self.zeroed = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, add_zero_attn=True)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x, keep = self.table(input_ids), attention_mask > 0
        q, k, v = self.qkv(x).view(*x.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, keep[:, None, None, :])
        x = self.norm(x + self.out(y.transpose(1, 2).flatten(2)))
        return self.head(self, x, keep)


Head: TypeAlias = Callable[[Headed, torch.Tensor, torch.Tensor], torch.Tensor]


def _standardised(x: torch.Tensor) -> torch.Tensor:
    return (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)


def _centred(x: torch.Tensor) -> torch.Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-12)


OF_TOKENS: Mapping[str, Head] = {
    "normalize": lambda m, x, keep: F.normalize(x, dim=-1),
    "normalize, masked": lambda m, x, keep: F.normalize(x * keep[..., None], p=2, dim=2),
    "ColBERT": lambda m, x, keep: F.normalize(m.classify(x), dim=-1) * keep[..., None].float(),
    "over its norm": lambda m, x, keep: x / x.norm(dim=-1, keepdim=True),
    "over its norm, clamped": lambda m, x, keep: (
        x / torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp_min(1e-6)
    ),
    "by rsqrt": lambda m, x, keep: x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-12),
    "L1": lambda m, x, keep: F.normalize(x, p=1, dim=-1),
    "standardised": lambda m, x, keep: _standardised(x),
    "mean and std written out": lambda m, x, keep: _centred(x),
    "norm, then a linear": lambda m, x, keep: m.classify(F.normalize(m.inner(x), dim=-1)),
    "log_softmax": lambda m, x, keep: m.classify(x).log_softmax(-1),
    "max": lambda m, x, keep: m.classify(x).max(-1).values,
    "argmax": lambda m, x, keep: m.classify(x).argmax(-1),
    "amax kept": lambda m, x, keep: m.classify(x) - m.classify(x).amax(-1, keepdim=True),
    "min-max scaled": lambda m, x, keep: (
        (x - x.amin(-1, keepdim=True))
        / (x.amax(-1, keepdim=True) - x.amin(-1, keepdim=True) + 1e-6)
    ),
    "logsumexp": lambda m, x, keep: m.classify(x).logsumexp(-1),
    "entropy": lambda m, x, keep: (
        -(m.classify(x).softmax(-1) * m.classify(x).log_softmax(-1)).sum(-1)
    ),
    "sum": lambda m, x, keep: (m.inner(x) * x).sum(-1),
    "heads normalised": lambda m, x, keep: F.normalize(
        x.view(*x.shape[:2], HEADS, -1), dim=-1
    ).flatten(2),
    "similarities": lambda m, x, keep: (
        F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).transpose(1, 2)
    ),
}
"""Heads that give something for each token."""


def _count(keep: torch.Tensor) -> torch.Tensor:
    return keep.float().sum(1, keepdim=True)


def _mean_and_std(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    real, count = keep[..., None].float(), _count(keep)
    mean = (x * real).sum(1) / count
    spread = ((x - mean[:, None]).square() * real).sum(1) / count
    return m.wide(torch.cat([mean, (spread + 1e-6).sqrt()], -1))


def _first_and_last(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return m.classify((x[:, 0] + x[:, -1]) / 2)


def _first_and_last_real(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    last = keep.long().sum(1) - 1
    return m.classify((x[:, 0] + x[torch.arange(x.shape[0]), last]) / 2)


def _weights(m: Headed, x: torch.Tensor, keep: torch.Tensor, fill: float) -> torch.Tensor:
    return m.score(torch.tanh(m.inner(x))).masked_fill(~keep[..., None], fill).softmax(1)


def _mean_max(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    mean = (x * keep[..., None]).sum(1) / _count(keep).clamp(min=1e-9)
    return m.wide(torch.cat([mean, x.masked_fill(~keep[..., None], -1e9).max(1).values], -1))


POOLED: Mapping[str, Head] = {
    "max, -inf": lambda m, x, keep: m.classify(
        x.masked_fill(~keep[..., None], -math.inf).max(1).values
    ),
    "max, lowest": lambda m, x, keep: m.classify(
        x.masked_fill(~keep[..., None], LOWEST).max(dim=1)[0]
    ),
    "max, -1e9, normalised": lambda m, x, keep: F.normalize(
        torch.where(keep[..., None], x, -1e9).amax(1), dim=-1
    ),
    "max, added": lambda m, x, keep: m.classify(
        (x + (1.0 - keep[..., None].float()) * -1e9).max(1).values
    ),
    "max of all": lambda m, x, keep: m.classify(x.max(1).values),
    "adaptive max": lambda m, x, keep: m.classify(
        F.adaptive_max_pool1d(x.transpose(1, 2), 1).squeeze(-1)
    ),
    "sum": lambda m, x, keep: m.classify((x * keep[..., None]).sum(1)),
    "sum over sqrt": lambda m, x, keep: m.classify(
        (x * keep[..., None]).sum(1) / _count(keep).sqrt()
    ),
    "sum over sqrt, clamped": lambda m, x, keep: F.normalize(
        (x * keep[..., None].float()).sum(1)
        / keep[..., None].expand(x.shape).float().sum(1).clamp(min=1e-9).sqrt()
    ),
    "mean and std": _mean_and_std,
    "mean and max": _mean_max,
    "std": lambda m, x, keep: m.classify(x.std(1)),
    "first and last": _first_and_last,
    "first and last real": _first_and_last_real,
    "weighted by position": lambda m, x, keep: m.classify(
        (x * (keep * torch.arange(1, x.shape[1] + 1))[..., None]).sum(1)
        / (keep * torch.arange(1, x.shape[1] + 1)).sum(1, keepdim=True)
    ),
    "attention, -inf": lambda m, x, keep: m.classify((_weights(m, x, keep, -math.inf) * x).sum(1)),
    "attention, -1e9, matmul": lambda m, x, keep: m.classify(
        (_weights(m, x, keep, -1e9).transpose(1, 2) @ x).squeeze(1)
    ),
    "attention, lowest, einsum": lambda m, x, keep: F.normalize(
        torch.einsum("bsw,bs->bw", x, _weights(m, x, keep, LOWEST)[..., 0]), dim=-1
    ),
    "attention, unmasked": lambda m, x, keep: m.classify((m.score(x).softmax(1) * x).sum(1)),
    "norms, then mean": lambda m, x, keep: m.classify(
        (F.normalize(x, dim=-1) * keep[..., None]).sum(1) / _count(keep)
    ),
}
"""Heads that give something for each sequence."""

MIXED: Mapping[str, Head] = {
    "matrix from the left": lambda m, x, keep: torch.einsum("st,btd->bsd", m.matrix, x),
    "matrix, matmul": lambda m, x, keep: x + m.matrix @ x,
    "matrix of masked tokens": lambda m, x, keep: torch.einsum(
        "st,btd->bsd", m.matrix, x * keep[..., None]
    ),
    "MLP over tokens": lambda m, x, keep: (
        x + m.down(F.gelu(m.up(x.transpose(1, 2)))).transpose(1, 2)
    ),
    "Fourier": lambda m, x, keep: m.norm(torch.einsum("st,btd->bsd", torch.cos(m.matrix), x)),
    "convolution": lambda m, x, keep: x[:, :-1] + x[:, 1:],
}
"""Heads that mix tokens by matrices."""


def _attended(m: Headed, q: torch.Tensor, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    q = q.expand(x.shape[0], -1, -1)
    return m.pool(q, x, x, key_padding_mask=~keep, need_weights=False)[0]


def _by_queries(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    scores = m.queries @ m.inner(x).transpose(1, 2) / math.sqrt(WIDTH)
    return scores.masked_fill(~keep[:, None], -math.inf).softmax(-1) @ x


def _first_asks(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return m.pool(x[:, :1], x, x, key_padding_mask=~keep, need_weights=False)[0][:, 0]


def _sdpa(m: Headed, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    def split(y: torch.Tensor) -> torch.Tensor:
        return y.view(y.shape[0], y.shape[1], HEADS, -1).transpose(1, 2)

    q = split(m.inner(m.queries.expand(x.shape[0], -1, -1)))
    y = F.scaled_dot_product_attention(q, split(x), split(m.inner(x)), keep[:, None, None])
    return y.transpose(1, 2).flatten(2)


def _self(attention: Any, x: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return attention(x, x, x, key_padding_mask=~keep, need_weights=False)[0]


ATTENDED: Mapping[str, Head] = {
    "one learned query": lambda m, x, keep: _attended(m, m.probe, x, keep)[:, 0],
    "one learned query, MLP": lambda m, x, keep: m.classify(
        _attended(m, m.probe, x, keep)[:, 0] + F.gelu(m.inner(_attended(m, m.probe, x, keep)[:, 0]))
    ),
    "learned queries": lambda m, x, keep: _attended(m, m.queries, x, keep),
    "learned queries, written": _by_queries,
    "learned queries, SDPA": _sdpa,
    "learned queries, no mask": lambda m, x, keep: m.pool(
        m.queries.expand(x.shape[0], -1, -1), x, x, need_weights=False
    )[0],
    "the first token asks": _first_asks,
    "the first token asks, no mask": lambda m, x, keep: m.pool(x[:, :1], x, x)[0][:, 0],
    "add_bias_kv": lambda m, x, keep: _self(m.biased, x, keep),
    "add_zero_attn": lambda m, x, keep: _self(m.zeroed, x, keep),
}
"""Attention of other queries than tokens, or of keys beside the tokens."""

_KINDS = {
    "each token": OF_TOKENS,
    "pooling": POOLED,
    "mixing": MIXED,
    "attention pooling": ATTENDED,
}


def entries() -> Iterator[Entry]:
    """Every head; archives alone."""
    for kind, some in _KINDS.items():
        for name, head in some.items():

            def make(implementation: str, head: Head = head) -> nn.Module:
                return Headed(head)

            yield Entry(
                kind,
                name,
                make,
                token_inputs(),
                padded_tokens,
                MASKS,
                (AS_WRITTEN,),
                ("archive",),
            )
