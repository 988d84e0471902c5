"""The collector of cyclic garbage, kept from looking at objects that stay."""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager

_NEW_OBJECTS = 5_000
"""Objects that are made between two collections; Python's own number is 700."""


@contextmanager
def without_old_garbage() -> Generator[None]:
    """
    Collections look at what is made from here on, not at the modules again and again.

    Whoever has frozen objects before keeps them frozen.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def fewer_collections() -> Generator[None]:
    """`without_old_garbage`, for work that makes many objects that stay: it collects less often."""
    before = gc.get_threshold()
    gc.set_threshold(max(_NEW_OBJECTS, before[0]), *before[1:])
    try:
        with without_old_garbage():
            yield
    finally:
        gc.set_threshold(*before)
