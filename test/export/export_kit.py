"""Tiny models and plans for them, and a process that has no heatc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

LENGTH = 12
WIDTH = 32

FORMATS: Mapping[str, Mapping[str, Any]] = {
    "low-rank": {"format": "low-rank", "ranks": [6]},
    "tucker": {"format": "tucker", "shape": "4x8|8x4", "ranks": [3, 6, 6, 3]},
    "cp": {"format": "cp", "shape": "4x8|8x4", "ranks": [12]},
    "tt": {"format": "tt", "shape": "4x8|8x4", "ranks": [4, 8, 4]},
    "ttm": {"format": "ttm", "shape": "4x8|8x4", "ranks": [8]},
}
"""A format of each kind for a layer of 32 to 32."""

SPEC = f"input_ids=2x{LENGTH}:i64,attention_mask=2x{LENGTH}:i64"

_ALONE = """\
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("heatc", "xdsl"):
            raise ImportError(f"{name} is asked for")
sys.meta_path.insert(0, Refused())
import numpy as np, torch
inputs = {n: torch.from_numpy(a) for n, a in np.load("inputs.npz").items()}
"""


def bert(folder: Path) -> Path:
    """A BERT classifier of two layers as a folder, with the files of a tokenizer."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config: Any = BertConfig(
        vocab_size=60,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    config.num_labels = 3
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\n")
    return folder


def write_plan(path: Path, layers: Mapping[str, Mapping[str, Any]], **more: Any) -> Path:
    """A plan that factorises layers."""
    entries = {name: {"heat": dict(heat)} for name, heat in layers.items()}
    path.write_text(json.dumps({"schema": 2, "layers": {**entries, **more}}))
    return path


def text_inputs(rows: int = 2, length: int = LENGTH) -> dict[str, NDArray[Any]]:
    """Ids and a mask: one whole sample, the others with padding at the right."""
    rng = np.random.default_rng(0)
    mask = (np.arange(length) < np.array([[length], *[[length // 2]] * (rows - 1)])).astype(int)
    return {"input_ids": rng.integers(0, 60, (rows, length)) * mask, "attention_mask": mask}


def alone(folder: Path, inputs: Mapping[str, NDArray[Any]], code: str) -> dict[str, NDArray[Any]]:
    """
    What `code` puts into `outputs`, in a process that cannot import heatc.

    It has `inputs`, tensors by name, and starts in the folder.
    """
    np.savez(folder / "inputs.npz", **inputs)  # pyright: ignore[reportArgumentType]
    end = "\nnp.savez('outputs.npz', **{n: t.detach().numpy() for n, t in outputs.items()})\n"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", _ALONE + code + end],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "outputs.npz") as found:
        return dict(found)


MODELING = """
from modeling import from_folder
with torch.no_grad():
    outputs = dict(from_folder()(**inputs))
"""
ARCHIVE = "outputs = torch.export.load('model.pt2').module()(**inputs)"
