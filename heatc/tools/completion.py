"""
Completion in the shell, by argcomplete: `eval "$(register-python-argcomplete heatc)"`.

The shell runs the command with `_ARGCOMPLETE` in its environment; then, and only then, argcomplete is
imported, answers from the command's parser, and ends the process.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable

VARIABLE = "_ARGCOMPLETE"
"""Environment variable with which the shell asks; its value is the word at which the command begins."""


def is_asked() -> bool:
    """Whether the shell asks what may follow."""
    return VARIABLE in os.environ


def complete(parser: argparse.ArgumentParser) -> None:
    """Answer the shell and end the process, if it asks; argcomplete parses what is there already."""
    if not is_asked() or "argcomplete" in sys.modules:
        return
    import argcomplete

    argcomplete.autocomplete(parser)


def suggest_values(action: argparse.Action, values: Callable[[], Iterable[str]]) -> None:
    """Have the shell offer these values for an option."""

    def completer(**_: object) -> Iterable[str]:
        return values()

    action.completer = completer  # pyright: ignore[reportAttributeAccessIssue]


def asked_command() -> str:
    """The word behind the program's name that is complete, which may be a command of it; or empty."""
    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    words = line.split()
    is_whole = len(words) > 2 or (len(words) == 2 and line.endswith(" "))
    return words[1] if is_whole else ""


def begin_at_command() -> None:
    """What follows the program's name is a program of its own to the shell."""
    os.environ[VARIABLE] = "2"
