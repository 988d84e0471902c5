"""PyTorch's own layers with their masks, and layers of tltorch, factorised and reconstructed."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.support.families.entry import (
    HEADS,
    LAYERS,
    LENGTH,
    MASKS,
    VOCABULARY,
    WIDTH,
    Arrays,
    Entry,
    Keep,
    hidden_inputs,
    padded_tokens,
    token_inputs,
)

# Without this nn.TransformerEncoderLayer runs a fused kernel that is not what it exports.
torch.backends.mha.set_fastpath_enabled(False)

AS_WRITTEN = "as written"
"""The implementation of attention of what is no model of transformers"""


class Encoder(nn.Module):
    """Embedded tokens through nn.TransformerEncoder; `used` names the masks that it is given."""

    def __init__(self, norm_first: bool, batch_first: bool, used: str):
        super().__init__()
        self.batch_first, self.used, self.hint = batch_first, used, norm_first
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH,
            HEADS,
            2 * WIDTH,
            batch_first=batch_first,
            norm_first=norm_first,
            activation="gelu" if norm_first else "relu",
        )
        last = nn.LayerNorm(WIDTH) if norm_first else None
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm=last, enable_nested_tensor=False)
        self.register_buffer("causal", ~torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids)
        x = x if self.batch_first else x.transpose(0, 1)
        keys = attention_mask == 0 if self.used != "mask" else None
        pairs: Any = self.causal if self.used != "padding" else None
        # Left to itself PyTorch looks at the mask's values, which it can't while it exports.
        causal = self.hint and pairs is not None
        return self.encoder(x, mask=pairs, src_key_padding_mask=keys, is_causal=causal)


class Attention(nn.Module):
    """nn.MultiheadAttention on hidden states, with the masks named in `used`."""

    def __init__(self, batch_first: bool, weights: bool, used: str):
        super().__init__()
        self.weights, self.used = weights, used
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first)
        near = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
        self.register_buffer("far", near.abs() > 4)
        self.register_buffer("bias", -0.3 * near.abs().float())

    def forward(self, x: torch.Tensor, key_padding_mask: torch.Tensor) -> Any:
        pairs: Any = {"padding": None, "window": self.far, "bias": self.bias}[self.used]
        keys = key_padding_mask.float() * -1e9 if self.used == "bias" else key_padding_mask
        y, p = self.attention(
            x, x, x, key_padding_mask=keys, attn_mask=pairs, need_weights=self.weights
        )
        return (y, p) if self.weights else y


class Plain(nn.Module):
    """nn.TransformerEncoder without any mask."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)


class Factorised(nn.Module):
    """An attention block whose linears are layers of tltorch."""

    def __init__(self, factorization: str, implementation: str):
        super().__init__()
        tltorch: Any = importlib.import_module("tltorch")
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.layers = nn.ModuleList(
            tltorch.FactorizedLinear.from_linear(
                nn.Linear(WIDTH, WIDTH),
                n_tensorized_modes=2,
                factorization=factorization,
                rank=0.5,
                implementation=implementation,
            )
            for _ in range(4)
        )

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        x = self.table(input_ids)
        shape = (*input_ids.shape, HEADS, WIDTH // HEADS)
        q, k, v = (layer(x).view(shape).transpose(1, 2) for layer in self.layers[:3])
        seen = (attention_mask > 0)[:, None, None, :]
        y = nn.functional.scaled_dot_product_attention(q, k, v, seen)
        return self.norm(x + self.layers[3](y.transpose(1, 2).flatten(2)))


def entries() -> Iterator[Entry]:
    """Layers of PyTorch and of tltorch, archives alone: a folder needs transformers."""
    for first, batch, used in itertools.product(
        (False, True), (True, False), ("padding", "mask", "both")
    ):
        norm, order = ("pre-norm" if first else "post-norm"), ("" if batch else ", tokens first")
        head = f"{norm}{order}, {used}"
        yield _tokens("nn.TransformerEncoder", head, _made(Encoder, first, batch, used))
    yield _layer("nn.TransformerEncoder", "float input, no mask", _made(Plain), hidden_inputs())
    for batch, weights, used in (
        (True, False, "padding"),
        (True, True, "padding"),
        (False, False, "padding"),
        (True, False, "window"),
        (True, True, "bias"),
    ):
        order, kept = ("" if batch else ", tokens first"), (", weights" if weights else "")
        x = hidden_inputs()["x"]
        inputs = {"x": x if batch else x.swapaxes(0, 1).copy()}
        inputs["key_padding_mask"] = np.zeros(x.shape[:2], np.bool_)
        yield Entry(
            "nn.MultiheadAttention",
            f"{used}{order}{kept}",
            _made(Attention, batch, weights, used),
            inputs,
            _inverted,
            MASKS,
            (AS_WRITTEN,),
            ("archive",),
        )
    if importlib.util.find_spec("tltorch") is not None:
        for kind, how in itertools.product(
            ("tucker", "cp", "blocktt"), ("reconstructed", "factorized")
        ):
            yield _tokens("tltorch", f"{kind}, {how}", _made(Factorised, kind, how))


def _made(model: Callable[..., nn.Module], *arguments: object) -> Callable[[str], nn.Module]:
    return lambda implementation: model(*arguments)


def _tokens(family: str, head: str, make: Callable[[str], nn.Module]) -> Entry:
    inputs = token_inputs()
    return Entry(family, head, make, inputs, padded_tokens, MASKS, (AS_WRITTEN,), ("archive",))


def _layer(family: str, head: str, make: Callable[[str], nn.Module], inputs: Arrays) -> Entry:
    return Entry(family, head, make, inputs, implementations=(AS_WRITTEN,), routes=("archive",))


def _inverted(inputs: Arrays, keep: Keep) -> Arrays:
    return {**inputs, "key_padding_mask": ~keep}
