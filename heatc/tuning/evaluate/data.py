"""Labelled samples: checked once, and fitted to the inputs of each program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.readers.npz import LABELS, forms_of
from heatc.tuning.common.samples import check_labels
from heatc.tuning.evaluate.program import MASK, Port, Program, length_of

Array = NDArray[Any]

SEGMENTS = "token_type_ids"
"""Zeros are what every model takes where it is not given: data without it are data with zeros."""


@dataclass(frozen=True)
class Data:
    """
    Arrays (N, ...) by the names of inputs.

    `labels` (N,) are classes or None, `place` names the data in messages.
    """

    arrays: Mapping[str, Array]
    labels: NDArray[np.int64] | None
    place: str

    def __len__(self) -> int:
        return min(form.shape[0] for form in forms_of(self.arrays).values())

    @cached_property
    def real(self) -> NDArray[np.bool_] | None:
        """(N, longest): which tokens are real; None without a mask of sequences."""
        if MASK not in self.arrays or len(forms_of(self.arrays)[MASK].shape) != 2:
            return None
        mask = self.arrays[MASK] != 0
        used = np.flatnonzero(mask.any(axis=0))
        return mask[:, : int(used[-1]) + 1 if used.size else 0]

    def fitted(self, program: Program) -> dict[str, Array]:
        """
        The arrays (N, ...) in the program's own shapes.

        Sequences that are shorter than the program's are padded on the right. Of longer ones the
        columns are dropped that are padding in all samples. Raises `HeatcError` for an array that is
        missing, unknown or of another shape, and for samples that are longer than the program.
        """
        found = forms_of(self.arrays)
        place, ports = f"{self.place}: {program.files[0].name}", program.ports
        listing = f"the program takes {', '.join(_described(n, p) for n, p in ports.items())}"
        for name in ports:
            if name not in found and not self._has_zeros(name):
                raise HeatcError(
                    f"the data has no array {name!r}", place=place, notes=[listing, _listing(found)]
                )
        for name in found:
            if name not in ports and not (name == SEGMENTS and not self.arrays[name].any()):
                raise HeatcError(
                    f"the program has no input {name!r}",
                    place=place,
                    notes=[listing, _listing(found)],
                )
        return {name: self._fit(name, port, program) for name, port in ports.items()}

    def _has_zeros(self, name: str) -> bool:
        """`heatc-tune data` leaves out token types that are all 0."""
        return name == SEGMENTS and MASK in self.arrays

    def _fit(self, name: str, port: Port, program: Program) -> Array:
        if name not in self.arrays:
            return np.zeros((len(self), *port.shape[1:]), port.dtype)
        shape = forms_of(self.arrays)[name].shape
        if shape[1:] == port.shape[1:]:
            return self.arrays[name]
        mask = forms_of(self.arrays).get(MASK)
        is_sequence = len(port.shape) == 2 and mask is not None and mask.shape == shape
        if not is_sequence or port.shape[1] != length_of(program) or self.real is None:
            self._refuse(name, port, shape, program)
        length = port.shape[1]
        if length >= shape[1]:
            return np.pad(self.arrays[name], [(0, 0), (0, length - shape[1])])
        if length < self.real.shape[1]:
            self._too_long(length, program)
        return self.arrays[name][:, :length]

    def _refuse(self, name: str, port: Port, shape: tuple[int, ...], program: Program) -> NoReturn:
        notes = ["samples come first; an array that is no sequence of tokens must fit as it is"]
        if MASK not in self.arrays:
            notes = [f"only data with {MASK!r} can be padded or cut to another length"]
        raise HeatcError(
            f"the array is {_times(shape)}, {program.files[0].name} takes {_times(port.shape)}",
            place=f"{self.place}: {name}",
            notes=notes,
        )

    def _too_long(self, length: int, program: Program) -> NoReturn:
        assert self.real is not None
        lengths = self.real.shape[1] - self.real[:, ::-1].argmax(axis=1)
        raise HeatcError(
            f"{int((lengths > length).sum())} of {len(lengths)} samples have more than the {length} "
            f"tokens that {program.files[0].name} takes; the longest has {int(lengths.max())}",
            place=self.place,
            notes=[
                f"cut the text: heatc-tune data --length {length}",
                "or compile for longer sequences: heatc --inputs",
            ],
        )


def check_data(arrays: Mapping[str, Array], place: str, limit: int | None) -> Data:
    """
    The data set: as many samples in every array, a mask of 0 and 1, labels that are classes.

    `limit` takes the first samples alone. Raises `HeatcError`, which names the array.
    """
    forms = forms_of(arrays)
    inputs = [name for name in forms if name != LABELS]
    if not inputs:
        raise HeatcError("the data has no inputs", place=place)
    for name in forms:
        if not forms[name].shape:
            raise HeatcError("expected samples, found a scalar", place=f"{place}: {name}")
    count = forms[inputs[0]].shape[0]
    for name in inputs:
        if forms[name].shape[0] != count:
            sizes = ", ".join(f"{n} {forms[n].shape[0]}" for n in inputs)
            raise HeatcError(
                f"the inputs have different numbers of samples: {sizes}", place=f"{place}: {name}"
            )
    if not count:
        raise HeatcError("the data has no samples", place=place)
    labels = check_labels(arrays, count, place)
    kept = slice(None if limit is None else min(limit, count))
    data = Data(
        {name: arrays[name][kept] for name in inputs},
        None if labels is None else labels[kept],
        place,
    )
    _check_mask(data)
    return data


def _check_mask(data: Data) -> None:
    if data.real is None:
        return
    place = f"{data.place}: {MASK}"
    if not np.isin(data.arrays[MASK], (0, 1)).all():
        raise HeatcError("expected 0 and 1 alone", place=place)
    empty = np.flatnonzero(~data.real.any(axis=1))
    if empty.size:
        raise HeatcError(
            f"sample {int(empty[0])} is fully masked", place=place, notes=["leave such samples out"]
        )


def _listing(forms: Mapping[str, Any]) -> str:
    names = ", ".join(f"{n} {_times(f.shape)}" for n, f in forms.items() if n != LABELS)
    return f"the data has {names}"


def _described(name: str, port: Port) -> str:
    return f"{name} {_times(('N', *port.shape[1:]))}"


def _times(shape: tuple[int | str, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
