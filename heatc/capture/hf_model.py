"""
Models of transformers: built from a configuration, their parameters views of the weights.

The model is built twice: first without any memory, to be compared with the weights, then with its
own tables. Its parameters never have memory of their own.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from heatc.capture.checkpoint import Checkpoint
from heatc.capture.config import bounded_modules, check_config
from heatc.capture.hf_names import Fit, fit
from heatc.capture.hf_weights import listed, load
from heatc.capture.placeholders import Placeholders
from heatc.errors import HeatcError

_LARGEST_BUFFERS = 256 << 20


@dataclass(frozen=True)
class Choice:
    """
    A way to build the model of a configuration.

    Attributes:
        build: makes it, in evaluation mode.
        remark: what the user is to know of it, if anything.
    """

    build: Callable[[], Any]
    remark: str = ""


@dataclass(frozen=True)
class Built:
    """A model whose parameters are views of the weights, and what there is to say of it."""

    model: Any
    placeholders: Placeholders
    remarks: list[str]


def build_model(
    path: Path,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    *,
    is_base: bool = False,
    tolerates: Callable[[Any], bool] = lambda model: False,
) -> Built:
    """
    The model of a configuration in evaluation mode, with these weights.

    `path` is the folder of the configuration or a file in it. With `is_base` it is the model without
    a head, whatever class the configuration names. A model that `tolerates` says so of may lack
    weights, which are then refused when something reads them. Raises `HeatcError` for an architecture
    that transformers cannot build, and for weights that do not fit it.
    """
    folder = path if path.is_dir() else path.parent
    place = str(folder / "config.json")
    check_config(config, {n: s.shape for n, s in checkpoint.items()}, place)
    _check_quantised(folder, config)
    failed: HeatcError | None = None
    for choice in _choices(folder, config, is_base):
        try:
            skeleton, found = _try(path, config, checkpoint, choice, tolerates)
        except HeatcError as error:
            if failed is None and not isinstance(error, _Misfit):
                raise
            failed = failed or error
            continue
        return _loaded(path, config, choice, skeleton, found)
    assert failed is not None
    raise failed


def _loaded(
    path: Path, config: Mapping[str, Any], choice: Choice, skeleton: Any, found: Fit
) -> Built:
    folder = path if path.is_dir() else path.parent
    loading = load(path, skeleton, found)
    model = _build(folder, config, lambda: _without_memory(choice.build))
    model.load_state_dict(loading.state, strict=False, assign=True)
    remarks = [choice.remark, *loading.remarks]
    return Built(model, loading.placeholders, [text for text in remarks if text])


class _Misfit(HeatcError):
    """Weights that do not fit an architecture."""


def _try(
    path: Path,
    config: Mapping[str, Any],
    checkpoint: Checkpoint,
    choice: Choice,
    tolerates: Callable[[Any], bool],
) -> tuple[Any, Fit]:
    """The model without memory, and how the weights fit it; `_Misfit` where they do not."""
    folder = path if path.is_dir() else path.parent
    with bounded_modules(len(checkpoint), str(folder / "config.json")):
        skeleton = _build(folder, config, lambda: _on_meta(choice.build))
    found = fit(path, skeleton, checkpoint)
    if found.missing and not (found.sources and tolerates(skeleton)):
        raise _misfit(path, skeleton, found)
    _check_buffers(folder, skeleton, sum(stored.nbytes for stored in checkpoint.values()))
    return skeleton, found


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


def _choices(folder: Path, config: Mapping[str, Any], is_base: bool) -> list[Choice]:
    """The ways to build the model that a configuration names, the best one first; `HeatcError`."""
    transformers = import_transformers()
    attention = config.get("attn_implementation") or config.get("_attn_implementation")
    attention = "eager" if attention == "eager" else "sdpa"

    def read() -> tuple[Any, Any, str]:
        settings = transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        # Outputs have names, whatever the configuration says.
        settings.return_dict = True
        return settings, *_model_class(transformers, config)

    settings, known, foreign = _build(folder, config, read)
    if known is not None and not is_base:
        return [Choice(_constructor(known._from_config, settings, attention, {}))]
    remark = ""
    if foreign and not is_base:
        remark = f"transformers has no class {foreign}: the model without a head is compiled"
    base = partial(transformers.AutoModel.from_config, trust_remote_code=False)
    whole = Choice(_constructor(base, settings, attention, {}), remark)
    without = "no weights of a pooler: the model is compiled without one"
    bare = _constructor(base, settings, attention, {"add_pooling_layer": False})
    return [whole, Choice(bare, "; ".join(filter(None, (remark, without))))]


def _constructor(
    build: Callable[..., Any], settings: Any, attention: str, options: Mapping[str, Any]
) -> Callable[[], Any]:
    """What makes a model in float32, whatever its weights are."""
    import torch

    told = {"dtype": torch.float32, **options}

    def make() -> Any:
        try:
            return build(settings, attn_implementation=attention, **told).eval()
        except ValueError:
            # Raised for architectures that have no such attention.
            return build(settings, attn_implementation="eager", **told).eval()

    return make


def _check_quantised(folder: Path, config: Mapping[str, Any]) -> None:
    if config.get("quantization_config"):
        method = str(config["quantization_config"])[:80]
        raise HeatcError(
            f"the weights are quantised: quantization_config is {method}",
            place=str(folder / "config.json"),
            notes=["give the model that was quantised, with weights in floating point"],
        )


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


def _check_buffers(folder: Path, skeleton: Any, weights: int) -> None:
    """Refuse a model whose tables, such as masks of all positions, are far above its weights."""
    buffers = sum(buffer.nbytes for buffer in skeleton.buffers())
    if buffers > weights + _LARGEST_BUFFERS:
        raise HeatcError(
            f"the model makes tables of {buffers} bytes, the weights have {weights}",
            place=str(folder / "config.json"),
            notes=["is a number of config.json, such as max_position_embeddings, too large?"],
        )


def _model_class(transformers: Any, config: Mapping[str, Any]) -> tuple[Any, str]:
    """The class that a configuration names, None without one; and a name that is no class."""
    names = config.get("architectures") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"architectures is {str(names)[:60]}, expected a list of names")
    for name in names:
        found = getattr(transformers, name, None) if name.isidentifier() else None
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
            return found, ""
    return None, f"{names[0][:60]!r}" if names else ""


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


def _misfit(path: Path, model: Any, found: Fit) -> _Misfit:
    notes: list[str] = []
    for what, names in (("missing", found.missing), ("unexpected", found.unused)):
        if names:
            notes.append(f"{len(names)} {what}: {listed(names)}")
    return _Misfit(
        f"the weights do not fit {type(model).__name__}",
        place=str(path),
        notes=[*notes, "check that config.json names the architecture the weights belong to"],
    )
