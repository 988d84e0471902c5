"""A function that was written, run in this process: what heatc's check needs of a target."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from heatc.verify.trace import Trace
from heatc.weights import WeightStore

Arrays = Mapping[str, NDArray[Any]]


class Program:
    """The function of a text on some weights."""

    parts: tuple[str, ...] = ("computed by PyTorch",)

    def __init__(self, text: str, weights: WeightStore):
        self._names: dict[str, Any] = {}
        exec(compile(text, "torch-source", "exec"), self._names)
        self._weights = {name: torch.tensor(np.asarray(weights[name])) for name in weights}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._weights = {}

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """The outputs by name."""
        tensors = {name: torch.tensor(array) for name, array in inputs.items()}
        with torch.no_grad():
            found = self._names["main"](self._weights, **tensors)
        return {name: tensor.numpy() for name, tensor in found.items()}

    def trace(self, inputs: Arrays) -> Trace:
        """Nothing is seen inside."""
        return Trace()
