"""
The keys of a summary, each declared once: name, unit, kind, meaning, and what computes the value.

The JSON, the rows of the table that show a key, and docs/reference/summary.md follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

SCHEMA = 1
"""The version of the JSON."""

COUNTED, MODELLED, COMPARED, MEASURED, TOLD = (
    *("counted", "modelled", "compared", "measured"),
    "told",
)

KINDS = {
    COUNTED: "counts what is in the program or was executed; exact",
    MODELLED: "comes from the model of time and energy (docs/design/machine.md)",
    COMPARED: "comes from outputs that were computed and compared with the model's",
    MEASURED: "was measured on this computer",
    TOLD: "names or repeats what was given or chosen",
}
"""Where a value comes from."""


@dataclass(frozen=True)
class Key(Generic[T]):
    """
    One key of an object: what it is called, and what it says of a subject.

    The name of a number ends in its unit, or in `count`. `value` gives None where there is nothing
    to say. `label` is what the table calls it, empty where the table leaves it out.
    """

    name: str
    unit: str
    kind: str
    meaning: str
    value: Callable[[T], Any] = field(repr=False)
    label: str = ""


@dataclass(frozen=True)
class Section(Generic[T]):
    """One key of the JSON's top: an object, or a list of objects where `is_list`."""

    name: str
    meaning: str
    keys: Sequence[Key[T]]
    is_list: bool = False

    def of(self, subject: T | None) -> dict[str, Any] | None:
        """The object of a subject, None where there is none."""
        return None if subject is None else {key.name: key.value(subject) for key in self.keys}

    def of_all(self, subjects: Iterable[T]) -> list[dict[str, Any] | None]:
        """The list of a section that is one."""
        return [self.of(subject) for subject in subjects]
