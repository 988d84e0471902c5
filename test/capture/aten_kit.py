"""Functions of tensors as models, captured in every way and compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from capture_support import check_round_trip, names_of, save

from heatc import interpreter
from heatc.capture import Captured, capture_exported, capture_module, capture_path
from heatc.capture.exported import export


class Lambda(torch.nn.Module):
    def __init__(self, fn: Callable[..., Any]):
        super().__init__()
        self.fn = fn

    def forward(self, *args: Any) -> Any:
        return self.fn(*args)


def check(module: Any, *args: Any) -> Captured:
    """Capture a live module and compare."""
    captured = capture_module(module, args)
    compare(captured, module, *args)
    return captured


def check_everywhere(fn: Callable[..., Any], folder: Path, *args: Any) -> Captured:
    """Compare as a live module, as an archive, and after `run_decompositions()` in full."""
    module = Lambda(fn)
    program = export(module, args)
    compare(capture_path(save(program, folder / "model.pt2")), module, *args)
    compare(capture_exported(program.run_decompositions()), module, *args)
    captured = capture_exported(program)
    compare(captured, module, *args)
    return captured


def compare(captured: Captured, module: Any, *args: Any) -> None:
    """What a module gives for these tensors: numbers, shapes and dtypes."""
    check_round_trip(captured.module)
    expected = module(*args)
    expected = expected if isinstance(expected, tuple | list) else [expected]
    arrays = {name: arg.numpy() for name, arg in zip(names_of(captured)[0], args)}
    found = interpreter.execute(captured.module, arrays, captured.weights)
    assert len(found) == len(expected)
    for array, tensor in zip(found.values(), expected):
        reference = tensor.detach().numpy()
        assert array.dtype == reference.dtype
        assert array.shape == reference.shape
        np.testing.assert_allclose(array, reference, atol=1e-5, rtol=1e-5)
