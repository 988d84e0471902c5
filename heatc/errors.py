"""
The errors that a user can cause, each with its exit code.

Every tool prints one clang-style message (`place: error: text`, then `note:` lines) and
exits with `HeatcError.exit_code`; a traceback is shown under `--debug` only.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HeatcError(Exception):
    """
    Bad input or a compile error (exit code 1).

    `place` says where (a file, an option, a module path with its source line), `notes`
    what was expected and what to do about it.
    """

    exit_code = 1
    snippet = ""

    def __init__(self, message: str, *, place: str = "", notes: Sequence[str] = ()):
        super().__init__(message)
        self.message = message
        self.place = place
        self.notes = tuple(notes)

    def __str__(self) -> str:
        """Place, message and notes: whoever shows the exception shows the remedy too."""
        return self._with_details(f"{self.place}: " if self.place else "")

    def render(self) -> str:
        """The message as the tools print it, without colour and final newline."""
        return self._with_details(f"{self.place}: error: " if self.place else "error: ")

    def _with_details(self, head: str) -> str:
        snippet = [self.snippet.rstrip("\n")] if self.snippet else []
        return "\n".join((head + self.message, *snippet, *(f"note: {n}" for n in self.notes)))


class SourceError(HeatcError):
    """Bad input with the piece of text that it is about, shown below the message."""

    def __init__(
        self, message: str, *, place: str = "", snippet: str = "", notes: Sequence[str] = ()
    ):
        super().__init__(message, place=place, notes=notes)
        self.snippet = snippet


class UsageError(HeatcError):
    """A wrong option, target or combination of options (exit code 2)."""

    exit_code = 2


class VerificationError(HeatcError):
    """A result differs from its reference by more than its bound (exit code 3)."""

    exit_code = 3


class InfeasibleError(HeatcError):
    """
    The program does not fit on this hardware (exit code 4).

    `notes` carry the demand, the bound and the levers that would make it fit.
    """

    exit_code = 4


def suggest(name: str, known: Iterable[str]) -> list[str]:
    """`["did you mean 'a' or 'b'?"]` for the known names near `name`, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return [f"did you mean {' or '.join(map(repr, near))}?"] if near else []
