"""
The model itself as the teacher: run at every step, or once for all of them.

A kept teacher runs each sample once and leaves what it gave in a folder, which every epoch and every
later student of the same model and text reads. Features are kept in float16, half the bytes: that
moves a target by 2^-11 of its value, far less than a factorised layer does. Outputs stay float32.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heatc.errors import HeatcError
from heatc.files import atomic_write, make_folder, new_file
from heatc.temporary import sweep
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.torch_model import Run, TorchModel
from heatc.tuning.distill.texts import Texts, in_order

Array = NDArray[Any]
KEEP_EVERY = 50  # batches between notes of how far the teacher is
_WITHOUT = "without --keep-teacher the model is run at every step"


class LiveTeacher:
    """Runs the model whenever it is asked."""

    def __init__(self, model: TorchModel):
        self.model = model

    def __call__(self, texts: Texts, samples: Sequence[int]) -> Run:
        """What the model makes of these samples."""
        with torch.no_grad():
            return self.model(texts.take(samples))


class KeptTeacher:
    """
    Runs the model on all samples of some sets, in batches of `size`, unless `folder` has them.

    `folder` is the model's own. Raises `HeatcError` where the disk has no room, a feature is too large
    for float16, or a layer norm is over something other than tokens or samples.
    """

    def __init__(
        self,
        model: TorchModel,
        sets: Sequence[Texts],
        size: int,
        folder: Path,
        progress: ProgressCallback,
    ):
        self._device = model.device
        self._sets: dict[Texts, _KeptTargets] = {}
        for texts in sets:
            key = content_key({"batch": str(size)}, texts.inputs)
            targets = _KeptTargets(folder / key, texts)
            targets.fill(LiveTeacher(model), size, progress)
            self._sets[texts] = targets

    def __call__(self, texts: Texts, samples: Sequence[int]) -> Run:
        """What the model made of these samples; the packing is not kept."""
        features, outputs = self._sets[texts].read(samples)
        return Run(
            [self._tensor(array) for array in features],
            {name: self._tensor(array) for name, array in outputs.items()},
            None,
        )

    def _tensor(self, array: Array) -> Tensor:
        make = cast("Any", torch.from_numpy)  # pyright: ignore[reportUnknownMemberType]
        return make(array.astype(np.float32, copy=False)).to(self._device)


class _File(NamedTuple):
    """An array to keep."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape)

    def path(self, folder: Path) -> Path:
        return folder / f"{self.name}.npy"


def _reserve(path: Path) -> None:
    """Take a file's room on the disk: a mapped file that finds none kills its process."""
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)


class _KeptTargets:
    """
    What the teacher gives for one set, one file a layer norm or output, mapped into memory.

    The rows of a feature are tokens, sample by sample, or samples; those of an output samples.
    """

    def __init__(self, folder: Path, texts: Texts):
        self.folder, self.texts = folder, texts
        self._note_file = folder / "done.json"
        self._starts = np.cumsum(texts.lengths) - texts.lengths
        self._tokens = int(texts.lengths.sum())
        self._features: list[Array] = []
        self._outputs: dict[str, Array] = {}

    # --- Writing ------------------------------------------------------------------------------

    def fill(self, teacher: LiveTeacher, size: int, progress: ProgressCallback) -> None:
        """Run what an earlier run has not."""
        batches = list(in_order(self.texts.lengths.tolist(), size))
        first = teacher(self.texts, batches[0])
        self._open(first, len(batches[0]))
        for number in range(self._done(), len(batches)):
            self._write(batches[number], teacher(self.texts, batches[number]))
            progress("teacher", number + 1, len(batches))
            if (number + 1) % KEEP_EVERY == 0 or number + 1 == len(batches):
                self._note(number + 1)

    def _open(self, first: Run, size: int) -> None:
        """Open the files, made to the measure of a first batch of `size` samples."""
        sweep(make_folder(self.folder))
        files = [
            _File(f"feature-{n}", np.dtype(np.float16), (self._rows(f, first, size), *f.shape[1:]))
            for n, f in enumerate(first.features)
        ]
        files += [
            _File(f"output-{name}", np.dtype(np.float32), (len(self.texts), *value.shape[1:]))
            for name, value in first.outputs.items()
        ]
        missing = [file for file in files if not file.path(self.folder).is_file()]
        self._check_room(missing)
        if missing:
            # A file that is made anew is empty, whatever was noted before.
            self._note_file.unlink(missing_ok=True)
        opened = [self._map(file) for file in files]
        count = len(first.features)
        self._features = opened[:count]
        self._outputs = dict(zip(first.outputs, opened[count:]))

    def _rows(self, feature: Tensor, run: Run, size: int) -> int:
        packed = None if run.packing is None else len(run.packing.rows)
        if feature.shape[0] == packed:
            return self._tokens
        if feature.shape[0] == size:
            return len(self.texts)
        shape = "x".join(map(str, feature.shape))
        raise HeatcError(
            f"a layer norm leaves {shape}, neither tokens nor samples: it cannot be kept",
            notes=[_WITHOUT],
        )

    def _check_room(self, files: Sequence[_File]) -> None:
        need = sum(file.nbytes for file in files)
        free = shutil.disk_usage(self.folder).free
        if need > free:
            raise HeatcError(
                f"what the teacher gives takes {need / 1e9:.1f} GB, free are {free / 1e9:.1f}",
                place=str(self.folder),
                notes=[_WITHOUT],
            )

    def _map(self, file: _File) -> Array:
        """The file, made if it is not there; two runs that make it at once share one."""
        path = file.path(self.folder)
        if not path.is_file():
            with new_file(path) as part:
                np.lib.format.open_memmap(part, mode="w+", dtype=file.dtype, shape=file.shape)
                _reserve(part)
        return np.lib.format.open_memmap(path, mode="r+")

    def _write(self, samples: Sequence[int], run: Run) -> None:
        for file, value in zip(self._features, run.features):
            with np.errstate(over="ignore"):
                small = value.cpu().numpy().astype(np.float16)
            if not np.isfinite(small).all():
                raise HeatcError(
                    "a layer norm leaves values beyond float16: they cannot be kept",
                    notes=[_WITHOUT],
                )
            file[self._places(file, samples)] = small
        for name, value in run.outputs.items():
            self._outputs[name][list(samples)] = value.cpu().numpy()

    def _done(self) -> int:
        """How many batches are there."""
        try:
            return int(json.loads(self._note_file.read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return 0

    def _note(self, batches: int) -> None:
        for file in (*self._features, *self._outputs.values()):
            cast("np.memmap[Any, Any]", file).flush()
        with atomic_write(self._note_file, "w") as stream:
            stream.write(f"{max(batches, self._done())}\n")

    # --- Reading ------------------------------------------------------------------------------

    def read(self, samples: Sequence[int]) -> tuple[list[Array], dict[str, Array]]:
        """Features and outputs of some samples, as a batch of them has them."""
        features = [file[self._places(file, samples)] for file in self._features]
        outputs = {name: file[list(samples)] for name, file in self._outputs.items()}
        return features, outputs

    def _places(self, file: Array, samples: Sequence[int]) -> NDArray[np.int64]:
        """The rows of these samples."""
        if len(file) != self._tokens:
            return np.array(samples, np.int64)
        starts, lengths = self._starts[list(samples)], self.texts.lengths[list(samples)]
        within: NDArray[np.int64] = np.arange(int(lengths.sum()), dtype=np.int64)
        within -= np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(starts, lengths) + within
