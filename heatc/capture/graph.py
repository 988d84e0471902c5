"""
The captured graph, free of torch: what both front ends produce and what `convert` reads.

A graph is a list of ATen calls over named tensors. Arguments carry the names of the ATen schema
(`input`, `dim`, ...), whether they were passed by position or by keyword, so that an archive's
JSON and a live `ExportedProgram` give the same calls.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from heatc.errors import HeatcError

SUPPORTED_DTYPES = ("f32", "i64", "i32", "i16", "i8", "u8", "i1")

_FRAME = re.compile(r'File "([^"\n]*)", line (\d+)')
_LIBRARY = re.compile(r"[/\\](?:site|dist)-packages[/\\]([^/\\]+)[/\\]")
_TORCH_FRAME = re.compile(r"(site|dist)-packages[/\\]torch[/\\]|[/\\]torch[/\\]nn[/\\]")


@dataclass(frozen=True)
class Ref:
    """A tensor argument, by name."""

    name: str


@dataclass(frozen=True)
class Dtype:
    """A dtype argument: `f32`, `i64`, ... (every dtype of torch has a name, few are supported)."""

    name: str


Arg: TypeAlias = "Ref | Dtype | bool | int | float | str | list[Arg] | None"


@dataclass(frozen=True)
class AtenTensor:
    """Shape and element type of a named tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return "x".join((*map(str, self.shape), self.dtype))


@dataclass(frozen=True)
class Place:
    """
    Where a call comes from: `module` is torch's fully qualified name ("" is the model itself).

    `library` is the installed package that the file belongs to, "" for a file of the user's own.
    """

    module: str = ""
    file: str = ""
    line: int = 0
    library: str = ""

    def __str__(self) -> str:
        module = self.module or "the model"
        return f"{module} ({self.file}:{self.line})" if self.file else module


@dataclass(frozen=True)
class AtenCall:
    """
    One call of an ATen op, such as `aten.linear.default`.

    `outputs` names the result tensors; an op that returns a list or a tuple has one name for
    each element.
    """

    target: str
    args: dict[str, Arg]
    outputs: tuple[str, ...]
    place: Place = Place()


@dataclass(frozen=True)
class Bound:
    """A graph input bound to the weight (parameter, buffer, constant) of that name."""

    value: str
    weight: str


@dataclass(frozen=True)
class Named:
    """A user input or output: the tensor `value` under the name that the model gives it."""

    value: str
    name: str


@dataclass
class AtenGraph:
    """
    A model: its inputs, the weights it binds, its calls in order, and its outputs.

    `numbers` are the values of the inputs that are bound to a constant of one element, such as
    the tensor that `torch.tensor(8.0)` leaves in a program.
    """

    inputs: list[Named] = field(default_factory=list[Named])
    weights: list[Bound] = field(default_factory=list[Bound])
    numbers: dict[str, int | float] = field(default_factory=dict[str, "int | float"])
    calls: list[AtenCall] = field(default_factory=list[AtenCall])
    outputs: list[Named] = field(default_factory=list[Named])
    tensors: dict[str, AtenTensor] = field(default_factory=dict[str, AtenTensor])

    def tensor(self, name: str) -> AtenTensor:
        """The type of a named tensor; raises `HeatcError` if the graph does not declare it."""
        try:
            return self.tensors[name]
        except KeyError:
            raise HeatcError(f"the graph uses a tensor {name!r} that it does not declare") from None


def place_of(module_path: str, stack_trace: str | None) -> Place:
    """
    The place of a call: the module, and the innermost frame that is not torch's own.

    `stack_trace` is what torch.export records: Python frames, outermost first.
    """
    frames = _FRAME.findall(stack_trace or "")
    for file, line in reversed(frames):
        if not _TORCH_FRAME.search(file):
            # Paths differ from machine to machine, the name of the file does not.
            library = _LIBRARY.search(file)
            name, number = re.split(r"[/\\]", file)[-1], int(line[:9])
            return Place(module_path, name, number, library.group(1) if library else "")
    return Place(module_path)


def is_plain_number(number: object) -> bool:
    """Whether a number of a scalar constant can stand in the text: float64 holds it exactly."""
    return isinstance(number, float) or (isinstance(number, int) and abs(number) <= 2**53)


def dynamic_shape_error(tensor: str, axis: int, expression: str, place: str = "") -> HeatcError:
    """The error for a dimension that is not a number."""
    return HeatcError(
        f"dimension {axis} of {tensor!r} is dynamic ({expression})",
        place=place,
        notes=[
            "export the model with static shapes: without dynamic_shapes=, one length a program"
        ],
    )


def spec_leaf_names(spec: object, first_names: Sequence[str]) -> list[str] | None:
    """
    Names of the leaves of the inputs' tree: keyword names, and `first_names` for positions.

    `spec` is torch's tree of (args, kwargs) in JSON form. Returns None where a leaf has no name
    of its own (a nested container, or too few `first_names`).
    """
    parts = _children(spec)
    if len(parts) != 2:
        return None
    positional, keywords = parts
    count = len(_children(positional))
    names = [*first_names[:count], *(_keys(keywords) or ())]
    leaves = [*_children(positional), *_children(keywords)]
    if len(names) != len(leaves) or any(_children(leaf) for leaf in leaves):
        return None
    return names


def output_names(spec: object) -> list[str] | None:
    """
    One name a leaf of the outputs' tree: keys where there are keys, `output_<i>` in a tuple.

    Nested leaves join their names with `_`; a lone tensor is `output`. Returns None where the
    tree is not understood.
    """
    if not isinstance(spec, dict):
        return None
    if _is_leaf(spec):
        return ["output"]
    return _names_below(spec, "", 0)


def name_inputs(values: list[str | None], spec: object, first_names: list[str]) -> list[Named]:
    """Inputs under the names of `forward`; None stands for an input that is no tensor."""
    names = spec_leaf_names(spec, first_names)
    if names is None or len(names) != len(values) or len(set(names)) != len(names):
        names = [value or "" for value in values]
    return [Named(value, name) for value, name in zip(values, names) if value is not None]


def name_outputs(values: list[str | None], spec: object) -> list[Named]:
    """Outputs under the model's own keys; None stands for an output that is None."""
    names = output_names(spec)
    if names is None or len(names) != len(values) or len(set(names)) != len(names):
        names = [f"output_{i}" for i in range(len(values))]
    return [Named(value, name) for value, name in zip(values, names) if value is not None]


def refused_output(kind: str) -> HeatcError:
    """The error for an output that is a side effect."""
    return HeatcError(
        f"the model has an output of kind {kind!r}",
        notes=[
            "a compiled model returns tensors and changes nothing: "
            "remove the in-place update of its buffers or inputs"
        ],
    )


def _names_below(spec: object, prefix: str, depth: int) -> list[str] | None:
    if depth > 16:
        return None
    if _is_leaf(spec):
        return [prefix]
    children, keys = _children(spec), _keys(spec)
    if keys is not None and len(keys) != len(children):
        return None
    names: list[str] = []
    for i, child in enumerate(children):
        if keys is not None:
            name = f"{prefix}_{keys[i]}" if prefix else keys[i]
        else:
            name = f"{prefix or 'output'}_{i}"
        below = _names_below(child, name, depth + 1)
        if below is None:
            return None
        names += below
    return names


def _is_leaf(spec: object) -> bool:
    return isinstance(spec, dict) and spec.get("type", 0) is None


def _children(spec: object) -> list[object]:
    children = spec.get("children_spec") if isinstance(spec, dict) else None
    return list(children) if isinstance(children, list) else []


def _keys(spec: object) -> list[str] | None:
    """The keys of a dictionary or of a Hugging Face output, whose context is a JSON list."""
    context = spec.get("context") if isinstance(spec, dict) else None
    if not isinstance(context, str):
        return None
    try:
        keys = json.loads(context)
    except (ValueError, RecursionError):
        return None
    if isinstance(keys, list) and keys and all(isinstance(k, str) for k in keys):
        return list(keys)
    return None
