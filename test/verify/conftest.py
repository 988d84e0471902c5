"""What the tests of the check share: one captured model, compiled again and again."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from heatc.api import Compilation
from heatc.capture import Captured, capture_module
from heatc.heat.options import heat_options
from heatc.rules import Rule
from heatc.targets import Hdp, Numpy, Options
from heatc.verify import Settings, Verification

os.environ.setdefault("HF_HUB_OFFLINE", "1")

WHOLE = Settings(seconds=60.0)
"""Time for all inputs, however slow the machine is."""


@dataclass
class Model:
    """A captured model; `compile` writes a program of it that is checked."""

    captured: Captured
    folder: Path

    def compile(
        self,
        target: str,
        settings: Settings = WHOLE,
        *,
        rule: Rule | None = None,
        heat: str | None = None,
        form: str | None = None,
    ) -> Verification:
        """Raises `VerificationError` where the program is wrong."""
        factors = None if heat is None else heat_options(heat, None)
        options = Options(Numpy() if target == "numpy" else Hdp(), rule or Rule(), heat=factors)
        compilation = Compilation(options, verify=settings)
        compilation.adopt(self.captured.module.clone(), self.captured.weights, "tiny")
        compilation.run()
        form = form or target
        suffix = {"numpy": "py", "asm": "s", "ir": "mlir"}.get(form, form)
        compilation.write(self.folder / f"x.{suffix}", form)
        assert compilation.verification is not None
        return compilation.verification


@pytest.fixture(scope="session")
def bert() -> Callable[[int, int], Captured]:
    """Captures a random BERT of 2 layers whose biases are not 0, for a batch and a length."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.4,
    )
    model: Any = transformers.BertModel._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.add_(0.5 * torch.randn(weight.shape))
    kept: dict[tuple[int, int], Captured] = {}

    def capture(batch: int, length: int) -> Captured:
        shape = (batch, length)
        if shape not in kept:
            ids = torch.zeros(shape, dtype=torch.int64)
            names = ("input_ids", "attention_mask", "token_type_ids")
            kept[shape] = capture_module(model, {name: ids.clone() for name in names})
        return kept[shape]

    return capture


@pytest.fixture
def tiny(bert: Callable[[int, int], Captured], tmp_path: Path) -> Model:
    """One sequence of 12 tokens."""
    return Model(bert(1, 12), tmp_path)


@pytest.fixture
def pair(bert: Callable[[int, int], Captured], tmp_path: Path) -> Model:
    """Two sequences of 12 tokens."""
    return Model(bert(2, 12), tmp_path)
