"""Weights for the tests of fold-constants: `constant_weights.py W.safetensors`."""

import sys

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
save_file(
    {
        "f.weight_orig": np.arange(12, dtype=np.float32).reshape(3, 4),
        "f.weight_mask": np.eye(3, 4, dtype=np.float32),
        "g.weight": np.ones((3, 4), np.float32),
        "g.a": rng.standard_normal((2, 4)).astype(np.float32),
        "g.b": rng.standard_normal((3, 2)).astype(np.float32),
        "bias.table": rng.standard_normal((8, 2)).astype(np.float32),
        "words.weight": rng.standard_normal((30, 4)).astype(np.float32),
    },
    sys.argv[1],
)
