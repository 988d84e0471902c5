"""The `--heat` option: what `heat-decompose` is told, in one word."""

from __future__ import annotations

import re
from collections.abc import Callable
from os import PathLike
from typing import Literal, TypeAlias, cast, get_args

from heatc.errors import UsageError
from heatc.heat.formats import REGISTRY

Init = Literal["activation", "plain"]
StatisticsOf = Literal["sequential", "original"]

Value: TypeAlias = str | bool | int | float
PassOptions: TypeAlias = dict[str, tuple[Value, ...]]
"""What a pass is told: the values of each option, spelled with `-`."""

_Reader: TypeAlias = Callable[[str], tuple[Value, ...]]
_MOST_DIGITS = 9


def heat_options(text: str, calibrate: str | PathLike[str] | None) -> PassOptions:
    """
    The pass options of `--heat=low-rank,ratio=0.5,joint`: a format, then words `name=value`.

    Ranks of several places are written `rank=8x64x64`. Raises `UsageError` for what is unknown,
    and where the calibration inputs that the default needs are not given.
    """
    format_, *words = text.split(",")
    if REGISTRY.find(format_) is None:
        raise UsageError(
            f"unknown format {format_!r}",
            place="--heat",
            notes=[f"formats: {', '.join(REGISTRY.names)}; e.g. --heat=low-rank,ratio=0.5"],
        )
    found: PassOptions = {"format": (format_,)}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _WORDS or (not equals and _WORDS[name] is not _flag):
            raise UsageError(
                f"unknown word {word!r}",
                place="--heat",
                notes=[f"words: {', '.join(_WORDS)}"],
            )
        if name in found:
            raise UsageError(f"{name!r} is given twice", place="--heat")
        found[name] = _read(name, value if equals else "true")
    if ("rank" in found) == ("ratio" in found):
        raise UsageError(
            "give a rank or a ratio, one of both", place="--heat", notes=["e.g. ratio=0.5"]
        )
    if calibrate is None and found.get("init") != ("plain",):
        raise UsageError(
            "--heat needs calibration inputs",
            notes=["give --calibrate data.npz, or --heat=...,init=plain"],
        )
    return found


def plan_options(calibrate: str | PathLike[str] | None) -> PassOptions:
    """The pass options beside a plan; without calibration inputs the weights' own error."""
    return {"init": ("plain",)} if calibrate is None else {}


# ---- the values of words ----------------------------------------------------------------------


def _read(name: str, text: str) -> tuple[Value, ...]:
    """The values of one word; `UsageError` that says what was expected."""
    try:
        return _WORDS[name](text)
    except ValueError as error:
        raise UsageError(f"expected {error}, got {text!r}", place=f"--heat {name}") from error


def _text(text: str) -> tuple[str]:
    return (text,)


def _flag(text: str) -> tuple[bool]:
    if text not in ("true", "false"):
        raise ValueError("true or false")
    return (text == "true",)


def _one_of(names: object) -> _Reader:
    known = cast("tuple[str, ...]", get_args(names))

    def read(text: str) -> tuple[str]:
        if text not in known:
            raise ValueError(" or ".join(known))
        return (text,)

    return read


def _number(expected: str, holds: Callable[[float], bool]) -> _Reader:
    """A number in any usual spelling: `.5`, `0.5`, `5e-1`."""

    def read(text: str) -> tuple[float]:
        is_number = re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text, re.ASCII)
        if is_number is None or not holds(float(text)):
            raise ValueError(expected)
        return (float(text),)

    return read


def _whole(expected: str, least: int, separator: str | None = None) -> _Reader:
    """A whole number of at least `least`, or several of them with a separator between."""

    def read(text: str) -> tuple[int, ...]:
        parts = [text] if separator is None else text.split(separator)
        are_whole = all(p.isascii() and p.isdigit() and len(p) <= _MOST_DIGITS for p in parts)
        if not are_whole or min(map(int, parts)) < least:
            raise ValueError(expected)
        return tuple(map(int, parts))

    return read


_WORDS: dict[str, _Reader] = {
    "aim": _number("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "correct-bias": _flag,
    "init": _one_of(Init),
    "joint": _flag,
    "layers": _text,
    "modes": _whole("a whole number, 1 or more", 1),
    "rank": _whole("whole numbers from 1 on, e.g. 8 or 8x64x64", 1, "x"),
    "ratio": _number("a number above 0, at most 1", lambda value: 0 < value <= 1),
    "refinements": _whole("a whole number, 0 or more", 0),
    "shape": _text,
    "spread": _flag,
    "statistics": _one_of(StatisticsOf),
    "tables": _flag,
    "tokens": _whole("a whole number, 1 or more", 1),
}
"""What `--heat` can say, and how the values of each word are read."""
