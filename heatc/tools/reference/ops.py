"""docs/reference/ops.md: every dialect with its ops, types and attributes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import cast

from xdsl.ir import Attribute, Dialect, Operation
from xdsl.irdl import IRDLOperation

from heatc.tools.reference.markdown import code, docstring, head, prose, table
from heatc.universe import DIALECTS

_TEXT = """\
The levels of the IR and what each is for: [levels](../design/levels.md). An op of the dialect `hdp` is an instruction of
the machine, and [the instruction set](../isa.md) says what it does."""


def render() -> str:
    """The text of the page."""
    return "\n".join([head("Ops", _TEXT), *(_dialect(n, make()) for n, make in DIALECTS.items())])


def _dialect(name: str, dialect: Dialect) -> str:
    parts = [f"## Dialect {name}\n"]
    parts += [_op(op) for op in sorted(dialect.operations, key=lambda op: op.name)]
    parts += [_attribute(a) for a in sorted(dialect.attributes, key=lambda a: a.name)]
    return "\n".join(parts)


def _op(op: type[Operation]) -> str:
    parts = [f"### {op.name}\n", prose(docstring(op))]
    rows = list(_parts(op))
    if rows:
        parts.append(table(("what", "name"), rows))
    return "\n".join(parts)


def _parts(op: type[Operation]) -> Iterator[tuple[str, str]]:
    definition = cast("type[IRDLOperation]", op).get_irdl_definition()
    groups = {
        "operands": [name for name, _ in definition.operands],
        "attributes": sorted({*definition.properties, *definition.attributes}),
        "results": [name for name, _ in definition.results],
        "regions": [name for name, _ in definition.regions],
    }
    for what, names in groups.items():
        if names:
            yield what, ", ".join(map(code, names))


def _attribute(kind: type[Attribute]) -> str:
    sigil = "!" if "TypeAttribute" in {base.__name__ for base in inspect.getmro(kind)} else "#"
    return "\n".join([f"### {sigil}{kind.name}\n", prose(docstring(kind))])
