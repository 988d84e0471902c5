"""Strips of a timeline keep every busy cycle, however long the run is."""

from __future__ import annotations

import numpy as np
import pytest

from heatc.backends.hdp.timeline import BINS, Strip, Timeline
from heatc.isa.table import Engine

DEBUG = {"locations": [{"pc": 0, "path": "a"}, {"pc": 2, "path": "b"}]}


def test_a_strip_of_few_cycles_has_a_bin_a_cycle():
    strip = Strip()
    strip.add("pe", 5, 8, 2)
    assert strip.to_json() == {
        "first_cycle": 5,
        "bin_cycles": 1,
        "busy_cycles": {"pe": [2, 2, 2]},
    }


@pytest.mark.parametrize("seed", range(5))
def test_widened_bins_are_sums_of_cycles(seed: int):
    rng = np.random.default_rng(seed)
    strip, cycles = Strip(), np.zeros(40_000, np.int64)
    for _ in range(200):
        start = int(rng.integers(0, 39_000))
        end, units = start + int(rng.integers(1, 900)), int(rng.integers(1, 4))
        strip.add("host", start, end, units)
        cycles[start:end] += units
    found = strip.to_json()
    bins, width, first = found["busy_cycles"]["host"], found["bin_cycles"], found["first_cycle"]
    assert len(bins) <= BINS
    for number, busy in enumerate(bins):
        low = first + number * width
        assert busy == cycles[low : low + width].sum()
    assert sum(bins) == cycles.sum()


def test_time_goes_to_whoever_moves_the_end_on():
    timeline = Timeline(DEBUG, 4, cores=2)
    timeline.transfer(0, "dram", True, 0, 100, 64)
    timeline.host(1, Engine.HOST, 20, 80)  # hidden behind the transfer
    timeline.core(2, Engine.PE, np.array([90, 100]), np.array([110, 130]), None)
    timeline.core(3, Engine.PE, 130, 500, np.array([True, False]))
    timeline.end_pass(510)
    timeline.transfer(3, "dram", True, 0, 10, 64)
    timeline.end_pass(10)
    assert timeline.pc_time == [100, 0, 30, 370 + 10 + 10]
    assert sum(timeline.pc_time) == 510 + 10
    found = timeline.to_json("(no module)")
    assert found["total_cycles"] == 510
    assert sum(found["modules"]["b"]["busy_cycles"]["pe"]) == 20 + 30 + 370
    assert "dma_loads" not in found["modules"]["b"]["busy_cycles"]
