"""What a program is that is evaluated: its inputs, how it runs, and what a run gives."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from heatc.hardware import Hardware

Array = NDArray[Any]
Arrays = Mapping[str, Array]

MASK = "attention_mask"
"""The input that tells real tokens (1) from padding (0)."""


class Port(NamedTuple):
    """An input: its shape, the batch first, and its dtype."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


class Ran(NamedTuple):
    """Outputs of a batch by name, and what the batch cost by the names of `figures.EACH`."""

    outputs: dict[str, Array]
    costs: dict[str, float]


Run = Callable[[Arrays], Ran]


class Program(Protocol):
    """A program on disk; it can be sent to another process."""

    @property
    def runs(self) -> str:
        """What runs it, in words."""
        ...

    @property
    def is_parallel(self) -> bool:
        """Whether batches run side by side in other processes, each on one thread."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """The program's own file first."""
        ...

    @property
    def ports(self) -> Mapping[str, Port]:
        """The inputs by name."""
        ...

    @property
    def hardware(self) -> Hardware | None:
        """The machine that is modelled."""
        ...

    def opened(self) -> AbstractContextManager[Run]:
        """Hold the program and run batches of the ports' own shapes; `HeatcError` where one fails."""
        ...


def batch_of(program: Program) -> int:
    """Samples that a program takes at once."""
    return next((p.shape[0] for p in program.ports.values() if p.shape), 1)


def length_of(program: Program) -> int | None:
    """Tokens of a sequence; None for a program without sequences of tokens."""
    ports = program.ports
    if MASK in ports:
        return ports[MASK].shape[-1]
    lengths = [p.shape[1] for p in ports.values() if len(p.shape) == 2 and p.dtype.kind in "iu"]
    return max(lengths, default=None)


def bytes_of(program: Program) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in program.files)


def sha256_of(files: Iterable[Path]) -> str:
    """The digest of files, one after the other."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            while part := stream.read(1 << 20):
                digest.update(part)
    return digest.hexdigest()
