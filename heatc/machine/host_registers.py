"""What the host's instructions share: tensors that they may use, registers, and what work costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from heatc.errors import InfeasibleError
from heatc.fixed_point import Reals
from heatc.isa.shapes import Shape
from heatc.isa.table import DTYPES, ISA, ElementCost, FieldKind
from heatc.isa.table.host_actions import ROW
from heatc.machine.execution import Execution, Sizes
from heatc.machine.memory import Array
from heatc.machine.scoreboard import Rows
from heatc.machine.state import Tensor, Trap, expect

HOST_ELEMENTS = 1 << 28
"""Most elements that all host registers together may have, however large the memory is."""

SMALL_ELEMENTS = 1 << 24
"""
As many they may have however small it is.

In between they have as many as memory has bytes: what a program works on comes from there, and a
number that is repeated without end does not.
"""

MANY_ELEMENTS = 1 << 20
"""Work on so many elements takes long enough to look at the clock before it."""

EXACT = 1 << 53
"""Integers up to here are float64 values."""


def integers(run: Execution, index: int) -> Tensor:
    """A tensor of integers."""
    tensor = run.state.tensor(index)
    expect(tensor.is_integer, f"d{index} is {tensor.dtype}, expected integers")
    return tensor


def writable(run: Execution, index: int) -> Tensor:
    """A tensor that may be written."""
    tensor = run.state.tensor(index)
    expect(tensor.writable, f"d{index} lies among the weights")
    return tensor


def bytes_of(tensor: Tensor, elements: int) -> int:
    """Bytes of some elements of a tensor."""
    return elements * DTYPES[tensor.dtype]


def in_dram(tensor: Tensor) -> int:
    """1 if a tensor lies in DRAM."""
    return int(tensor.space == "dram")


def row_vector(run: Execution, index: int, width: int) -> Reals:
    """A tensor of `width` f32 as a row of float64."""
    tensor = run.state.tensor(index)
    expect(tensor.dtype == "f32", f"d{index} is {tensor.dtype}, expected f32")
    expect(tensor.data.size == width, f"d{index} has {tensor.data.size} of {width} elements")
    return tensor.data.reshape(-1).astype(np.float64)


def first_row(run: Execution, row_reg: int, rows: int, what: str) -> int:
    """The row that a register names, at most behind the last one."""
    row = run.state.registers[row_reg]
    if not 0 <= row <= rows:
        raise Trap(f"row {row} is outside of {what} with {rows} rows")
    return row


def indices_of(
    tensor: Tensor, what: str, low: int, count: int, size: int, of: str = "rows"
) -> NDArray[np.int64]:
    """Elements [low, low + count) of an index tensor, each -1 or below `size`."""
    indices = tensor.data.reshape(-1)[low : low + count].astype(np.int64)
    if indices.size and (int(indices.min()) < -1 or int(indices.max()) >= size):
        worst = int(indices.min()) if int(indices.min()) < -1 else int(indices.max())
        raise Trap(f"index {worst} of {what} is outside of {size} {of}")
    return indices


def reals(codes: Array, tensor: Tensor, point: int) -> Reals:
    """Codes of a tensor as float64; an integer that float64 does not have is a trap."""
    if not tensor.is_integer:
        return codes.astype(np.float64)
    if tensor.dtype == "i64" and codes.size:
        least, greatest = int(codes.min()), int(codes.max())
        if least < -EXACT or greatest > EXACT:
            worst = least if least < -EXACT else greatest
            raise Trap(f"{worst} is beyond 2^53, where float64 skips integers")
    values = codes.astype(np.float64)
    values *= 2.0**-point
    return values


def shape_of(x: Reals) -> Shape:
    """Rows and columns."""
    return x.shape[0], x.shape[1]


def expect_room(run: Execution, h: int, shape: Shape) -> None:
    """A register of this shape has room beside the others, and there is time to make it."""
    if shape[0] * shape[1] >= MANY_ELEMENTS and run.budget is not None:
        run.budget.check_clock(run.pc)
    others = sum(x.size for i, x in enumerate(run.state.host) if x is not None and i != h)
    limit = min(max(run.memory.size, SMALL_ELEMENTS), HOST_ELEMENTS)
    if shape[0] * shape[1] + others > limit:
        raise Trap(
            f"{shape[0]}x{shape[1]} float64 exceed the host registers' {limit} elements"
            + (f", of which others have {others}" if others else ""),
            "run the operation on fewer rows at a time",
            error=InfeasibleError,
        )


def put(
    run: Execution, h: int, sizes: Sizes, compute: Callable[[], Reals], field: str = "h"
) -> int:
    """Write the register of a field, of the shape that the table says; returns its elements."""
    shape = sizes.of(field)
    expect_room(run, h, shape)
    run.state.host[h] = run.values.array(shape, compute)
    run.host_codes.pop(h, None)
    return shape[0] * shape[1]


def charge(
    run: Execution,
    elements: int,
    *,
    nbytes: int = 0,
    reads: Sequence[Rows] = (),
    each: ElementCost | None = None,
    registers: int = 0,
) -> None:
    """
    Count the work of the current instruction on registers.

    `registers` are the elements of those that it reads and writes: where vector units have them and
    the host does the work, they pass through DRAM.
    """
    inst = run.program[run.pc]
    on_host = run.hardware.vector_lanes > 0 and not inst.instruction.vector
    spilled = ROW * registers if on_host else 0
    chosen = {} if each is None else each._asdict()
    moved = nbytes + 2 * spilled
    run.work(elements=elements, nbytes=moved, written=spilled, from_dram=1, **chosen)
    run.board.host(
        run.pc,
        inst.mnemonic,
        elements,
        moved,
        reads,
        registers=registers_of(run),
        each=each,
        spilled=spilled,
    )


def registers_of(run: Execution) -> tuple[int, ...]:
    """The host registers of the current instruction."""
    inst = run.program[run.pc]
    places = _PLACES[inst.mnemonic]
    return tuple(int(inst.operands[place]) for place in places)


_PLACES = {
    row.mnemonic: tuple(i for i, f in enumerate(row.fields) if f.kind is FieldKind.HOST)
    for row in ISA.values()
}


def apply(
    run: Execution, h: int, function: Callable[[Reals], Reals], each: ElementCost | None = None
) -> None:
    """A function of a register that leaves its shape."""
    x = run.state.host_register(h)
    put(run, h, run.sizes({"h": shape_of(x)}), lambda: function(x))
    charge(run, x.size, each=each)


def apply_to_codes(
    run: Execution,
    h: int,
    name: str,
    function: Callable[[Reals], Reals],
    each: ElementCost | None = None,
) -> None:
    """
    The same of a function that takes long.

    A register that holds int16 codes unchanged takes it from a table: there are fewer codes than
    values in most tensors. `name` names the function.
    """
    source = run.host_codes.get(h)
    if source is None:
        apply(run, h, function, each)
        return
    codes, point = source
    apply(run, h, lambda _: _table(name, function, point).take(codes.view(np.uint16)), each)


@lru_cache(maxsize=16)
def _table(name: str, function: Callable[[Reals], Reals], point: int) -> Reals:
    """A function of every int16 code."""
    values = np.arange(1 << 16).astype(np.uint16).view(np.int16).astype(np.float64)
    return function(values * 2.0**-point)
