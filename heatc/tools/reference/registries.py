"""docs/reference/registries.md: the rules, formats and targets of the house."""

from __future__ import annotations

from typing import Any, cast

from heatc.extensions import OWN
from heatc.rules import RULES
from heatc.tools.lists import LISTS
from heatc.tools.reference.markdown import code, head, table

_TEXT = """\
`heatc --list-rules` and its like print these lists, with what other packages bring. [Extending](../extending/index.md)
says how to add to each."""


def render() -> str:
    """The text of the page."""
    lists = [_list(what) for what in LISTS if what != "passes"]
    title = "Rules, formats, targets"
    return "\n".join([head(title, _TEXT), *lists, _defaults()])


def _list(what: str) -> str:
    rows = [(code(row.name), row.summary) for row in LISTS[what]() if row.origin == OWN]
    return f"## {what.capitalize()}\n\n{table(('name', 'meaning'), rows)}"


def _defaults() -> str:
    """What each rule takes where nothing is said; the options page says what the options mean."""
    rows = [
        (
            code(name),
            ", ".join(code(f"{key}={_value(value)}") for key, value in rule.defaults.items()),
        )
        for name in RULES.own
        if (rule := RULES.find(name)) is not None
    ]
    return f"## Defaults of the rules\n\n{table(('rule', 'defaults'), rows)}"


def _value(value: Any) -> str:
    return (
        ",".join(map(str, cast("tuple[Any, ...]", value)))
        if isinstance(value, tuple)
        else str(value)
    )
