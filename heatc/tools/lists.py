"""What `heatc --list-rules` and its like print: a name, where it comes from, and what it is."""

from __future__ import annotations

from collections.abc import Callable

from heatc.extensions import Row


def _rules() -> list[Row]:
    from heatc.rules import RULES

    return RULES.rows()


def _formats() -> list[Row]:
    from heatc.heat.formats import REGISTRY

    return REGISTRY.rows()


def _targets() -> list[Row]:
    from heatc.targets import target_rows

    return target_rows()


def _passes() -> list[Row]:
    from heatc.universe import pass_rows

    return pass_rows()


LISTS: dict[str, Callable[[], list[Row]]] = {
    "rules": _rules,
    "formats": _formats,
    "targets": _targets,
    "passes": _passes,
}
"""The lists by what they are of. That of passes leaves out xDSL's own."""


def table_of(what: str) -> str:
    """A list as text, a line each: name, package, summary."""
    rows = LISTS[what]()
    names, origins = (max(len(row[k]) for row in rows) for k in (0, 2))
    lines = [f"{r.name:<{names}}  {r.origin:<{origins}}  {r.summary}".rstrip() for r in rows]
    return "\n".join([*lines, ""])
