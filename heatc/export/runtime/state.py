"""The weights of a model, read from its folder."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from safetensors.torch import load_model
from torch import nn


def load_weights(model: nn.Module, file: Path, absent: Collection[str] = ()) -> None:
    """Read all weights; `ValueError` where one is missing that is not known to be absent."""
    missing, unexpected = load_model(model, file, strict=False)
    odd = [name for name in (*missing, *unexpected) if name not in absent]
    if odd:
        raise ValueError(f"{file}: {odd[0]!r} is missing or unexpected, {len(odd)} weights in all")
