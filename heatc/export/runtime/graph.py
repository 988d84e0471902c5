"""A model whose code is its graph, as torch.export took it down."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from heatc.export.runtime.layers import make_layer
from heatc.export.runtime.state import load_weights


class GraphModel(nn.Module):
    """Weights and factorised layers at their module paths; `forward` is written by a subclass."""

    def __init__(self, description: Mapping[str, Any]):
        super().__init__()
        for name, layer in description["layers"].items():
            bias = nn.Parameter(torch.empty(layer["width"])) if layer["bias"] else None
            place(self, name, make_layer(layer, bias))
        for name, told in description["tensors"].items():
            place(self, name, torch.zeros(told["shape"], dtype=getattr(torch, told["dtype"])))

    @classmethod
    def from_folder(cls, folder: str | Path | None = None) -> Self:
        """The factorised model of a folder, that of this file where none is given."""
        home = Path(__file__).parent if folder is None else Path(folder)
        description = json.loads((home / "export.json").read_text(encoding="utf-8"))
        model = cls(description)
        load_weights(model, home / "model.safetensors")
        return model.eval()


def place(root: nn.Module, name: str, what: nn.Module | Tensor) -> None:
    """Put a module, a parameter (floating point) or a buffer at a module path."""
    above, _, last = name.rpartition(".")
    owner = root
    for part in above.split(".") if above else ():
        if not hasattr(owner, part):
            owner.add_module(part, nn.Module())
        owner = owner.get_submodule(part)
    if isinstance(what, nn.Module):
        owner.add_module(last, what)
    elif what.is_floating_point():
        owner.register_parameter(last, nn.Parameter(what, requires_grad=False))
    else:
        owner.register_buffer(last, what)
