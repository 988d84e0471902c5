"""The example packages, installed in a folder of their own, and a model to compile with them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PACKAGES = sorted(path.parent.name for path in HERE.glob("*/pyproject.toml"))

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class House:
    """A folder with a model, in which commands see the example packages."""

    folder: Path
    site: Path

    def call(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a tool of heatc in a process of its own."""
        path = os.pathsep.join([str(self.site), str(ROOT)])
        return subprocess.run(
            [sys.executable, "-m", f"heatc.tools.{tool}", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )

    def run(self, tool: str, *words: str) -> str:
        """The same for what must succeed: all that was printed."""
        result = self.call(tool, *words)
        assert result.returncode == 0, result.stderr
        return result.stdout + result.stderr

    def compile(self, *words: str) -> str:
        """Compile the model; what was said."""
        return self.run("main", "layer.mlir", "--weights", "layer.safetensors", *words)

    def simulate(self, program: str) -> NDArray[Any]:
        """What a program computes on the machine."""
        self.run("run", program, "--inputs", "inputs.npz", "-o", f"{program}.npz")
        return np.load(self.folder / f"{program}.npz")["last_hidden_state"]

    def inputs(self) -> Arrays:
        """The inputs of the model."""
        return dict(np.load(self.folder / "inputs.npz"))

    def execute(self, program: str) -> Callable[..., Any]:
        """`main` of a Python file that was written."""
        path = self.folder / program
        names: dict[str, Any] = {"__file__": str(path), "__name__": path.stem}
        exec(compile(path.read_text(), str(path), "exec"), names)
        return names["main"]


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
