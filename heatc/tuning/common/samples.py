"""Calibration inputs: checked against the model, cut into batches of like lengths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.npz import LABELS, Form, forms_of

Array = NDArray[Any]

HELD_BACK = 0.25
"""Share of the samples that confirm the choice and take no part in it."""

FEWEST = 8
"""Samples below which nothing can be chosen and confirmed."""

_MASK = "attention_mask"


class Batch(NamedTuple):
    """Arrays of the model's batch size; `samples` (n,) says which sample each of the first n is."""

    samples: NDArray[np.int64]
    inputs: dict[str, Array]


@dataclass(frozen=True)
class Samples:
    """
    A data set that fits the model.

    `inputs` are (N, ...) in the model's own shapes, `lengths` (N,) the real tokens, `held` (N,)
    tells the samples that are held back, `labels` (N,) are classes or None.
    """

    inputs: dict[str, Array]
    lengths: NDArray[np.int64]
    held: NDArray[np.bool_]
    labels: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, size: int, chosen: NDArray[np.bool_] | None = None) -> Iterator[Batch]:
        """
        Batches of `size` samples, shortest first.

        The last is filled up with samples of one token: it costs least, and unlike none it is
        something that every model takes.
        """
        order = np.argsort(self.lengths, kind="stable")
        if chosen is not None:
            order = order[chosen[order]]
        for start in range(0, len(order), size):
            samples = order[start : start + size]
            inputs = {n: _filled(n, a[samples], size) for n, a in self.inputs.items()}
            yield Batch(samples, inputs)


def _filled(name: str, rows: Array, size: int) -> Array:
    missing = size - len(rows)
    if not missing:
        return rows
    rest = rows[:1]
    if name == _MASK:
        rest = np.zeros_like(rest)
        rest.reshape(-1)[0] = 1
    return np.concatenate([rows, np.repeat(rest, missing, axis=0)])


def check_samples(
    arrays: Mapping[str, Array],
    shapes: Mapping[str, tuple[int, ...]],
    limits: Mapping[str, int],
    seed: int,
    place: str,
) -> Samples:
    """
    The data set for a model whose inputs have these shapes (first axis: its batch).

    `limits` are the rows of the tables that inputs index. Shorter sequences are padded where the
    model takes an attention mask. Raises `HeatcError`, which names the array.
    """
    checker = _Checker(shapes, limits, place)
    # Before any data: a file may hold gigabytes of something else.
    checker.forms(forms_of(arrays))
    inputs = {name: checker.input(name, arrays[name]) for name in shapes}
    count = checker.count(inputs)
    lengths = checker.lengths(inputs, count)
    held = _held_back(lengths, seed)
    return Samples(inputs, lengths, held, check_labels(arrays, count, place))


def _held_back(lengths: NDArray[np.int64], seed: int) -> NDArray[np.bool_]:
    """A quarter of the samples, drawn from each run of four neighbours in length."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(lengths), np.bool_)
    order = np.argsort(lengths, kind="stable")
    run = round(1 / HELD_BACK)
    for start in range(0, len(order) - run + 1, run):
        held[order[start + rng.integers(run)]] = True
    return held


class _Checker:
    def __init__(
        self, shapes: Mapping[str, tuple[int, ...]], limits: Mapping[str, int], place: str
    ):
        self.shapes = shapes
        self.limits = limits
        self.place = place
        each = (f"{n} (Nx{'x'.join(map(str, s[1:]))})" for n, s in shapes.items())
        self.listing = f"the model's inputs: {', '.join(each)}, and {LABELS} (N) if there are any"

    def fail(self, name: str, message: str, *notes: str) -> NoReturn:
        raise HeatcError(message, place=f"{self.place}: {name}", notes=notes)

    def forms(self, arrays: Mapping[str, Form]) -> None:
        """Names, dtypes and shapes; shorter sequences will be padded."""
        for name in self.shapes:
            if name not in arrays:
                note = "give ones where no token is padding" if name == _MASK else ""
                self.fail(name, "the input is missing", self.listing, *([note] if note else []))
            self._form(name, arrays[name])
        for name in arrays:
            if name not in self.shapes and name != LABELS:
                self.fail(name, "the model has no such input", self.listing)

    def _form(self, name: str, array: Form) -> None:
        axes, shape = array.shape, self.shapes[name]
        found = "x".join(map(str, axes)) or "scalar"
        if array.dtype.kind not in "biuf":
            self.fail(name, f"expected numbers, found {array.dtype}")
        if len(axes) != len(shape) or not axes:
            self.fail(name, f"expected {len(shape)} axes, found {found}", self.listing)
        short = len(axes) == 2 and axes[1] < shape[1] and _MASK in self.shapes
        if axes[1:] != shape[1:] and not short:
            expected = "x".join(map(str, ("N", *shape[1:])))
            self.fail(name, f"expected {expected}, found {found}", self.listing)

    def input(self, name: str, array: Array) -> Array:
        """One input in the model's shape, its values checked."""
        missing = self.shapes[name][1:2] if array.ndim == 2 else ()
        if missing and missing[0] > array.shape[1]:
            array = np.pad(array, [(0, 0), (0, missing[0] - array.shape[1])])
        if name in self.limits:
            self._check_table(name, array)
        elif not np.isfinite(array.astype(np.float64)).all():
            self.fail(name, "a value is not finite")
        whole = array.dtype.kind in "biu" or name == _MASK
        return array.astype(np.int64 if whole else np.float32)

    def _check_table(self, name: str, array: Array) -> None:
        if array.dtype.kind not in "biu":
            self.fail(name, f"expected integers, found {array.dtype}")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < self.limits[name]:
            bounds = f"{int(array.min())}..{int(array.max())}"
            self.fail(name, f"values {bounds}, the table it indexes has {self.limits[name]} rows")

    def count(self, inputs: Mapping[str, Array]) -> int:
        """The number of samples, the same in all inputs and enough."""
        counts = {name: len(array) for name, array in inputs.items()}
        first = next(iter(counts))
        if len(set(counts.values())) > 1:
            sizes = ", ".join(f"{n} {c}" for n, c in counts.items())
            self.fail(first, f"the inputs have different numbers of samples: {sizes}")
        if counts[first] < FEWEST:
            note = "a few hundred are a good number; a quarter of them confirms the choice"
            self.fail(first, f"{counts[first]} samples, needed are at least {FEWEST}", note)
        return counts[first]

    def lengths(self, inputs: Mapping[str, Array], count: int) -> NDArray[np.int64]:
        """Real tokens of every sample."""
        if _MASK not in inputs:
            length = max((a.shape[1] for a in inputs.values() if a.ndim > 1), default=1)
            return np.full(count, length, np.int64)
        mask = inputs[_MASK]
        if not np.isin(mask, (0, 1)).all():
            self.fail(_MASK, "expected 0 and 1 alone")
        lengths: NDArray[np.int64] = mask.reshape(count, -1).sum(axis=1).astype(np.int64)
        if not lengths.all():
            sample = int(lengths.argmin())
            self.fail(_MASK, f"sample {sample} is fully masked", "leave such samples out")
        return lengths


def check_labels(arrays: Mapping[str, Array], count: int, place: str) -> NDArray[np.int64] | None:
    """
    The classes of `count` samples, None where the data has none.

    Raises `HeatcError` for labels that are not one class a sample: 0, 1, ...
    """
    if LABELS not in arrays:
        return None

    def fail(message: str, *notes: str) -> NoReturn:
        raise HeatcError(message, place=f"{place}: {LABELS}", notes=notes)

    form = forms_of(arrays)[LABELS]
    if form.shape != (count,):
        found = "x".join(map(str, form.shape)) or "scalar"
        fail(f"expected {count} labels, found {found}")
    labels = arrays[LABELS]
    if labels.dtype.kind not in "biu":
        fail(f"expected classes 0, 1, ..., found {labels.dtype}")
    if labels.size and int(labels.min()) < 0:
        sample = int(labels.argmin())
        found = f"found {labels[sample]} of sample {sample}"
        fail(f"expected classes 0, 1, ..., {found}", "leave such samples out")
    return labels.astype(np.int64)
