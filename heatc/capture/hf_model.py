"""
Models of transformers: built from a configuration, their parameters views of the weights.

The model is built twice: first without any memory, to be compared with the weights, then with its
own tables. Its parameters never have memory of their own.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatc.capture.config import bounded_modules
from heatc.errors import HeatcError

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

_LARGEST_BUFFERS = 256 << 20
_LEGACY_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))


def build_model(path: Path, config: Mapping[str, Any], tensors: Tensors) -> Any:
    """
    The model of a configuration in evaluation mode, with these weights.

    `path` is the folder of the configuration or a file in it. Raises `HeatcError` for an
    architecture that transformers cannot build, and for weights that do not fit it.
    """
    folder = path if path.is_dir() else path.parent
    build = _constructor(folder, config)
    with bounded_modules(len(tensors), str(folder / "config.json")):
        skeleton = _build(folder, config, lambda: _on_meta(build))
    _fitting(path, skeleton, tensors)
    _check_buffers(folder, skeleton, tensors)
    model = _build(folder, config, lambda: _without_memory(build))
    model.load_state_dict(_fitting(path, model, tensors), strict=False, assign=True)
    return model


@contextlib.contextmanager
def quiet_transformers() -> Generator[None]:
    """No warnings and no log lines of transformers: what matters becomes an error here."""
    import_transformers()
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def import_transformers() -> Any:
    """The module transformers; raises `HeatcError` where it is not installed."""
    try:
        import transformers
    except ImportError as error:
        raise HeatcError(
            f"a Hugging Face model needs transformers, which cannot be imported: {error}",
            notes=["pip install transformers, or give a torch.export archive, which needs none"],
        ) from None
    return transformers


def _constructor(folder: Path, config: Mapping[str, Any]) -> Callable[[], Any]:
    """What makes the model of a configuration; raises `HeatcError`."""
    transformers = import_transformers()
    attention = config.get("attn_implementation") or config.get("_attn_implementation")
    attention = "eager" if attention == "eager" else "sdpa"

    def find() -> tuple[Any, Any]:
        settings = transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        return settings, _model_class(transformers, config)._from_config

    settings, build = _build(folder, config, find)

    def make() -> Any:
        try:
            return build(settings, attn_implementation=attention).eval()
        except ValueError:
            # Raised for architectures that have no such attention.
            return build(settings, attn_implementation="eager").eval()

    return make


def _build(folder: Path, config: Mapping[str, Any], step: Callable[[], Any]) -> Any:
    """What a step of building gives; raises `HeatcError` where transformers fails."""
    try:
        return step()
    except HeatcError:
        raise
    # A configuration that fits no architecture fails anywhere in its constructor.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise HeatcError(
            f"transformers cannot build the model: {reason or type(error).__name__}",
            place=str(folder / "config.json"),
            notes=[
                f"model_type is {str(config.get('model_type'))[:40]!r}: is it one that the "
                f"installed transformers {import_transformers().__version__} knows?"
            ],
        ) from None


def _on_meta(build: Callable[[], Any]) -> Any:
    """The model with neither parameters nor buffers in memory."""
    import torch

    with torch.device("meta"):
        return build()


def _without_memory(build: Callable[[], Any]) -> Any:
    """The model with its buffers, its parameters without memory."""
    with _parameters_without_memory():
        return build()


def _check_buffers(folder: Path, skeleton: Any, tensors: Tensors) -> None:
    """Refuse a model whose tables, such as masks of all positions, are far above its weights."""
    buffers = sum(buffer.nbytes for buffer in skeleton.buffers())
    weights = sum(tensor.nbytes for tensor in tensors.values())
    if buffers > weights + _LARGEST_BUFFERS:
        raise HeatcError(
            f"the model makes tables of {buffers} bytes, the weights have {weights}",
            place=str(folder / "config.json"),
            notes=["is a number of config.json, such as max_position_embeddings, too large?"],
        )


def _model_class(transformers: Any, config: Mapping[str, Any]) -> Any:
    for name in config.get("architectures") or ():
        found = getattr(transformers, str(name), None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found
        raise ValueError(f"unknown architecture {str(name)[:60]!r}")
    return transformers.AutoModel


@contextlib.contextmanager
def _parameters_without_memory() -> Generator[None]:
    """Parameters lose their memory when they are registered; buffers keep theirs."""
    import torch
    from torch.nn.modules import module

    def strip(owner: Any, name: str, parameter: Any) -> Any:
        if parameter is None or parameter.is_meta:
            return None
        return torch.nn.Parameter(parameter.to("meta"), requires_grad=False)

    handle = module.register_module_parameter_registration_hook(strip)
    try:
        yield
    finally:
        handle.remove()


def _fitting(path: Path, model: Any, tensors: Tensors) -> Tensors:
    """The weights by the model's names; raises `HeatcError` if names or shapes do not fit."""
    groups = _parameter_groups(model)
    buffers = dict(model.named_buffers())
    renamed = _renamed(model, tensors, {name for group in groups for name in group})
    state: Tensors = {}
    missing: list[str] = []
    for group in groups:
        name = next((name for name in group if name in renamed), None)
        if name is None:
            missing.append(next(iter(group)))
        else:
            state |= {other: renamed[name] for other in group}
    used = set(state) | set(buffers)
    _check_names(path, model, missing, [name for name in renamed if name not in used])
    expected = {name: parameter.shape for group in groups for name, parameter in group.items()}
    for name, tensor in state.items():
        if tensor.shape != expected[name]:
            raise HeatcError(
                f"weight {name!r} has shape {tuple(tensor.shape)}, the model needs "
                f"{tuple(expected[name])}",
                place=str(path),
                notes=["config.json and the weights belong to different models"],
            )
    persistent = set(model.state_dict()) & set(buffers) & set(renamed)
    return state | {name: renamed[name] for name in persistent}


def _parameter_groups(model: Any) -> list[dict[str, Any]]:
    """Parameters by name; tied ones in one group."""
    groups: dict[int, dict[str, Any]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), {})[name] = parameter
    return list(groups.values())


def _renamed(model: Any, tensors: Tensors, expected: set[str]) -> Tensors:
    """The weights under the model's own names: with or without the base model's prefix."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        new = name
        for old_end, new_end in _LEGACY_NAMES:
            if new not in expected and new.endswith(old_end):
                new = new.removesuffix(old_end) + new_end
        candidates = (new, new.removeprefix(prefix), prefix + new)
        renamed[next((c for c in candidates if c in expected), name)] = tensor
    return renamed


def _check_names(path: Path, model: Any, missing: list[str], unexpected: list[str]) -> None:
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    # Buffers that older versions of transformers saved.
    known = {name for name, _ in model.named_buffers()}
    unexpected = [name for name in unexpected if name.removeprefix(prefix) not in known]
    if not missing and not unexpected:
        return
    notes: list[str] = []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            more = f" and {len(names) - 8} more" if len(names) > 8 else ""
            notes.append(f"{len(names)} {what}: {', '.join(sorted(names)[:8])}{more}")
    raise HeatcError(
        f"the weights do not fit {type(model).__name__}",
        place=str(path),
        notes=[*notes, "check that config.json names the architecture the weights belong to"],
    )
