"""What `heatc.garbage` does to the collector, and that it is undone."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from heatc.garbage import fewer_collections, without_old_garbage

ALONE = """
import gc
from heatc.garbage import without_old_garbage

class Cycle:
    def __init__(self):
        self.own = self

gc.collect()
old = Cycle()
with without_old_garbage():
    del old
    Cycle()
    frozen = gc.get_freeze_count()
    assert gc.collect() > 0
    assert gc.get_freeze_count() == frozen > 0
assert gc.get_freeze_count() == 0
gc.collect()
assert not any(type(thing) is Cycle for thing in gc.get_objects())
"""
"""In a process of its own, where no other thread lets go of objects."""


def test_old_objects_are_not_looked_at_and_new_ones_are():
    subprocess.run([sys.executable, "-c", ALONE], check=True)


def test_what_was_frozen_before_stays_frozen():
    gc.freeze()
    try:
        with without_old_garbage():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@fewer_collections()
def _failing(least: int) -> None:
    assert gc.get_threshold()[0] >= least
    raise KeyError


@pytest.mark.parametrize("own", [700, 50_000])
def test_an_error_leaves_the_collector_as_it_was(own: int):
    before = gc.get_threshold()
    gc.set_threshold(own, *before[1:])
    try:
        with pytest.raises(KeyError):
            _failing(max(own, 5_000))
        assert gc.get_threshold()[0] == own
        assert gc.get_freeze_count() == 0
    finally:
        gc.set_threshold(*before)
