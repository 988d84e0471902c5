"""
Values that are bounded by what they are made of, where interval arithmetic has no bound.

Interval arithmetic divides the greatest numerator by the least denominator. These never come near that:

    sum(x m) / max(sum(m), e)         with m >= 0: a mean of x (`passes/analysis/means.py`)
    x / max(sqrt(sum(x x)), e)        no longer than 1, so within -1 and 1 (`passes/analysis/sizes.py`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from xdsl.ir import Operation, SSAValue

from heatc.passes.analysis.means import mean_range
from heatc.passes.analysis.ranges import Range
from heatc.passes.analysis.sizes import unit_range

RangeOf = Callable[[SSAValue], Range]


def quotient_range(
    op: Operation, range_of: RangeOf, inputs: Mapping[SSAValue, SSAValue]
) -> Range | None:
    """The range of a quotient or a mean of one of the kinds, None for any other op."""
    found = unit_range(op, range_of)
    return mean_range(op, range_of, inputs) if found is None else found
