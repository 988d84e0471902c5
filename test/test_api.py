"""The compiler from Python: live modules to both targets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import heatc

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Encoder(torch.nn.Module):
    """Token embedding, one attention with a padding mask, one residual layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(11, 8)
        self.norm = torch.nn.LayerNorm(8)
        self.q, self.k, self.v = (torch.nn.Linear(8, 8) for _ in range(3))
        self.last = torch.nn.LayerNorm(8)

    def forward(self, ids: Any, mask: Any) -> Any:
        x = self.norm(self.embed(ids))
        q, k, v = (f(x).view(1, 6, 2, 4).transpose(1, 2) for f in (self.q, self.k, self.v))
        keep = mask[:, None, None, :].bool()
        o = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=keep)
        return self.last(x + o.transpose(1, 2).reshape(1, 6, 8))


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Encoder().eval()


IDS = np.array([[3, 1, 4, 1, 5, 9]])
MASK = np.array([[1, 1, 1, 1, 0, 0]])


def reference(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS), torch.tensor(MASK)).numpy()


def example() -> dict[str, Any]:
    return {"ids": torch.tensor(IDS), "mask": torch.tensor(MASK)}


def test_numpy(model: Any, tmp_path: Path):
    path = heatc.compile(model, example(), target="numpy", output=tmp_path / "encoder.py")
    spec = importlib.util.spec_from_file_location("encoder", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    y = module.main(IDS, MASK)["output"]
    np.testing.assert_allclose(y[:, :4], reference(model)[:, :4], atol=1e-5)
    assert not y[:, 4:].any()


def test_hdp(model: Any, tmp_path: Path):
    from heatc.backends.hdp import open_program, simulate

    path = heatc.compile(model, example(), output=tmp_path / "encoder.hdp", hdp_rule="none")
    y: Any = simulate(open_program(path), {"ids": IDS, "mask": MASK}).outputs["output"]
    np.testing.assert_allclose(y[:, :4], reference(model)[:, :4], atol=5e-3)
    assert not y[:, 4:].any()


def test_pruning_changes_the_result(model: Any, tmp_path: Path):
    from heatc.backends.hdp import open_program, simulate

    outputs = []
    for rule in ("none", "paper"):
        path = heatc.compile(model, example(), output=tmp_path / "x.hdp", hdp_rule=rule)
        outputs.append(simulate(open_program(path), {"ids": IDS, "mask": MASK}).outputs["output"])
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def test_a_live_module_needs_inputs(model: Any, tmp_path: Path):
    with pytest.raises(heatc.HeatcError, match="example inputs"):
        heatc.compile(model, output=tmp_path / "x.hdp")
