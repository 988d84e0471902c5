"""Files mapped into memory, read-only: their pages are read when they are touched."""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.readers.source import as_path, open_file

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class MappedFile:
    """A file mapped read-only: `array` are its bytes."""

    path: Path
    array: Bytes
    _map: mmap.mmap

    def forget(self, start: int, stop: int) -> None:
        """
        Give the memory of some pages back; they are mapped again when they are touched.

        Whoever walks over a large file then does not hold it all at once.
        """
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(mmap, "MADV_DONTNEED"):
            # The pages are those of a file and never written: nothing is lost.
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def map_file(path: str | os.PathLike[str], what: str) -> MappedFile:
    """Map a regular file; `HeatcError` if it is missing, empty or something else."""
    file = as_path(path, what)
    try:
        with open_file(file, what, pipes=False) as stream:
            if not os.fstat(stream.fileno()).st_size:
                raise HeatcError("the file is empty", place=str(file), notes=[f"expected {what}"])
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        os_error = error if isinstance(error, OSError) else OSError(None, str(error))
        raise from_os_error(os_error, str(file)) from error
    return MappedFile(file, np.frombuffer(mapped, np.uint8), mapped)
