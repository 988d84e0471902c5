"""
Host instructions that move elements and change none.

A move leaves the first axes where they are: they are rows. Of the rest, which lies in columns, some
columns are kept, in an order that the compiler knows. Of rows in memory that are not read yet, runs of
neighbouring elements are gathered instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.tiling.host_registers import Held, Registers, columns_of, refuse

Shape = Sequence[int]
Move = Callable[[NDArray[Any]], NDArray[Any]]

LONG_RUN = 4
"""From so many neighbours on, rows of them are gathered from memory."""


def moved(regs: Registers, held: Held, shape: Shape, kept: int, move: Move) -> Held:
    """Move the elements of a register of a shape, whose first `kept` axes stay."""
    rest = tuple(shape[kept:])
    regs.shape(held, math.prod(rest))
    places = np.arange(math.prod(rest), dtype=np.int64).reshape((1,) * kept + rest)
    regs.gather(held, np.ascontiguousarray(move(places)).reshape(-1))
    return held


def permuted(regs: Registers, held: Held, shape: Shape, order: Sequence[int]) -> Held:
    """A transpose of a register of a shape."""
    kept = _identical(list(range(len(shape))), list(order))
    return moved(regs, held, shape, kept, lambda places: places.transpose(order))


def _repeat(regs: Registers, op: Operation, held: Held, own: Shape, shape: Shape) -> None:
    wide = (1,) * (len(shape) - len(own)) + tuple(own)
    kept = _identical(wide, shape)
    if nn.TOKENS in wide[kept:] or nn.TOKENS in shape[kept:]:
        refuse(op, f"of {tuple(own)} to {tuple(shape)} repeats rows of packed tokens")
    rest = tuple(shape[kept:])
    moved(regs, held, wide, kept, lambda p: np.broadcast_to(p, (1,) * kept + rest))


def _identical(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first elements of two sequences are the same."""
    pairs = enumerate(zip(a, b))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def emit_reshape(regs: Registers, op: nn.ReshapeOp) -> None:
    """The same elements."""
    regs.set(op.result, regs.take(op.x))


def emit_expand(regs: Registers, op: nn.ExpandOp) -> None:
    """Elements repeated."""
    held = regs.take(op.x, columns_of(op.x))
    _repeat(regs, op, held, nn.shape_of(op.x), nn.shape_of(op.result))
    regs.set(op.result, held)


def emit_transpose(regs: Registers, op: nn.TransposeOp) -> None:
    """Elements in another order."""
    order = [int(axis) for axis in op.permutation.get_values()]
    _move(regs, op, op.x, _identical(range(len(order)), order), lambda p: p.transpose(order))


def emit_slice(regs: Registers, op: nn.SliceOp) -> None:
    """Some of the elements."""
    starts, steps = ([int(n) for n in a.get_values()] for a in (op.starts, op.steps))
    own, shape = nn.shape_of(op.x), nn.shape_of(op.result)
    kept = 0
    while kept < len(own) and own[kept] == shape[kept]:
        kept += 1

    def cut(places: NDArray[Any]) -> NDArray[Any]:
        parts = [slice(None)] * kept
        for axis in range(kept, len(own)):
            end = starts[axis] + (shape[axis] - 1) * steps[axis] + 1
            parts.append(slice(starts[axis], end, steps[axis]))
        return places[tuple(parts)]

    _move(regs, op, op.x, kept, cut)


def move_by(regs: Registers, op: nn.IndexOp, indices: Sequence[NDArray[np.int64]]) -> None:
    """`nn.index` by constants."""
    _move(regs, op, op.x, 0, lambda places: places[tuple(indices)])


def _move(regs: Registers, op: Operation, x: SSAValue, kept: int, move: Move) -> None:
    shape = nn.shape_of(x)
    if nn.TOKENS in shape[kept:]:
        refuse(op, f"of {shape} moves rows of packed tokens")
    if _gathered(regs, op, x, move):
        return
    held = regs.take(x, columns_of(x))
    regs.set(op.results[0], moved(regs, held, shape, kept, move))


def _gathered(regs: Registers, op: Operation, x: SSAValue, move: Move) -> bool:
    """Read runs of elements of a tensor in memory, where they are long enough; whether they are."""
    source, shape = regs.source(x), nn.shape_of(x)
    if source is None or source.index is not None or x in regs.held or nn.TOKENS in shape:
        return False
    places = np.ascontiguousarray(
        move(np.arange(math.prod(shape), dtype=np.int64).reshape(shape))
    ).reshape(-1)
    run = _run(places, math.prod(shape))
    if run < LONG_RUN or places.size == run:
        return False
    rows = places[::run] // run
    tensor = regs.view(source.tensor, math.prod(shape) // run, run)
    regs.sources[op.results[0]] = replace(
        source, tensor=tensor, rows=rows.size, columns=run, index=regs.constant(rows)
    )
    regs.done(x)
    return True


def _run(places: NDArray[np.int64], size: int) -> int:
    """The most neighbours that stay together all over, beginning at multiples of their number."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    run = math.gcd(size, places.size)
    for place in breaks:
        run = math.gcd(run, int(place))
    starts = places[::run] if run else places
    return math.gcd(run, int(np.gcd.reduce(starts))) if starts.any() else run


def emit_concat(regs: Registers, op: nn.ConcatOp) -> None:
    """`hcat`, of the columns from the joined axis on."""
    axis = op.dim.value.data
    if nn.TOKENS in nn.shape_of(op.result)[axis:]:
        refuse(op, f"of {nn.shape_of(op.result)} joins rows of packed tokens")
    first, *rest = op.inputs
    held = regs.take(first, columns_of(first, axis))
    for value in rest:
        other = regs.read(value, columns_of(value, axis))
        regs.e.do("hcat", h=held.register, g=other)
        regs.done(value)
        held.columns += columns_of(value, axis)
    regs.set(op.result, held)
