"""Programs of the tiny classifier, compiled once, and a folder of a tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heatc.tools import main

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "film", "a", "the"]


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


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the vocabulary `WORDS` and a configuration that names two labels."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    config = {"model_type": "bert", "label2id": {"negative": 1, "positive": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
