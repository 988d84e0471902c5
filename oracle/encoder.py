"""
The HDP program of a BERT encoder on many sentences at once, bit for bit: what accuracy is
measured on.

The arithmetic is that of `docs/design/numerics.md`, as in `oracle/bert.py`; attention is that of
`oracle/rules.py`. Sentences of one length go together, so there is no padding. Codes stay in
float64, where all of them and all their products and sums are exact integers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor

from oracle import rules
from oracle.bert import AttentionPoints, gelu, layer_norm, quantize
from oracle.rules import Attention, Ranking, Rule

MOST_SCORES = 2**13
"""Scores of one head that a batch has at most: B * L^2, small enough for the caches"""


@dataclass
class Outcome:
    """What an encoder said of a list of sentences."""

    logits: Tensor
    """float32 (n, labels), in the order of the sentences"""
    counts: Tensor
    """int64 (layers, 5): the sums of `rules.shares`"""
    heads: list[Tensor] = field(default_factory=list[Tensor])
    """Kept heads, bool (layers, heads) of each sentence, where a rule gates heads"""

    @property
    def block_sparsity(self) -> float:
        """Share of blocks pruned, pooled, head gates left aside."""
        return 1.0 - float(self.counts[:, 1].sum() / self.counts[:, 0].sum())

    @property
    def head_sparsity(self) -> float:
        """Share of heads pruned, pooled over sentences and layers."""
        return 1.0 - float(self.counts[:, 4].sum() / self.counts[:, 3].sum())

    @property
    def net_sparsity(self) -> float:
        """Share of blocks pruned where all blocks of a pruned head count as pruned."""
        return 1.0 - float(self.counts[:, 2].sum() / self.counts[:, 0].sum())


class Encoder:
    """BertForSequenceClassification in codes, with a rule for each layer."""

    def __init__(self, folder: Path, points: Mapping[str, int], rule: Rule | Sequence[Rule]):
        """
        Quantises the weights.

        Args:
            folder: a Hugging Face folder with a classifier.
            points: binary points of activations by module path and of weights by name.
            rule: what to prune: one rule, or one for each layer.
        """
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        loader = cast(Any, safetensors.torch)
        self._weights: dict[str, Tensor] = loader.load_file(folder / "model.safetensors")
        self._points = points
        self._heads = int(config["num_attention_heads"])
        self._eps = float(config["layer_norm_eps"])
        depth = int(config["num_hidden_layers"])
        self.rules: tuple[Rule, ...] = (rule,) * depth if isinstance(rule, Rule) else tuple(rule)
        if len(self.rules) != depth:
            raise ValueError(f"{len(self.rules)} rules for {depth} layers")
        self._linears: dict[str, tuple[Tensor, Tensor, int]] = {}

    def __call__(self, rows: Sequence[Sequence[int]]) -> Outcome:
        """Classifies sentences, each given by its real token ids."""
        found = Outcome(torch.empty(0), torch.zeros(len(self.rules), 5, dtype=torch.int64))
        logits: dict[int, Tensor] = {}
        heads: dict[int, Tensor] = {}
        for indices in equal_lengths(rows):
            ids = torch.tensor([rows[index] for index in indices])
            values, attentions = self.forward(ids)
            logits |= zip(indices, values)
            length = ids.shape[1]
            for layer, one in enumerate(attentions):
                found.counts[layer] += torch.tensor(rules.shares(one, length))
            if all(one.heads is not None for one in attentions):
                gates = torch.stack([cast(Tensor, one.heads) for one in attentions], 1)
                heads |= zip(indices, gates)
        found.logits = torch.stack([logits[index] for index in range(len(rows))])
        found.heads = [heads[index] for index in range(len(rows))] if heads else []
        return found

    def forward(self, ids: Tensor) -> tuple[Tensor, list[Attention]]:
        """Logits (B, labels), float32, and the attentions of B sentences of one length (B, L)."""
        x = self._embeddings(ids)
        ranking = Ranking(len(self.rules))
        attentions: list[Attention] = []
        source = "bert.embeddings.LayerNorm"
        for index, rule in enumerate(self.rules):
            base = f"bert.encoder.layer.{index}."
            x, one = self._layer(x, base, source, rule, ranking)
            attentions.append(one)
            source = f"{base}output.LayerNorm"
        y = self._linear(x[:, 0], "bert.pooler.dense", source)
        value = torch.tanh(y * 2.0 ** -self._points["bert.pooler.dense"])
        act = "bert.pooler.activation"
        y = self._linear(self._rounded(value, act), "classifier", act)
        return (y * 2.0 ** -self._points["classifier"]).float(), attentions

    def _embeddings(self, ids: Tensor) -> Tensor:
        """(word + type 0) + position, layer norm, one rounding: codes (B, L, d)."""
        base = "bert.embeddings."
        word = self._weights[f"{base}word_embeddings.weight"][ids].double()
        kind = self._weights[f"{base}token_type_embeddings.weight"][0].double()
        position = self._weights[f"{base}position_embeddings.weight"][: ids.shape[1]].double()
        return self._normalize((word + kind) + position, f"{base}LayerNorm")

    def _layer(
        self, x: Tensor, base: str, source: str, rule: Rule, ranking: Ranking
    ) -> tuple[Tensor, Attention]:
        """One encoder layer: codes (B, L, d) to codes (B, L, d)."""
        this = f"{base}attention.self"
        query, key, value = (f"{this}.{name}" for name in ("query", "key", "value"))
        q, k, v = (self._split(self._linear(x, name, source)) for name in (query, key, value))
        points = AttentionPoints(
            query=self._points[query],
            key=self._points[key],
            value=self._points[value],
            scores=self._points[f"{this}.scores"],
            output=self._points[this],
        )
        found = rules.attention(q, k, v, points, rule, ranking)
        joined = found.output.transpose(1, 2).flatten(2).double()
        dense = f"{base}attention.output.dense"
        norm = f"{base}attention.output.LayerNorm"
        x = self._residual(self._linear(joined, dense, this), dense, x, source, norm)
        up, act, down = (
            f"{base}intermediate.dense", f"{base}intermediate.intermediate_act_fn",
            f"{base}output.dense",
        )  # fmt: skip
        hidden = gelu(self._linear(x, up, norm) * 2.0 ** -self._points[up])
        y = self._linear(self._rounded(hidden, act), down, act)
        return self._residual(y, down, x, norm, f"{base}output.LayerNorm"), found

    def _split(self, x: Tensor) -> Tensor:
        """float64 codes (B, L, H e) to int64 codes (B, H, L, e)."""
        return x.unflatten(-1, (self._heads, -1)).transpose(1, 2).to(torch.int64)

    def _residual(self, y: Tensor, y_name: str, x: Tensor, x_name: str, name: str) -> Tensor:
        """Residual sum and layer norm are one operator: no rounding between them."""
        total = y * 2.0 ** -self._points[y_name] + x * 2.0 ** -self._points[x_name]
        return self._normalize(total, name)

    def _normalize(self, values: Tensor, name: str) -> Tensor:
        gamma = self._weights[f"{name}.weight"].double()
        beta = self._weights[f"{name}.bias"].double()
        return self._rounded(layer_norm(values, gamma, beta, self._eps), name)

    def _rounded(self, values: Tensor, name: str) -> Tensor:
        """`sat16(RHE(y * 2^p))` of float64 values, which are overwritten."""
        return values.mul_(2.0 ** self._points[name]).round_().clamp_(-(2**15), 2**15 - 1)

    def _linear(self, x: Tensor, name: str, source: str) -> Tensor:
        """`sat16(RHE(acc * 2^-(px + pw - py)))`: codes (..., k) to codes (..., n)."""
        if name not in self._linears:
            self._linears[name] = self._quantized(name, source)
        weight, bias, shift = self._linears[name]
        accumulator = torch.addmm(bias, x.flatten(0, -2), weight).view(*x.shape[:-1], -1)
        return accumulator.mul_(2.0**-shift).round_().clamp_(-(2**15), 2**15 - 1)

    def _quantized(self, name: str, source: str) -> tuple[Tensor, Tensor, int]:
        """Weight codes (k, n), bias codes at the accumulator's point, and what is shifted out."""
        accumulated = self._points[source] + self._points[f"{name}.weight"]
        weight = quantize(self._weights[f"{name}.weight"].double(), self._points[f"{name}.weight"])
        bias_point = self._points[f"{name}.bias"]
        bias = quantize(self._weights[f"{name}.bias"].double(), bias_point, bits=32)
        moved = (bias << (accumulated - bias_point)).double()
        return weight.double().T.contiguous(), moved, accumulated - self._points[name]


def equal_lengths(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    """Indices of sentences in batches of one length, short ones first."""
    by_length: dict[int, list[int]] = {}
    for index, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(index)
    batches: list[list[int]] = []
    for length, indices in sorted(by_length.items()):
        size = max(1, MOST_SCORES // length**2)
        batches += [indices[i : i + size] for i in range(0, len(indices), size)]
    return batches
