"""Batches of a program's own size, run in this process or in others."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast, overload

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.common.workers import Workers
from heatc.tuning.evaluate.program import Arrays, Program, Ran, batch_of

Array = NDArray[Any]


@dataclass(frozen=True)
class Batches(Sequence[tuple[Program, Arrays]]):
    """
    The batches of a program, each made when it is asked for.

    `arrays` (N, ...) have the shapes of its inputs. The last batch is filled with repeats of its own
    samples.
    """

    program: Program
    arrays: Mapping[str, Array]

    @property
    def samples(self) -> int:
        """N."""
        return len(next(iter(self.arrays.values())))

    def slice_of(self, number: int) -> slice:
        """The samples of a batch, without repeats."""
        size = batch_of(self.program)
        return slice(number * size, min(self.samples, (number + 1) * size))

    def __len__(self) -> int:
        return -(-self.samples // batch_of(self.program))

    @overload
    def __getitem__(self, index: int) -> tuple[Program, Arrays]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Program, Arrays]]: ...

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[n] for n in range(len(self))[index]]
        if not 0 <= index < len(self):
            raise IndexError(index)
        own = self.slice_of(index)
        rows = own.start + np.arange(batch_of(self.program), dtype=np.int64) % (
            own.stop - own.start
        )
        return self.program, {name: array[rows] for name, array in self.arrays.items()}


def run_batches(batches: Batches, workers: Workers, done: Callable[[int, Ran], None]) -> None:
    """Run every batch; `done(number, result)` is told in order. Raises `HeatcError` where one fails."""
    if batches.program.is_parallel:
        workers.run(_run_here, batches, done)
        return
    with batches.program.opened() as run:
        for number, (_, inputs) in enumerate(batches):
            done(number, run(inputs))


def _run_here(program: Program, inputs: Arrays) -> Ran:
    """One batch in a worker, which keeps the program for the next one."""
    return cast(Ran, _opened(program)(inputs))


@lru_cache(maxsize=1)
def _opened(program: Program) -> Any:
    return program.opened().__enter__()
