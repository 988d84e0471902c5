"""First fit puts every range where a look at all the others would, and looks at few of them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heatc.passes.tiling.packing import Placement, Range, align, first_fit


def plain(
    ranges: Sequence[Range], alignment: int, taken: Sequence[tuple[Range, int]] = ()
) -> Placement:
    """First fit as it is defined: all that is live at the same time, in order of addresses."""
    placed = list(taken)
    addresses = [0] * len(ranges)
    for index in sorted(range(len(ranges)), key=lambda i: (-ranges[i].size, i)):
        new = ranges[index]
        busy = sorted(
            (address, align(address + old.size, alignment))
            for old, address in placed
            if old.start <= new.end and new.start <= old.end
        )
        address = 0
        for low, high in busy:
            if address + new.size <= low:
                break
            address = max(address, high)
        addresses[index] = address
        placed.append((new, address))
    return Placement(addresses, max((a + r.size for r, a in placed), default=0))


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    start = draw(st.integers(0, 40))
    return Range(draw(st.integers(1, 400)), start, start + draw(st.integers(0, 12)))


@settings(max_examples=400, deadline=None)
@given(
    st.lists(ranges(), max_size=40),
    st.sampled_from([1, 64, 100]),
    st.lists(st.tuples(ranges(), st.integers(0, 8)), max_size=4),
)
def test_the_place_is_the_lowest_free_one(
    found: list[Range], alignment: int, places: list[tuple[Range, int]]
) -> None:
    taken = [(r, alignment * place) for r, place in places]
    assert first_fit(found, alignment, taken) == plain(found, alignment, taken)


def test_nothing_takes_no_room() -> None:
    assert first_fit([], 64) == Placement([], 0)
    assert first_fit([Range(0, 0, 3), Range(8, 1, 2)], 64).peak == 8


@pytest.mark.parametrize("length", [1, 4000])
def test_thousands_of_ranges(length: int) -> None:
    """One after the other they share a place; all at once each has its own."""
    found = [Range(64, i, i + length - 1) for i in range(4000)]
    placed = first_fit(found, 64)
    assert placed.peak == 64 * length
    assert len(set(placed.addresses)) == length
