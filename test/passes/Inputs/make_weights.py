"""Writes the weights that assign_fixed_point.mlir names: simple numbers, bounds by hand."""

from __future__ import annotations

import sys

import numpy as np
from safetensors.numpy import save_file

identity = np.eye(4, dtype=np.float32)

WEIGHTS = {
    "table": np.full((9, 4), 3.0, np.float32),
    "gamma": np.ones(4, np.float32),
    "beta": np.zeros(4, np.float32),
    "half": 0.5 * identity,
    "large": 100.0 * identity,
    "tiny": 1e-9 * identity,
    "quarter": np.full(4, 0.25, np.float32),
    "hundredth": np.full(4, 0.01, np.float32),
    "two": np.full(4, 2.0, np.float32),
    "minus_two": np.full(4, -2.0, np.float32),
    "identity": identity,
    "thousand": np.full(4, 1000.0, np.float32),
    "zeros": np.zeros((4, 4), np.float32),
    "nan": np.full((4, 4), np.nan, np.float32),
    "huge": np.full((4, 4), 1e6, np.float32),
}

save_file(WEIGHTS, sys.argv[1])
