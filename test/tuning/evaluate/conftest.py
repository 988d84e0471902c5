"""Programs of the tiny classifier, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from heatc.tools import main


def compiled(folder: Path, name: str, *options: str) -> Path:
    """A program of the tiny classifier in `folder`."""
    path = folder / name
    words = [str(folder / "model.mlir"), "--weights", str(folder / "weights.safetensors")]
    assert main.main([*words, *options, "-o", str(path), "--no-verify", "-q"]) == 0
    return path


@pytest.fixture(scope="session")
def programs(tiny: Path) -> Path:
    """The folder of `tiny` with dense.py, low.py (rank 6), dense.hdp and pruned.hdp in it."""
    compiled(tiny, "dense.py")
    compiled(tiny, "low.py", "--heat", "low-rank,rank=6,init=plain")
    compiled(tiny, "dense.hdp", "--hdp-rule", "none")
    compiled(tiny, "pruned.hdp", "--rho-b", "0.25")
    return tiny
