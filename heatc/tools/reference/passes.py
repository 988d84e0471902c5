"""docs/reference/passes.md: every pass of the house with its options."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator

from xdsl.passes import ModulePass

from heatc.passes.effect import effect_of
from heatc.tools.reference.markdown import code, docstring, head, prose, table
from heatc.universe import PASSES

_TEXT = """\
`heatc-opt FILE.mlir -p 'pass{option=value},pass'` runs passes alone. `heatc --dump-pass-pipeline` prints those of a
compilation. A pass is *exact* (the same real function), of a *tolerance*, or it *changes values*. Passes of xDSL itself
are in its own documentation."""


def render() -> str:
    """The text of the page."""
    return "\n".join([head("Passes", _TEXT), *(_section(n, make()) for n, make in PASSES.items())])


def _section(name: str, kind: type[ModulePass]) -> str:
    module = inspect.getmodule(kind)
    effect = getattr(kind, "effect", None)
    parts = [
        f"## {name}\n",
        prose(docstring(module)),
        f"Effect: {effect}.\n" if effect else f"Effect: {effect_of(kind())}.\n",
    ]
    rows = list(_options(kind))
    if rows:
        parts.append(table(("option", "type", "default"), rows))
    return "\n".join(parts)


def _options(kind: type[ModulePass]) -> Iterator[tuple[str, str, str]]:
    for field in dataclasses.fields(kind):
        if field.name != "name":
            yield code(field.name.replace("_", "-")), code(str(field.type)), code(_default(field))


def _default(field: dataclasses.Field[object]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return str(field.default_factory())
    return "" if field.default is dataclasses.MISSING else str(field.default)
