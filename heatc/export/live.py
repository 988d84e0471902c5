"""A live model whose planned layers are replaced by factorised ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from heatc.capture.folder import LoadedModel
from heatc.capture.placeholders import Absent
from heatc.capture.rebuild import from_array
from heatc.export.factors import PlannedLayer
from heatc.export.runtime.layers import FactorisedLayer, replace_layers


@dataclass(frozen=True)
class LiveModel:
    """
    A model with factorised layers.

    Attributes:
        model: the module, which takes and gives what the model does.
        layers: the description of each factorised layer by its module path.
        absent: weights of the model that its checkpoint lacks and no output is computed from.
    """

    model: nn.Module
    layers: Mapping[str, Mapping[str, Any]]
    absent: frozenset[str] = field(default_factory=frozenset[str])


class CannotReplace(Exception):
    """A planned layer is no module of its own; the text says which."""


def live_model(loaded: LoadedModel, layers: Iterable[PlannedLayer]) -> LiveModel:
    """
    Give a live model its weights, and put factorised layers in the place of planned ones.

    The model that was loaded is changed. Raises `CannotReplace`, before it changes anything, for a
    layer that is no linear or embedding of PyTorch or transformers.
    """
    chosen = [(layer, _modules(loaded.model, layer)) for layer in layers]
    absent = _read_weights(loaded)
    descriptions: dict[str, dict[str, Any]] = {}
    for layer, names in chosen:
        descriptions.update(_described(loaded.model, layer, names))
    replace_layers(loaded.model, descriptions)
    for layer, names in chosen:
        for name in names:
            fill(loaded.model.get_submodule(name), layer)
    return LiveModel(loaded.model, descriptions, frozenset(absent))


def fill(module: nn.Module, layer: PlannedLayer) -> None:
    """Give a factorised layer its factors, and the bias that belongs to them."""
    assert isinstance(module, FactorisedLayer)
    arrays = dict(layer.factors)
    if layer.bias is not None:
        arrays["bias"] = layer.bias
    for name, array in arrays.items():
        tensor = from_array(np.ascontiguousarray(array))
        module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))


def _modules(model: nn.Module, layer: PlannedLayer) -> list[str]:
    """The paths of the modules that a layer of the plan stands for."""
    weight = model.get_parameter(layer.weight)
    found = [n for n, m in _all_modules(model) if _is(getattr(m, "weight", None), weight)]
    found = [n for n in found if _is_table(model.get_submodule(n)) == layer.is_table]
    if layer.users is not None:
        found = [name for name in found if name in layer.users]
    if not found:
        raise CannotReplace(
            f"{layer.path} is no module of its own: {layer.weight} is read by others"
        )
    for name in found:
        module = model.get_submodule(name)
        if _axis(module) != layer.axis:
            raise CannotReplace(
                f"{name} is a {type(module).__name__}, no plain linear or embedding"
            )
    return found


def _all_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every path of every module; a module that is used twice has two."""
    return model.named_modules(remove_duplicate=False)


def _is(found: Any, weight: Tensor) -> bool:
    """Whether it is the same view of the same memory."""
    if not isinstance(found, Tensor) or found.shape != weight.shape:
        return False
    return found is weight or (found.data_ptr() != 0 and found.data_ptr() == weight.data_ptr())


def _is_table(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _axis(module: nn.Module) -> int | None:
    """The axis of a module's weight that its input meets, None of what computes something else."""
    forward = type(module).forward
    if forward is nn.Linear.forward:
        return 1
    if forward is nn.Embedding.forward:
        assert isinstance(module, nn.Embedding)
        return 0 if module.max_norm is None else None
    # GPT-2's linear stores its weight the other way round.
    is_conv1d = type(module).__module__ == "transformers.pytorch_utils"
    return 0 if is_conv1d and type(module).__name__ == "Conv1D" else None


def _read_weights(loaded: LoadedModel) -> set[str]:
    """Give all parameters their elements; the names of those that have none anywhere."""
    state: dict[str, Tensor] = {}
    made: dict[int, Tensor] = {}
    absent: set[str] = set()
    for name, tensor in loaded.model.state_dict().items():
        source = loaded.placeholders.source(tensor)
        if isinstance(source, Absent):
            absent.add(name)
        elif source is not None:
            key = tensor.data_ptr()
            made[key] = made[key] if key in made else from_array(source.read())
            state[name] = made[key]
    loaded.model.load_state_dict(state, strict=False, assign=True)
    loaded.model.requires_grad_(False)
    return absent


def _described(
    model: nn.Module, layer: PlannedLayer, names: list[str]
) -> dict[str, dict[str, Any]]:
    """The description of each module; a module that is another one's equal is the same module."""
    found: dict[str, dict[str, Any]] = {}
    first: dict[Any, str] = {}
    for name in names:
        bias = getattr(model.get_submodule(name), "bias", None)
        key = None if layer.bias is not None or bias is None else bias.data_ptr()
        if key in first:
            found[name] = {"same_as": first[key]}
            continue
        first[key] = name
        found[name] = layer.description
    return found
