"""
The demo's model: frozen all-MiniLM-L6-v2, the mean over its tokens, and a logistic head.

Only the head is trained, on the movie-review snippets (their labels are the sign of the mean
rating). So it is there in under a minute, and what it gets right is an honest figure. What the
encoder says of each training sentence is kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from bench.support.data import texts as data
from bench.support.data.teacher import buckets, padded
from bench.support.data.texts import Snippet
from heatc.files import atomic_write

LENGTH = 64
"""Tokens of a sentence; 9 of 10,566 are longer and are cut."""

BATCH = 8

TRAIN = 3000
"""Sentences that the head is trained on, of 8,066: so many that the demo takes two minutes."""
CLASSES = ("negative", "positive")


class Reviews(nn.Module):
    """A sentence's class: the encoder, the mean over real tokens, a linear layer."""

    def __init__(self, encoder: nn.Module, weight: Tensor, bias: Tensor):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.load_state_dict({"weight": weight, "bias": bias})

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> dict[str, Tensor]:
        """(B, S) of int64 each; gives `logits` (B, 2)."""
        tokens = self.encoder(input_ids, attention_mask, token_type_ids).last_hidden_state
        return {"logits": self.head(mean(tokens, attention_mask))}


def mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: (B, S, d) and (B, S) to (B, d)."""
    real = mask[:, :, None].to(tokens.dtype)
    return (tokens * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


def archive(model: Reviews, path: Path, batch: int, length: int) -> None:
    """Write the model as a `torch.export` archive for texts of one length."""
    ids = torch.ones(batch, length, dtype=torch.int64)
    inputs = {"input_ids": ids, "attention_mask": ids.clone(), "token_type_ids": ids * 0}
    torch.export.save(torch.export.export(model, (), kwargs=inputs, strict=False), path)


def model() -> Reviews:
    """The model in PyTorch; the first call trains the head (see `features`)."""
    weight, bias = head(*features(data.labelled("train")[:TRAIN]))
    return Reviews(encoder(), weight, bias).eval()


def encoder() -> Any:
    """The frozen encoder."""
    folder = data.model_folder(verify=True)
    transformers.logging.set_verbosity_error()  # it tells that the pooler is not used
    return transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()


def features(snippets: Sequence[Snippet]) -> tuple[Tensor, Tensor]:
    """
    What the encoder says of each sentence, float32 (N, 384), and the labels, int64 (N,).

    Kept in the cache folder under a name made of weights and text.
    """
    text = "\n".join(f"{snippet.label}{snippet.text}" for snippet in snippets)
    key = hashlib.sha256(f"{data.MODEL_SHA256}\n{LENGTH}\n{text}".encode()).hexdigest()[:16]
    path = data.cache_folder().parent / "demo" / f"features-{key}.npy"
    labels = torch.tensor([snippet.label for snippet in snippets])
    if path.is_file():
        return torch.from_numpy(np.load(path)), labels
    found = _encoded([snippet.text for snippet in snippets])
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path, "wb") as stream:
        np.save(stream, found.numpy())
    return found, labels


def _encoded(texts: list[str]) -> Tensor:
    import random

    rows, found = data.token_ids(texts, LENGTH), torch.empty(len(texts), 384)
    frozen = encoder()
    with torch.inference_mode():
        for batch in buckets([len(row) for row in rows], 64, random.Random(0)):
            ids, mask = padded([rows[i] for i in batch])
            found[batch] = mean(frozen(ids, mask).last_hidden_state, mask)
    return found


def head(found: Tensor, labels: Tensor, decay: float = 1e-2) -> tuple[Tensor, Tensor]:
    """Weight (2, 384) and bias (2,) of logistic regression on the features, by L-BFGS."""
    torch.manual_seed(0)
    middle, spread = found.mean(dim=0), found.std(dim=0)
    spread = spread.clamp(min=1e-3 * float(spread.mean()))  # a few features are constant
    layer = nn.Linear(found.shape[1], len(CLASSES))
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    scaled = (found - middle) / spread
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(layer(scaled), labels)
        value = value + decay * layer.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    weight = layer.weight.detach() / spread
    return weight, layer.bias.detach() - weight @ middle
