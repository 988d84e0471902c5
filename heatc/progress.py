"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

ProgressCallback = Callable[[str, int, int], None]
"""
Is told what is being done, how much of it is done, and of how much.

A total of 0 stands for work of unknown length: it lasts until something else is told.
"""


def no_progress(what: str, done: int, total: int) -> None:
    """For work that nobody watches."""
