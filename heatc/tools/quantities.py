"""
What a figure is: its name, unit, kind and meaning, beside the function that computes it.

Every figure of a run is declared once, as a `Quantity`; files, tables, `hdp-run --explain` and
docs/stats.md are made from the declarations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

Value = int | float | None
T = TypeVar("T")


class Kind(StrEnum):
    """Where a figure comes from."""

    FUNCTIONAL = "functional"
    COUNTED = "counted"
    MODELLED = "modelled"


MEANINGS = {
    Kind.FUNCTIONAL: "follows from the values that were computed, which are exact",
    Kind.COUNTED: "counts what was executed; exact, whatever the model of time",
    Kind.MODELLED: "comes from the model of time and transfers (docs/design/machine.md)",
}

FUNCTIONAL, MODELLED = "functional", "modelled"


@dataclass(frozen=True)
class Quantity(Generic[T]):
    """
    One figure; `value` computes it, None where there is nothing to say.

    The name ends in the unit, or names what is counted.
    """

    name: str
    unit: str
    kind: Kind
    meaning: str
    value: Callable[[T], Value]

    @property
    def group(self) -> str:
        """Functional and modelled figures are kept apart; counts are with the first."""
        return MODELLED if self.kind is Kind.MODELLED else FUNCTIONAL


def percent(part: float, whole: float) -> float | None:
    """`part` of `whole` in percent, None of nothing."""
    return 100.0 * part / whole if whole else None
