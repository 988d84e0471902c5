"""Models whose layers are factorised already come in with their factors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from heatc.api import make_context
from heatc.capture import capture_module
from heatc.dialects.einsum import ContractOp
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import PATHS, RAISE

torch: Any = pytest.importorskip("torch")
tensorly: Any = pytest.importorskip("tensorly")
tltorch: Any = pytest.importorskip("tltorch")

pytestmark = pytest.mark.torch


class Wrapped(torch.nn.Module):
    """A layer whose input is called x."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Any) -> Any:
        return self.layer(x)


def compiled(model: Any, x: Any) -> tuple[list[ContractOp], dict[str, Any]]:
    """The contractions as they were captured, and what the lowered module computes."""
    captured = capture_module(model.eval(), {"x": x})
    context = make_context(captured.weights)
    run_passes(context, captured.module, build(",".join((*RAISE, PATHS[0]))))
    found = [op for op in captured.module.clone().walk() if isinstance(op, ContractOp)]
    run_passes(context, captured.module, build(PATHS[1]))
    lowered = [op for op in captured.module.walk() if isinstance(op, ContractOp)]
    assert all(len(op.inputs) <= 2 for op in lowered)
    return found, execute(captured.module, {"x": x.numpy()}, captured.weights)


@pytest.mark.parametrize(("kind", "operands"), [("blocktt", 4), ("cp", 8), ("tucker", 8)])
def test_factorised_linear(kind: str, operands: int) -> None:
    previous = tensorly.get_backend()
    tensorly.set_backend("pytorch")
    try:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layer = tltorch.FactorizedLinear.from_linear(
                torch.nn.Linear(64, 48),
                rank=0.5,
                n_tensorized_modes=3,
                factorization=kind,
                implementation="factorized",
            )
        x = torch.randn(2, 5, 64)
        found, outputs = compiled(Wrapped(layer), x)
        with torch.no_grad():
            expected = layer(x).numpy()
    finally:
        tensorly.set_backend(previous)
    assert len(found) == 1
    assert len(found[0].inputs) == operands
    assert found[0].path is not None
    (got,) = outputs.values()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_einsum_of_several_operands() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.randn(3, 16))
            self.b = torch.nn.Parameter(torch.randn(12, 3))

        def forward(self, x: Any) -> Any:
            return torch.einsum("...i,ri,or->...o", x, self.a, self.b)

    torch.manual_seed(0)
    model, x = Model(), torch.randn(2, 5, 16)
    found, outputs = compiled(model, x)
    assert [len(op.inputs) for op in found] == [3]
    (got,) = outputs.values()
    np.testing.assert_allclose(got, model(x).detach().numpy(), atol=1e-4)
