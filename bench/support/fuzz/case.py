"""What a hostile input is, and the registry of the kinds of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.support.fuzz.corpus import Corpus


@dataclass(frozen=True)
class Case:
    """
    One run of a tool on files that may be anything.

    Attributes:
        argv: the tool's arguments; for `heatc.compile` one Python expression.
        files: content by name, written into the folder in which the tool runs. Files of the
            corpus are beside that folder, as `../base/<name>`.
        stdin: what standard input gives.
        references: (file, format) of what a reference reader must be able to read if the tool
            accepts it; formats are those of `bench.support.fuzz.references`.
        old: the input is of an earlier version, to be read or refused by version.
    """

    argv: tuple[str, ...]
    files: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    stdin: bytes = b""
    references: tuple[tuple[str, str], ...] = ()
    old: bool = False


Make = Callable[[Random, "Corpus"], Case]


@dataclass(frozen=True)
class Kind:
    """
    One kind of input at one entry point.

    Attributes:
        entry: the entry point: a tool, with its command if it has some, or `heatc.compile`.
        what: the kind of file or text that is mutated.
        count: how many of a million inputs are of this kind, as a weight.
        make: makes a case; the same random numbers and corpus give the same case.
        torch: whether cases import torch.
    """

    entry: str
    what: str
    count: int
    make: Make
    torch: bool = False

    @property
    def name(self) -> str:
        """`hdp-run: container`."""
        return f"{self.entry}: {self.what}"

    def case(self, seed: int, index: int, corpus: Corpus) -> Case:
        """The case of a number; it depends on nothing else than the seed, kind and corpus."""
        return self.make(Random(f"{seed}:{self.name}:{index}"), corpus)


KINDS: dict[str, Kind] = {}
"""Every kind by its name, in the order of registration."""


def kind(entry: str, what: str, count: int, *, torch: bool = False) -> Callable[[Make], Make]:
    """Registers a function as what makes the cases of a kind."""

    def register(make: Make) -> Make:
        new = Kind(entry, what, count, make, torch)
        if new.name in KINDS:
            raise ValueError(f"kind {new.name!r} is there twice")
        KINDS[new.name] = new
        return make

    return register
