"""`modeling.py` and what it reads: export.json, model.safetensors, copies of the model's files."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from heatc.capture.folder import LoadedModel
from heatc.capture.sentence import Part
from heatc.capture.sentence_modules import Dense
from heatc.export.live import CannotReplace
from heatc.files import safetensors_bytes
from heatc.kinds import EXPORT_JSON, EXPORT_WEIGHTS, MODELING

_HEAD = '''\
"""
{model} with factorised layers, in plain PyTorch.

    from modeling import from_folder
    model = from_folder()
    outputs = model({call})

It needs {needs}, and the files beside it. export.json says which layers
are factorised and how, model.safetensors has all weights.
"""

from __future__ import annotations

'''


# --- The text ---------------------------------------------------------------------------------


def folder_text(name: str, loaded: LoadedModel, inputs: Iterable[str]) -> str:
    """The text of `modeling.py` for a model of transformers or sentence-transformers."""
    pieces = [*_runtime("layers", "state", "hugging_face")]
    if loaded.sentence is not None:
        # The model is built with what pools, and not as its encoder alone.
        own = files("heatc.capture").joinpath("sentence_modules.py").read_text(encoding="utf-8")
        pieces[-1] = _without(pieces[-1], "build")
        pieces += [own, *_runtime("sentence")]
    return _text(name, pieces, inputs, "torch, safetensors and transformers")


def graph_text(name: str, module: fx.GraphModule, inputs: Iterable[str]) -> str:
    """The text of `modeling.py` for a model that is a graph."""
    code = module.graph.python_code("self")
    # Values are let go of after their last use: nothing that a reader needs.
    body = re.sub(r";(?:  \w+ = )+(?:\w+ = )*None(?=\s)", "", code.src)
    own = "".join(f"    {line}\n" if line else "\n" for line in body.strip().splitlines())
    written = (
        f'class Model(GraphModel):\n    """The graph of {name}."""\n\n{own}\n\n'
        "from_folder = Model.from_folder\n"
    )
    pieces = [*_runtime("layers", "state", "graph"), f"{_CONSTANTS}\n\n{written}"]
    return _text(name, pieces, inputs, "torch and safetensors")


_CONSTANTS = "from math import inf, nan\n\nfrom torch import device"
"""What the code of a graph may name."""


def _runtime(*names: str) -> list[str]:
    folder = files("heatc.export.runtime")
    return [folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in names]


def _text(name: str, pieces: list[str], inputs: Iterable[str], needs: str) -> str:
    """One file of the pieces: their imports once, and their definitions."""
    imports: dict[str, dict[str, None]] = {}
    bodies: list[str] = []
    for piece in pieces:
        first = _imports(piece, imports)
        bodies.append("\n".join(piece.splitlines()[first:]).strip("\n"))
    call = ", ".join(f"{n}=..." for n in inputs)
    head = _HEAD.format(model=name, call=call, needs=needs)
    return MODELING.line() + head + _written(imports) + "\n\n\n" + "\n\n\n".join(bodies) + "\n"


def _imports(text: str, found: dict[str, dict[str, None]]) -> int:
    """Add what a piece imports from elsewhere; the number of lines down to its definitions."""
    last = 0
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.name, {})
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module != "__future__" and module.partition(".")[0] != "heatc":
                names = {alias.name: None for alias in node.names}
                found[f"from {module}"] = {**found.get(f"from {module}", {}), **names}
        elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            return node.lineno - 1 - len(getattr(node, "decorator_list", ()))
        last = node.end_lineno or 0
    return last


def _written(imports: Mapping[str, Mapping[str, None]]) -> str:
    """Import lines: the standard library, then the rest."""
    lines = [
        f"{module} import {', '.join(sorted(names))}" if names else f"import {module}"
        for module, names in imports.items()
    ]
    foreign = ("torch", "safetensors")
    own = [line for line in lines if line.split()[1].partition(".")[0] in foreign]
    standard = [line for line in lines if line not in own]
    return "\n".join([*sorted(standard, key=_order), "", *sorted(own, key=_order)])


def _order(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _without(text: str, function: str) -> str:
    """A text without one of its functions."""
    node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == function)
    lines = text.splitlines()
    return "\n".join([*lines[: node.lineno - 1], *lines[node.end_lineno :]])


# --- What it reads ----------------------------------------------------------------------------


def write_description(path: Path, description: Mapping[str, Any]) -> None:
    """Write export.json."""
    path.write_text(EXPORT_JSON.json_text(description), encoding="utf-8")


def write_weights(
    model: nn.Module, path: Path, absent: frozenset[str] = frozenset(), *, is_tied: bool = True
) -> int:
    """
    Write the state dict; the number of its elements.

    Names of one memory are written once where `is_tied`: the stock model ties them when it is built.
    """
    arrays: dict[str, Any] = {}
    seen: set[Any] = set()
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride())
        if name in absent or (is_tied and tensor.numel() and key in seen):
            continue
        seen.add(key)
        arrays[name] = tensor.detach().numpy()
    path.write_bytes(safetensors_bytes(arrays, EXPORT_WEIGHTS))
    return sum(int(np.size(array)) for array in arrays.values())


def graph_tensors(model: nn.Module, layers: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The weights of a graph that belong to no factorised layer, as `runtime.graph` makes them."""
    heads = tuple(f"{name}." for name in layers)
    return {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in model.state_dict().items()
        if not name.startswith(heads)
    }


def build_description(loaded: LoadedModel) -> dict[str, Any]:
    """
    How the stock model is built: its class, the encoder in it, what pools.

    Raises `CannotReplace` for a class that transformers does not offer.
    """
    import transformers

    whole, sentence = loaded.whole, loaded.sentence
    name = type(whole).__name__
    if getattr(transformers, name, None) is not type(whole):
        raise CannotReplace(f"transformers offers no class {name}")
    encoder = loaded.model if sentence is None else loaded.model.encoder
    known = inspect.signature(type(whole).__init__).parameters
    pools = getattr(whole, "pooler", True) is not None or "add_pooling_layer" not in known
    told: dict[str, Any] = {
        "class": name,
        "transformers": transformers.__version__,
        "attention": whole.config._attn_implementation,
        "options": {} if pools else {"add_pooling_layer": False},
        "is_encoder": encoder is not whole,
    }
    if sentence is None:
        return {**told, "kind": "transformers"}
    parts = [part for part in sentence.parts if part.kind != "Dropout"]
    steps = [_step(part, step) for part, step in zip(parts, loaded.model.steps)]
    return {**told, "kind": "sentence", "forward": loaded.model.options, "steps": steps}


def _step(part: Part, step: Any) -> dict[str, Any]:
    """What `runtime.sentence` makes a step of."""
    weights: dict[str, Tensor] = dict(step.state_dict())
    told: dict[str, Any] = {
        "kind": part.kind,
        "weights": {name: list(tensor.shape) for name, tensor in weights.items()},
    }
    if part.kind == "Pooling":
        told["modes"] = list(step.modes)
    if isinstance(step, Dense):
        told |= {"activation": type(step.activation).__name__, "residual": step.has_residual}
    return told
