"""Small models whose outputs depend on masked positions, and the batches that tell."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp

from heatc.backends.numpy.emit import emit_program
from heatc.weights import WeightStore

torch = pytest.importorskip("torch")
nn: Any = torch.nn

Array = np.ndarray[Any, Any]

HEADS = 4
LABELS = 3
VOCABULARY = 60
WIDTH = 32


class Attention(nn.Module):
    """One post-norm attention block."""

    def __init__(self, sharpness: float = 1.0):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.norm = nn.LayerNorm(WIDTH)
        for layer in (self.q, self.k):
            layer.weight.data *= sharpness

    def forward(self, x: Any, keep: Any) -> Any:
        """`x` is (batch, tokens, width); `keep` is bool (batch, tokens), or None."""
        batch, tokens, _ = x.shape

        def heads(y: Any) -> Any:
            return y.view(batch, tokens, HEADS, WIDTH // HEADS).transpose(1, 2)

        mask = None if keep is None else keep[:, None, None, :]
        y = nn.functional.scaled_dot_product_attention(
            heads(self.q(x)), heads(self.k(x)), heads(self.v(x)), mask
        )
        return self.norm(x + self.o(y.transpose(1, 2).reshape(batch, tokens, WIDTH)))


def total(x: Any) -> Any:
    """The sum over tokens: (batch, tokens, width) to (batch, width)."""
    return torch.einsum("bsw->bw", x)


# What a model does with its tokens after attention, by a name for the test's report. Each takes
# the model, the tokens (batch, tokens, width) and the mask, bool (batch, tokens).
Reading = Callable[[Any, Any, Any], dict[str, Any]]
READINGS: dict[str, Reading] = {
    "tokens": lambda m, x, keep: {"tokens": x},
    "first": lambda m, x, keep: {"tokens": x, "first": m.classify(x[:, 0])},
    "last": lambda m, x, keep: {"last": m.classify(x[:, -1])},
    "some": lambda m, x, keep: {"tokens": x, "some": m.classify(x[:, 2:7:2]).flatten(1)},
    "mean": lambda m, x, keep: {"mean": m.classify(total(x) / x.shape[1])},
    "masked mean": lambda m, x, keep: {"mean": m.classify(total(x * keep[..., None].float()))},
    "pooled": lambda m, x, keep: {
        "pooled": m.classify((m.score(x).softmax(1).transpose(1, 2) @ x)[:, 0])
    },
    "mixed": lambda m, x, keep: {"mixed": m.mix(x.transpose(1, 2)).flatten(1)},
    "unmasked": lambda m, x, keep: {"unmasked": m.classify(m.second(x, None)[:, 0])},
    "flat": lambda m, x, keep: {"flat": m.flat(x.flatten(1))},
    "labels": lambda m, x, keep: {"labels": torch.einsum("lw,bsw->bl", m.queries, x)},
}


class Reader(nn.Module):
    """Embeddings, attentions under a mask, and one reading of their tokens."""

    def __init__(self, reading: str, tokens: int, layers: int = 1, sharpness: float = 1.0):
        super().__init__()
        torch.manual_seed(5)
        self.reading = reading
        self.words = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(tokens, WIDTH)
        self.layers = nn.ModuleList(Attention(sharpness) for _ in range(layers))
        self.second = Attention()
        self.classify = nn.Linear(WIDTH, LABELS)
        self.score = nn.Linear(WIDTH, 1)
        self.mix = nn.Linear(tokens, 5)
        self.flat = nn.Linear(tokens * WIDTH, LABELS)
        self.queries = nn.Parameter(torch.randn(tokens, WIDTH))
        self.register_buffer("numbers", torch.arange(tokens), persistent=False)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Outputs by name; "tokens" has a token axis."""
        keep = attention_mask > 0
        x = self.words(input_ids) + self.places(self.numbers)
        for layer in self.layers:
            x = layer(x, keep)
        return READINGS[self.reading](self, x, keep)


def masks(tokens: int) -> Array:
    """No padding, right, left, holes, the last token alone, at random: int64 (6, tokens)."""
    found = np.zeros((6, tokens), np.int64)
    found[0] = 1
    found[1, : tokens // 2] = 1
    found[2, tokens // 3 :] = 1
    found[3, [1, tokens // 2, tokens - 2]] = 1
    found[4, tokens - 1] = 1
    found[5] = np.random.default_rng(0).integers(0, 2, tokens)
    found[5, 3] = 1
    return found


def batch(tokens: int) -> dict[str, Array]:
    """Ids of other values at masked positions too, under every mask of `masks`."""
    mask = masks(tokens)
    ids = np.random.default_rng(1).integers(1, VOCABULARY, mask.shape)
    return {"input_ids": ids, "attention_mask": mask}


def run_numpy(module: ModuleOp, weights: WeightStore, folder: Path) -> Any:
    """The emitted NumPy program of a module, as a function from inputs to outputs by name."""
    path = folder / "program.py"
    emit_program(module, weights, path)
    spec = importlib.util.spec_from_file_location("program", path)
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)

    def run(given: dict[str, Array]) -> Any:
        return program.main(**given)

    run.program = program  # pyright: ignore[reportFunctionMemberAccess]
    return run
