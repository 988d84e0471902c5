"""
Host instructions that move elements and change none.

A chain of moves of one value is one gather, which is emitted where its result is read
(`host_registers.Moved`). Of packed tokens, whose number is known at run time, the first axes stay where
they are, and columns move.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue

from heatc.dialects import nn
from heatc.passes.tiling.host_registers import Held, Moved, Registers, columns_of, refuse

Shape = Sequence[int]
Move = Callable[[NDArray[Any]], NDArray[Any]]


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


def _identical(a: Sequence[int], b: Sequence[int]) -> int:
    """How many first elements of two sequences are the same."""
    pairs = enumerate(zip(a, b))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def emit_reshape(regs: Registers, op: nn.ReshapeOp) -> None:
    """The same elements."""
    if nn.TOKENS not in nn.shape_of(op.x) and op.x not in regs.held:
        _later(regs, op, op.x, lambda places: places)
    else:
        regs.set(op.result, regs.take(op.x))


def emit_expand(regs: Registers, op: nn.ExpandOp) -> None:
    """Elements repeated."""
    own, shape = nn.shape_of(op.x), nn.shape_of(op.result)
    wide = (1,) * (len(shape) - len(own)) + tuple(own)
    kept = _identical(wide, shape)
    rest = tuple(shape[kept:])
    if nn.TOKENS not in shape:
        _later(regs, op, op.x, lambda p: np.broadcast_to(p, shape))
        return
    if nn.TOKENS in rest:
        refuse(op, f"of {tuple(own)} to {tuple(shape)} repeats rows of packed tokens")
    held = regs.take(op.x)
    moved(regs, held, wide, kept, lambda p: np.broadcast_to(p, (1,) * kept + rest))
    regs.set(op.result, held)


def emit_transpose(regs: Registers, op: nn.TransposeOp) -> None:
    """Elements in another order."""
    order = [int(axis) for axis in op.permutation.get_values()]
    _move(regs, op, op.x, _identical(range(len(order)), order), lambda p: p.transpose(order))


def emit_slice(regs: Registers, op: nn.SliceOp) -> None:
    """Some of the elements."""
    starts, steps = ([int(n) for n in a.get_values()] for a in (op.starts, op.steps))
    own, shape = nn.shape_of(op.x), nn.shape_of(op.result)
    kept = _identical(own, shape)

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
    if nn.TOKENS not in shape:
        _later(regs, op, x, move)
        return
    if nn.TOKENS in shape[kept:]:
        refuse(op, f"of {shape} moves rows of packed tokens")
    held = regs.take(x, columns_of(x))
    regs.set(op.results[0], moved(regs, held, shape, kept, move))


def _later(regs: Registers, op: Operation, x: SSAValue, move: Move) -> None:
    """Note a move, as one of what its operand is moved from."""
    base = regs.moved_from(x)
    places = np.ascontiguousarray(move(base.places.reshape(nn.shape_of(x)))).reshape(-1)
    regs.move(op.results[0], Moved(base.source, places), [x])


def emit_concat(regs: Registers, op: nn.ConcatOp) -> None:
    """One gather of parts of one value, else `hcat` of the columns from the joined axis on."""
    axis, shape = op.dim.value.data, nn.shape_of(op.result)
    if nn.TOKENS in shape[axis:]:
        refuse(op, f"of {shape} joins rows of packed tokens")
    if nn.TOKENS not in shape:
        bases = [regs.moved_from(value) for value in op.inputs]
        if len(bases) > 1 and len({base.source for base in bases}) == 1:
            parts = [b.places.reshape(nn.shape_of(v)) for b, v in zip(bases, op.inputs)]
            places = np.concatenate(parts, axis).reshape(-1)
            regs.move(op.result, Moved(bases[0].source, places), op.inputs)
            return
    first, *rest = op.inputs
    held = regs.take(first, columns_of(first, axis))
    for value in rest:
        other = regs.read(value, columns_of(value, axis))
        regs.e.do("hcat", h=held.register, g=other)
        regs.done(value)
        held.columns += columns_of(value, axis)
    regs.set(op.result, held)
