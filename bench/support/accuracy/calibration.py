"""
Thresholds for every head, chosen on unlabelled sentences: the independent form of what
`heatc-tune calibrate` is for.

One backward pass of the dense model gives, for every head's output, how much the logit difference
moves with it. What a threshold changes in a head's output times that is the head's share of the
change of the logit difference, to first order; its mean square over the sentences is the error
that the threshold costs, and the blocks it keeps are its price. Each head takes the pair (rho_B,
tau_H) that minimises error + lambda * price, with one lambda for all heads (equal slopes), found
by bisection so that the net sparsity on the same sentences is the wanted one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as functional
from torch import Tensor

from bench.support.data import teacher
from oracle import rules
from oracle.bert import AttentionPoints, dequantize, quantize
from oracle.encoder import equal_lengths
from oracle.rules import Rule

RATIOS = (-0.999, 0.0, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9)
"""rho_B that a head may take; the first keeps nearly everything"""
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
"""tau_H that a head may take, as quantiles of its importance; besides none and always"""
ALWAYS = 1e6
"""A tau_H above every importance"""


@dataclass(frozen=True)
class Measured:
    """
    What each choice does to each head: n sentences, N layers, H heads, R ratios.

    `change` (N, H, R, n) and `gated` (N, H, n) are changes of the logit difference; `kept`
    (N, H, R, n) counts blocks, `blocks` (n,) all of a head's; `importance` (N, H, n).
    """

    change: Tensor
    gated: Tensor
    kept: Tensor
    blocks: Tensor
    importance: Tensor


def measure(
    folder: Path, points: Mapping[str, int], rows: Sequence[Sequence[int]],
    ratios: Sequence[float] = RATIOS, pruned_score: Literal["mean", "int"] = "mean",
) -> Measured:  # fmt: skip
    """Runs the dense model forward and backward and every ratio on each of its attentions."""
    model = _Dense(folder)
    layers, heads, count = model.depth, model.heads, len(rows)
    found = Measured(
        torch.zeros(layers, heads, len(ratios), count), torch.zeros(layers, heads, count),
        torch.zeros(layers, heads, len(ratios), count), torch.zeros(count),
        torch.zeros(layers, heads, count),
    )  # fmt: skip
    for indices in equal_lengths(rows):
        taken = model.run(torch.tensor([rows[index] for index in indices]))
        side = math.ceil(len(rows[indices[0]]) / 2)
        found.blocks[indices] = float(side * side)
        for layer, one in enumerate(taken):
            at = _points(points, layer)
            _measure_layer(found, layer, indices, one, at, ratios, pruned_score)
    return found


def choose(
    found: Measured, sparsity: float, ratios: Sequence[float] = RATIOS, *, gates: bool = True
) -> list[Rule]:
    """
    A rule for each layer that prunes `sparsity` of all blocks on the measured sentences.

    Args:
        found: what was measured.
        sparsity: net share of blocks, in (0, 1).
        ratios: those of the measurement.
        gates: whether heads may be pruned.
    """
    return _cheapest(found, sparsity, ratios, gates)[1]


def choose_integers(
    found: Measured, whole: Measured, sparsity: float, count: int,
    ratios: Sequence[float] = RATIOS,
) -> list[Rule]:  # fmt: skip
    """
    The same, but in `count` layers pruned scores keep their integer part (`int`).

    That leaves far less error and spares no value product; the layers are those with which the
    error is least at the wanted sparsity.

    Args:
        found: what was measured with `mean`.
        whole: the same with `int`.
        sparsity: net share of blocks, in (0, 1).
        count: layers with `int`.
        ratios: those of both measurements.
    """

    def attempt(layers: tuple[int, ...]) -> tuple[float, list[Rule]]:
        change = found.change.clone()
        change[list(layers)] = whole.change[list(layers)]
        error, chosen = _cheapest(replace(found, change=change), sparsity, ratios, gates=True)
        return error, [
            replace(rule, pruned_score="int") if layer in layers else rule
            for layer, rule in enumerate(chosen)
        ]

    every = itertools.combinations(range(len(found.change)), count)
    return min(map(attempt, every), key=lambda pair: pair[0])[1]


def _cheapest(
    found: Measured, sparsity: float, ratios: Sequence[float], gates: bool
) -> tuple[float, list[Rule]]:
    """The sum of errors, and the rules, at the one price that gives the wanted sparsity."""
    error, price, pairs = _choices(found, ratios, gates)
    low, high = 1e-9, 1e9
    for _ in range(80):
        middle = math.sqrt(low * high)
        best = (error + middle * price).argmin(-1, keepdim=True)
        if 1 - float(price.gather(-1, best).sum()) < sparsity:
            low = middle
        else:
            high = middle
    best = (error + high * price).argmin(-1, keepdim=True)
    chosen = pairs.gather(2, best[..., None].expand(-1, -1, 1, 2))[:, :, 0]
    rules_of_layers = [
        rules.ours(tuple(layer[:, 0].tolist()), tuple(layer[:, 1].tolist())) for layer in chosen
    ]
    return float(error.gather(-1, best).sum()), rules_of_layers


def _choices(
    found: Measured, ratios: Sequence[float], gates: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Error and price (N, H, choices) and the pairs rho_B, tau_H (N, H, choices, 2)."""
    layers, heads = found.importance.shape[:2]
    total = found.blocks.sum() * layers * heads
    errors: list[Tensor] = []
    prices: list[Tensor] = []
    pairs: list[Tensor] = []
    taus = [torch.zeros(layers, heads, dtype=torch.float64)]
    if gates:
        quantiles = torch.tensor(QUANTILES)
        # Short decimals: a threshold should read well in a plan.
        at = found.importance.quantile(quantiles, -1).double().mul(1000).round() / 1000
        taus += [*at, torch.full_like(taus[0], ALWAYS)]
    for tau in taus:
        pruned = (found.importance < tau[..., None]) & (tau[..., None] > 0)
        for index, ratio in enumerate(ratios):
            change = torch.where(pruned, found.gated, found.change[:, :, index])
            errors.append(change.square().mean(-1))
            prices.append(found.kept[:, :, index].masked_fill(pruned, 0).sum(-1) / total)
            pairs.append(torch.stack([torch.full_like(tau, ratio), tau], -1))
    return torch.stack(errors, -1), torch.stack(prices, -1), torch.stack(pairs, 2)


@dataclass
class _Taken:
    """The operands of one attention (B, H, L, e), its output and the gradient there."""

    q: Tensor
    k: Tensor
    v: Tensor
    output: Tensor

    def effect(self, codes: Tensor, point: int) -> Tensor:
        """First-order change of the logit difference by other outputs: (H, B)."""
        assert self.output.grad is not None
        step = dequantize(codes, point).float() - self.output.detach()
        return (step * self.output.grad).sum((-1, -2)).T


def _measure_layer(
    found: Measured, layer: int, indices: list[int], taken: _Taken, points: AttentionPoints,
    ratios: Sequence[float], pruned_score: Literal["mean", "int"],
) -> None:  # fmt: skip
    """Fills in one layer's part of `found`."""
    q, k, v = (
        quantize(x.double(), point)
        for x, point in ((taken.q, points.query), (taken.k, points.key), (taken.v, points.value))
    )
    for index, ratio in enumerate(ratios):
        rule = replace(rules.ours(ratio), pruned_score=pruned_score)
        one = rules.attention(q, k, v, points, rule)
        assert one.blocks is not None
        assert one.theta is not None
        found.change[layer, :, index, indices] = taken.effect(one.output, points.output)
        found.kept[layer, :, index, indices] = one.blocks.sum((-1, -2)).T.float()
    gated = rules.attention(q, k, v, points, rules.ours(0.0, ALWAYS))
    assert gated.theta is not None
    found.gated[layer][:, indices] = taken.effect(gated.output, points.output)
    length = q.shape[-2]
    point = min(2, points.query) + min(2, points.key)
    mean = gated.theta.sum((-1, -2)).double() * 2.0**-point / length**3
    found.importance[layer][:, indices] = mean.T.float()


def _points(points: Mapping[str, int], layer: int) -> AttentionPoints:
    this = f"bert.encoder.layer.{layer}.attention.self"
    names = (f"{this}.query", f"{this}.key", f"{this}.value", f"{this}.scores", this)
    return AttentionPoints(*(points[name] for name in names))


class _Dense:
    """The dense classifier in float32, with the outputs of its attentions in reach."""

    def __init__(self, folder: Path):
        model = teacher.load(folder)
        self._weights: dict[str, Tensor] = model.state_dict()
        self.depth: int = model.config.num_hidden_layers
        self.heads: int = model.config.num_attention_heads
        self._eps: float = model.config.layer_norm_eps

    @torch.enable_grad()
    def run(self, ids: Tensor) -> list[_Taken]:
        """Runs B sentences of one length (B, L) forward and backward."""
        base = "bert.embeddings."
        x = self._weights[f"{base}word_embeddings.weight"][ids]
        x = x + self._weights[f"{base}token_type_embeddings.weight"][0]
        x = x + self._weights[f"{base}position_embeddings.weight"][: ids.shape[1]]
        x = self._norm(x, f"{base}LayerNorm")
        found: list[_Taken] = []
        for index in range(self.depth):
            x = self._layer(x, f"bert.encoder.layer.{index}.", found)
        y = self._linear(torch.tanh(self._linear(x[:, 0], "bert.pooler.dense")), "classifier")
        (y[:, 1] - y[:, 0]).sum().backward()
        return found

    def _layer(self, x: Tensor, base: str, found: list[_Taken]) -> Tensor:
        q, k, v = (
            self._linear(x, f"{base}attention.self.{name}")
            .unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for name in ("query", "key", "value")
        )  # fmt: skip
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        output = torch.softmax(scores, -1) @ v
        if not output.requires_grad:
            output.requires_grad_()
        output.retain_grad()
        found.append(_Taken(q.detach(), k.detach(), v.detach(), output))
        joined = output.transpose(1, 2).flatten(2)
        y = self._linear(joined, f"{base}attention.output.dense")
        x = self._norm(y + x, f"{base}attention.output.LayerNorm")
        hidden = functional.gelu(self._linear(x, f"{base}intermediate.dense"))
        return self._norm(
            self._linear(hidden, f"{base}output.dense") + x, f"{base}output.LayerNorm"
        )

    def _linear(self, x: Tensor, name: str) -> Tensor:
        weights = self._weights
        return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def _norm(self, x: Tensor, name: str) -> Tensor:
        gamma, beta = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        return functional.layer_norm(x, gamma.shape, gamma, beta, self._eps)
