"""Models in PyTorch itself: the outputs have the names that capture gives them, and the right values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from heatc.capture import capture_module
from heatc.capture.eager import _leaves, eager_model
from heatc.capture.inputs import InputSpec
from heatc.capture.paths import Request
from heatc.interpreter import main_function, output_names
from heatc.remarks import drop_remark

pytestmark = pytest.mark.torch

RESULTS: dict[str, Any] = {
    "a tensor": lambda x: x + 1,
    "a tuple": lambda x: (x + 1, x + 2),
    "a dict": lambda x: {"logits": x + 1, "states": (x + 2, {"last": x + 3})},
    "a list in a tuple": lambda x: (x + 1, [x + 2, x + 3]),
}


class Model(torch.nn.Module):
    def __init__(self, kind: str):
        super().__init__()
        self.kind = kind

    def forward(self, x: torch.Tensor) -> Any:
        return RESULTS[self.kind](x)


@pytest.mark.parametrize("kind", RESULTS)
def test_outputs_have_the_names_of_capture(kind: str):
    model, x = Model(kind).eval(), torch.zeros(2, 3)
    captured = capture_module(model, (x,))
    assert list(dict(_leaves(model(x)))) == output_names(main_function(captured.module))


def test_weights_that_are_cast_are_made(tmp_path: Path):
    """A folder in float16: its parameters have no elements when it is captured."""
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
    )
    torch.manual_seed(0)
    model: Any = transformers.BertForSequenceClassification(config).half().eval()
    model.save_pretrained(tmp_path)
    ids = np.arange(12).reshape(2, 6)
    mask = np.ones_like(ids)
    specs = {name: InputSpec((2, 6), "i64") for name in ("input_ids", "attention_mask")}
    eager = eager_model(tmp_path, Request(specs, False, drop_remark))
    found = eager.run({"input_ids": ids, "attention_mask": mask})
    with torch.no_grad():
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        expected = model.float()(**given).logits.numpy()
    assert list(found) == ["logits"]
    assert np.asarray(found["logits"], np.float32) == pytest.approx(expected, abs=1e-6)
