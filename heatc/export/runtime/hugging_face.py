"""A model of transformers, built from the config.json of its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from heatc.export.runtime.layers import replace_layers
from heatc.export.runtime.state import load_weights


def from_folder(folder: str | Path | None = None) -> nn.Module:
    """The factorised model of a folder, that of this file where none is given, for inference."""
    place = Path(__file__).parent if folder is None else Path(folder)
    description = json.loads((place / "export.json").read_text(encoding="utf-8"))
    model = build(place, description["build"])
    replace_layers(model, description["layers"])
    load_weights(model, place / "model.safetensors", description["absent"])
    return model.eval()


def build_encoder(folder: Path, told: Mapping[str, Any]) -> nn.Module:
    """The stock model of transformers, or the encoder of it, with weights made up."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True)
    config.return_dict = True
    kind = getattr(transformers, told["class"])
    attention, options = told["attention"], told["options"]
    model = kind._from_config(config, attn_implementation=attention, dtype=torch.float32, **options)
    return model.get_encoder() if told["is_encoder"] else model


def build(folder: Path, told: Mapping[str, Any]) -> nn.Module:
    """The model as it was before its layers were factorised."""
    return build_encoder(folder, told)
