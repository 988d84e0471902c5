"""Names in the emitted program: of inputs, outputs and values."""

from __future__ import annotations

import builtins
import json
import keyword
import re
from collections.abc import Iterable, Sequence

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, StringAttr
from xdsl.dialects.func import FuncOp

from heatc.backends.numpy.runtime import MODULES, definitions
from heatc.errors import HeatcError

# What no name may hide: the program's functions and modules, and what its statements use.
_TAKEN = {*dir(builtins), *MODULES, *definitions(), "np", "main", "constants"}


def _read(attributes: ArrayAttr[DictionaryAttr] | None, count: int, kind: str) -> list[str]:
    names = [f"{kind}_{i}" for i in range(count)]
    for i, attribute in enumerate(attributes.data if attributes is not None else ()):
        name = attribute.data.get("heatc.name")
        if isinstance(name, StringAttr):
            names[i] = name.data
    if len(set(names)) < len(names):
        raise HeatcError(f"two {kind}s of the model have the same name: {', '.join(names)}")
    return names


def port_names(function: FuncOp) -> tuple[list[str], list[str]]:
    """The model's own input and output names, in order."""
    type_ = function.function_type
    return (
        _read(function.arg_attrs, len(type_.inputs), "input"),
        _read(function.res_attrs, len(type_.outputs), "output"),
    )


def identifier(text: str) -> str:
    """A Python identifier that reads like `text`."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "x"
    name = f"x_{name}" if name[0].isdigit() else name
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN else name


def quoted(text: str) -> str:
    """The literal of a name: what a model is called by never becomes code."""
    return json.dumps(text)


def readable(text: str) -> str:
    """A name as a comment or docstring may hold it."""
    return "".join(c if c.isprintable() and c not in '"\\' else "?" for c in text)


def argument_names(names: Sequence[str]) -> list[str]:
    """Distinct identifiers for the inputs."""
    taken = Names()
    return [taken.new(identifier(name)) for name in names]


class Names:
    """The names that are taken in a function."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._numbers: dict[str, int] = {}

    def reserve(self, names: Iterable[str]) -> None:
        """Names that are not to be given."""
        self._taken.update(names)

    def new(self, name: str) -> str:
        """`name`, or `name_2` and so on where it is taken; it is taken from then on."""
        number = self._numbers.get(name, 1)
        while (candidate := name if number == 1 else f"{name}_{number}") in self._taken:
            number += 1
        self._numbers[name] = number
        self._taken.add(candidate)
        return candidate
