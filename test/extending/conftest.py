"""The example packages, installed in a folder of their own, and a model to compile with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

# Makes the helpers beside these tests importable (pytest runs with --import-mode=importlib).
sys.path.insert(0, str(Path(__file__).parent))

from extending_kit import HERE, PACKAGES, House


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages, installed as anybody would, but without a network."""
    sources, site = (tmp_path_factory.mktemp(name) for name in ("sources", "site"))
    copies = [str(shutil.copytree(HERE / name, sources / name)) for name in PACKAGES]
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--no-compile"]
    result = subprocess.run(
        [sys.executable, "-m", "pip", "install", *words, "--target", str(site), *copies],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return site


@pytest.fixture(scope="session")
def house(site: Path, tmp_path_factory: pytest.TempPathFactory) -> House:
    """A layer of a transformer with random weights, and two sentences, one of them shorter."""
    folder = tmp_path_factory.mktemp("house")
    shutil.copy(HERE / "layer.mlir", folder)
    shutil.copy(HERE / "relu6" / "relu6.mlir", folder)
    random = np.random.default_rng(0)
    shapes = {"query": (16, 16), "key": (16, 16), "value": (16, 16), "up": (32, 16)}
    shapes |= {"down": (16, 32), "words": (32, 16)}
    weights = {f"{k}.weight": random.normal(size=s) * 0.4 for k, s in shapes.items()}
    weights |= {"norm.weight": np.ones(16), "norm.bias": np.zeros(16)}
    plain = {name: array.astype(np.float32) for name, array in weights.items()}
    save_file(plain, folder / "layer.safetensors")
    save_file({"w": np.arange(8, dtype=np.float32).reshape(2, 4)}, folder / "relu6.safetensors")
    ids, mask = random.integers(0, 32, (2, 8)), np.ones((2, 8), np.int64)
    mask[1, 5:] = 0
    np.savez(folder / "inputs.npz", input_ids=ids, attention_mask=mask)
    return House(folder, site)


@pytest.fixture(scope="session")
def dense(house: House) -> NDArray[Any]:
    """What the HDP program of the model computes without pruning."""
    house.compile("-o", "dense.hdp")
    return house.simulate("dense.hdp")
