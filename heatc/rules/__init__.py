"""
The pruning rules of attention: docs/design/rules.md says what a rule decides.

A rule is one file that defines one object of `PruningRule`. Those of heatc are the modules named in
`RULE_NAMES`; another package brings one by an entry point of the group `heatc.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from heatc.isa.table import PRUNED_SCORES, PrunedScore
from heatc.rules.definition import (
    RULE_NAMES,
    RULES,
    Attention,
    Layer,
    PruningRule,
    Rule,
    find_rule,
)
from heatc.rules.options import (
    GATED,
    IMPORTANCES,
    MOST_BLOCK,
    MOST_FINER,
    MOST_HEADS,
    OPTIONS,
    Gated,
    Importance,
    Option,
    RuleError,
    read_values,
    spelling,
    values_of,
    written,
)

__all__ = [
    "GATED",
    "IMPORTANCES",
    "MOST_BLOCK",
    "MOST_FINER",
    "MOST_HEADS",
    "OPTIONS",
    "PRUNED_SCORES",
    "PRUNING_RULE",
    "RULES",
    "RULE_NAMES",
    "Attention",
    "Gated",
    "Importance",
    "Layer",
    "Option",
    "PrunedScore",
    "PruningRule",
    "Rule",
    "RuleError",
    "find_rule",
    "known_options",
    "make_rule",
    "options_of",
    "read_own",
    "spelling",
    "written",
]

PRUNING_RULE = "ours"
"""The rule of options that are given without a rule's name: `--rho-b 0.3` asks for pruning."""


def known_options(rule: PruningRule) -> Mapping[str, Option]:
    """Every option that can be given beside a rule's name, those that it does not take too."""
    return {**OPTIONS, **rule.own}


def options_of(name: str) -> Mapping[str, Any]:
    """The options that the rule `name` takes, and their defaults."""
    return find_rule(name).defaults


def make_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """
    The rule `name` with some options (by attribute name), the rest at its defaults.

    Raises `RuleError` for an unknown rule or option, a wrong type, number or range, and for an
    option that the rule does not take.
    """
    kind = find_rule(name)
    known = known_options(kind)
    given: dict[str, Any] = {}
    for option, value in options.items():
        if option not in known:
            raise RuleError(option, f"unknown option {spelling(option)}")
        given[option] = values_of(option, known[option], value)
    for option in given:
        if option not in kind.defaults:
            takes = ", ".join(map(spelling, kind.defaults)) or "no options"
            raise RuleError(
                option, f"rule {name} does not take {spelling(option)}; it takes {takes}"
            )
    return kind.with_options(given)


def read_own(name: str, text: str) -> tuple[str, Any]:
    """
    The option of a rule's own, and its value, that the text `option=value` gives.

    Raises `RuleError` where the rule has no such option.
    """
    option, equals, value = text.partition("=")
    option, own = option.replace("-", "_"), find_rule(name).own
    if not equals or option not in own:
        takes = ", ".join(f"{spelling(o)}=..." for o in own) or "none"
        raise RuleError(option, f"rule {name} has no option {text!r} of its own; it has {takes}")
    return option, read_values(option, own[option], value)
