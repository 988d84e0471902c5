"""Attention as people write it by hand: products, projections, masks and biases of many kinds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from bench.support.families.entry import (
    BATCH,
    LENGTH,
    MASKS,
    VOCABULARY,
    WIDTH,
    Arrays,
    Entry,
    Keep,
    padded_tokens,
    token_inputs,
)
from bench.support.families.layers import AS_WRITTEN

LOWEST = torch.finfo(torch.float32).min


class Block(nn.Module):
    """
    Embedded tokens, one attention, a residual sum and a norm.

    `attend(block, x, mask)` computes the context, (batch, length, heads x head).
    """

    apart: torch.Tensor
    alibi: torch.Tensor

    def __init__(self, attend: Callable[..., torch.Tensor], heads: int = 4, head: int = 8):
        super().__init__()
        self.attend, self.heads, self.head = attend, heads, head
        inner = heads * head
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, inner) for _ in range(3))
        self.qkv = nn.Linear(WIDTH, 3 * inner)
        self.one_k, self.one_v = nn.Linear(WIDTH, head), nn.Linear(WIDTH, head)
        self.out = nn.Linear(inner, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        place = torch.arange(LENGTH)
        self.near = nn.Embedding(2 * LENGTH - 1, heads)
        self.register_buffer("apart", place[None] - place[:, None])
        slopes = 2.0 ** -torch.arange(1, heads + 1).float()
        self.register_buffer("alibi", -slopes[:, None, None] * (place[None] - place[:, None]).abs())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids)
        return self.norm(x + self.out(self.attend(self, x, attention_mask)))

    def split(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, length, heads x head) as (batch, heads, length, head)."""
        return x.view(*x.shape[:2], -1, self.head).transpose(1, 2)

    def projected(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))

    def softened(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: Any) -> Any:
        """softmax(q k^T / sqrt(d) + bias) v with heads merged."""
        scores = q @ k.transpose(-1, -2) / math.sqrt(self.head) + bias
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _hidden(mask: torch.Tensor) -> torch.Tensor:
    """A mask of real tokens as a bias of scores."""
    return (1.0 - mask[:, None, None, :].float()) * LOWEST


def _einsum(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    shape = (*x.shape[:2], block.heads, block.head)
    q, k, v = (layer(x).view(shape) for layer in (block.q, block.k, block.v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(block.head) + _hidden(mask)
    return torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v).flatten(2)


def _packed(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    qkv = block.qkv(x).view(*x.shape[:2], 3, block.heads, block.head).permute(2, 0, 3, 1, 4)
    return block.softened(qkv[0], qkv[1], qkv[2], _hidden(mask))


def _chunked(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = (block.split(part) for part in block.qkv(x).chunk(3, dim=-1))
    return block.softened(q, k, v, _hidden(mask))


def _multi_query(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = block.split(block.q(x)), block.one_k(x)[:, None], block.one_v(x)[:, None]
    return block.softened(q, k, v, _hidden(mask))


def _grouped(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = block.projected(x)
    k, v = (part[:, ::2].repeat_interleave(2, dim=1) for part in (k, v))
    return block.softened(q, k, v, _hidden(mask))


def _alibi(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return block.softened(*block.projected(x), block.alibi + _hidden(mask))


def _learned(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    bias = block.near(block.apart + LENGTH - 1).permute(2, 0, 1)[None]
    return block.softened(*block.projected(x), bias + _hidden(mask))


def _causal(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    later = torch.full((LENGTH, LENGTH), LOWEST).triu(1)
    return block.softened(*block.projected(x), later.clamp(min=-1e30) + _hidden(mask) / 2)


def _window(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    seen = (block.apart.abs() <= 3) & (mask[:, None, None, :] > 0)
    q, k, v = block.projected(x)
    scores = q @ k.mT / math.sqrt(block.head)
    scores = scores.masked_fill(~seen, -1e9)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _qk_norm(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = block.projected(x)
    q, k = F.normalize(q, dim=-1) * 4, F.normalize(k, dim=-1) * 4
    return block.softened(q, k, v, _hidden(mask))


def _eager(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return block.softened(*block.projected(x), _hidden(mask))


def _inverted(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = block.projected(x)
    y = F.scaled_dot_product_attention(q, k, v, ~mask[:, None, None, :])
    return y.transpose(1, 2).flatten(2)


def _given(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mask goes to PyTorch's attention as it is."""
    y = F.scaled_dot_product_attention(*block.projected(x), mask)
    return y.transpose(1, 2).flatten(2)


def _in_place(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    q, k, v = block.projected(x)
    scores = q @ k.mT
    scores.div_(math.sqrt(block.head))
    scores += _hidden(mask)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _tokens_first(block: Block, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    first = x.transpose(0, 1)
    q, k, v = (
        layer(first).reshape(LENGTH, BATCH * block.heads, block.head).transpose(0, 1)
        for layer in (block.q, block.k, block.v)
    )
    bias = _hidden(mask).expand(BATCH, block.heads, LENGTH, LENGTH)
    bias = bias.reshape(BATCH * block.heads, LENGTH, LENGTH)
    p = torch.baddbmm(bias, q * block.head**-0.5, k.transpose(1, 2)).softmax(-1)
    return torch.bmm(p, v).transpose(0, 1).reshape(LENGTH, BATCH, -1).transpose(0, 1)


_SPELLINGS = {
    "einsum": _einsum,
    "packed qkv": _packed,
    "chunked qkv": _chunked,
    "multi-query": _multi_query,
    "grouped query": _grouped,
    "ALiBi": _alibi,
    "learned relative bias": _learned,
    "causal and padding": _causal,
    "window and padding": _window,
    "QK-norm": _qk_norm,
    "in-place": _in_place,
    "tokens first": _tokens_first,
}
HEAD_SIZES = ((8, 4), (16, 2), (24, 2), (32, 4), (64, 2), (128, 2), (256, 2), (8, 1), (32, 1))


def entries() -> Iterator[Entry]:
    """Every spelling, head size and form of mask; archives alone."""
    for name, attend in _SPELLINGS.items():
        yield _entry(name, attend)
    for head, heads in HEAD_SIZES:
        many = "one head" if heads == 1 else f"{heads} heads"
        yield _entry(f"{many} of {head}", _eager, heads, head)
    yield _entry("inverted bool mask", _inverted, mask=lambda keep: ~keep)
    yield _entry("float mask", _eager, mask=lambda keep: keep.astype(np.float32))
    yield _entry("boolean 4-d mask", _given, mask=_pairs, zero=False)
    yield _entry("additive 4-d mask", _given, mask=_low, zero=False)
    yield _entry("additive bias of numbers", _given, mask=_soft, zero=False)


def _pairs(keep: Keep) -> Keep:
    """(batch, 1, length, length): real keys not too far away; each token sees itself."""
    place = np.arange(LENGTH)
    seen = keep[:, None, None, :] & (np.abs(place[:, None] - place) < 6)
    return seen | np.eye(LENGTH, dtype=np.bool_)


def _low(keep: Keep) -> np.ndarray[Any, Any]:
    return np.where(_pairs(keep), 0, LOWEST).astype(np.float32)


def _soft(keep: Keep) -> np.ndarray[Any, Any]:
    random = np.random.RandomState(5)
    return (_low(keep) / 2 + random.standard_normal((BATCH, 1, LENGTH, LENGTH))).astype(np.float32)


def _entry(
    name: str,
    attend: Callable[..., torch.Tensor],
    heads: int = 4,
    head: int = 8,
    mask: Callable[[Keep], np.ndarray[Any, Any]] | None = None,
    zero: bool = True,
) -> Entry:
    def pads(inputs: Arrays, keep: Keep) -> Arrays:
        found = padded_tokens(inputs, keep)
        return found if mask is None else {**found, "attention_mask": mask(keep)}

    inputs = pads(token_inputs(), np.ones((BATCH, LENGTH), np.bool_))
    return Entry(
        "hand-written attention",
        name,
        lambda implementation: Block(attend, heads, head),
        inputs,
        pads,
        MASKS,
        (AS_WRITTEN,),
        ("archive",),
        zero=zero,
    )
