"""
Hugging Face folders and state dicts: the architecture from config.json, the weights mapped.

The model is built without memory for its parameters, which then become views of the mapped
file: exporting reads none of them.
"""

from __future__ import annotations

import contextlib
import inspect
import pickle
import warnings
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from heatc.capture.exported import capture_program, export, import_torch
from heatc.capture.fields import expect, get, parse_json
from heatc.capture.inputs import InputSpec
from heatc.capture.mapped import read_safetensors
from heatc.errors import HeatcError
from heatc.kinds import is_heatc_safetensors
from heatc.weights import WeightStore

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

DEFAULT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DEFAULT_LENGTH = 128

_CONFIG_LIMIT = 10_000_000
_LEGACY_NAMES = ((".gamma", ".weight"), (".beta", ".bias"))

Inputs = Mapping[str, InputSpec] | None


def capture_folder(folder: Path, inputs: Inputs) -> tuple[ModuleOp, WeightStore]:
    """
    Capture a Hugging Face folder: config.json with safetensors, in one file or in shards.

    Raises `HeatcError`: files missing or damaged, an architecture that transformers cannot
    build, weights that do not fit it, or an unsupported model.
    """
    config = _read_config(folder)
    arrays = _folder_weights(folder)
    torch = import_torch("a Hugging Face folder")
    with warnings.catch_warnings():
        # The arrays are read-only, and so is what export does with them.
        warnings.simplefilter("ignore")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return _capture(folder, config, tensors, inputs)


def capture_pickle(path: Path, inputs: Inputs, trusted: bool) -> tuple[ModuleOp, WeightStore]:
    """
    Capture a `.pt` state dict beside its config.json; a pickled module only if trusted.

    Raises `HeatcError` if the file is a pickled module and not trusted, damaged, or no state
    dict.
    """
    torch = import_torch("a .pt file")
    content = _load(torch, path, trusted)
    if isinstance(content, torch.nn.Module):
        return _capture_module(path, cast("torch.nn.Module", content), inputs)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise HeatcError("the file holds no state dict", place=str(path), notes=[_HOW_TO_SAVE])
    for name, tensor in cast("dict[object, object]", content).items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise HeatcError(
                f"the file holds no state dict: {str(name)[:60]!r} is no tensor",
                place=str(path),
                notes=[_HOW_TO_SAVE],
            )
    config = _read_config(path.parent, needed_by=path)
    return _capture(path, config, cast("Tensors", content), inputs)


_HOW_TO_SAVE = (
    "save the model as an archive, torch.export.save(torch.export.export(model, ...), path), "
    "or its state dict, torch.save(model.state_dict(), path), beside its config.json"
)


def _load(torch: Any, path: Path, trusted: bool) -> Any:
    """The content of a file of torch.save, weights only unless trusted."""
    with path.open("rb") as file:
        mapped = file.read(2) == b"PK"
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted, mmap=mapped)
    except pickle.UnpicklingError as error:
        if trusted or "GLOBAL" not in str(error).upper():
            raise _damaged(path, error) from None
        raise HeatcError(
            "the file is a pickled Python object, not a state dict",
            place=str(path),
            notes=[
                "loading it could run any code, so nothing of it was loaded",
                _HOW_TO_SAVE,
                "or pass --trust-pickle if you trust whoever wrote the file",
            ],
        ) from None
    # A damaged pickle can fail in any way.
    except Exception as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> HeatcError:
    reason = (str(error).splitlines() or [""])[0][:120]
    return HeatcError(
        f"cannot load the file: {reason or type(error).__name__}",
        place=str(path),
        notes=["the file is damaged or no file of torch.save", _HOW_TO_SAVE],
    )


def _capture_module(
    path: Path, module: torch.nn.Module, inputs: Inputs
) -> tuple[ModuleOp, WeightStore]:
    if not inputs:
        raise HeatcError(
            "a pickled module does not say what its inputs are",
            place=str(path),
            notes=['give them, for example --inputs "input_ids=1x128:i64"'],
        )
    module.eval()
    examples = _examples(module, inputs, path)
    return _signed(path, *capture_program(export(module, examples)))


# The folder's files.


def _read_config(folder: Path, needed_by: Path | None = None) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        why = "a state dict holds no architecture" if needed_by else "no config.json in the folder"
        raise HeatcError(
            why,
            place=str(needed_by or folder),
            notes=[f"expected the model's config.json as {path}"],
        )
    if path.stat().st_size > _CONFIG_LIMIT:
        raise HeatcError("the file is too large for a configuration", place=str(path))
    return parse_json(path.read_bytes(), str(path))


def _folder_weights(folder: Path) -> Mapping[str, Any]:
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return read_safetensors(folder / "model.safetensors")
    if index.is_file():
        return _sharded_weights(folder, index)
    # A program's weights may lie beside the model's.
    files = sorted(f for f in folder.glob("*.safetensors") if not is_heatc_safetensors(f))
    if len(files) != 1:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        hint = f"it holds {others[0]}: give that file itself, or" if others else "download or"
        raise HeatcError(
            f"the folder holds {len(files)} *.safetensors files and no model.safetensors",
            place=str(folder),
            notes=[f"{hint} save the model with model.save_pretrained(folder)"],
        )
    return read_safetensors(files[0])


def _sharded_weights(folder: Path, index: Path) -> Mapping[str, Any]:
    table = get(parse_json(index.read_bytes(), str(index)), "weight_map", dict)
    files = sorted({expect(file, str, "a file of the weight map") for file in table.values()})
    arrays: dict[str, Any] = {}
    for file in files:
        if Path(file).name != file or file in (".", ".."):
            raise HeatcError(f"unsafe file name {file[:80]!r} in the weight map", place=str(index))
        if not (folder / file).is_file():
            raise HeatcError(
                f"shard {file!r} is missing",
                place=str(folder),
                notes=["download the whole folder: the index names every file"],
            )
        arrays |= read_safetensors(folder / file)
    return arrays


# The model.


def _capture(
    path: Path, config: Mapping[str, Any], tensors: Tensors, inputs: Inputs
) -> tuple[ModuleOp, WeightStore]:
    folder = path if path.is_dir() else path.parent
    _check_precision(path, tensors)
    _check_layers(folder, config, tensors)
    with _quiet_transformers():
        model = _build(folder, config)
        _assign(path, model, tensors)
        specs = inputs or _default_inputs(model, config)
        program = export(model, _examples(model, specs, path))
    return _signed(path, *capture_program(program))


def _signed(path: Path, module: ModuleOp, weights: WeightStore) -> tuple[ModuleOp, WeightStore]:
    module.attributes["heatc.source"] = DictionaryAttr({"model": StringAttr(path.resolve().name)})
    return module, WeightStore(dict(weights), path)


def _check_precision(path: Path, tensors: Tensors) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and str(tensor.dtype) != "torch.float32":
            raise HeatcError(
                f"weight {name!r} has element type {tensor.dtype}, supported is torch.float32",
                place=str(path),
                notes=["convert the model: model.float().save_pretrained(folder)"],
            )


def _check_layers(folder: Path, config: Mapping[str, Any], tensors: Tensors) -> None:
    """A configuration of a billion layers would take forever to build."""
    for key in ("num_hidden_layers", "n_layers", "num_layers"):
        layers = config.get(key, 0)
        if not isinstance(layers, int) or not 0 <= layers <= max(len(tensors), 64):
            raise HeatcError(
                f"{key} is {str(layers)[:40]}, the weights are {len(tensors)} tensors",
                place=str(folder / "config.json"),
            )


@contextlib.contextmanager
def _quiet_transformers() -> Generator[None]:
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


def _build(folder: Path, config: Mapping[str, Any]) -> Any:
    """The model in evaluation mode, its parameters without memory; raises `HeatcError`."""
    transformers = import_transformers()
    attention = config.get("attn_implementation") or config.get("_attn_implementation")
    attention = "eager" if attention == "eager" else "sdpa"
    try:
        settings = transformers.AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        build = _model_class(transformers, config)._from_config
        with _parameters_without_memory():
            try:
                model = build(settings, attn_implementation=attention)
            except ValueError:
                # Raised for architectures that have no such attention.
                model = build(settings, attn_implementation="eager")
    # A configuration that fits no architecture fails anywhere in its constructor.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise HeatcError(
            f"transformers cannot build the model: {reason or type(error).__name__}",
            place=str(folder / "config.json"),
            notes=[
                f"model_type is {str(config.get('model_type'))[:40]!r}: is it one that the "
                f"installed transformers {transformers.__version__} knows?"
            ],
        ) from None
    return model.eval()


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


def _assign(path: Path, model: Any, tensors: Tensors) -> None:
    """Make the model's parameters views of the weights; raises `HeatcError` if they do not fit."""
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
    state |= {name: renamed[name] for name in persistent}
    model.load_state_dict(state, strict=False, assign=True)


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


# The inputs.


def _default_inputs(model: Any, config: Mapping[str, Any]) -> dict[str, InputSpec]:
    """One sequence of 128 tokens, or as long as the model allows."""
    limit = config.get("max_position_embeddings")
    length = min(DEFAULT_LENGTH, limit) if isinstance(limit, int) and limit > 0 else DEFAULT_LENGTH
    parameters = inspect.signature(model.forward).parameters
    return {name: InputSpec((1, length), "i64") for name in DEFAULT_INPUTS if name in parameters}


def _examples(model: Any, specs: Mapping[str, InputSpec], path: Path) -> Tensors:
    """Tensors of the declared shapes; raises `HeatcError` for a name that forward lacks."""
    import torch

    parameters = inspect.signature(model.forward).parameters
    # transformers' models take `**kwargs` too, for options, not for tensors.
    known = [n for n, p in parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    dtypes = {
        "f32": torch.float32,
        "i64": torch.int64,
        "i32": torch.int32,
        "i16": torch.int16,
        "i8": torch.int8,
        "u8": torch.uint8,
        "i1": torch.bool,
    }
    examples: Tensors = {}
    for name, spec in specs.items():
        if name not in known and known:
            raise HeatcError(
                f"the model has no input {name!r}",
                place=str(path),
                notes=[f"forward takes {', '.join(known)}"],
            )
        full = torch.ones if name == "attention_mask" else torch.zeros
        examples[name] = full(spec.shape, dtype=dtypes[spec.dtype])
    return examples
