"""The host's reductions, in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.isa.table.host_reduce import GROUP_KINDS, KINDS, NEEDS_ELEMENTS
from heatc.machine.execution import Execution, executes
from heatc.machine.host_registers import charge, put, shape_of
from heatc.machine.state import expect

Reduction = Callable[[Reals, int], NDArray[Any]]
"""A reduction of an array along an axis, which goes."""


def _has_one(x: Reals, axis: int) -> NDArray[np.bool_]:
    return (x != 0.0).any(axis=axis)


def _has_all(x: Reals, axis: int) -> NDArray[np.bool_]:
    return (x != 0.0).all(axis=axis)


_REDUCTIONS: Mapping[str, Reduction] = MappingProxyType(
    {
        "sum": lambda x, axis: x.sum(axis=axis),
        "mean": lambda x, axis: x.mean(axis=axis),
        "max": lambda x, axis: x.max(axis=axis),
        "min": lambda x, axis: x.min(axis=axis),
        "any": _has_one,
        "all": _has_all,
        "prod": lambda x, axis: x.prod(axis=axis),
        "argmax": lambda x, axis: x.argmax(axis=axis),
    }
)
assert _REDUCTIONS.keys() == {*KINDS}


@executes("hred")
def reduce_rows(run: Execution, h: int, kind: int) -> None:
    x, name = run.state.host_register(h), KINDS[kind]
    expect(x.shape[1] > 0 or name not in NEEDS_ELEMENTS, f"h{h} has no columns")
    reduction = _REDUCTIONS[name]
    sizes = run.sizes({"h": shape_of(x)})
    put(run, h, sizes, lambda: reduction(x, 1).astype(np.float64)[:, None])
    charge(run, x.size)


@executes("hredr")
def reduce_groups(run: Execution, h: int, group: int, kind: int) -> None:
    x, reduction = run.state.host_register(h), _REDUCTIONS[GROUP_KINDS[kind]]
    rows, columns = shape_of(x)
    expect(group > 0 and rows % group == 0, f"groups of {group} do not divide {rows} rows of h{h}")
    apart = (rows // group, group, columns)
    sizes = run.sizes({"h": shape_of(x)})
    put(run, h, sizes, lambda: reduction(x.reshape(apart), 1).astype(np.float64))
    charge(run, x.size)


@executes("hscan")
def scan(run: Execution, h: int) -> None:
    x = run.state.host_register(h)
    put(run, h, run.sizes({"h": shape_of(x)}), lambda: np.cumsum(x, axis=1))
    charge(run, x.size, registers=2 * x.size)
