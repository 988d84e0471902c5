"""The value of a key, from its text and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from heatc.hardware import units
from heatc.hardware.schema import Key


class WrongValue(ValueError):
    """A text that is no value of its key; `notes` say what would be one."""

    def __init__(self, message: str, notes: Sequence[str] = ()):
        super().__init__(message)
        self.notes = tuple(notes)


def read_value(key: Key, text: str, clock: int) -> Any:
    """
    The attribute that a text stands for; times are in cycles of `clock` hertz, rounded up.

    Raises `WrongValue`.
    """
    if key.is_blocks:
        return _blocks(key, text)
    number = _parse(key, text, clock)
    if number.denominator != 1:
        raise WrongValue(f"{text!r} is not a whole number", [expected(key)])
    if not key.low <= number <= key.high:
        low, high = (rendered(key, bound) for bound in (key.low, key.high))
        raise WrongValue(f"{text!r} is outside {low} to {high}")
    if key.choices and number not in key.choices:
        known = ", ".join(str(rendered(key, choice)) for choice in key.choices)
        raise WrongValue(f"{text!r} is none of {known}")
    return key.kind(number)


def _blocks(key: Key, text: str) -> tuple[tuple[int, int], ...]:
    try:
        sizes = units.BLOCKS.parse_sizes(text)
    except ValueError as error:
        raise WrongValue(f"{error}, found {text!r}") from None
    if any(extent > key.high for size in sizes for extent in size):
        raise WrongValue(f"{text!r} has an extent above {key.high}")
    return sizes


def _parse(key: Key, text: str, clock: int) -> Fraction:
    if not key.units:
        if not text.isascii() or not text.isdecimal() or len(text) > 18:
            raise WrongValue(f"expected a whole number, found {text!r}")
        return Fraction(text)
    reason = ""
    for unit in key.units:
        try:
            number = unit.parse(text)
        except ValueError as error:
            reason = reason or str(error)
            continue
        return Fraction(math.ceil(number * clock)) if unit is units.TIME else number
    raise WrongValue(f"{reason}, found {text!r}")


def expected(key: Key) -> str:
    """What a message says a value looks like."""
    examples = " or ".join(repr(unit.example) for unit in key.units) or "a whole number"
    return f"expected {examples}"


def rendered(key: Key, value: Any) -> str | int:
    """A value as the file writes it; what may be a time is written in the cycles it became."""
    if key.is_blocks:
        return units.BLOCKS.render_sizes(value)
    if key.kind is bool:
        return bool(value)
    return key.units[-1].render(value) if key.units else value
