"""
The weights of a folder as they lie in its files: safetensors or `.bin`, in one file or in shards.

Nothing is copied and nothing is cast here. A tensor that no model asks for may have any type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from heatc.capture.mapped import NUMPY_DTYPES
from heatc.capture.pickle_file import load_tensors
from heatc.errors import HeatcError
from heatc.kinds import is_heatc_safetensors
from heatc.readers.fields import expect, get
from heatc.readers.json_text import read_json
from heatc.readers.safetensors_file import open_safetensors

_SAFETENSORS_NAMES = {
    "F32": "f32",
    "F64": "f64",
    "F16": "f16",
    "BF16": "bf16",
    "I64": "i64",
    "I32": "i32",
    "I16": "i16",
    "I8": "i8",
    "U8": "u8",
    "BOOL": "i1",
}

FLOATS = ("f32", "f64", "f16", "bf16")
"""Types that a model of float32 can be given; all but the first are cast."""

_RAW = {**NUMPY_DTYPES, "f64": np.dtype("<f8"), "f16": np.dtype("<f2"), "bf16": np.dtype("<u2")}
_LARGEST_INDEX = 64 << 20
_FETCH = "download the whole folder: the index names every file"
_SAVE = "save the model with model.save_pretrained(folder)"


@dataclass(frozen=True)
class Stored:
    """
    A tensor of a checkpoint.

    `dtype` is heatc's name of its type, or the file's where heatc has none; `array` are its elements
    (bf16 as its 16-bit codes), None for a type that heatc does not read.
    """

    dtype: str
    shape: tuple[int, ...]
    array: NDArray[Any] | None

    @property
    def nbytes(self) -> int:
        """Its bytes in the file, 0 for a type that heatc does not read."""
        return 0 if self.array is None else self.array.nbytes

    def cast(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Its elements in another type; a view where the type is its own."""
        assert self.array is not None
        if self.dtype == "bf16":
            # The upper half of a float32.
            wide = self.array.astype("<u4")
            wide <<= 16
            return wide.view("<f4").astype(dtype, copy=False)
        with np.errstate(over="ignore"):
            return self.array.astype(dtype, copy=False)


Checkpoint = Mapping[str, Stored]


def from_tensor(tensor: Any) -> Stored:
    """The elements of a tensor of torch, which share its memory."""
    import torch

    name = str(tensor.dtype).removeprefix("torch.")
    dtype = _TORCH_NAMES.get(name, name)
    shape = tuple(tensor.shape)
    if tensor.layout != torch.strided or tensor.is_quantized or dtype not in _RAW:
        return Stored(dtype, shape, None)
    plain = tensor.detach()
    if dtype == "bf16":
        return Stored(dtype, shape, plain.view(torch.int16).numpy().view("<u2"))
    return Stored(dtype, shape, plain.numpy())


_TORCH_NAMES = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i1",
}


def read_checkpoint(folder: Path) -> Checkpoint:
    """
    The tensors of a folder by name; safetensors come before `.bin`, one file before shards.

    Raises `HeatcError` for missing, damaged and contradicting files.
    """
    for name, read in _READERS.items():
        if (folder / name).is_file():
            return read(folder / name)
        if (folder / f"{name}.index.json").is_file():
            return _read_shards(folder, folder / f"{name}.index.json", read)
    # A program's weights may lie beside the model's.
    files = sorted(f for f in folder.glob("*.safetensors") if not is_heatc_safetensors(f))
    if len(files) != 1:
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth"))
        hint = f"it holds {others[0]}: give that file itself, or" if others else "download or"
        raise HeatcError(
            f"the folder holds {len(files)} *.safetensors files and no model.safetensors",
            place=str(folder),
            notes=[f"{hint} {_SAVE}"],
        )
    return read_safetensors(files[0])


def read_safetensors(path: Path) -> dict[str, Stored]:
    """The tensors of a safetensors file, mapped; raises `HeatcError` for a damaged one."""
    file = open_safetensors(path)
    found: dict[str, Stored] = {}
    for name, entry in file.entries.items():
        dtype = _SAFETENSORS_NAMES.get(entry.dtype, entry.dtype)
        array = None
        if dtype == "bf16":
            array = file.data[entry.start : entry.stop].view("<u2").reshape(entry.shape)
        elif dtype in _RAW:
            array = file.array(name)
        found[name] = Stored(dtype, entry.shape, array)
    return found


def read_bin(path: Path) -> dict[str, Stored]:
    """The tensors of a file of torch.save, loaded weights-only and mapped where it can be."""
    return {name: from_tensor(tensor) for name, tensor in load_tensors(path).items()}


_READERS: dict[str, Callable[[Path], dict[str, Stored]]] = {
    "model.safetensors": read_safetensors,
    "pytorch_model.bin": read_bin,
}


def _read_shards(
    folder: Path, index: Path, read: Callable[[Path], dict[str, Stored]]
) -> dict[str, Stored]:
    table = get(read_json(index, "an index of shards", _LARGEST_INDEX), "weight_map", dict)
    files = sorted({expect(file, str, "a file of the weight map") for file in table.values()})
    found: dict[str, Stored] = {}
    for file in files:
        if Path(file).name != file or file in (".", ".."):
            raise HeatcError(f"unsafe file name {file[:80]!r} in the weight map", place=str(index))
        if not (folder / file).is_file():
            raise HeatcError(f"shard {file!r} is missing", place=str(folder), notes=[_FETCH])
        shard = read(folder / file)
        _check_shard(folder, file, shard, cast("dict[str, Any]", table), found)
        found |= shard
    return found


def _check_shard(
    folder: Path, file: str, shard: Checkpoint, table: Mapping[str, Any], others: Checkpoint
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
