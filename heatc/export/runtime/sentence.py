"""A model of sentence-transformers: an encoder, and what pools its tokens."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from heatc.capture.sentence_modules import Dense, LayerNorm, Normalize, Pooling, SentenceModel
from heatc.export.runtime.hugging_face import build_encoder


def build(folder: Path, told: Mapping[str, Any]) -> nn.Module:
    """The model as it was before its layers were factorised."""
    steps = [build_step(step) for step in told["steps"]]
    return SentenceModel(build_encoder(folder, told), steps, told["forward"])


def build_step(told: Mapping[str, Any]) -> nn.Module:
    """What follows the encoder, with weights made up."""
    weights: dict[str, Tensor] = {n: torch.empty(shape) for n, shape in told["weights"].items()}
    if told["kind"] == "Pooling":
        return Pooling(told["modes"])
    if told["kind"] == "Normalize":
        return Normalize()
    if told["kind"] == "LayerNorm":
        return LayerNorm(weights)
    return Dense(weights, getattr(nn, told["activation"])(), told["residual"])
