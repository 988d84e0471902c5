"""
How far 16-bit codes move the outputs of a program, over all inputs of a check.

One input says little: an output that is near 0 on it is far off by any share. So errors and sizes
are pooled, and a program whose rounding is in doubt is run on more inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.verify.rows import Rows

Array = NDArray[Any]
Arrays = Mapping[str, Array]

COARSE = 0.06
"""The share of an output's size from which binary points are too coarse to stand for the model."""

NOTICEABLE = COARSE / 4
"""The share from which more inputs are run while there is time."""

LEAST_RUNS = 4
"""Runs after which a program may be refused for its rounding."""

DOUBTED_RUNS = 8
"""Runs of a program that is in doubt, whatever time they take."""


@dataclass
class _Pool:
    """Of one output: squares summed, and the largest magnitudes."""

    error_squares: float = 0.0
    size_squares: float = 0.0
    largest_error: float = 0.0
    largest: float = 0.0

    @property
    def share(self) -> float:
        """The error as a share of the size: by Euclidean norm, or half of that by largest value."""
        if not self.largest:
            return np.inf if self.largest_error else 0.0
        of_norm = float(np.sqrt(self.error_squares / self.size_squares))
        return max(of_norm, self.largest_error / self.largest / 2)


@dataclass
class Rounding:
    """What codes did to each output so far."""

    pools: dict[str, _Pool] = field(default_factory=dict[str, _Pool])
    runs: int = 0

    def add(self, reals: Arrays, codes: Arrays, rows: Mapping[str, Rows]) -> None:
        """The outputs of one input, computed with real numbers and with codes."""
        self.runs += 1
        for name, array in reals.items():
            kept = rows.get(name, Rows())
            exact = kept.of(array).astype(np.float64)
            error = np.nan_to_num(np.abs(kept.of(codes[name]) - exact), nan=np.inf)
            pool = self.pools.setdefault(name, _Pool())
            pool.error_squares += float((error**2).sum())
            pool.size_squares += float((exact**2).sum())
            pool.largest_error = max(pool.largest_error, float(error.max(initial=0.0)))
            pool.largest = max(pool.largest, float(np.abs(exact).max(initial=0.0)))

    @property
    def worst(self) -> tuple[str, float]:
        """The output that is furthest off, and its share; nothing and 0 before any input."""
        shares = {name: pool.share for name, pool in self.pools.items()}
        name = max(shares, key=lambda n: shares[n], default="")
        return name, shares.get(name, 0.0)

    @property
    def is_doubtful(self) -> bool:
        """Whether more inputs have to say if the program is good enough."""
        return self.worst[1] > COARSE

    @property
    def is_noticeable(self) -> bool:
        """
        Whether more inputs should say it, if there is time.

        An output of a few values is near its codes by chance on one or two inputs.
        """
        return self.worst[1] > NOTICEABLE
