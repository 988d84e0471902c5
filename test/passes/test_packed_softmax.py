"""Probabilities of every token: a softmax over the last axis of packed rows leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import VOCABULARY, WIDTH, Attention

from bench.support.differential.build import load_hdp
from heatc.api import compile as compile_model

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Tagger(torch.nn.Module):
    """The probabilities of three labels for each token."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layer, self.head = Attention(), torch.nn.Linear(WIDTH, 3)

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.layer(self.words(input_ids), attention_mask != 0)
        return {"chances": self.head(x).softmax(2)}


def test_probabilities_of_tokens(tmp_path: Path):
    mask = np.ones((2, 8), np.int64)
    mask[1, :3] = 0
    ids = np.random.default_rng(1).integers(1, VOCABULARY, mask.shape)
    given = {"input_ids": ids, "attention_mask": mask}
    inputs, model = {key: torch.tensor(value) for key, value in given.items()}, Tagger().eval()
    program = load_hdp(compile_model(model, inputs, output=tmp_path / "p.hdp"))
    with torch.no_grad():
        wanted = model(**inputs)["chances"].numpy()
    found = program.run(given)["chances"]
    np.testing.assert_allclose(found[mask != 0], wanted[mask != 0], atol=5e-3)
