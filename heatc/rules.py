"""
The pruning rules of attention and what each of them can be told: the one table.

The pass, `plan.json`, the command and the documentation read it; docs/design/rules.md says what a
rule decides. An option that a rule does not take is refused, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from heatc.readers.fields import short

Importance = Literal["abs", "positive"]
PrunedScore = Literal["zero", "neginf", "int", "mean"]
Gated = Literal["zero", "mean", "col"]
RuleName = Literal["none", "paper", "ours", "topk", "energon", "sanger", "spatten"]

IMPORTANCES: tuple[str, ...] = get_args(Importance)
PRUNED_SCORES: tuple[str, ...] = get_args(PrunedScore)
GATED: tuple[str, ...] = get_args(Gated)
RULE_NAMES: tuple[str, ...] = get_args(RuleName)

MOST_FINER = 14
"""The finest integer part: of a 16-bit code one bit beside the sign must stay above it."""

MOST_HEADS = 4096
"""The most values of an option that every head can have of its own."""

MOST_BLOCK = 64
"""The largest extent of a block of scores."""


class RuleError(ValueError):
    """An option of a rule that is unknown, out of range, or not this rule's; `option` names it."""

    def __init__(self, option: str, message: str):
        super().__init__(message)
        self.option = option


@dataclass(frozen=True)
class Rule:
    """
    A rule with all its options; those that the rule does not take hold their neutral values.

    Attributes:
        name: the rule.
        finer: bits by which the binary point of the integer part moves down.
        importance: what a score adds to its block.
        pruned_score: what a pruned score becomes.
        gated: what a pruned head puts out.
        rho_b: threshold ratio of blocks, one for all heads or one a head.
        tau_h: threshold of heads, one for all heads or one a head; none at 0 or below.
        density: share of each row's blocks that `topk` keeps.
        alpha: threshold ratios of the two rounds of `energon`.
        threshold: predicted probability that `sanger` keeps from, exclusive.
        ratio: share of heads that `spatten` prunes, in the mean over layers.
        block: rows and columns of a block of scores.
    """

    name: str = "none"
    finer: int = 0
    importance: str = "abs"
    pruned_score: str = "neginf"
    gated: str = "zero"
    rho_b: tuple[float, ...] = (0.0,)
    tau_h: tuple[float, ...] = (0.0,)
    density: float = 1.0
    alpha: tuple[float, ...] = (0.0, 0.0)
    threshold: float = 0.0
    ratio: float = 0.0
    block: tuple[int, ...] = (2, 2)

    @property
    def options(self) -> dict[str, Any]:
        """The options that the rule takes, by name, in the order of the table."""
        return {name: getattr(self, name) for name in DEFAULTS[self.name]}

    def check_heads(self, heads: int) -> None:
        """Raise `RuleError` where a value per head is not one for each of `heads` heads."""
        for option in ("rho_b", "tau_h"):
            count = len(getattr(self, option))
            if count not in (1, heads):
                raise RuleError(option, f"{spelling(option)} has {count} values for {heads} heads")

    def __str__(self) -> str:
        """`paper (rho-b 0.25, tau-h 0, pruned-score zero, block 2x2)`."""
        texts = [f"{spelling(k)} {_text(k, v)}" for k, v in self.options.items()]
        return f"{self.name} ({', '.join(texts)})" if texts else self.name


def spelling(option: str) -> str:
    """`rho-b`: an option as passes and commands spell it."""
    return option.replace("_", "-")


def _text(option: str, value: Any) -> str:
    if option == "block":
        return "x".join(str(v) for v in value)
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in cast("tuple[float, ...]", value))
    return value if isinstance(value, str) else f"{value:g}"


def _one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        return "" if value in names else f"is not one of {', '.join(names)}"

    return check


def _within(low: float, high: float, text: str) -> Callable[[Any], str]:
    """A check of `low < value < high`."""

    def check(value: Any) -> str:
        return "" if low < value < high else f"is outside {text}"

    return check


@dataclass(frozen=True)
class Option:
    """
    One option of the rules.

    Attributes:
        kind: the type of one value.
        count: how many values: 1, an exact number, or None for one or one a head.
        check: says what is wrong with one value, or nothing.
        help: for the command's help, without the default.
        key: the name in plan.json where it is another.
    """

    kind: type[Any]
    count: int | None
    check: Callable[[Any], str]
    help: str
    key: str = ""


_RATIO = _within(-1.0, 1.0, "(-1, 1)")
_SHARE = "must be at least 0 and below 1"

OPTIONS: dict[str, Option] = {
    "finer": Option(
        int,
        1,
        lambda v: "" if 0 <= v <= MOST_FINER else f"is outside 0..{MOST_FINER}",
        "bits by which the integer part is finer",
        "point",
    ),
    "importance": Option(str, 1, _one_of(IMPORTANCES), "what a score adds to its block"),
    "rho_b": Option(float, None, _RATIO, "block ratio in (-1, 1), or one a head"),
    "density": Option(
        float, 1, lambda v: "" if 0.0 < v <= 1.0 else "is outside (0, 1]", "share of blocks kept"
    ),
    "alpha": Option(float, 2, _RATIO, "ratios of the two rounds, each in (-1, 1)"),
    "threshold": Option(
        float, 1, lambda v: "" if 0.0 <= v < 1.0 else _SHARE, "predicted probability to keep from"
    ),
    "pruned_score": Option(str, 1, _one_of(PRUNED_SCORES), "what a pruned score becomes"),
    "tau_h": Option(
        float,
        None,
        lambda v: "" if math.isfinite(v) else "is not a threshold",
        "head threshold, or one a head; 0: no gate",
    ),
    "gated": Option(str, 1, _one_of(GATED), "what a pruned head puts out"),
    "ratio": Option(
        float, 1, lambda v: "" if 0.0 <= v < 1.0 else _SHARE, "share of heads pruned, layers' mean"
    ),
    "block": Option(
        int,
        2,
        lambda v: "" if 1 <= v <= MOST_BLOCK else f"is outside 1..{MOST_BLOCK}",
        "rows and columns of a block",
    ),
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    "paper": {
        "rho_b": (0.0,),
        "tau_h": (0.0,),
        "pruned_score": "zero",
        "block": (2, 2),
    },
    "ours": {
        "finer": 2,
        "importance": "positive",
        "rho_b": (0.0,),
        "tau_h": (0.0,),
        "pruned_score": "mean",
        "gated": "col",
        "block": (2, 2),
    },
    "topk": {"finer": 0, "density": 0.25, "pruned_score": "neginf", "block": (2, 2)},
    "energon": {"alpha": (0.0, 0.0)},
    "sanger": {"threshold": 0.002},
    "spatten": {"ratio": 0.2},
}
"""The options that each rule takes, and their defaults."""

PRUNING_RULE = "ours"
"""The rule of options that are given without a rule's name: `--rho-b 0.3` asks for pruning."""


def _is_a(value: Any, kind: type[Any]) -> bool:
    """Whether a value can stand for one of `kind`: an integer may stand for a float."""
    if isinstance(value, bool):
        return False
    if kind is float and isinstance(value, int):
        return abs(value) < 1 << 53
    return isinstance(value, kind)


def _values(option: str, value: Any) -> tuple[Any, ...]:
    """The values of an option, of the right type and number."""
    spec = OPTIONS[option]
    is_list = isinstance(value, tuple | list)
    values: tuple[Any, ...] = tuple(cast("list[Any]", value)) if is_list else (value,)
    if len(values) > MOST_HEADS:
        count = len(values)
        raise RuleError(option, f"{spelling(option)} has {count} values, at most {MOST_HEADS}")
    for one in values:
        if not _is_a(one, spec.kind):
            raise RuleError(option, f"{spelling(option)} {short(one)} is no {spec.kind.__name__}")
        if problem := spec.check(one):
            raise RuleError(option, f"{spelling(option)} {str(one)[:40]} {problem}")
    if len(values) != spec.count and (spec.count is not None or not values):
        wanted = "at least one value" if spec.count is None else f"{spec.count} value(s)"
        raise RuleError(option, f"{spelling(option)} needs {wanted}, got {len(values)}")
    return tuple(spec.kind(v) for v in values)


def make_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """
    The rule `name` with some options (by attribute name), the rest at its defaults.

    Raises `RuleError` for an unknown rule or option, a wrong type, number or range, and for an
    option that the rule does not take.
    """
    if name not in DEFAULTS:
        raise RuleError("rule", f"unknown rule {name!r}, expected one of {', '.join(DEFAULTS)}")
    given: dict[str, Any] = {}
    for option, value in options.items():
        if option not in OPTIONS:
            raise RuleError(option, f"unknown option {spelling(option)}")
        values = _values(option, value)
        given[option] = values[0] if OPTIONS[option].count == 1 else values
    for option in given:
        if option not in DEFAULTS[name]:
            takes = ", ".join(map(spelling, DEFAULTS[name])) or "no options"
            raise RuleError(
                option, f"rule {name} does not take {spelling(option)}; it takes {takes}"
            )
    return Rule(name, **{**DEFAULTS[name], **given})
