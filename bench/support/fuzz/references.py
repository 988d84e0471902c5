"""
The reference readers: a file that heatc accepts must be one that they accept.

Only files that a tool has taken are read here, and none is ever unpickled.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import safetensors
import yaml


def _safetensors(data: bytes) -> None:
    safetensors.deserialize(data)


def _zip(data: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"bad CRC-32 of member {damaged!r}")


def _npz(data: bytes) -> None:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        for name in arrays.files:
            arrays[name]


def _json(data: bytes) -> None:
    json.loads(data)


def _yaml(data: bytes) -> None:
    yaml.safe_load(data)


def _pt2(data: bytes) -> None:
    """
    An archive of torch.export: every checksum, and every JSON member.

    `torch.export.load` itself evaluates expressions and unpickles samples, so it is not called.
    """
    _zip(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                json.loads(archive.read(name))


def _hdp(data: bytes) -> None:
    _zip(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            if name.endswith(".json"):
                json.loads(archive.read(name))
        safetensors.deserialize(archive.read("weights.safetensors"))


def _state_dict(data: bytes) -> None:
    """A file of torch.save; `weights_only` builds tensors and containers, and calls nothing."""
    import torch

    _zip(data)
    torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


READERS: dict[str, Callable[[bytes], None]] = {
    "safetensors": _safetensors,
    "zip": _zip,
    "npz": _npz,
    "json": _json,
    "yaml": _yaml,
    "pt2": _pt2,
    "hdp": _hdp,
    "pt": _state_dict,
}


def refusal(name: str, data: bytes) -> str:
    """Why the reference reader of a format refuses a file; empty where it takes it."""
    try:
        READERS[name](data)
    # Each of them refuses in its own words.
    except Exception as error:
        kind: type[Any] = type(error)
        return f"{kind.__module__}.{kind.__name__}: {str(error)[:200]}"
    return ""
