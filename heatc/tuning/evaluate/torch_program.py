"""Models in PyTorch itself, run in this process on all cores, and timed."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from heatc.capture.eager import EagerModel, eager_model
from heatc.capture.paths import Request
from heatc.commands import model_files
from heatc.errors import HeatcError
from heatc.tuning.evaluate.program import Arrays, Port, Ran, Run

_DTYPES = {"f32": "float32", "u8": "uint8", "i1": "bool"}
"""What NumPy calls a type that it does not call `int` and its bits."""


@dataclass(frozen=True)
class TorchProgram:
    """A MODEL; `request` says the inputs of one that leaves them open."""

    path: Path
    request: Request
    runs: str = "PyTorch"
    is_parallel: bool = False
    hardware: None = None

    @cached_property
    def _model(self) -> EagerModel:
        return eager_model(self.path, self.request)

    @property
    def files(self) -> list[Path]:
        """The files of the model."""
        return model_files(self.path)

    @property
    def ports(self) -> Mapping[str, Port]:
        """The inputs by name."""
        return {name: Port(s.shape, _dtype(s.dtype)) for name, s in self._model.specs.items()}

    @contextmanager
    def opened(self) -> Generator[Run]:
        """See `Program`."""
        is_warm = False

        def run(inputs: Arrays) -> Ran:
            nonlocal is_warm
            if not is_warm:
                self._called(inputs)
                is_warm = True
            begun = time.perf_counter()
            outputs = self._called(inputs)
            return Ran(outputs, {"cpu_seconds": time.perf_counter() - begun})

        yield run

    def _called(self, inputs: Arrays) -> dict[str, np.ndarray]:
        try:
            return self._model.run(inputs)
        except (HeatcError, MemoryError):
            raise
        # The model's own code may raise anything.
        except Exception as error:
            reason = str(error).splitlines()[0][:200] if str(error) else "no reason given"
            raise HeatcError(
                f"PyTorch failed: {type(error).__name__}: {reason}", place=str(self.path)
            ) from error


def _dtype(name: str) -> np.dtype[np.generic]:
    return np.dtype(_DTYPES.get(name, name.replace("i", "int")))
