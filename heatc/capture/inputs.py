"""The inputs that a user declares: `--inputs "input_ids=1x128:i64,..."`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from heatc.errors import HeatcError, UsageError

_ALIASES = {
    "f32": "f32",
    "float32": "f32",
    "i64": "i64",
    "int64": "i64",
    "i32": "i32",
    "int32": "i32",
    "i16": "i16",
    "int16": "i16",
    "i8": "i8",
    "int8": "i8",
    "u8": "u8",
    "uint8": "u8",
    "i1": "i1",
    "bool": "i1",
}
_INPUT = re.compile(r"([A-Za-z_][A-Za-z_0-9]*)=(\d{1,9}(?:x\d{1,9})*)?:(\w+)")
_LONGEST_TEXT = 1 << 16
_MOST_AXES = 8
MOST_ELEMENTS = 1 << 27
"""Elements of one input: a gigabyte of int64."""

_EXAMPLE = 'expected for example "input_ids=1x128:i64,attention_mask=1x128:i64"'


@dataclass(frozen=True)
class InputSpec:
    """Shape and element type (`f32`, `i64`, `i32`, `i16`, `i8`, `u8` or `i1`) of one input."""

    shape: tuple[int, ...]
    dtype: str

    def __str__(self) -> str:
        return f"{'x'.join(map(str, self.shape))}:{self.dtype}"


def parse_inputs(text: str) -> dict[str, InputSpec]:
    """
    The inputs of `--inputs`, in order; raises `UsageError` on malformed text.

    The form is `name=AxBx...:dtype`, separated by commas; `name=:f32` is a scalar.
    """
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(f"expected a text for inputs, got {type(text).__name__}")
    if len(text) > _LONGEST_TEXT:
        raise UsageError(
            f"a text of {len(text)} characters, inputs are told in {_LONGEST_TEXT}",
            place="--inputs",
            notes=[_EXAMPLE],
        )
    specs: dict[str, InputSpec] = {}
    for part in text.split(","):
        name, spec = _parse_input(part.strip())
        if name in specs:
            raise UsageError(f"input {name!r} is given twice", place="--inputs")
        specs[name] = spec
    return specs


def _parse_input(part: str) -> tuple[str, InputSpec]:
    match = _INPUT.fullmatch(part)
    if match is None:
        raise UsageError(f"malformed input {part[:80]!r}", place="--inputs", notes=[_EXAMPLE])
    name, extents, dtype = match.groups()
    if dtype not in _ALIASES:
        raise UsageError(
            f"unknown element type {dtype!r} of input {name!r}",
            place="--inputs",
            notes=[f"supported are {', '.join(sorted(set(_ALIASES.values())))}"],
        )
    shape = tuple(int(extent) for extent in extents.split("x")) if extents else ()
    if problem := _shape_problem(shape):
        raise UsageError(f"input {name!r} {problem}", place="--inputs", notes=[_EXAMPLE])
    return name, InputSpec(shape, _ALIASES[dtype])


def _shape_problem(shape: Sequence[int]) -> str:
    """What is wrong with the shape of an input, or nothing."""
    if min(shape, default=1) < 1:
        return f"has an extent of {min(shape)}"
    if len(shape) > _MOST_AXES:
        return f"has {len(shape)} axes, at most {_MOST_AXES} make sense"
    if math.prod(shape) > MOST_ELEMENTS:
        return f"has {math.prod(shape)} elements, at most {MOST_ELEMENTS} make sense"
    return ""


def check_specs(inputs: Mapping[str, InputSpec] | None) -> None:
    """Raise `HeatcError` where what the Python API was given are no inputs by name."""
    if inputs is None:
        return
    if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise HeatcError(f"expected a dict of InputSpec for inputs, got {type(inputs).__name__}")
    for name, spec in inputs.items():
        if not isinstance(spec, InputSpec):  # pyright: ignore[reportUnnecessaryIsInstance]
            found = type(spec).__name__
            raise HeatcError(f"expected an InputSpec for input {name!r}, got {found}")
        if not all(type(n) is int for n in spec.shape) or spec.dtype not in _ALIASES.values():
            raise HeatcError(f"input {name!r}: expected integers and a dtype, got {spec!r}")
        if problem := _shape_problem(spec.shape):
            raise HeatcError(f"input {name!r} {problem}")


def check_inputs(
    wanted: Mapping[str, InputSpec] | None, found: Mapping[str, InputSpec], place: str
) -> None:
    """Raise `HeatcError` where the wanted inputs contradict those of a static model."""
    for name, spec in (wanted or {}).items():
        if name not in found:
            raise HeatcError(
                f"the model has no input {name!r}",
                place=place,
                notes=[f"its inputs are {', '.join(f'{n}={s}' for n, s in found.items())}"],
            )
        if spec != found[name]:
            raise HeatcError(
                f"--inputs says {name}={spec}, the model was exported with {name}={found[name]}",
                place=place,
                notes=["shapes are fixed by the export: export it again, or leave --inputs out"],
            )
