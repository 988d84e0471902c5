"""
What calibration has computed so far, so that an interrupted run goes on where it stopped.

A folder in the user's cache, named by everything that its content depends on; files appear whole
or not at all.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.files import atomic_write, make_folder

Array = NDArray[Any]
Arrays = dict[str, Array]


def cache_folder() -> Path:
    """`heatc/calibrate` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "heatc" / "calibrate"


class Store:
    """Arrays by name in one folder; `reused` counts what an earlier run left there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.reused = 0
        self._own: set[str] = set()
        make_folder(folder)

    def get(self, name: str, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of this name, computed and kept if they are not there."""
        found = self._read(name)
        if found is not None:
            self.reused += name not in self._own
            self._own.add(name)
            return found
        arrays = compute()
        self._own.add(name)
        with atomic_write(self.folder / f"{name}.npz") as stream:
            np.savez(stream, **arrays)  # pyright: ignore[reportArgumentType]
        return arrays

    def member(self, name: str, key: str) -> Array:
        """One array of a name that `get` returned before, without reading the others."""
        with np.load(self.folder / f"{name}.npz", allow_pickle=False) as archive:
            return archive[key]

    def _read(self, name: str) -> Arrays | None:
        try:
            with np.load(self.folder / f"{name}.npz", allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            return None
