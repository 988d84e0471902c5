"""
Blocks such as `with torch.no_grad():` in an archive's JSON: a call that holds a graph of its own.

A compiled model computes no gradients, and autocast that is off or is for another device changes
nothing. So the calls of such a block stand where the block stood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heatc.readers.fields import expect, get, only_field

_HIGHER_ORDER = "torch.ops.higher_order."
_LEADING = {"wrap_with_set_grad_enabled": 1, "wrap_with_autocast": 4}
"""Blocks, and how many arguments come before their graph."""


@dataclass(frozen=True)
class Block:
    """
    A graph inside a node.

    Attributes:
        body: its JSON, of the form of the whole graph's.
        given: the names of the outer tensors that become its inputs, in order.
        results: the names of the outer tensors that its outputs become, in order.
    """

    body: Mapping[str, Any]
    given: tuple[str, ...]
    results: tuple[str, ...]

    @property
    def inner_inputs(self) -> list[str]:
        """The names of its inputs, inside."""
        return [_name(item, "an input of a block") for item in get(self.body, "inputs", list)]

    @property
    def inner_outputs(self) -> list[str]:
        """The names of its outputs, inside."""
        return [_name(item, "an output of a block") for item in get(self.body, "outputs", list)]


def block_of(node: object) -> Block | None:
    """The block that a node is; None for a call of an op, and for a block that changes numbers."""
    name = get(node, "target", str).removeprefix(_HIGHER_ORDER)
    leading = _LEADING.get(name)
    if leading is None or not get(node, "target", str).startswith(_HIGHER_ORDER):
        return None
    arguments = [get(item, "arg", dict) for item in get(node, "inputs", list)]
    if len(arguments) <= leading or "as_graph" not in arguments[leading]:
        return None
    if name == "wrap_with_autocast" and _lowers_precision(arguments):
        return None
    given = tuple(_name(argument, "an argument") for argument in arguments[leading + 1 :])
    return Block(get(arguments[leading]["as_graph"], "graph", dict), given, _results(node))


def _lowers_precision(arguments: list[Any]) -> bool:
    """Whether autocast is on, on the device that programs are computed on."""
    device, enabled = arguments[0].get("as_string"), arguments[2].get("as_bool")
    return device == "cpu" and enabled is not False


def _results(node: object) -> tuple[str, ...]:
    names: list[str] = []
    for item in get(node, "outputs", list):
        kind, content = only_field(item, "a result")
        parts = expect(content, list, "a result") if kind == "as_tensors" else [content]
        names += [get(part, "name", str) for part in parts]
    return tuple(names)


def _name(item: object, what: str) -> str:
    kind, content = only_field(item, what)
    return get(content, "name", str) if kind == "as_tensor" else ""
