"""A model compiled for HDP in steps, so that its fixed level and its program can be run."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from masked_models import Array
from xdsl.dialects.builtin import ModuleOp

from heatc.api import make_context
from heatc.backends.hdp.emit import run_module
from heatc.capture import Captured, capture_module
from heatc.hardware import Hardware, load_hardware
from heatc.interpreter import execute
from heatc.pipeline import build, run_passes
from heatc.targets import Hdp, Options, pipeline_text
from heatc.weights import WeightStore

ABOVE, _, BELOW = pipeline_text(Options(Hdp())).partition(",plan-tiles")


def as_tensors(inputs: dict[str, Array]) -> dict[str, torch.Tensor]:
    """Inputs as PyTorch takes them."""
    return {name: torch.tensor(value) for name, value in inputs.items()}


class Compiled:
    """A model at the fixed level and as a program, both run on its inputs."""

    def __init__(
        self,
        model: Any,
        inputs: dict[str, Array],
        rule: str = "none",
        hw: Hardware | None = None,
        captured: Captured | None = None,
    ):
        self.inputs, self.hw = inputs, hw or load_hardware("hdp-edge")
        given = as_tensors(inputs)
        with torch.no_grad():
            self.expected: Array = model.eval()(**given).numpy()
        found = captured or capture_module(model, given)
        self.module: ModuleOp = found.module.clone()
        self.weights: WeightStore = found.weights
        passes = ABOVE.replace("rule=none", f"rule={rule.replace('_', '-')}")
        context = make_context(self.weights, hardware=self.hw)
        run_passes(context, self.module, build(passes))
        self.fixed = self.module.clone()
        run_passes(context, self.module, build("plan-tiles" + BELOW))

    def run(self) -> Array:
        """The program's output."""
        return self.run_on(self.inputs)

    def interpreted(self) -> Array:
        """What the ops of the fixed level compute."""
        (value,) = execute(self.fixed, self.inputs, self.weights).values()
        return value.reshape(self.expected.shape)

    def run_on(self, inputs: dict[str, Array]) -> Array:
        """The program's output on other inputs."""
        (value,) = run_module(self.module, inputs, self.weights, self.hw).values()
        return value.reshape(self.expected.shape)


def worst_cosine(found: Array, expected: Array) -> float:
    """Of a token."""
    a, b = (x.reshape(-1, x.shape[-1]).astype(np.float64) for x in (found, expected))
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    return float(((a * b).sum(-1) / norms).min())
