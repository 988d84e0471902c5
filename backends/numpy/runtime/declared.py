"""
What every program says of itself, for the files here that speak of it: no program has this text.

These are declarations for the type checker. Nothing imports this file when heatc or a program runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

INPUTS: tuple[str, ...]
"""The names of the model's inputs, in order."""

main: Callable[..., Mapping[str, NDArray[np.generic]]]
"""The model: of its inputs in order, its named outputs."""
