"""Products of a model's float inputs on the host: the machine's bits are those of the fixed level."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.support.differential.build import load_hdp
from heatc.api import compile as compile_model

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


class Similar(torch.nn.Module):
    """Inputs weighed by how similar they are: no weight, no code."""

    def forward(self, x: Any) -> Any:
        """(B, S, W) as (B, S, W)."""
        x = x @ x.transpose(1, 2) @ x / 30
        return torch.cat(x.chunk(2, -1)[::-1], -1)


class Summed(torch.nn.Module):
    """Sums over sequences and columns, beside a linear of codes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.norm, self.layer = torch.nn.LayerNorm(6), torch.nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        """(B, S, W) as (B, S, W), twice."""
        x = x * torch.einsum("bsw->s", x)[:, None] / 12
        return self.layer(x), self.norm(x + 0.1)


@pytest.mark.parametrize("model", [Similar(), Summed()], ids=lambda m: type(m).__name__.lower())
def test_products_of_inputs(model: Any, tmp_path: Path):
    """The check after compiling holds both against each other, bit by bit."""
    x = torch.tensor(np.random.default_rng(7).normal(size=(2, 5, 6)).astype(np.float32))
    model = model.eval().requires_grad_(False)
    program = load_hdp(compile_model(model, {"x": x}, output=tmp_path / "p.hdp"))
    wanted, found = model(x), program.run({"x": x.numpy()})
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    for array, tensor in zip(found.values(), wanted):
        np.testing.assert_allclose(array, tensor.numpy(), atol=0.1)
