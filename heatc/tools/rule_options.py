"""The options of the pruning rules on a command line, from their table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from heatc.rules import DEFAULTS, OPTIONS, RULE_NAMES, Option, spelling
from heatc.tools.diagnostics import ToolParser


def add_rule_options(
    parser: ToolParser, title: str, rule_help: str, rules: Sequence[str] = RULE_NAMES
) -> None:
    """`--hdp-rule` of some rules and every option that one of them takes."""
    group = parser.add_argument_group(title)
    group.add_argument("--hdp-rule", choices=rules, help=rule_help)
    for name, option in OPTIONS.items():
        users = ", ".join(rule for rule in rules if name in DEFAULTS[rule])
        if users:
            group.add_argument(
                f"--{spelling(name)}",
                type=_values_of(option),
                metavar="X" if option.count == 1 else "X,..",
                help=f"{option.help} ({users})",
            )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of rules that were given, by attribute name."""
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def _values_of(option: Option) -> Callable[[str], Any]:
    """Reads the text of an option: values of its kind, by commas where it takes several."""

    def read(text: str) -> Any:
        values = tuple(option.kind(part) for part in text.split(","))
        return values[0] if option.count == 1 and len(values) == 1 else values

    read.__name__ = option.kind.__name__
    return read
