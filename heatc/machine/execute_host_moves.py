"""Registers of the host that are made, copied, cut, joined and gathered."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Reals
from heatc.machine.execution import Execution, executes
from heatc.machine.host_registers import (
    bytes_of,
    charge,
    indices_of,
    integers,
    put,
    shape_of,
)
from heatc.machine.scoreboard import Rows
from heatc.machine.state import expect


@executes("hnum")
def fill(run: Execution, h: int, rows: int, columns: int, value: float) -> None:
    charge(run, put(run, h, run.sizes({}), lambda: np.broadcast_to(value, (rows, columns))))


@executes("hiota")
def count(run: Execution, h: int, rows: int, columns: int, start: int, step: int) -> None:
    charge(run, put(run, h, run.sizes({}), lambda: _counted(rows, columns, start, step)))


def _counted(rows: int, columns: int, start: int, step: int) -> Reals:
    row = start + step * np.arange(columns, dtype=np.float64)
    return np.broadcast_to(row, (rows, columns))


@executes("hcopy")
def copy(run: Execution, g: int, h: int) -> None:
    x, codes = run.state.host_register(h), run.host_codes.get(h)
    # Nobody writes into a register's array: two registers may have one.
    charge(run, put(run, g, run.sizes({"h": shape_of(x)}), lambda: x, "g"))
    if codes is not None:
        run.host_codes[g] = codes


@executes("hcut")
def cut(run: Execution, h: int, start: int, columns: int, step: int) -> None:
    x = run.state.host_register(h)
    expect(step != 0, "the step is 0")
    last = start + (columns - 1) * step
    inside = columns == 0 or (start < x.shape[1] and 0 <= last < x.shape[1])
    expect(inside, f"columns {start}..{last} are outside of h{h} with {x.shape[1]}")
    places = slice(start, last + step if last + step >= 0 else None, step) if columns else slice(0)
    charge(run, put(run, h, run.sizes({"h": shape_of(x)}), lambda: x[:, places].copy()))


@executes("hcat")
def join(run: Execution, h: int, g: int) -> None:
    x, y = run.state.host_register(h), run.state.host_register(g)
    sizes = run.sizes({"h": shape_of(x), "g": shape_of(y)})
    charge(run, put(run, h, sizes, lambda: np.concatenate([x, y], axis=1)))


@executes("hcols")
def gather_columns(run: Execution, h: int, idx: int) -> None:
    x, index = run.state.host_register(h), integers(run, idx)
    indices = indices_of(index, f"d{idx}", 0, index.data.size, x.shape[1], "columns")
    sizes = run.sizes({"h": shape_of(x), "idx": (index.rows, index.columns)})
    elements = put(run, h, sizes, lambda: _columns_at(x, indices))
    nbytes = bytes_of(index, indices.size)
    charge(run, elements, nbytes=nbytes, reads=[Rows(index)], registers=x.size + elements)


def _columns_at(x: Reals, indices: NDArray[np.int64]) -> Reals:
    """The columns at `indices`, zeros for -1."""
    if not x.shape[1]:
        return np.zeros((x.shape[0], indices.size))
    result = x.take(np.maximum(indices, 0), axis=1)
    result[:, indices < 0] = 0.0
    return result


@executes("hshape")
def reshape(run: Execution, h: int, columns: int) -> None:
    x = run.state.host_register(h)
    divides = columns > 0 and x.size % columns == 0
    expect(divides, f"{columns} columns do not divide the {x.size} elements of h{h}")
    sizes = run.sizes({"h": shape_of(x)})
    charge(run, put(run, h, sizes, lambda: x.reshape(-1, columns)))
