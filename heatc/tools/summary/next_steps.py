"""The commands that a summary shows last, filled with the user's own paths."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from heatc.tools.summary.keys import TOLD, Key, Section

DATA = "data.npz"
"""What stands for the user's data where no option named any."""


@dataclass(frozen=True)
class Step:
    """A command, and what it is for."""

    command: str
    purpose: str


def step(purpose: str, *words: str | None) -> Step:
    """A step; words that are None are left out, others are quoted where a shell needs it."""
    return Step(" ".join(shlex.quote(word) for word in words if word is not None), purpose)


def option(name: str, value: str | Sequence[str] | None) -> list[str]:
    """An option as it was given, nothing where it was not."""
    if value is None or value == []:
        return []
    values = [value] if isinstance(value, str) else value
    return [word for one in values for word in (name, one)]


NEXT: Section[Step] = Section(
    "next",
    "what to try next",
    (
        Key("command", "text", TOLD, "a line for the shell", lambda s: s.command),
        Key("purpose", "text", TOLD, "what it is for", lambda s: s.purpose),
    ),
    is_list=True,
)
