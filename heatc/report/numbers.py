"""How numbers are written: with a prefix of the SI, so that a row of them has one unit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Number = int | float | None

NOTHING = "–"
"""Of a figure that is not there."""

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
_PREFIXED = ("s", "J", "J s", "bytes", "MAC/s", "bytes/s")
_UP_ALONE = ("bytes", "MAC/s", "bytes/s")
"""Units without small parts."""

_SHORT = {"bytes": "B", "bytes/s": "B/s"}
_PLAIN = {"count", "text", "object", ""}


class Scale:
    """
    The unit that some figures are written in, made for the greatest of them.

    Attributes:
        factor: a figure is divided by it.
        unit: as it is written, empty for counts.
    """

    def __init__(self, unit: str, values: Iterable[Number]):
        greatest = max((abs(v) for v in values if v is not None), default=0.0)
        self.factor, prefix = 1.0, ""
        if unit in _PREFIXED and greatest > 0:
            known = [p for p in _PREFIXES if p[0] >= 1 or unit not in _UP_ALONE]
            self.factor, prefix = next((p for p in known if greatest >= p[0]), known[-1])
            if unit == "J s" and greatest < known[-1][0]:
                self.factor, prefix = 1.0, ""
        short = _SHORT.get(unit, unit) if prefix or unit == "bytes/s" else unit
        self.unit = "" if unit in _PLAIN else f"{prefix}{short}"

    def number(self, value: Number) -> Number:
        """A figure in the unit, as it is drawn."""
        if value is None or self.factor == 1.0:
            return value
        return float(f"{value / self.factor:.9g}")

    def text(self, value: Number) -> str:
        """A figure without its unit."""
        if value is None:
            return NOTHING
        if isinstance(value, int) and self.factor == 1.0:
            return f"{value:,}"
        return digits(value / self.factor)

    def full(self, value: Number) -> str:
        """A figure with its unit."""
        text = self.text(value)
        return text if text == NOTHING or not self.unit else f"{text} {self.unit}"


def digits(value: float) -> str:
    """A number with four digits that count, or all those before the point."""
    if value == 0:
        return "0"
    if abs(value) < 1e-4:
        return f"{value:.3e}"
    if abs(value) < 1:
        return f"{value:.4g}"
    text = f"{value:,.{max(0, 4 - len(str(int(abs(value)))))}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def full(value: Number, unit: str) -> str:
    """One figure with a unit of its own."""
    return Scale(unit, [value]).full(value)


def interval(found: Mapping[str, Number], unit: str) -> str:
    """A `value` with the ends of its interval, `low` and `high`, where it has one."""
    value, low, high = (found[key] for key in ("value", "low", "high"))
    if value is None:
        return NOTHING
    text = f"{value:.4g} {unit}".rstrip()
    return text if low is None or high is None else f"{text} [{low:.4g}, {high:.4g}]"


# --- Differences ------------------------------------------------------------------------------

LOWER, HIGHER = "lower", "higher"
"""Which way a figure is better."""

_SENSES = (
    (("_cycles", "_seconds", "_joules", "_joule_seconds", "_bytes"), LOWER),
    (("saturated_values_count", "executed_instructions_count"), LOWER),
    (("multiply_accumulates_count", "parameters"), LOWER),
    (("accuracy_percent", "mcc", "f1", "cosine_mean", "cosine_least"), HIGHER),
    (("changed_predictions_percent", "max_abs_error"), LOWER),
)


def sense(name: str) -> str | None:
    """`LOWER` or `HIGHER` by the name of a figure, None where neither is better."""
    return next((way for ends, way in _SENSES if name.endswith(ends)), None)


class Difference:
    """
    How a figure differs from the one that it is compared with.

    Attributes:
        text: "25.8 % less", "equal", or nothing.
        verdict: "better", "worse", or empty where neither is.
    """

    def __init__(self, name: str, value: Number, base: Number):
        self.text = self.verdict = ""
        if value is None or base is None:
            return
        if value == base:
            self.text = "equal"
            return
        word = "more" if value > base else "less"
        # Of nothing there is no percentage.
        share = f"{_percent(100 * abs((value - base) / base))} % " if base else ""
        self.text = f"{share}{word}"
        way = sense(name)
        if way is not None:
            self.verdict = "better" if (value < base) == (way == LOWER) else "worse"

    def __str__(self) -> str:
        return f"{self.text}: {self.verdict}" if self.verdict else self.text


def _percent(value: float) -> str:
    if value < 0.05:
        return "less than 0.1"
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
