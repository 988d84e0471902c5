"""Files of torch.save: weights-only unless their writer is trusted, mapped where they can be."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from heatc.capture.exported import import_torch
from heatc.capture.mapped import MappedZip
from heatc.errors import HeatcError

if TYPE_CHECKING:
    import torch

    Tensors = dict[str, torch.Tensor]

_WRAPPED = ("state_dict", "model_state_dict", "model")
"""Where trainers put the state dict of a model, beside those of other things."""

HOW_TO_SAVE = (
    "save the model as an archive, torch.export.save(torch.export.export(model, ...), path), "
    "or its state dict, torch.save(model.state_dict(), path), beside its config.json"
)


def load_tensors(path: Path) -> Tensors:
    """
    The state dict of a file of torch.save.

    Raises `HeatcError` for a damaged file, one of another kind, and pickled objects.
    """
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    records: list[int] | None = None
    if is_zip:
        archive = MappedZip(path)
        # torch looks at no checksum.
        archive.check()
        records = records_of(archive)
    return state_dict(path, load(path, trusted=False), records)


def records_of(archive: MappedZip) -> list[int]:
    """The sizes in bytes of the records that hold storages."""
    return [m.size for name, m in archive.members.items() if name.startswith("data/")]


def load(path: Path, *, trusted: bool) -> Any:
    """The content of a file of torch.save, weights only unless trusted."""
    torch = import_torch("a file of torch.save")
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
                HOW_TO_SAVE,
                "or pass --trust-pickle if you trust whoever wrote the file",
            ],
        ) from None
    # A damaged pickle can fail in any way.
    except Exception as error:
        raise _damaged(path, error) from None


def state_dict(path: Path, content: Any, records: Collection[int] | None) -> Tensors:
    """
    The tensors of what a file holds, by name.

    `records` are the sizes of the records that hold its storages, None where the file has none.
    Raises `HeatcError` for anything that is no state dict.
    """
    import torch

    if isinstance(content, dict):
        inner = [content[key] for key in _WRAPPED if isinstance(content.get(key), dict)]
        content = inner[0] if inner else content
    if not isinstance(content, dict) or not content:
        raise HeatcError("the file holds no state dict", place=str(path), notes=[HOW_TO_SAVE])
    for name, tensor in cast("dict[object, object]", content).items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise HeatcError(
                f"the file holds no state dict: {str(name)[:60]!r} is no tensor",
                place=str(path),
                notes=[HOW_TO_SAVE],
            )
    tensors = cast("Tensors", content)
    if records is not None:
        _check_records(path, tensors, records)
    return tensors


def _check_records(path: Path, tensors: Tensors, records: Collection[int]) -> None:
    """Refuse a storage that is not as large as its record: torch maps the file and never looks."""
    storages = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in tensors.values()
        if t.layout == _strided()
    }
    wrong = Counter(storages.values()) - Counter(records)
    if sizes := [size for size in wrong if size]:
        raise HeatcError(
            f"a tensor of {sizes[0]} bytes has no record of that size",
            place=str(path),
            notes=["the file is damaged: save or fetch it again"],
        )


def _strided() -> torch.layout:
    import torch

    return torch.strided


def _damaged(path: Path, error: Exception) -> HeatcError:
    reason = (str(error).splitlines() or [""])[0][:120]
    return HeatcError(
        f"cannot load the file: {reason or type(error).__name__}",
        place=str(path),
        notes=["the file is damaged or no file of torch.save", HOW_TO_SAVE],
    )
