"""Masks of floats that are added weigh keys by numbers between a real token's and a masked one's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.support.differential.build import Compiled, load_hdp, load_numpy
from heatc.api import compile as compile_model
from heatc.errors import HeatcError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

LOADERS = {"numpy": load_numpy, "hdp-edge": load_hdp}
ERRORS = {"numpy": 1e-5, "hdp-edge": 2e-2}
"""Largest absolute difference from PyTorch"""
TOKENS, WIDTH = 6, 16

Bias = Callable[[Any], Any]
BIASES: dict[str, Bias] = {
    "of real tokens": lambda m: (1.0 - m) * -10000.0,
    "of masked tokens": lambda m: m * -20000.0,
    "by a sum": lambda m: 1e4 * m - 1e4,
}
SOFT = np.array(
    [[1, 1, 1, 1, 1, 1], [1, 0.9997, 0.9995, 1, 0, 0], [0, 0, 0.8125, 0.9999, 1, 0.9998]],
    np.float32,
)
"""How real each token is: whole, padded on the right, padded on the left"""


class Layers(torch.nn.Module):
    """Two attentions under a mask of floats."""

    def __init__(self, bias: Bias):
        super().__init__()
        torch.manual_seed(5)
        self.table = torch.nn.Embedding(30, WIDTH)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.bias = bias

    def forward(self, input_ids: Any, attention_mask: Any) -> Any:
        """Every token, and the first of them."""
        x, bias = self.table(input_ids), self.bias(attention_mask)[:, None, None, :]
        for layer in self.layers:
            q, k, v = (t.view(-1, TOKENS, 2, 8).transpose(1, 2) for t in layer(x).split(WIDTH, -1))
            scores = q @ k.transpose(-1, -2) / 8**0.5 + bias
            x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(x.shape)
        return x, x[:, 0]


def _given(name: str, real: NDArray[Any]) -> dict[str, Any]:
    mask = 1 - real if name == "of masked tokens" else real
    ids = np.random.default_rng(4).integers(1, 30, mask.shape)
    return {"input_ids": ids, "attention_mask": mask}


def _program(target: str, bias: Bias, given: dict[str, Any], folder: Path) -> tuple[Any, Compiled]:
    model = Layers(bias).eval().requires_grad_(False)
    example = {key: torch.tensor(value) for key, value in given.items()}
    path = folder / f"program.{'py' if target == 'numpy' else 'hdp'}"
    return model, LOADERS[target](compile_model(model, example, target=target, output=path))


@pytest.mark.parametrize("target", LOADERS)
@pytest.mark.parametrize("name", BIASES)
def test_numbers_between_weigh(name: str, target: str, tmp_path: Path):
    given = _given(name, SOFT)
    model, program = _program(target, BIASES[name], given, tmp_path)
    for real in (SOFT, np.ceil(SOFT), np.where(SOFT > 0, 0.9998, 0).astype(np.float32)):
        given = _given(name, real)
        tokens, first = model(*(torch.tensor(value) for value in given.values()))
        found = program.run(given)
        atol = ERRORS[target]
        wanted = np.where(real[..., None] > 0, tokens.numpy(), 0)
        np.testing.assert_allclose(found["output_0"], wanted, atol=atol)
        np.testing.assert_allclose(found["output_1"], first.numpy(), atol=atol)


@pytest.mark.parametrize("target", LOADERS)
def test_what_is_neither_is_refused(target: str, tmp_path: Path):
    """A quarter is nearer to a masked token than to a real one."""
    given = _given("of real tokens", SOFT)
    _, program = _program(target, BIASES["of real tokens"], given, tmp_path)
    with pytest.raises((HeatcError, ValueError), match=r"0\.25"):
        program.run(_given("of real tokens", np.where(SOFT == 0.8125, 0.25, SOFT)))


@pytest.mark.parametrize("target", LOADERS)
def test_a_mask_that_hides_more_takes_two_numbers(target: str, tmp_path: Path):
    """(1 - m) * -1e9 hides what is but a little less than real."""
    given = _given("", np.ceil(SOFT))
    _, program = _program(target, lambda m: (1.0 - m) * -1e9, given, tmp_path)
    program.run(given)
    with pytest.raises((HeatcError, ValueError), match=r"0\.9997"):
        program.run(_given("", SOFT))
