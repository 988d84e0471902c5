"""
What the pruning rules can be told: the one table of options that several rules share.

The command, `plan.json` and the documentation read it. A rule may have options of its own beside
them, see `heatc.rules.definition.PruningRule`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from heatc.isa.table import PRUNED_SCORES
from heatc.readers.fields import short

Importance = Literal["abs", "positive"]
Gated = Literal["zero", "mean", "col"]

IMPORTANCES: tuple[str, ...] = get_args(Importance)
GATED: tuple[str, ...] = get_args(Gated)

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


def spelling(option: str) -> str:
    """`rho-b`: an option as passes and commands spell it."""
    return option.replace("_", "-")


def option_text(option: str, value: Any) -> str:
    """The value of an option as messages show it."""
    if option == "block":
        return "x".join(str(v) for v in value)
    if isinstance(value, tuple):
        return ",".join(f"{v:g}" for v in cast("tuple[float, ...]", value))
    return value if isinstance(value, str) else f"{value:g}"


def one_of(names: tuple[str, ...]) -> Callable[[Any], str]:
    """A check of `value in names`."""

    def check(value: Any) -> str:
        return "" if value in names else f"is not one of {', '.join(names)}"

    return check


def within(low: float, high: float, text: str) -> Callable[[Any], str]:
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


_RATIO = within(-1.0, 1.0, "(-1, 1)")
_SHARE = "must be at least 0 and below 1"

OPTIONS: dict[str, Option] = {
    "finer": Option(
        int,
        1,
        lambda v: "" if 0 <= v <= MOST_FINER else f"is outside 0..{MOST_FINER}",
        "bits by which the integer part is finer",
        "point",
    ),
    "importance": Option(str, 1, one_of(IMPORTANCES), "what a score adds to its block"),
    "rho_b": Option(float, None, _RATIO, "block ratio in (-1, 1), or one a head"),
    "density": Option(
        float, 1, lambda v: "" if 0.0 < v <= 1.0 else "is outside (0, 1]", "share of blocks kept"
    ),
    "alpha": Option(float, 2, _RATIO, "ratios of the two rounds, each in (-1, 1)"),
    "threshold": Option(
        float, 1, lambda v: "" if 0.0 <= v < 1.0 else _SHARE, "predicted probability to keep from"
    ),
    "pruned_score": Option(str, 1, one_of(PRUNED_SCORES), "what a pruned score becomes"),
    "tau_h": Option(
        float,
        None,
        lambda v: "" if math.isfinite(v) else "is not a threshold",
        "head threshold, or one a head; 0: no gate",
    ),
    "gated": Option(str, 1, one_of(GATED), "what a pruned head puts out"),
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
"""The options that the fields of `heatc.rules.Rule` hold, by name."""


def _is_a(value: Any, kind: type[Any]) -> bool:
    """Whether a value can stand for one of `kind`: an integer may stand for a float."""
    if isinstance(value, bool):
        return False
    if kind is float and isinstance(value, int):
        return abs(value) < 1 << 53
    return isinstance(value, kind)


def values_of(option: str, spec: Option, value: Any) -> Any:
    """The value of an option, or its values, of the right type and number."""
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
    found = tuple(spec.kind(v) for v in values)
    return found[0] if spec.count == 1 else found


def written(value: Any) -> str:
    """The value of an option as `read_values` reads it."""
    values = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
    return ",".join(map(str, values))


def read_values(option: str, spec: Option, text: str) -> Any:
    """The value of an option in a command or a pipeline, where commas separate several."""
    try:
        values = tuple(spec.kind(part) for part in text.split(","))
    except ValueError:
        raise RuleError(
            option, f"{spelling(option)} {short(text)} is no {spec.kind.__name__}"
        ) from None
    return values_of(option, spec, values)
