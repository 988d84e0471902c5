"""Masks that a model keeps in a buffer, with minus infinity in it, on both targets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import VOCABULARY, WIDTH

from bench.support.differential.build import load_hdp, load_numpy
from heatc.api import compile as compile_model

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

TOKENS = 8


def _causal() -> Any:
    return torch.nn.Transformer.generate_square_subsequent_mask(TOKENS)


def _sloped() -> Any:
    steps = torch.arange(TOKENS)
    return _causal() - 0.25 * (steps[:, None] - steps).abs()


class Encoder(torch.nn.Module):
    """torch's encoder with a mask of the model and one of the keys."""

    def __init__(self, mask: Any):
        super().__init__()
        torch.manual_seed(2)
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        layer = torch.nn.TransformerEncoderLayer(WIDTH, 4, 64, batch_first=True)
        self.layers = torch.nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.register_buffer("mask", mask)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.words(input_ids)
        hidden = attention_mask == 0
        return {"x": self.layers(x, self.mask, src_key_padding_mask=hidden, is_causal=False)}


@pytest.mark.parametrize("target", ["numpy", "hdp-edge"])
@pytest.mark.parametrize("make", [_causal, _sloped])
def test_buffer_of_infinities(make: Any, target: str, tmp_path: Path):
    mask = np.ones((2, TOKENS), np.int64)
    mask[1, 5:] = 0
    ids = np.random.default_rng(1).integers(1, VOCABULARY, mask.shape)
    given = {"input_ids": ids, "attention_mask": mask}
    inputs, model = {key: torch.tensor(value) for key, value in given.items()}, Encoder(make())
    path = tmp_path / ("p.py" if target == "numpy" else "p.hdp")
    compile_model(model.eval(), inputs, target=target, output=path)
    found = (load_numpy if target == "numpy" else load_hdp)(path).run(given)["x"]
    with torch.no_grad():
        wanted = model(**inputs)["x"].numpy()
    atol = 1e-4 if target == "numpy" else 2e-2
    np.testing.assert_allclose(found[mask != 0], wanted[mask != 0], atol=atol)
