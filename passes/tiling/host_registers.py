"""
The host's registers while a task is emitted: which holds what, and in how many columns.

A value of any shape lies in a register as rows of columns, row-major: how many columns is the register's
own matter, and changes without a cost in values (`hshape`). What lies in memory is read where it is
first used. A register is free when nothing reads its value any more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import nn
from heatc.isa.table import HOST_REGISTERS
from heatc.passes.rewriting import at
from heatc.passes.tiling.emitter import Emitter

Indices = NDArray[np.int64]
Constant = Callable[[Indices], SSAValue]
View = Callable[[SSAValue, int, int], SSAValue]


@dataclass(frozen=True)
class Source:
    """Rows of a tensor that are not read yet: all, or those that an index tensor names."""

    tensor: SSAValue
    point: int
    rows: int
    columns: int
    index: SSAValue | None = None


@dataclass(frozen=True)
class Moved:
    """A value that is elements of another one, which are not gathered yet: `places` in it, flat."""

    source: SSAValue
    places: Indices


@dataclass
class Held:
    """A register, and how many columns its value has there."""

    register: int
    columns: int


class Registers:
    """
    Registers of one task.

    `arguments` are the task's, which lie in memory where `describe` says. `reads` is how often each value is still read,
    `constant` gives the tensor of an index that the compiler knows, `view` a tensor in other rows and
    columns.
    """

    def __init__(
        self,
        emitter: Emitter,
        arguments: Collection[SSAValue],
        reads: Counter[SSAValue],
        describe: Callable[[SSAValue], Source],
        constant: Constant,
        view: View,
    ):
        self.e = emitter
        self.arguments = arguments
        self.reads = reads
        self.describe = describe
        self.constant = constant
        self.view = view
        self.sources: dict[SSAValue, Source] = {}
        self.numbers: dict[SSAValue, float] = {}
        self.moves: dict[SSAValue, Moved] = {}
        self.held: dict[SSAValue, Held] = {}
        self.free = list(range(HOST_REGISTERS))

    # -- values ----------------------------------------------------------------------------

    def source(self, value: SSAValue) -> Source | None:
        """Where a value lies in memory, None where it does not."""
        if value not in self.sources and value in self.arguments:
            self.sources[value] = self.describe(value)
        return self.sources.get(value)

    def read(self, value: SSAValue, columns: int = 0) -> int:
        """A register that holds a value, in so many columns; to be given back by `done`."""
        if value not in self.held:
            self.held[value] = self._load(value)
        held = self.held[value]
        self.shape(held, columns)
        return held.register

    def done(self, value: SSAValue) -> None:
        """An op has read a value that it does not overwrite."""
        self.reads[value] -= 1
        if self.reads[value] > 0:
            return
        if value in self.moves:
            self.done(self.moves.pop(value).source)
        elif value in self.held:
            self.release(self.held.pop(value).register)

    def moved_from(self, value: SSAValue) -> Moved:
        """What a value is moved from; all of itself where it is not moved, or already gathered."""
        if value in self.moves:
            return self.moves[value]
        return Moved(value, np.arange(math.prod(nn.shape_of(value)), dtype=np.int64))

    def move(self, value: SSAValue, moved: Moved, operands: Sequence[SSAValue]) -> None:
        """Note that a value is moved, by an op that has read `operands`."""
        self.moves[value] = moved
        self.reads[moved.source] += 1
        for operand in operands:
            self.done(operand)

    def take(self, value: SSAValue, columns: int = 0) -> Held:
        """A register that holds a value and may be overwritten."""
        self.reads[value] -= 1
        if self.reads[value] > 0:
            self.read(value, columns)
            held = self.held[value]
            copy = Held(self.new(), held.columns)
            self.e.do("hcopy", g=copy.register, h=held.register)
            return copy
        held = self.held.pop(value) if value in self.held else self._load(value)
        self.shape(held, columns)
        return held

    def set(self, value: SSAValue, held: Held) -> None:
        """A register holds a value from here on; nothing where nobody reads it."""
        if self.reads[value] > 0:
            self.held[value] = held
        else:
            self.release(held.register)

    def shape(self, held: Held, columns: int) -> None:
        """Give a register's value so many columns, if any are asked for."""
        if columns and held.columns != columns:
            self.e.do("hshape", h=held.register, columns=columns)
            held.columns = columns

    # -- registers -------------------------------------------------------------------------

    def new(self) -> int:
        """A free register; one whose value can be read from memory again gives way."""
        if not self.free:
            self._evict()
        return self.free.pop(0)

    def release(self, register: int) -> None:
        """Nothing reads a register any more."""
        self.free.insert(0, register)

    def number(self, value: float, rows: int = 1, columns: int = 1) -> Held:
        """A register that has a number everywhere."""
        held = Held(self.new(), columns)
        self.e.do("hnum", h=held.register, rows=rows, columns=columns, value=value)
        return held

    def gather(self, held: Held, indices: Indices) -> None:
        """Keep the named columns: a cut where they are evenly spaced."""
        count = indices.size
        steps = np.diff(indices)
        step = int(steps[0]) if count > 1 else 1
        if count == held.columns and step == 1 and bool((steps == 1).all()) and indices[0] == 0:
            return
        if step != 0 and bool((steps == step).all()):
            start = int(indices[0])
            self.e.do("hcut", h=held.register, start=start, columns=count, step=step)
        else:
            self.e.do("hcols", h=held.register, idx=self.constant(indices))
        held.columns = count

    def _evict(self) -> None:
        known = [v for v in self.held if v in self.sources or v in self.numbers]
        if not known:
            op = self.e.source
            raise PassFailedException(
                f"{'' if op is None else at(op)}more than {HOST_REGISTERS} values at a time in one "
                "task of the host: out of registers; use --target numpy for this model"
            )
        self.release(self.held.pop(known[0]).register)

    def _load(self, value: SSAValue) -> Held:
        if value in self.moves:
            return self._gathered(self.moves.pop(value), nn.shape_of(value))
        if value in self.numbers:
            columns = columns_of(value)
            rows = math.prod(nn.shape_of(value)) // columns
            return self.number(self.numbers[value], rows, columns)
        source = self.source(value)
        assert source is not None
        zero = self.e.constant(0)
        held = Held(self.new(), source.columns)
        fields = {"h": held.register, "d": source.tensor, "row_reg": zero, "rows": source.rows}
        if source.index is None:
            self.e.do("hget", **fields, point=source.point)
        else:
            self.e.do("hgeti", **fields, idx=source.index, point=source.point)
        return held

    def _gathered(self, moved: Moved, shape: Sequence[int]) -> Held:
        """The elements of a moved value: runs of them from memory, or columns of a register."""
        value, places = moved.source, moved.places
        size = math.prod(nn.shape_of(value))
        source = self.source(value)
        if source is not None and source.index is None and value not in self.held:
            run = _run(places, size)
            if run >= LONG_RUN and run < places.size:
                rows = places[::run] // run
                tensor = self.view(source.tensor, size // run, run)
                held = Held(self.new(), run)
                self.e.do(
                    "hgeti",
                    h=held.register,
                    d=tensor,
                    row_reg=self.e.constant(0),
                    rows=rows.size,
                    idx=self.constant(rows),
                    point=source.point,
                )
                self.done(value)
                return held
        rows, columns = _rows(places, size, shape)
        held = self.take(value)
        if columns.size != size // rows or bool((columns != np.arange(columns.size)).any()):
            self.shape(held, size // rows)
            self.gather(held, columns)
        return held


LONG_RUN = 4
"""From so many neighbours on, rows of them are gathered from memory."""


def _rows(places: Indices, size: int, shape: Sequence[int]) -> tuple[int, Indices]:
    """In how many rows the same columns are kept, as many as can be, and these columns."""
    counts = [math.prod(shape[:axes]) for axes in range(len(shape), -1, -1)]
    for rows in counts:
        if rows and size % rows == 0:
            table = places.reshape(rows, -1)
            starts = np.arange(rows, dtype=np.int64)[:, None] * (size // rows)
            if bool((table[:1] + starts == table).all()) and int(table[0].max()) < size // rows:
                return rows, table[0]
    raise AssertionError


def _run(places: Indices, size: int) -> int:
    """The most neighbours that stay together all over, beginning at multiples of their number."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    run = math.gcd(size, places.size, *map(int, np.unique(breaks)))
    starts = places[:: max(run, 1)]
    return math.gcd(run, int(np.gcd.reduce(starts)))


def columns_of(value: SSAValue, rows: int = -1) -> int:
    """The elements of all axes of a value but the first `rows`; the last axis as a rule."""
    shape = nn.shape_of(value)
    if shape == (nn.TOKENS,):
        return 1
    return math.prod(shape[len(shape) - 1 if rows < 0 else rows :]) if shape else 1


def refuse(op: Operation, why: str) -> NoReturn:
    """Raise `PassFailedException` for an op that has no instruction after all."""
    raise PassFailedException(f"{at(op)}{op.name} {why}")
