"""What the user says about the check, and what is found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

from heatc.errors import HeatcError

SHARE = 0.15
"""Of the seconds of a compilation that go into the check unless the user says otherwise."""

FEWEST_SECONDS = 0.5
"""Even of a compilation that took no time."""


@dataclass(frozen=True)
class Settings:
    """
    What the user says about the check.

    Attributes:
        seconds: budget; None: a share of the compilation's own time.
        min_cosine: least cosine of every output with the model's, also of a pruned program.
        dump: folder for inputs and outputs of a program that is wrong.

    Raises `HeatcError` for what is no number, or none that makes sense.
    """

    seconds: float | None = None
    min_cosine: float | None = None
    dump: Path | None = None

    def __post_init__(self) -> None:
        _check_number("verify_seconds", self.seconds, 0.0, math.inf)
        _check_number("min_cosine", self.min_cosine, -1.0, 1.0)

    def budget(self, compiling: float) -> float:
        """The seconds for the check of a compilation that took `compiling` seconds."""
        return max(FEWEST_SECONDS, SHARE * compiling) if self.seconds is None else self.seconds


def _check_number(name: str, value: object, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Real):
        raise HeatcError(f"expected a number for {name}, got {type(value).__name__}")
    if not low <= float(value) <= high:
        raise HeatcError(f"{name} is {float(value)}, expected {low:g} to {high:g}")


@dataclass(frozen=True)
class Verification:
    """
    What a check found that found nothing wrong.

    `largest` and `cosine` say how far the program is from the model, over all outputs and
    `inputs`; `left_out` were planned too. `parts` is what the user may want to know of the program.
    """

    largest: float = 0.0
    cosine: float = 1.0
    seconds: float = 0.0
    inputs: tuple[str, ...] = ()
    left_out: int = 0
    parts: tuple[str, ...] = ()
    reason: str = ""
    """Why nothing was verified; empty where something was."""

    def __str__(self) -> str:
        """One line."""
        if self.reason:
            return f"not verified: {self.reason}"
        count, kinds = len(self.inputs), "; ".join(self.inputs)
        many = f"{count} input" + ("s" if count > 1 else "")
        if self.left_out:
            many = f"{count} of {count + self.left_out} inputs"
            kinds += "; more with --verify-seconds"
        found = f"largest difference {self.largest:.3g}, cosine {self.cosine:.6f}"
        line = f"verified: {found}, {many} ({kinds}), {self.seconds:.2g} s"
        return "; ".join((line, *self.parts))
