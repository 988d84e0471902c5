"""Means over real tokens need no masked row, where the weight of a masked position is provably 0."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from padded_models import VOCABULARY, WIDTH, Attention, masks, run_numpy

from heatc.api import make_context
from heatc.capture import capture_module
from heatc.dialects import attn
from heatc.pipeline import build, run_passes
from heatc.targets import Numpy, Options, pipeline_text

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

Pooling = Callable[[Any, Any], Any]

SKIPPED: dict[str, Pooling] = {
    "times the mask": lambda x, m: (x * (m != 0).unsqueeze(-1).float()).sum(1),
    "expanded": lambda x, m: torch.sum(x * (m != 0).unsqueeze(-1).expand(x.shape).float(), 1),
    "a mean": lambda x, m: (x * (m != 0)[..., None].float()).sum(1) / (m != 0).sum(1, True).float(),
    "by matmul": lambda x, m: ((m != 0).float()[:, None] @ x)[:, 0],
    "by equation": lambda x, m: torch.einsum("bsw,bs->bw", x, (m != 0).float()),
    "tokens first": lambda x, m: (x.transpose(0, 1) * (m != 0).float().T[..., None]).sum(0),
    "the number itself": lambda x, m: (x * m[..., None].float()).sum(1),
}
READ: dict[str, Pooling] = {
    "another weight": lambda x, m: (x * (m != 1)[..., None].float()).sum(1),
    "shifted": lambda x, m: (x * torch.roll((m != 0).float(), 1, 1)[..., None]).sum(1),
    "not all": lambda x, m: (x * (m != 0)[..., None].float() + x).sum(1),
    "of another sequence": lambda x, m: (x * (m != 0).float().flip(0)[..., None]).sum(1),
    "without": lambda x, m: x.sum(1),
}


class Pooled(torch.nn.Module):
    """One attention under a mask, and a pooling of its tokens."""

    def __init__(self, pooling: Pooling):
        super().__init__()
        torch.manual_seed(2)
        self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
        self.layer, self.pooling = Attention(), pooling

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        x = self.layer(self.words(input_ids), attention_mask != 0)
        return {"pooled": self.pooling(x, attention_mask)}


@pytest.mark.parametrize("tokens", [12, 6])
@pytest.mark.parametrize("name", [*SKIPPED, *READ])
def test_pooled(name: str, tokens: int, tmp_path: Path):
    """PyTorch's values, with masks of -1 and 2 too; which positions have rows is as small as may be."""
    mask = masks(tokens) * np.array([1, 1, 2, -1, 1, 3])[:, None]
    ids = np.random.default_rng(1).integers(1, VOCABULARY, mask.shape)
    given = {"input_ids": ids, "attention_mask": mask}
    inputs = {key: torch.tensor(value) for key, value in given.items()}
    model = Pooled({**SKIPPED, **READ}[name]).eval()
    captured = capture_module(model, inputs)
    context = make_context(captured.weights)
    run_passes(context, captured.module, build(pipeline_text(Options(Numpy()))))
    found = run_numpy(captured.module, captured.weights, tmp_path)(given)["pooled"]
    with torch.no_grad():
        np.testing.assert_allclose(found, model(**inputs)["pooled"].numpy(), atol=3e-5)
    (packing,) = (op for op in captured.module.walk() if isinstance(op, attn.PackingOp))
    assert (attn.packing_of(packing.result).reads == ()) == (name in SKIPPED)
