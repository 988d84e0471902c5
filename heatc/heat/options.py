"""The `--heat` option: what `heat-decompose` is told, in one word."""

from __future__ import annotations

import re
from os import PathLike

from heatc.errors import UsageError
from heatc.heat.formats import FORMATS

_WORDS = (
    *("aim", "correct-bias", "init", "joint", "layers", "modes", "rank", "ratio", "refinements"),
    *("shape", "spread", "statistics", "tables", "tokens"),
)
_FLAGS = ("spread", "joint", "tables")
_TEXTS = ("shape", "layers")


def heat_options(text: str, calibrate: str | PathLike[str] | None) -> str:
    """
    The pass options of `--heat=low-rank,ratio=0.5,joint`: a format, then words `name=value`.

    Ranks of several places are written `rank=8x64x64`. Raises `UsageError` for what is unknown,
    and where the calibration inputs that the default needs are not given.
    """
    format_, *words = text.split(",")
    if format_ not in FORMATS:
        raise UsageError(
            f"unknown format {format_!r}",
            place="--heat",
            notes=[f"formats: {', '.join(FORMATS)}; e.g. --heat=low-rank,ratio=0.5"],
        )
    found = {"format": format_}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in _WORDS or (not equals and name not in _FLAGS):
            raise UsageError(
                f"unknown word {word!r}",
                place="--heat",
                notes=[f"words: {', '.join(_WORDS)}"],
            )
        found[name] = value if equals else "true"
    if ("rank" in found) == ("ratio" in found):
        raise UsageError(
            "give a rank or a ratio, one of both", place="--heat", notes=["e.g. ratio=0.5"]
        )
    if calibrate is None and found.get("init") != "plain":
        raise UsageError(
            "--heat needs calibration inputs",
            notes=["give --calibrate data.npz, or --heat=...,init=plain"],
        )
    return " ".join(
        [f"{name}={_spelled(name, value)}" for name, value in found.items()]
        + ([f"calibrate={quoted(str(calibrate))}"] if calibrate is not None else [])
    )


def plan_options(plan: str | PathLike[str], calibrate: str | PathLike[str] | None) -> str:
    """The pass options that follow a plan; without calibration inputs the weights' own error."""
    words = [f"plan={quoted(str(plan))}"]
    words += ["init=plain"] if calibrate is None else [f"calibrate={quoted(str(calibrate))}"]
    return " ".join(words)


def _spelled(name: str, value: str) -> str:
    if name == "rank":
        return value.replace("x", ",")
    if name in _TEXTS:
        return quoted(value)
    if name in ("ratio", "aim") and not re.fullmatch(r"\d*\.?\d+", value):
        raise UsageError(f"{value!r} is not a number", place=f"--heat {name}")
    return f"{value}.0" if name in ("ratio", "aim") and value.isdecimal() else value


def quoted(text: str) -> str:
    """Text as a string of a pass option."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
