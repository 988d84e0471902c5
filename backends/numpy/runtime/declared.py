"""What every program says of itself, for the files here that speak of it: no program has this text."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

INPUTS: tuple[str, ...] = ()
"""The names of the model's inputs, in order."""


def main(*inputs: NDArray[np.generic]) -> Mapping[str, NDArray[np.generic]]:
    """The model: its named outputs."""
    raise NotImplementedError(inputs)
