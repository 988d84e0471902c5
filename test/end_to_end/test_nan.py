"""Rows whose scores are all -inf: the model has NaN there, and carries it on by products with 0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.support.differential.build import load_hdp, load_numpy
from heatc.api import compile as compile_model
from heatc.errors import HeatcError, VerificationError
from heatc.verify.programs import HdpFile

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

LOADERS = {"numpy": load_numpy, "hdp-edge": load_hdp}
TOKENS, WIDTH = 5, 16
PATTERNS: dict[str, list[int]] = {
    "none": [1, 1, 1, 1, 1],
    "right": [1, 1, 0, 0, 0],
    "left": [0, 0, 0, 1, 1],
    "holes": [0, 1, 0, 0, 1],
    "one": [0, 0, 0, 0, 1],
    "empty": [0, 0, 0, 0, 0],
}


class Layers(torch.nn.Module):
    """Attentions that hide by -inf, in a window if there is one; the mean of the real tokens."""

    def __init__(self, layers: int, window: int, mean: bool):
        super().__init__()
        torch.manual_seed(3)
        self.table = torch.nn.Embedding(30, WIDTH)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 3 * WIDTH) for _ in range(layers))
        self.window, self.mean = window, mean

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Two sequences of `TOKENS` tokens."""
        x, keep = self.table(input_ids), attention_mask[:, None, None, :] > 0
        if self.window:
            near = torch.arange(TOKENS)[:, None] - torch.arange(TOKENS)
            keep = keep & (near.abs() < self.window)
        for layer in self.layers:
            q, k, v = (t.view(-1, TOKENS, 2, 8).transpose(1, 2) for t in layer(x).split(WIDTH, -1))
            scores = (q @ k.transpose(-1, -2) / 8**0.5).masked_fill(~keep, float("-inf"))
            x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        if not self.mean:
            return x[:, -1]
        weights = attention_mask.to(x.dtype)[..., None]
        return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


@pytest.mark.parametrize("target", LOADERS)
@pytest.mark.parametrize(("layers", "window"), [(1, 0), (2, 0), (1, 2), (2, 2)])
@pytest.mark.parametrize("mean", [False, True])
def test_no_number_where_the_model_has_none(
    target: str, layers: int, window: int, mean: bool, tmp_path: Path
):
    """NumPy gives what PyTorch gives; the machine refuses what has no code."""
    model = Layers(layers, window, mean).eval().requires_grad_(False)
    ids = torch.tensor(np.random.default_rng(2).integers(1, 30, (2, TOKENS)))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    path = tmp_path / f"program.{'py' if target == 'numpy' else 'hdp'}"
    program = LOADERS[target](compile_model(model, example, target=target, output=path))
    for name, pattern in PATTERNS.items():
        mask = torch.tensor([PATTERNS["none"], pattern])
        wanted: NDArray[Any] = model(ids, mask).numpy()
        try:
            found = program.run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        except (HeatcError, ValueError):
            assert name == "empty" or (target != "numpy" and window), name
            continue
        np.testing.assert_allclose(
            found["output"], wanted, atol=1e-5 if target == "numpy" else 0.05, err_msg=name
        )


class Logarithm(Layers):
    """NaN wherever a sum is negative."""

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """A number a sequence."""
        return super().forward(input_ids, attention_mask).sum(-1, keepdim=True).log()


def test_numbers_in_place_of_nan_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The machine refuses an input whose output is NaN; a program that does not is wrong."""
    model = Logarithm(1, 0, False).eval().requires_grad_(False)
    ids = torch.ones((2, TOKENS), dtype=torch.long)
    example = {"input_ids": ids, "attention_mask": ids.clone()}
    compile_model(model, example, target="hdp-edge", output=tmp_path / "refuses.hdp")
    monkeypatch.setattr(HdpFile, "run", lambda *_: {"output": np.zeros((2, 1), np.float32)})
    with pytest.raises(VerificationError, match="the model gives NaN in output 'output'"):
        compile_model(model, example, target="hdp-edge", output=tmp_path / "wrong.hdp")
