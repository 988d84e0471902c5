"""The weights of a model of transformers: views of their files, cast and converted when they are read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from heatc.capture.checkpoint import FLOATS, Stored
from heatc.capture.hf_names import Cast, Fit, Source, parameter_groups
from heatc.capture.placeholders import Placeholders
from heatc.errors import HeatcError

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

_SHOWN = 8
_F32 = np.dtype("<f4")


@dataclass
class Loading:
    """
    What `load_state_dict` is given, by the model's names, and what there is to say of it.

    Parameters that have no elements yet are in `placeholders`.
    """

    placeholders: Placeholders = field(default_factory=Placeholders)
    state: Tensors = field(default_factory=dict[str, Any])
    remarks: list[str] = field(default_factory=list[str])


def load(path: Path, skeleton: Any, found: Fit) -> Loading:
    """The parameters and buffers of a model; raises `HeatcError` for types and shapes of others."""
    _check_shapes(path, skeleton, found)
    loading = Loading()
    state, sources = loading.state, dict[str, Source]()
    for group in parameter_groups(skeleton):
        names = [name for name in group if name in found.sources]
        if not names:
            lacking = loading.placeholders.absent(
                next(iter(group)), next(iter(group.values())).shape
            )
            state |= dict.fromkeys(group, lacking)
            continue
        if len(names) > 1 and not _are_equal([found.sources[name] for name in names]):
            loading.remarks.append(_untied(names))
            own = {name: found.sources[name] for name in names}
            sources |= {name: own.get(name, own[names[0]]) for name in group}
            state |= {
                name: _tensor(path, name, sources[name], loading.placeholders) for name in group
            }
            continue
        sources[names[0]] = found.sources[names[0]]
        state |= dict.fromkeys(
            group, _tensor(path, names[0], sources[names[0]], loading.placeholders)
        )
    buffers = dict(skeleton.named_buffers())
    for name in buffers.keys() & found.sources.keys():
        state[name] = _buffer(path, name, found.sources[name], buffers[name])
    loading.remarks += _remarks(skeleton, found, sources)
    return loading


def _remarks(model: Any, found: Fit, sources: Mapping[str, Source]) -> list[str]:
    """What the user is to know of the weights."""
    remarks: list[str] = []
    cast = [s.dtype for s in sources.values() if isinstance(s, Stored) and s.dtype != "f32"]
    if cast:
        types = ", ".join(sorted(set(cast)))
        remarks.append(f"cast to f32 when read: {_count(len(cast), 'weight')} of {types}")
    if found.unused:
        names = listed(found.unused)
        remarks.append(
            f"{type(model).__name__} has no use for {_count(len(found.unused), 'weight')}: {names}"
        )
    return remarks


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(sorted(names)[:_SHOWN])}{more}"


def _untied(names: Sequence[str]) -> str:
    """transformers does not tie them either."""
    return f"weights {listed(names)} differ, although config.json ties them: each is taken as it is"


def _are_equal(sources: Sequence[Source]) -> bool:
    """Whether sources hold the same; those of one memory are not read."""
    first = sources[0]
    return all(s is first or _is_same(s, first) or _has_equal(s, first) for s in sources[1:])


def _is_same(one: Source, other: Source) -> bool:
    if not isinstance(one, Stored) or not isinstance(other, Stored):
        return False
    if one.array is None or other.array is None or one.dtype != other.dtype:
        return False
    there, here = one.array.__array_interface__, other.array.__array_interface__
    return (there["data"], one.shape, one.array.strides) == (
        here["data"],
        other.shape,
        other.array.strides,
    )


def _has_equal(one: Source, other: Source) -> bool:
    def elements(source: Source) -> Any:
        return source.cast(_F32) if isinstance(source, Stored) else source.read()

    return one.shape == other.shape and np.array_equal(elements(one), elements(other))


def _tensor(path: Path, name: str, source: Source, placeholders: Placeholders) -> torch.Tensor:
    """A parameter: a view of the file, or without memory where its elements are yet to be made."""
    if not isinstance(source, Stored):
        return placeholders.lazy(source)
    if source.dtype not in FLOATS:
        raise HeatcError(
            f"weight {name!r} has element type {source.dtype}, the model computes with floats",
            place=str(path),
            notes=["convert the model: model.float().save_pretrained(folder)"],
        )
    if source.dtype != "f32":
        return placeholders.lazy(Cast(source))
    assert source.array is not None
    return _view(source.array)


def _buffer(path: Path, name: str, source: Source, buffer: torch.Tensor) -> torch.Tensor:
    """A buffer as the checkpoint has it, in the model's own type."""
    stored = source if isinstance(source, Stored) else None
    if stored is None or stored.array is None:
        raise HeatcError(
            f"buffer {name!r} has an element type that heatc does not read",
            place=str(path),
            notes=["convert the model: model.float().save_pretrained(folder)"],
        )
    return _view(stored.cast(_F32) if stored.dtype == "bf16" else stored.array).to(buffer.dtype)


def _view(array: Any) -> torch.Tensor:
    import torch

    with warnings.catch_warnings():
        # The arrays are read-only, and so is what export does with them.
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def _check_shapes(path: Path, model: Any, found: Fit) -> None:
    for name, tensor in (*model.named_parameters(remove_duplicate=False), *model.named_buffers()):
        source = found.sources.get(name)
        if source is not None and source.shape != tuple(tensor.shape):
            raise HeatcError(
                f"weight {name!r} has shape {source.shape}, the model needs {tuple(tensor.shape)}",
                place=str(path),
                notes=["config.json and the weights belong to different models"],
            )
