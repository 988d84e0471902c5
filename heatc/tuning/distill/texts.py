"""The text that students are trained and evaluated on, and its batches."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_RUN_OF_BATCHES = 50


@dataclass(frozen=True, eq=False)
class Texts:
    """Inputs by name, (N, ...) each, and the real tokens of each sample, (N,)."""

    inputs: Mapping[str, Array]
    lengths: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, samples: Sequence[int]) -> dict[str, Array]:
        """The inputs of some samples."""
        return {name: array[list(samples)] for name, array in self.inputs.items()}


def shuffled(lengths: Sequence[int], size: int, order: random.Random) -> list[list[int]]:
    """
    Batches of exactly `size` samples of like lengths, in random order.

    Samples are shuffled, cut into runs of 50 batches and sorted by length within each run; what is
    missing in the last batch is filled up with the first samples.
    """
    samples = list(range(len(lengths)))
    order.shuffle(samples)
    while len(samples) % size:
        samples.append(samples[len(samples) % len(lengths)])
    batches: list[list[int]] = []
    for start in range(0, len(samples), _RUN_OF_BATCHES * size):
        part = sorted(samples[start : start + _RUN_OF_BATCHES * size], key=lambda i: lengths[i])
        batches += [part[i : i + size] for i in range(0, len(part), size)]
    order.shuffle(batches)
    return batches


def in_order(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Batches of exactly `size` samples, shortest first; the last one is filled from its left."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    order *= math.ceil(size / len(order))
    for start in range(0, len(order), size):
        yield order[max(0, min(start, len(order) - size)) :][:size]
