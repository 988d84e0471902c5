"""The passes that a module has been through: an attribute of it, so that a text of it can go on."""

from __future__ import annotations

from typing import cast

from xdsl.dialects.builtin import ArrayAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute

from heatc.errors import HeatcError

PASSED = "heatc.passes"
"""An array of strings: each pass as a pipeline spells it, in order."""


def passed(module: ModuleOp) -> list[str]:
    """What a module says of its passes; `HeatcError` where that is nonsense."""
    found = module.attributes.get(PASSED)
    if found is None:
        return []
    texts = cast("ArrayAttr[Attribute]", found).data if isinstance(found, ArrayAttr) else [found]
    names = [text.data for text in texts if isinstance(text, StringAttr)]
    if not isinstance(found, ArrayAttr) or len(names) != len(texts):
        raise HeatcError(f"{PASSED} is {str(texts)[:80]}, expected an array of strings")
    return names


def record(module: ModuleOp, text: str) -> None:
    """Note on a module that it has been through a pass."""
    module.attributes[PASSED] = ArrayAttr(map(StringAttr, [*passed(module), text]))


def name_of(text: str) -> str:
    """The name of a pass as a pipeline spells it."""
    return text.partition("{")[0]


def names_passed(module: ModuleOp) -> list[str]:
    """The names of the passes that a module has been through."""
    return [name_of(text) for text in passed(module)]
