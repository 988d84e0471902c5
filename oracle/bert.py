"""
An independent model of the HDP program of a BERT encoder, in plain PyTorch.

Written from `docs/design/numerics.md` alone and importing nothing of heatc, so that agreement
with `hdp-run` is evidence and not repetition. One function states one equation of that page.
A sentence is a list of its real token ids: there is no padding here, hence none to get wrong.

Codes are integers, `value = code * 2^-point`. Products are taken in float64, which is exact:
codes have 16 bits, so a sum over k < 2^22 terms stays below 2^53. Everything that the page
states on integers (softmax unit, splitting, shifts) is int64.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import safetensors.torch
import torch
from torch import Tensor

PROBABILITY_POINT = 14


# ---- rounding ---------------------------------------------------------------------------------


def saturate(value: Tensor, bits: int) -> Tensor:
    """Clips integers to the range of `bits`-bit two's complement (sat16, sat32)."""
    return value.clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def quantize(value: Tensor, point: int, bits: int = 16) -> Tensor:
    """`sat(RHE(value * 2^point))`: float64 values to int64 codes."""
    return saturate(torch.round(value * 2.0**point), bits).to(torch.int64)


def requantize(code: Tensor, point: int, new_point: int, bits: int = 16) -> Tensor:
    """`sat(RHE(code * 2^-(point - new_point)))`: exact float64 integers to int64 codes."""
    return quantize(code, new_point - point, bits)


def dequantize(code: Tensor, point: int) -> Tensor:
    """`code * 2^-point`, exact in float64."""
    return code.to(torch.float64) * 2.0**-point


def product(a: Tensor, b: Tensor) -> Tensor:
    """The exact product of two code matrices (..., m, k) and (..., k, n), in float64."""
    return torch.matmul(a.to(torch.float64), b.to(torch.float64))


def shift_right(value: Tensor, amount: int) -> Tensor:
    """`floor(value * 2^-amount)` of int64; a left shift where `amount` is negative."""
    return value >> amount if amount >= 0 else value << -amount


# ---- host operators (float64, one rounding) ---------------------------------------------------


def layer_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float) -> Tensor:
    """Layer norm over the last axis: (L, d) to (L, d), all float64."""
    width = x.shape[-1]
    mean = x.sum(-1, keepdim=True) / width
    variance = ((x - mean) ** 2).sum(-1, keepdim=True) / width
    return (x - mean) / torch.sqrt(variance + eps) * gamma + beta


def gelu(x: Tensor) -> Tensor:
    """`0.5 x (1 + erf(x / sqrt 2))` in float64."""
    return 0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))


# ---- products on the PE array -----------------------------------------------------------------


@dataclass(frozen=True)
class Linear:
    """
    A linear layer in codes.

    `weight` holds the codes of w^T, float64 (k, n); `bias` those of b at the accumulator's
    point px + pw, float64 (n,).
    """

    weight: Tensor
    bias: Tensor
    input_point: int
    weight_point: int
    output_point: int

    def __call__(self, x: Tensor) -> Tensor:
        """`y_code = sat16(RHE(acc * 2^-(px + pw - py)))`: codes (L, k) to codes (L, n)."""
        accumulator = product(x, self.weight) + self.bias
        return requantize(accumulator, self.input_point + self.weight_point, self.output_point)


def integer_fraction(code: Tensor, point: int) -> tuple[Tensor, Tensor]:
    """
    Splits codes into I = trunc(value) and F = code - (I << point), which has the value's sign.

    With a negative point every value is an integer and F is 0.
    """
    if point < 0:
        return code << -point, torch.zeros_like(code)
    integer = torch.div(code, 2**point, rounding_mode="trunc")
    return integer, code - (integer << point)


# ---- block and head pruning, rule `paper` -----------------------------------------------------


def block_importance(integer_scores: Tensor) -> Tensor:
    """theta = sum of |A| over (2, 2) blocks from token 0: (H, L, L) to (H, NB, NB)."""
    odd = integer_scores.shape[-1] % 2
    padded = torch.nn.functional.pad(integer_scores.abs(), (0, odd, 0, odd))
    heads, rows, columns = padded.shape
    return padded.reshape(heads, rows // 2, 2, columns // 2, 2).sum((2, 4))


def block_mask(theta: Tensor, rho_b: float) -> Tensor:
    """Kept blocks of each row of blocks: theta >= Theta, compared in float64; bool (H, NB, NB)."""
    values = theta.to(torch.float64)
    mean = values.sum(-1, keepdim=True) / values.shape[-1]
    if rho_b >= 0:
        threshold = rho_b * values.amax(-1, keepdim=True) + (1 - rho_b) * mean
    else:
        threshold = -rho_b * values.amin(-1, keepdim=True) + (1 + rho_b) * mean
    return values >= threshold


def head_gate(theta: Tensor, length: int, tau_h: float) -> Tensor:
    """Kept heads: sum(theta) / L^2 >= tau_H, always where tau_H <= 0; bool (H,)."""
    if tau_h <= 0:
        return torch.ones(theta.shape[0], dtype=torch.bool)
    return theta.sum((1, 2)).to(torch.float64) / (length * length) >= tau_h


def element_mask(blocks: Tensor, length: int) -> Tensor:
    """Block masks (H, NB, NB) as element masks (H, L, L)."""
    return blocks.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, :length, :length]


# ---- the softmax unit -------------------------------------------------------------------------


def scale_constant(scale: float) -> tuple[int, int]:
    """C (16 bits) and shift with `scale * log2(e)` about `C * 2^-shift`."""
    mantissa, exponent = math.frexp(scale * math.log2(math.e))
    multiplier = round(mantissa * 2**16)
    if multiplier == 2**16:
        multiplier, exponent = 2**15, exponent + 1
    return multiplier, 16 - exponent


def exponential(distance: Tensor) -> Tensor:
    """About `2^16 * 2^-(distance / 2^16)` for int64 distances >= 0, by the polynomial."""
    whole, fraction = distance >> 16, distance & 0xFFFF
    inner = 43901 - ((11133 * fraction) >> 16)
    return (65536 - ((inner * fraction) >> 16)) >> whole.clamp(max=63)


def reciprocal(total: Tensor) -> tuple[Tensor, Tensor]:
    """r and n with `1 / total` about `r * 2^-(16 + n)`, by the table; int64 totals >= 1."""
    exponent = torch.frexp(total.to(torch.float64)).exponent.to(torch.int64) - 1
    mantissa = (total << (31 - exponent)) - 2**31
    segment, rest = mantissa >> 26, mantissa & (2**26 - 1)
    table = torch.tensor([round(2**16 * 32 / (32 + j)) for j in range(33)])
    low, high = table[segment], table[segment + 1]
    return low - (((low - high) * rest) >> 26), exponent


def softmax(scores: Tensor, point: int, scale: float, included: Tensor | None = None) -> Tensor:
    """
    Probabilities (point 14) of score codes, row by row.

    Args:
        scores: int64 (..., L) codes at `point`.
        scale: the model's 1 / sqrt(e).
        included: bool, like `scores`; entries that are False get probability 0.

    Returns:
        int64 codes like `scores`; their row sums are about 2^14. 0 where a row has no entry.
    """
    included = torch.ones_like(scores, dtype=torch.bool) if included is None else included
    multiplier, shift = scale_constant(scale)
    highest = scores.masked_fill(~included, -(2**31)).amax(-1, keepdim=True)
    distance = (highest - scores).masked_fill(~included, 0)
    powers = exponential(shift_right(distance * multiplier, point + shift - 16))
    powers = powers.masked_fill(~included, 0)
    total = powers.sum(-1, keepdim=True)
    inverse, exponent = reciprocal(total.clamp(min=1))
    scaled = (powers * inverse).to(torch.float64)
    return torch.round(torch.ldexp(scaled, -(exponent + 2))).to(torch.int64)


# ---- attention --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """What is pruned: `none`, or `paper` with its two thresholds and the pruned score."""

    name: Literal["none", "paper"] = "none"
    rho_b: float = 0.0
    tau_h: float = 0.0
    pruned_score: Literal["zero", "neginf", "int", "mean"] = "zero"


@dataclass(frozen=True)
class AttentionPoints:
    """The binary points of one attention: query, key, value, scores, output."""

    query: int
    key: int
    value: int
    scores: int
    output: int


@dataclass
class Attention:
    """What one attention computed, for L tokens and H heads of width e."""

    output: Tensor
    """int64 codes (L, H e)"""
    blocks: Tensor | None = None
    """Kept blocks, bool (H, NB, NB); None without pruning"""
    heads: Tensor | None = None
    """Kept heads, bool (H,); None without pruning"""
    theta: Tensor | None = None
    """Block importances, int64 (H, NB, NB); None without pruning"""


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(L, H e) to (H, L, e)."""
    return x.reshape(x.shape[0], heads, -1).transpose(0, 1)


def dense_scores(q: Tensor, k: Tensor, points: AttentionPoints) -> Tensor:
    """`S = sat32(RHE(sum q k * 2^-(pq + pk - ps)))`: (H, L, e) twice to (H, L, L)."""
    point = points.query + points.key
    return requantize(product(q, k.transpose(-1, -2)), point, points.scores, bits=32)


def integer_scores(q: Tensor, k: Tensor, points: AttentionPoints) -> Tensor:
    """`A = I_Q I_K^T`: exact integers, int64 (H, L, L)."""
    integer_q, _ = integer_fraction(q, points.query)
    integer_k, _ = integer_fraction(k, points.key)
    return product(integer_q, integer_k.transpose(-1, -2)).to(torch.int64)


def kept_scores(q: Tensor, k: Tensor, points: AttentionPoints) -> Tensor:
    """Approximate scores of kept entries: I I + F I + I F, without F F; (H, L, L)."""
    integer_q, fraction_q = integer_fraction(q, points.query)
    integer_k, fraction_k = integer_fraction(k, points.key)
    whole = product(integer_q, integer_k.transpose(-1, -2)).to(torch.int64)
    first = product(fraction_q, integer_k.transpose(-1, -2)).to(torch.int64)
    second = product(integer_q, fraction_k.transpose(-1, -2)).to(torch.int64)
    point = max(points.query, points.key, 0)
    exact = (whole << point) + (first << (point - points.query))
    exact = exact + (second << (point - points.key))
    return requantize(exact.to(torch.float64), point, points.scores, bits=32)


def pruned_scores(whole: Tensor, kept: Tensor, rule: Rule, point: int) -> Tensor:
    """What pruned entries contribute, as codes like `whole` = A, int64 (H, L, L)."""
    if rule.pruned_score == "int":
        return requantize(whole.to(torch.float64), 0, point, bits=32)
    if rule.pruned_score == "mean":
        total = whole.masked_fill(kept, 0).sum(-1, keepdim=True).to(torch.float64)
        number = (~kept).sum(-1, keepdim=True).clamp(min=1)
        return quantize(total / number, point, bits=32).expand_as(whole)
    return torch.zeros_like(whole)


def attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, points: AttentionPoints, rule: Rule
) -> Attention:
    """
    One attention over a whole sentence.

    Args:
        q: int64 codes (L, H e); `k` and `v` likewise.
        heads: H.
        points: binary points of the operands and results.
        rule: what to prune.
    """
    length = q.shape[0]
    q, k, v = (split_heads(x, heads) for x in (q, k, v))
    scale = 1.0 / math.sqrt(q.shape[-1])
    if rule.name == "none":
        result = Attention(torch.empty(0))
        scores, included = dense_scores(q, k, points), None
    else:
        whole = integer_scores(q, k, points)
        theta = block_importance(whole)
        blocks = block_mask(theta, rule.rho_b)
        result = Attention(torch.empty(0), blocks, head_gate(theta, length, rule.tau_h), theta)
        kept = element_mask(blocks, length)
        pruned = pruned_scores(whole, kept, rule, points.scores)
        scores = torch.where(kept, kept_scores(q, k, points), pruned)
        included = kept if rule.pruned_score == "neginf" else None
    probabilities = softmax(scores, points.scores, scale, included)
    accumulator = product(probabilities, v)
    output = requantize(accumulator, PROBABILITY_POINT + points.value, points.output)
    if result.heads is not None:
        output = output * result.heads[:, None, None]
    result.output = output.transpose(0, 1).flatten(1)
    return result


# ---- the encoder ------------------------------------------------------------------------------


@dataclass
class Trace:
    """What the encoder computed for one sentence of L tokens."""

    codes: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """int64 codes (L, width) of every named tensor, by its name in the program's `points`"""
    attentions: list[Attention] = field(default_factory=list[Attention])
    """One of each layer"""
    layers: list[Tensor] = field(default_factory=list[Tensor])
    """int64 output codes (L, d) of each layer"""
    outputs: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    """float32 `last_hidden_state` (L, d), `pooler_output` (d,) and `logits` (labels,)"""


class Encoder:
    """A BERT encoder in codes: embeddings, layers, and pooler and classifier where present."""

    def __init__(
        self,
        config: Mapping[str, int | float | str],
        weights: Mapping[str, Tensor],
        points: Mapping[str, int],
        rule: Rule,
    ):
        """
        Quantises the weights.

        Args:
            config: the model's config.json.
            weights: its float32 state dict; names may start with "bert.".
            points: binary points of activations by module path and of weights by name.
            rule: what to prune.
        """
        self.weights = weights
        self.points = points
        self.rule = rule
        self.prefix = "bert." if "bert.embeddings.word_embeddings.weight" in weights else ""
        self.depth = int(config["num_hidden_layers"])
        self.heads = int(config["num_attention_heads"])
        self.eps = float(config["layer_norm_eps"])
        self._linears: dict[str, Linear] = {}

    def __call__(self, ids: Sequence[int], positions: Sequence[int], types: Sequence[int]) -> Trace:
        """Runs one sentence, given by its real tokens, their positions and their types."""
        trace = Trace()
        x = self._embeddings(trace, ids, positions, types)
        for index in range(self.depth):
            x = self._layer(trace, x, f"{self.prefix}encoder.layer.{index}.")
            trace.layers.append(x)
        last = f"{self.prefix}encoder.layer.{self.depth - 1}.output.LayerNorm"
        trace.outputs["last_hidden_state"] = dequantize(x, self.points[last]).float()
        if f"{self.prefix}pooler.dense.weight" in self.weights:
            self._head(trace, x[:1], last)
        return trace

    def _embeddings(
        self, trace: Trace, ids: Sequence[int], positions: Sequence[int], types: Sequence[int]
    ) -> Tensor:
        """(word + type) + position, layer norm, one rounding: codes (L, d)."""
        base = f"{self.prefix}embeddings."
        word, kind, position = (
            self.weights[f"{base}{name}_embeddings.weight"][torch.tensor(index)].double()
            for name, index in (
                ("word", list(ids)), ("token_type", list(types)), ("position", list(positions)),
            )
        )  # fmt: skip
        return self._normalize(trace, (word + kind) + position, f"{base}LayerNorm")

    def _layer(self, trace: Trace, x: Tensor, base: str) -> Tensor:
        """One encoder layer: codes (L, d) to codes (L, d)."""
        source = self._source(base)
        this = f"{base}attention.self"
        q, k, v = (
            self._linear(trace, x, f"{this}.{name}", source) for name in ("query", "key", "value")
        )
        points = AttentionPoints(
            query=self.points[f"{this}.query"],
            key=self.points[f"{this}.key"],
            value=self.points[f"{this}.value"],
            scores=self.points[f"{this}.scores"],
            output=self.points[this],
        )
        result = attention(q, k, v, self.heads, points, self.rule)
        trace.attentions.append(result)
        trace.codes[this] = result.output
        y = self._linear(trace, result.output, f"{base}attention.output.dense", this)
        x = self._residual(
            trace,
            y,
            f"{base}attention.output.dense",
            x,
            source,
            f"{base}attention.output.LayerNorm",
        )
        return self._feed_forward(trace, x, base)

    def _feed_forward(self, trace: Trace, x: Tensor, base: str) -> Tensor:
        """Linear, GELU, linear, residual and layer norm: codes (L, d) to codes (L, d)."""
        source = f"{base}attention.output.LayerNorm"
        up, act, down = (
            f"{base}intermediate.dense", f"{base}intermediate.intermediate_act_fn",
            f"{base}output.dense",
        )  # fmt: skip
        hidden = self._linear(trace, x, up, source)
        hidden = quantize(gelu(dequantize(hidden, self.points[up])), self.points[act])
        trace.codes[act] = hidden
        y = self._linear(trace, hidden, down, act)
        return self._residual(trace, y, down, x, source, f"{base}output.LayerNorm")

    def _head(self, trace: Trace, first: Tensor, source: str) -> None:
        """Pooler and, where present, classifier on the first token's codes (1, d)."""
        dense, act = f"{self.prefix}pooler.dense", f"{self.prefix}pooler.activation"
        y = self._linear(trace, first, dense, source)
        value = torch.tanh(dequantize(y, self.points[dense]))
        if act not in self.points:  # a model output: no code in between
            trace.outputs["pooler_output"] = value[0].float()
            return
        y = quantize(value, self.points[act])
        trace.codes[act] = y
        trace.outputs["pooler_output"] = dequantize(y, self.points[act])[0].float()
        if "classifier.weight" in self.weights:
            y = self._linear(trace, y, "classifier", act)
            trace.outputs["logits"] = dequantize(y, self.points["classifier"])[0].float()

    def _source(self, base: str) -> str:
        """The name of a layer's input."""
        index = int(base.rstrip(".").rsplit(".", 1)[-1])
        if index == 0:
            return f"{self.prefix}embeddings.LayerNorm"
        return f"{self.prefix}encoder.layer.{index - 1}.output.LayerNorm"

    def _normalize(self, trace: Trace, values: Tensor, name: str) -> Tensor:
        """Layer norm of float64 values, rounded once to codes."""
        gamma = self.weights[f"{name}.weight"].double()
        beta = self.weights[f"{name}.bias"].double()
        codes = quantize(layer_norm(values, gamma, beta, self.eps), self.points[name])
        trace.codes[name] = codes
        return codes

    def _residual(
        self, trace: Trace, y: Tensor, y_name: str, x: Tensor, x_name: str, name: str
    ) -> Tensor:
        """Residual sum and layer norm are one operator: no rounding between them."""
        total = dequantize(y, self.points[y_name]) + dequantize(x, self.points[x_name])
        return self._normalize(trace, total, name)

    def _linear(self, trace: Trace, x: Tensor, name: str, source: str) -> Tensor:
        """The named linear on codes (L, k) whose point is that of the tensor `source`."""
        if name not in self._linears:
            self._linears[name] = self._quantized(name, source)
        trace.codes[name] = self._linears[name](x)
        return trace.codes[name]

    def _quantized(self, name: str, source: str) -> Linear:
        """Weight and bias codes of a linear; the bias is moved to the accumulator's point."""
        weight_point = self.points[f"{name}.weight"]
        bias_point = self.points[f"{name}.bias"]
        input_point = self.points[source]
        weight = quantize(self.weights[f"{name}.weight"].double(), weight_point)
        bias = quantize(self.weights[f"{name}.bias"].double(), bias_point, bits=32)
        bias = bias << (input_point + weight_point - bias_point)
        return Linear(
            weight.double().T.contiguous(),
            bias.double(),
            input_point,
            weight_point,
            self.points[name],
        )


def load(folder: Path, points: Mapping[str, int], rule: Rule) -> Encoder:
    """The oracle of the model in a Hugging Face folder."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, Tensor] = cast(Any, safetensors.torch).load_file(
        folder / "model.safetensors"
    )
    return Encoder(config, weights, points, rule)
