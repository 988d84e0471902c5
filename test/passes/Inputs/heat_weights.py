"""Weights and calibration inputs for the tests of heat-decompose: `heat_weights.py W.safetensors C.npz`."""

import sys

import numpy as np
from safetensors.numpy import save_file

rng = np.random.default_rng(0)
save_file(
    {
        "mlp.up.weight": rng.standard_normal((12, 8)).astype(np.float32),
        "mlp.up.bias": rng.standard_normal(12).astype(np.float32),
        "mlp.down.weight": rng.standard_normal((8, 12)).astype(np.float32),
        "head.weight": rng.standard_normal((8, 8)).astype(np.float32),
        "words.weight": rng.standard_normal((30, 8)).astype(np.float32),
    },
    sys.argv[1],
)
np.savez(
    sys.argv[2],
    ids=rng.integers(0, 30, (40, 6)),
    attention_mask=np.ones((40, 6), np.int64),
)
