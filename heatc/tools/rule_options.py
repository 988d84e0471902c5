"""The options of the pruning rules on a command line, from their table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from heatc.rules import OPTIONS, RULE_NAMES, RULES, Option, options_of, read_own, spelling
from heatc.tools.completion import suggest_values
from heatc.tools.diagnostics import ToolParser


def add_rule_options(
    parser: ToolParser, title: str, rule_help: str, rules: Sequence[str] | None = None
) -> None:
    """
    `--hdp-rule` and every option of the rules.

    With `rules` these alone are known; without, those of other packages too, and their own options.
    """
    group = parser.add_argument_group(title)
    if rules is None:
        rule = group.add_argument(
            "--hdp-rule", metavar="NAME", help=f"{rule_help}; see --list-rules"
        )
        suggest_values(rule, lambda: RULES.names)
        group.add_argument(
            "--rule-option",
            metavar="OPTION=VALUE",
            action="append",
            default=[],
            help="an option that a rule of another package has of its own; may be repeated",
        )
    else:
        group.add_argument("--hdp-rule", choices=rules, help=rule_help)
    for name, option in OPTIONS.items():
        users = ", ".join(rule for rule in rules or RULE_NAMES if name in options_of(rule))
        if users:
            group.add_argument(
                f"--{spelling(name)}",
                type=_values_of(option),
                metavar="X" if option.count == 1 else "X,..",
                help=f"{option.help} ({users})",
            )


def given_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The shared options of rules that were given, by attribute name."""
    given = {name: getattr(arguments, name, None) for name in OPTIONS}
    return {name: value for name, value in given.items() if value is not None}


def own_options(rule: str, texts: Sequence[str]) -> dict[str, Any]:
    """What `--rule-option` says; raises `RuleError` for what the rule has no option of."""
    return dict(read_own(rule, text) for text in texts)


def _values_of(option: Option) -> Callable[[str], Any]:
    """Reads the text of an option: values of its kind, by commas where it takes several."""

    def read(text: str) -> Any:
        values = tuple(option.kind(part) for part in text.split(","))
        return values[0] if option.count == 1 and len(values) == 1 else values

    read.__name__ = option.kind.__name__
    return read
