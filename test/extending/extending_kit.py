"""Where the example packages are, and commands that see them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
