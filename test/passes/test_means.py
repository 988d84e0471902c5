"""Means by weights on HDP: a head after any spelling has a type, whatever the extents; what is no mean has none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import VOCABULARY, WIDTH, Attention

from bench.support.differential.build import load_hdp
from heatc.api import compile as compile_model
from heatc.errors import HeatcError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

Pooling = Callable[[Any, Any], Any]

MEANS: dict[str, Pooling] = {
    "of integers": lambda x, m: (x * m[..., None].float()).sum(1) / m.sum(1, True),
    "beside a number": lambda x, m: (
        (x * m[..., None].float()).sum(1) / (m.float().sum(1, True) + 1e-8)
    ),
    "filled": lambda x, m: x.masked_fill(m[..., None] == 0, 0.0).sum(1) / m.sum(1)[:, None],
    "filled, not above 0": lambda x, m: (
        x.masked_fill(~(m > 0)[..., None], 0.0).sum(1) / m.sum(1, True)
    ),
    "counted": lambda x, m: (x * (m > 0)[..., None]).sum(1) / (m > 0).sum(1, True),
    "by equation": lambda x, m: torch.einsum("bsw,bs->bw", x, m.float()) / m.float().sum(1, True),
    "weights, by matmul": lambda x, m: ((m / m.sum(1, True))[:, None] @ x)[:, 0],
    "weights, by product": lambda x, m: ((m / m.sum(1, True))[..., None] * x).sum(1),
    "expanded": lambda x, m: (
        (x * m[..., None].expand(x.shape)).sum(1)
        / m[..., None].expand(x.shape).float().sum(1).clamp(min=1e-9)
    ),
}
OTHERS: dict[str, Pooling] = {
    "what is masked": lambda x, m: torch.where(m[..., None] == 0, x, 0.0).sum(1) / m.sum(1, True),
    "all tokens": lambda x, m: x.sum(1) / m.sum(1, True),
}


class Pooled(torch.nn.Module):
    """An attention under a mask, a pooling and a head."""

    def __init__(self, pooling: Pooling):
        super().__init__()
        torch.manual_seed(2)
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layer, self.head, self.pooling = Attention(), torch.nn.Linear(WIDTH, 3), pooling

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.layer(self.words(input_ids), attention_mask != 0)
        return {"logits": self.head(self.pooling(x, attention_mask))}


def _given(extent: int, batch: int) -> dict[str, Any]:
    """As many sequences as tokens, or fewer; the last of them padded on the left."""
    mask = np.ones((batch, extent), np.int64)
    mask[-1, : extent // 2] = 0
    ids = np.random.default_rng(1).integers(1, VOCABULARY, mask.shape)
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("name", MEANS)
def test_mean(name: str, batch: int, tmp_path: Path):
    inputs, model = _given(6, batch), Pooled(MEANS[name]).eval()
    path = compile_model(model, inputs, output=tmp_path / "p.hdp")
    found = load_hdp(path).run({key: value.numpy() for key, value in inputs.items()})
    with torch.no_grad():
        wanted = model(**inputs)["logits"].numpy()
    np.testing.assert_allclose(found["logits"], wanted, atol=2e-2)


def _by_truth(x: Any, m: Any) -> Any:
    real = (m != 0).float()
    return (x * real[..., None]).sum(1) / (real.sum(1, True) + 1e-9)


def _by_other_truth(x: Any, m: Any) -> Any:
    return (x * (m != 0)[..., None]).sum(1) / ((m > 0).sum(1, True) + 1e-9)


def _of_large_values(inputs: dict[str, Any]) -> dict[str, Any]:
    mask = inputs["attention_mask"]
    return {
        **inputs,
        "attention_mask": torch.where(mask != 0, torch.tensor([3, -2, 9, 1, 7, -5]), 0),
    }


def test_truth_values_of_any_integers(tmp_path: Path):
    """What truth values say does not depend on how large integers are."""
    inputs, model = _given(6, 2), Pooled(_by_truth).eval()
    path = compile_model(model, inputs, output=tmp_path / "p.hdp")
    large = _of_large_values(inputs)
    found = load_hdp(path).run({key: value.numpy() for key, value in large.items()})
    with torch.no_grad():
        wanted = model(**large)["logits"].numpy()
    np.testing.assert_allclose(found["logits"], wanted, atol=2e-2)


def test_other_truth_values_than_those_that_are_counted(tmp_path: Path):
    """They are a mean of integers from 0 on; the program says so."""
    inputs = _given(6, 2)
    path = compile_model(Pooled(_by_other_truth).eval(), inputs, output=tmp_path / "p.hdp")
    large = _of_large_values(inputs)
    with pytest.raises(HeatcError, match="is outside 0 to 1"):
        load_hdp(path).run({key: value.numpy() for key, value in large.items()})


@pytest.mark.parametrize("name", OTHERS)
def test_no_mean(name: str, tmp_path: Path):
    """Quotients that may be as large as they like have no fixed-point type."""
    with pytest.raises(HeatcError, match="nothing says how large"):
        compile_model(Pooled(OTHERS[name]).eval(), _given(6, 6), output=tmp_path / "p.hdp")
