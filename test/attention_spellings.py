"""
Attention as people write it, and what only looks like it.

Each spelling takes linear outputs q, k, v (batch, tokens, width) and `keep`, bool (batch, tokens),
and gives (batch, tokens, width). Extents are chosen by the tests, equal ones too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
nn: Any = torch.nn
functional: Any = torch.nn.functional

HEADS = 4
LOWEST = torch.finfo(torch.float32).min

Spelling = Callable[[Any, Any, Any, Any], Any]


def heads(x: Any, count: int = HEADS) -> Any:
    """(batch, tokens, width) as (batch, heads, tokens, dim)."""
    return x.view(*x.shape[:2], count, -1).transpose(1, 2)


def merged(x: Any) -> Any:
    """(batch, heads, tokens, dim) as (batch, tokens, width)."""
    return x.transpose(1, 2).flatten(2)


def added(keep: Any, low: float = LOWEST) -> Any:
    """A mask that is added to scores (batch, heads, tokens, tokens)."""
    return (1.0 - keep[:, None, None, :].float()) * low


def distances(tokens: int) -> Any:
    """How far behind a key each query is: (tokens, tokens)."""
    place = torch.arange(tokens)
    return place[:, None] - place[None, :]


def near_by(tokens: int) -> Any:
    """Which keys are two tokens away from a query, or less."""
    apart = distances(tokens)
    return (apart <= 2) & (apart >= -2)


def split(q: Any, k: Any, v: Any) -> tuple[Any, Any, Any]:
    """All three with their heads first."""
    return heads(q), heads(k), heads(v)


def eager(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = split(q, k, v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added(keep)
    return merged(scores.softmax(-1) @ v)


def fused(q: Any, k: Any, v: Any, keep: Any) -> Any:
    return merged(functional.scaled_dot_product_attention(*split(q, k, v), keep[:, None, None, :]))


def fused_float(q: Any, k: Any, v: Any, keep: Any) -> Any:
    return merged(functional.scaled_dot_product_attention(*split(q, k, v), added(keep, -1e9)))


def einsum_heads_last(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = (x.view(*x.shape[:2], HEADS, -1) for x in (q, k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(~keep[:, None, None, :], -1e9)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)


def einsum_keys_first(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Scores as (batch, keys, queries, heads), softmax over axis 1."""
    q, k, v = (x.view(*x.shape[:2], HEADS, -1) for x in (q, k, v))
    scores = torch.einsum("bkhd,bqhd->bkqh", k, q * q.shape[-1] ** -0.5)
    scores = scores + (1.0 - keep[:, :, None, None].float()) * -1e9
    return torch.einsum("bkqh,bkhd->bqhd", scores.softmax(1), v).flatten(2)


def einsum_dots(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = split(q, k, v)
    scores = torch.einsum("...qd,...kd->...qk", q, k) * q.shape[-1] ** -0.5
    scores = torch.where(keep[:, None, None, :], scores, torch.tensor(-1e9))
    return merged(torch.einsum("...qk,...kd->...qd", scores.softmax(-1), v))


def transposed_scores(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """K Q^T, turned before the softmax."""
    q, k, v = split(q, k, v)
    scores = (k @ q.transpose(-1, -2)).transpose(-1, -2) / math.sqrt(q.shape[-1])
    return merged((scores + added(keep, -1e9)).softmax(-1) @ v)


def transposed_softmax(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """K Q^T, a softmax over the keys, V^T P."""
    q, k, v = split(q, k, v)
    scores = k @ q.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added(keep, -1e9).transpose(-1, -2)
    return merged((v.transpose(-1, -2) @ scores.softmax(-2)).transpose(-1, -2))


def folded(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Heads in the axis of sequences, baddbmm."""
    batch, tokens, _ = q.shape
    q, k, v = (heads(x).reshape(batch * HEADS, tokens, -1) for x in (q, k, v))
    mask = added(keep, -1e9).expand(batch, HEADS, tokens, tokens).reshape(-1, tokens, tokens)
    scores = torch.baddbmm(mask, q, k.transpose(1, 2), alpha=q.shape[-1] ** -0.5)
    return merged(torch.bmm(scores.softmax(-1), v).view(batch, HEADS, tokens, -1))


def tokens_first(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """As nn.MultiheadAttention does it on (tokens, batch, width)."""
    batch, tokens, width = q.shape
    q, k, v = (
        x.transpose(0, 1).contiguous().view(tokens, batch * HEADS, -1).transpose(0, 1)
        for x in (q, k, v)
    )
    scores = torch.bmm(q * q.shape[-1] ** -0.5, k.transpose(1, 2))
    mask = keep[:, None, None, :].expand(batch, HEADS, 1, tokens).reshape(-1, 1, tokens)
    y = torch.bmm(scores.masked_fill(~mask, -1e9).softmax(-1), v)
    return y.transpose(0, 1).reshape(tokens, batch, width).transpose(0, 1)


def math_path(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """The square root of the scale on both sides."""
    q, k, v = split(q, k, v)
    root = q.shape[-1] ** -0.25
    scores = (q * root) @ (k * root).transpose(-1, -2)
    return merged(torch.softmax(scores + added(keep, -1e9), dim=-1) @ v)


def scale_after_mask(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = split(q, k, v)
    scores = q @ k.transpose(-1, -2) + added(keep, -1e9)
    return merged((scores / math.sqrt(q.shape[-1])).softmax(-1) @ v)


def subtracted(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = split(q, k, v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return merged((scores - 1e9 * (~keep)[:, None, None, :].float()).softmax(-1) @ v)


def causal(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Key padding and causal: the diagonal is always seen."""
    q, k, v = split(q, k, v)
    n = q.shape[2]
    apart = distances(n)
    seen = ((apart >= 0) & keep[:, None, None, :]) | (apart == 0)
    scores = (q @ k.transpose(-1, -2)).masked_fill(~seen, LOWEST)
    return merged(scores.softmax(-1) @ v)


def window(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """A sliding window beside key padding, all added."""
    q, k, v = split(q, k, v)
    near = near_by(q.shape[2])
    mask = torch.where(near, 0.0, -1e9) + added(keep, -1e9)
    return merged((q @ k.transpose(-1, -2) * 0.3 + mask).softmax(-1) @ v)


def window_and(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """The same as truth values, in the fused op."""
    near = near_by(q.shape[1])
    mask = near & keep[:, None, None, :]
    return merged(functional.scaled_dot_product_attention(*split(q, k, v), mask))


def alibi(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q, k, v = split(q, k, v)
    apart = distances(q.shape[2])
    slopes = torch.tensor([0.5, 0.25, 0.125, 0.0625])
    bias = torch.where(apart < 0, apart, -apart) * slopes[:, None, None]
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


def multi_query(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """One head of keys and values for all queries, spread by the product."""
    q = heads(q)
    dim = q.shape[-1]
    k, v = k[..., None, :, :dim], v[:, None, :, :dim]
    k = k.reshape(k.shape[0], 1, k.shape[-2], dim)
    scores = q @ k.transpose(-1, -2) / math.sqrt(dim) + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


def multi_query_einsum(q: Any, k: Any, v: Any, keep: Any) -> Any:
    q = q.view(*q.shape[:2], HEADS, -1)
    k, v = k[..., : q.shape[-1]], v[..., : q.shape[-1]]
    scores = torch.einsum("bqhd,bkd->bhqk", q, k) + added(keep, -1e9)
    return torch.einsum("bhqk,bkd->bqhd", scores.softmax(-1), v).flatten(2)


def grouped_query(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Two heads of keys for four of queries, repeated as transformers does it."""
    q = heads(q)
    half = q.shape[-1] * 2

    def repeated(x: Any) -> Any:
        x = heads(x[..., :half], 2)
        return x[:, :, None].expand(-1, -1, 2, -1, -1).reshape(q.shape)

    k, v = repeated(k), repeated(v)
    scores = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]) + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


def one_head(q: Any, k: Any, v: Any, keep: Any) -> Any:
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~keep[:, None, :], -1e9).softmax(-1) @ v


def wide_values(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Heads of values are twice as wide as those of queries and keys."""
    half = q.shape[-1] // 2
    q, k, v = split(q[..., :half], k[..., half:], v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


def changed_queries(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Queries and keys that are no head split: something is done to each head."""
    q, k, v = split(q, k, v)
    q, k = q.tanh(), k * (torch.arange(k.shape[-1]).float() * 0.1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


def positions_scored(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """A bias that is a product of queries and constants, as in DeBERTa."""
    q, k, v = split(q, k, v)
    places = (torch.arange(q.shape[2] * q.shape[-1]).float() * 0.01).view(q.shape[2], -1)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    scores = scores + q @ places.T + added(keep, -1e9)
    return merged(scores.softmax(-1) @ v)


SPELLINGS: dict[str, Spelling] = {
    f.__name__: f
    for f in (
        eager, fused, fused_float, einsum_heads_last, einsum_keys_first, einsum_dots,
        transposed_scores, transposed_softmax, folded, tokens_first, math_path,
        scale_after_mask, subtracted, causal, window, window_and, alibi, multi_query,
        multi_query_einsum, grouped_query, one_head, wide_values, changed_queries,
        positions_scored,
    )
}  # fmt: skip


def over_queries(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """A softmax over the queries."""
    q, k, v = split(q, k, v)
    return merged((q @ k.transpose(-1, -2)).softmax(-2) @ v)


def over_heads(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """A softmax over the heads."""
    q, k, v = split(q, k, v)
    return merged((q @ k.transpose(-1, -2)).softmax(1) @ v)


def over_both(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """A softmax over all scores of a head."""
    q, k, v = split(q, k, v)
    scores = q @ k.transpose(-1, -2)
    return merged(scores.flatten(2).softmax(-1).view(scores.shape) @ v)


def summed_over_queries(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """The weights turned before they meet the values."""
    q, k, v = split(q, k, v)
    return merged((q @ k.transpose(-1, -2)).softmax(-1).transpose(-1, -2) @ v)


def scaled_by_tokens(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Scores times something computed."""
    q, k, v = split(q, k, v)
    scores = (q @ k.transpose(-1, -2)) * k[..., 0][:, :, None, :]
    return merged(scores.softmax(-1) @ v)


LOOKALIKES: dict[str, Spelling] = {
    f.__name__: f
    for f in (
        over_queries, over_heads, over_both, summed_over_queries, scaled_by_tokens,
    )
}  # fmt: skip


def channels(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Attention of channels to channels, in which tokens are summed over."""
    q, k, v = split(q, k, v)
    scores = torch.einsum("bhqd,bhqe->bhde", q, k)
    return merged(torch.einsum("bhde,bhqe->bhqd", scores.softmax(-1), v))


def keys_not_turned(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """As many tokens as channels of a head: attention to channels, as far as shapes tell."""
    q, k, v = split(q, k, v)
    return merged((q @ k / math.sqrt(q.shape[-1])).softmax(-1) @ v)


def batch_and_heads_swapped(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """As many sequences as heads: the heads of keys meet the sequences of queries."""
    q, k, v = split(q, k, v)
    return merged((q @ k.permute(1, 0, 3, 2)).softmax(-1) @ v)


def heads_and_tokens_swapped(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """As many tokens as heads: keys are the heads of a token."""
    q, k, v = split(q, k, v)
    return merged((q @ k.permute(0, 2, 3, 1)).softmax(-1) @ v)


def values_swapped(q: Any, k: Any, v: Any, keep: Any) -> Any:
    """Heads of values in another order."""
    q, k, v = split(q, k, v)
    return merged((q @ k.transpose(-1, -2)).softmax(-1) @ v.transpose(1, 2))


EQUAL_EXTENTS: dict[str, Spelling] = {
    f.__name__: f
    for f in (
        channels, keys_not_turned, batch_and_heads_swapped, heads_and_tokens_swapped,
        values_swapped,
    )
}  # fmt: skip


class Speller(nn.Module):
    """Embeddings, one or two attentions in one spelling with residuals, and a pooled output."""

    def __init__(self, spelling: Spelling, width: int, tokens: int, layers: int = 1):
        super().__init__()
        torch.manual_seed(3)
        self.spelling = spelling
        self.words = nn.Embedding(40, width)
        self.places = nn.Parameter(torch.randn(tokens, width))
        self.layers = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.classify = nn.Linear(width, 3)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Outputs by name; "tokens" has a token axis."""
        x = self.words(input_ids) + self.places
        for layer in self.layers:
            q, k, v = layer(x).chunk(3, -1)
            x = self.norm(x + self.spelling(q, k, v, attention_mask > 0))
        return {"tokens": x, "first": self.classify(x[:, 0])}
