"""
What a format of a factorised weight is, and a format with its modes and ranks.

The factors of a weight and the layer's input make one equation: a format says which indices each
factor has. Everything that is done with factors, from contraction paths to programs, reads the
equation, so that a format of another package needs nothing else of the compiler.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import ClassVar, NamedTuple, TypeAlias

from heatc.errors import HeatcError
from heatc.extensions import Registry
from heatc.heat.formats.modes import (
    INPUTS,
    OUTPUTS,
    RANKS,
    Modes,
    balanced,
    check_modes,
    shape_text,
)
from heatc.heat.norm import Matrix, Norm

Format: TypeAlias = str
"""The name of a format."""

FORMATS: tuple[Format, ...] = ("low-rank", "tucker", "cp", "tt", "ttm")
"""heatc's own formats: `some-name` is the constant `FORMAT` of `heatc.heat.formats.some_name`."""


@dataclass(frozen=True)
class Spec:
    """
    A format with its modes and ranks.

    Raises `HeatcError` for a format, modes or ranks that do not belong together.
    """

    format: str
    inputs: Modes
    outputs: Modes
    ranks: Modes

    def __post_init__(self) -> None:
        check_modes(self.inputs, self.outputs)
        kind = find_format(self.format)
        if problem := kind.wrong_modes(self.inputs, self.outputs):
            raise HeatcError(f"{self.format} takes {problem}, got {self.shape}")
        wanted = kind.rank_count(self.inputs, self.outputs)
        if len(self.ranks) != wanted or min(self.ranks, default=1) < 1:
            raise HeatcError(
                f"{self.format} of {self.shape} has {wanted} ranks, got {list(self.ranks)}"
            )

    @property
    def shape(self) -> str:
        """The modes as text, `8x8x12|12x8x8`."""
        return shape_text(self.inputs, self.outputs)

    @property
    def input_letters(self) -> str:
        """An index for each input mode."""
        return INPUTS[: len(self.inputs)]

    @property
    def output_letters(self) -> str:
        """An index for each output mode."""
        return OUTPUTS[: len(self.outputs)]

    @property
    def rank_letters(self) -> str:
        """An index for each rank."""
        return RANKS[: len(self.ranks)]

    @property
    def extents(self) -> dict[str, int]:
        """The extent of every index."""
        letters = self.input_letters + self.output_letters + self.rank_letters
        return dict(zip(letters, (*self.inputs, *self.outputs, *self.ranks)))

    @property
    def terms(self) -> tuple[str, ...]:
        """The indices of every factor, in order."""
        return tuple(find_format(self.format).terms(self))

    @property
    def factor_shapes(self) -> tuple[Modes, ...]:
        """The shape of every factor."""
        extents = self.extents
        return tuple(tuple(extents[c] for c in term) for term in self.terms)

    @property
    def parameters(self) -> int:
        """The number of elements of all factors."""
        return sum(math.prod(shape) for shape in self.factor_shapes)

    def bounded(self) -> Spec:
        """The same with no rank above what its place can use; no product changes by that."""
        limits = find_format(self.format).rank_limits(self.inputs, self.outputs)
        return Spec(
            self.format,
            self.inputs,
            self.outputs,
            tuple(min(r, m) for r, m in zip(self.ranks, limits)),
        )


class Weight(NamedTuple):
    """
    A weight that is to be decomposed.

    Attributes:
        matrix: (O, I), of magnitudes near 1.
        norm: what the error of the layer's output is measured in, None for the plain norm.
        spec: the format with its modes and ranks.
        refinements: the most steps that refine the factors.
        seed: of whatever is random.
    """

    matrix: Matrix
    norm: Norm | None
    spec: Spec
    refinements: int
    seed: int


class Found(NamedTuple):
    """Factors, and their relative error in the norm where it is known, else None."""

    arrays: Sequence[Matrix]
    error: float | None = None


class WeightFormat(ABC):
    """
    A format: one object of a class of its own.

    Attributes:
        name: as `--heat` and plan.json spell it.
        summary: one line for `--list-formats`: its factors.
        is_matrix: whether it has one mode a side, so that nobody needs to give a shape.
        in_halves: whether factors that hold inputs, as many as there are input modes, come before
            those that hold outputs.
        modes: of a side, where none are asked for.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    is_matrix: ClassVar[bool] = False
    in_halves: ClassVar[bool] = True
    modes: ClassVar[int] = 3

    @abstractmethod
    def terms(self, spec: Spec) -> Iterable[str]:
        """
        The indices of each factor, in order.

        `spec.input_letters`, `spec.output_letters` and `spec.rank_letters` are the indices. Each
        input and output index is in at least one factor.
        """

    @abstractmethod
    def rank_count(self, inputs: Modes, outputs: Modes) -> int:
        """How many ranks it has on these modes."""

    @abstractmethod
    def rank_limits(self, inputs: Modes, outputs: Modes) -> Modes:
        """The rank at each place above which nothing more can be represented."""

    @abstractmethod
    def decompose(self, weight: Weight) -> Found:
        """Factors near a weight; `heatc.heat.start.from_start` makes them of a start."""

    def wrong_modes(self, inputs: Modes, outputs: Modes) -> str:
        """What it takes instead of these modes, nothing where it takes them."""
        return ""

    def default_modes(self, inputs: int, outputs: int, modes: int = 0) -> tuple[Modes, Modes]:
        """The modes where none are asked for: balanced."""
        count = modes or self.modes
        return balanced(inputs, count), balanced(outputs, count)

    def scaled_ranks(self, inputs: Modes, outputs: Modes, level: int) -> Modes:
        """The ranks of a level, from 1 on: a chain in which every spec holds the one before."""
        return (level,) * self.rank_count(inputs, outputs)

    def top_level(self, inputs: Modes, outputs: Modes) -> int:
        """The level above which `scaled_ranks` are bounded everywhere."""
        return max(self.rank_limits(inputs, outputs), default=1)

    def matrix_rank(self, spec: Spec) -> int:
        """The largest rank that the matrix of its factors can have, if it is not full."""
        return min(math.prod(spec.inputs), math.prod(spec.outputs))


def _own(name: str) -> Callable[[], WeightFormat]:
    def load() -> WeightFormat:
        return import_module(f"heatc.heat.formats.{name.replace('-', '_')}").FORMAT

    return load


REGISTRY = Registry(
    "heatc.formats",
    "the format",
    WeightFormat,
    {name: _own(name) for name in FORMATS},
    lambda format_: format_.summary,
)


def find_format(name: Format) -> WeightFormat:
    """The format of a name; `HeatcError` where there is none, or its package is broken."""
    found = REGISTRY.find(name)
    if found is None:
        raise HeatcError(
            f"unknown format {name!r}", notes=[f"formats: {', '.join(REGISTRY.names)}"]
        )
    return found
