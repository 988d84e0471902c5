"""
What sentence-transformers computes behind an encoder, as modules of torch.

The equations are those of its `Pooling`, `Dense`, `Normalize` and `LayerNorm`. A mask is 1 where a
token is and 0 where none is. `cls` is the token at position 0, as in its versions up to 5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_LEAST = 1e-9
"""Below it no sum of a mask lies, so that nothing is divided by 0."""


def _mean(tokens: Tensor, mask: Tensor) -> Tensor:
    return (tokens * mask).sum(1) / mask.sum(1).clamp(min=_LEAST)


def _mean_sqrt(tokens: Tensor, mask: Tensor) -> Tensor:
    return (tokens * mask).sum(1) / mask.sum(1).clamp(min=_LEAST).sqrt()


def _weighted_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The weight of a token is its position, counted from 1."""
    return _mean(tokens, mask * _positions(tokens))


def _max(tokens: Tensor, mask: Tensor) -> Tensor:
    """A masked token has what no real one is below: a constant far away would cost its bits."""
    real = tokens * mask
    return (real + real.amin(1, keepdim=True) * (1 - mask)).amax(1)


def _first(tokens: Tensor, mask: Tensor) -> Tensor:
    return tokens[:, 0]


def _last(tokens: Tensor, mask: Tensor) -> Tensor:
    """The last token that is not masked, 0 where all are."""
    places = mask * _positions(tokens)
    is_last = (places == places.amax(1, keepdim=True)) & (mask != 0)
    return (tokens * is_last.to(tokens.dtype)).sum(1)


def _positions(tokens: Tensor) -> Tensor:
    """(1, S, 1): the positions from 1."""
    return torch.arange(1, tokens.shape[1] + 1, dtype=tokens.dtype)[None, :, None]


POOLINGS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": _first,
    "max": _max,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""Each takes tokens (B, S, W) and a mask (B, S, 1) of the same type, and gives (B, W)."""


class Pooling(nn.Module):
    """Tokens (B, S, W) and their mask to sentences (B, W); several modes lie side by side."""

    def __init__(self, modes: Sequence[str]):
        super().__init__()
        self.modes = tuple(modes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Pool in every mode."""
        wide = mask.unsqueeze(-1).to(tokens.dtype)
        pooled = [POOLINGS[mode](tokens, wide) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, -1)


class Normalize(nn.Module):
    """Embeddings (B, W) of length 1."""

    def forward(self, embedding: Tensor) -> Tensor:
        """x / max(||x||, 1e-12)."""
        return nn.functional.normalize(embedding, p=2, dim=-1)


class Dense(nn.Module):
    """act(x W^T + b), plus x or its projection where there is a residual."""

    def __init__(self, weights: Mapping[str, Tensor], activation: nn.Module, residual: bool):
        super().__init__()
        self.linear = _linear(weights["linear.weight"], weights.get("linear.bias"))
        self.activation = activation
        self.has_residual = residual
        projection = weights.get("residual.weight")
        self.residual = None if projection is None else _linear(projection, None)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, in) to (B, out)."""
        found = self.activation(self.linear(embedding))
        if not self.has_residual:
            return found
        return found + (embedding if self.residual is None else self.residual(embedding))


class LayerNorm(nn.Module):
    """Layer norm of embeddings (B, W)."""

    def __init__(self, weights: Mapping[str, Tensor]):
        super().__init__()
        self.norm = nn.LayerNorm(len(weights["norm.weight"]), device="meta")
        _assign(self.norm, weights["norm.weight"], weights["norm.bias"])

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, W) to (B, W)."""
        return self.norm(embedding)


class SentenceModel(nn.Module):
    """An encoder and the steps behind it; `options` are told to the encoder."""

    def __init__(self, encoder: nn.Module, steps: Sequence[nn.Module], options: Mapping[str, Any]):
        super().__init__()
        self.encoder = encoder
        self.steps = nn.ModuleList(steps)
        self.options = dict(options)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """What the encoder takes; without an attention_mask all tokens are there."""
        found = self.encoder(**inputs, **self.options)[0]
        mask = inputs.get("attention_mask")
        if mask is None:
            mask = found.new_ones(found.shape[:2])
        for step in self.steps:
            found = step(found, mask) if isinstance(step, Pooling) else step(found)
        return {"sentence_embedding": found}


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    _assign(linear, weight, bias)
    return linear


def _assign(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """Give a module weights that it does not copy."""
    state = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    module.load_state_dict(state, assign=True)
