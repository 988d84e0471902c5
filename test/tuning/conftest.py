"""A tiny classifier as IR text, its weights, and calibration data: no torch, seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # helpers of all tests

from tiny_classifier import LENGTH, VOCABULARY, ir_text, weights

SAMPLES = 48


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.mlir, weights.safetensors and data.npz (labelled) for them."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "model.mlir").write_text(ir_text(batch=8))
    save_file(weights(seed=0), folder / "weights.safetensors")
    rng = np.random.default_rng(1)
    lengths = rng.integers(3, LENGTH + 1, SAMPLES)
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    ids = rng.integers(0, VOCABULARY, (SAMPLES, LENGTH)) * mask
    labels = rng.integers(0, 2, SAMPLES)
    np.savez(folder / "data.npz", input_ids=ids, attention_mask=mask, labels=labels)
    np.savez(folder / "unlabelled.npz", input_ids=ids, attention_mask=mask)
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: sums in one order, and no fight for cores between tests."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
