"""Sentence-embedding folders: an encoder, pooling, a dense layer, normalisation by modules.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from torch import nn

from bench.support.families.entry import MASKS, WIDTH, Entry, padded_tokens, token_inputs
from bench.support.families.text import FAMILIES, builder

_T: Any = transformers
_CLASS = "sentence_transformers.models"
POOLINGS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}


class Sentence(nn.Module):
    """What such a folder says: sentence embeddings, (batch, width)."""

    def __init__(self, encoder: nn.Module, pooling: str, dense: bool, normal: bool):
        super().__init__()
        self.encoder, self.pooling, self.normal = encoder, pooling, normal
        self.dense = nn.Linear(WIDTH, 24) if dense else None

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        x = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        real = attention_mask[:, :, None].float()
        if self.pooling == "cls":
            y = x[:, 0]
        elif self.pooling == "max":
            y = x.masked_fill(real == 0, -1e9).max(1).values
        else:
            y = (x * real).sum(1) / real.sum(1).clamp(min=1e-9)
        y = torch.tanh(self.dense(y)) if self.dense is not None else y
        return {"sentence_embedding": nn.functional.normalize(y, dim=1) if self.normal else y}

    def save_pretrained(self, folder: Path) -> None:
        """The folder as sentence_transformers writes it."""
        self.encoder.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        pooling = {f"pooling_mode_{name}": False for name in POOLINGS.values()}
        pooling |= {f"pooling_mode_{POOLINGS[self.pooling]}": True}
        _write(folder / "1_Pooling", {"word_embedding_dimension": WIDTH, **pooling})
        if self.dense is not None:
            where = folder / f"{len(modules)}_Dense"
            modules.append((where.name, "Dense"))
            settings: dict[str, Any] = {"in_features": WIDTH, "out_features": 24, "bias": True}
            settings["activation_function"] = "torch.nn.modules.activation.Tanh"
            _write(where, settings)
            state = {f"linear.{k}": v for k, v in self.dense.state_dict().items()}
            save_file(state, where / "model.safetensors")
        if self.normal:
            modules.append((f"{len(modules)}_Normalize", "Normalize"))
            (folder / modules[-1][0]).mkdir()
        entries = [
            {"idx": i, "name": str(i), "path": path, "type": f"{_CLASS}.{kind}"}
            for i, (path, kind) in enumerate(modules)
        ]
        (folder / "modules.json").write_text(json.dumps(entries), encoding="utf-8")


def _write(folder: Path, settings: dict[str, Any]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")


def entries() -> Iterator[Entry]:
    """Poolings with and without what may follow them."""
    stem, settings = FAMILIES["BERT"]
    make = builder(getattr(_T, f"{stem}Model"), getattr(_T, f"{stem}Config"), settings)
    for pooling, dense, normal in (
        ("mean", False, False),
        ("mean", False, True),
        ("cls", False, True),
        ("max", False, False),
        ("mean", True, True),
    ):

        def sentence(
            implementation: str, pooling: str = pooling, dense: bool = dense, normal: bool = normal
        ) -> nn.Module:
            return Sentence(make(implementation), pooling, dense, normal)

        head = pooling + ", dense" * dense + ", normalised" * normal
        yield Entry("sentence embeddings", head, sentence, token_inputs(), padded_tokens, MASKS)
