"""
Moments of layer inputs, kept in the user's cache folder.

They depend on the model's text, its weights and the calibration inputs, and on nothing that is
asked of a decomposition, so that a second compilation with other formats or ranks finds them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.dialects.einsum import WeightOp
from heatc.files import atomic_write, make_folder
from heatc.heat.calibrate import Moments
from heatc.weights import WeightStore

_VERSION = 1


def cache_root() -> Path:
    """`heatc/` in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "heatc"


def statistics_key(
    module: ModuleOp,
    weights: WeightStore,
    inputs: Mapping[str, NDArray[Any]],
    most_tokens: int,
) -> str:
    """What moments depend on, as 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{_VERSION} {most_tokens} {module}".encode())
    names = sorted({n for op in module.walk() if isinstance(op, WeightOp) for n in op.keys})
    digest.update(weights.checksum(names).encode())
    for name in sorted(inputs):
        array = np.ascontiguousarray(inputs[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class Statistics:
    """Moments by the name of a value; written as they are found, complete after `finish`."""

    def __init__(self, key: str, root: Path | None = None):
        self.folder = (root or cache_root()) / "statistics" / key
        self._index = self.folder / "index.json"
        self._names: list[str] = []
        self.complete = self._index.is_file()
        if self.complete:
            self._names = json.loads(self._index.read_text(encoding="utf-8"))

    def save(self, name: str, moments: Moments) -> None:
        """Write the moments of one value."""
        make_folder(self.folder)
        if name not in self._names:
            self._names.append(name)
        number = self._names.index(name)
        for part, array in (("mean", moments.mean), ("covariance", moments.covariance)):
            with atomic_write(self.folder / f"{number}.{part}.npy") as stream:
                np.save(stream, array)
        with atomic_write(self.folder / f"{number}.count", "w") as stream:
            stream.write(str(moments.count))

    def finish(self) -> None:
        """Say that all moments are there."""
        with atomic_write(self._index, "w") as stream:
            json.dump(self._names, stream)
        self.complete = True

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def load(self, name: str) -> Moments:
        """The moments of one value, mapped from their file; `KeyError` for another name."""
        if name not in self._names:
            raise KeyError(name)
        number = self._names.index(name)
        mean, covariance = (
            np.load(self.folder / f"{number}.{part}.npy", mmap_mode="r", allow_pickle=False)
            for part in ("mean", "covariance")
        )
        count = int((self.folder / f"{number}.count").read_text(encoding="utf-8"))
        return Moments(count, np.array(mean), covariance)
