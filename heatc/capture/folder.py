"""
Hugging Face folders and state dicts: the architecture from config.json, the weights mapped.

The model is built without memory for its parameters, which then become views of the mapped
file: exporting reads none of them.
"""

from __future__ import annotations

import inspect
import pickle
import warnings
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr

from heatc.capture.config import check_config, read_config
from heatc.capture.exported import capture_program, export, import_torch
from heatc.capture.hf_model import build_model, quiet_transformers
from heatc.capture.inputs import InputSpec
from heatc.capture.mapped import read_safetensors
from heatc.errors import HeatcError
from heatc.kinds import is_heatc_safetensors
from heatc.readers.fields import expect, get
from heatc.readers.json_text import read_json
from heatc.weights import WeightStore

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

DEFAULT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DEFAULT_LENGTH = 128

_LARGEST_INDEX = 64 << 20

Inputs = Mapping[str, InputSpec] | None
Arrays = Mapping[str, Any]


def capture_folder(folder: Path, inputs: Inputs) -> tuple[ModuleOp, WeightStore]:
    """
    Capture a Hugging Face folder: config.json with safetensors, in one file or in shards.

    Raises `HeatcError`: files missing or damaged, an architecture that transformers cannot
    build, weights that do not fit it, or an unsupported model.
    """
    config = read_config(folder)
    arrays = _folder_weights(folder)
    torch = import_torch("a Hugging Face folder")
    with warnings.catch_warnings():
        # The arrays are read-only, and so is what export does with them.
        warnings.simplefilter("ignore")
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return _capture(folder, config, tensors, inputs)


def capture_pickle(
    path: Path, inputs: Inputs, trusted: bool, records: Collection[int] | None = None
) -> tuple[ModuleOp, WeightStore]:
    """
    Capture a `.pt` state dict beside its config.json; a pickled module only if trusted.

    `records` are the sizes in bytes of the records that hold its storages, None where the file has
    no records. Raises `HeatcError` if the file is a pickled module and not trusted, damaged, or no
    state dict.
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
    tensors = cast("Tensors", content)
    if records is not None:
        _check_records(path, tensors, records)
    config = read_config(path.parent, needed_by=path)
    return _capture(path, config, tensors, inputs)


def _check_records(path: Path, tensors: Tensors, records: Collection[int]) -> None:
    """Refuse a storage that is not as large as its record: torch maps the file and never looks."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors.values()
    }
    wrong = Counter(storages.values()) - Counter(records)
    if sizes := [size for size in wrong if size]:
        raise HeatcError(
            f"a tensor of {sizes[0]} bytes has no record of that size",
            place=str(path),
            notes=["the file is damaged: save or fetch it again"],
        )


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
    table = get(read_json(index, "an index of shards", _LARGEST_INDEX), "weight_map", dict)
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
        shard = read_safetensors(folder / file)
        _check_shard(folder, file, shard, table, arrays)
        arrays |= shard
    return arrays


def _check_shard(
    folder: Path, file: str, shard: Arrays, table: Mapping[str, Any], others: Arrays
) -> None:
    """A shard holds what the index says, and nothing of another shard."""
    lost = [name for name, where in table.items() if where == file and name not in shard]
    twice = [name for name in shard if name in others]
    if lost or twice:
        message = f"no weight {lost[0]!r}" if lost else f"weight {twice[0]!r} is in two shards"
        raise HeatcError(
            message,
            place=str(folder / file),
            notes=["the index and the shards belong to different models: download them again"],
        )


# The model.


def _capture(
    path: Path, config: Mapping[str, Any], tensors: Tensors, inputs: Inputs
) -> tuple[ModuleOp, WeightStore]:
    folder = path if path.is_dir() else path.parent
    _check_precision(path, tensors)
    check_config(config, {n: t.shape for n, t in tensors.items()}, str(folder / "config.json"))
    with quiet_transformers():
        model = build_model(path, config, tensors)
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


# The inputs.


def _default_inputs(model: Any, config: Mapping[str, Any]) -> dict[str, InputSpec]:
    """One sequence of 128 tokens, or as long as the model allows."""
    limit = config.get("max_position_embeddings")
    length = min(DEFAULT_LENGTH, limit) if isinstance(limit, int) and limit > 0 else DEFAULT_LENGTH
    parameters = inspect.signature(model.forward).parameters
    return {name: InputSpec((1, length), "i64") for name in DEFAULT_INPUTS if name in parameters}


def _examples(model: Any, specs: Mapping[str, InputSpec], path: Path) -> Tensors:
    """
    Tensors of the declared shapes; raises `HeatcError` for a name that forward lacks.

    They have no memory: exporting looks at shapes alone.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

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
    for name in specs:
        if name not in known and known:
            raise HeatcError(
                f"the model has no input {name!r}",
                place=str(path),
                notes=[f"forward takes {', '.join(known)}"],
            )
    with FakeTensorMode():
        return {n: torch.zeros(s.shape, dtype=dtypes[s.dtype]) for n, s in specs.items()}
