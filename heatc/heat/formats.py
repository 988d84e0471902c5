"""
The formats of a factorised weight: which factors there are and which equation they make.

A weight W has O outputs and I inputs, y = W x. Its inputs are split into modes i1 x i2 x ... = I,
its outputs into o1 x o2 x ... = O. A shape is written `8x8x12|12x8x8`, inputs before outputs.

| format   | factors                                             | ranks                         |
|----------|-----------------------------------------------------|-------------------------------|
| low-rank | A (r, I), B (O, r)                                  | r                             |
| cp       | one (n, r) for each mode, inputs first              | r, shared by all factors      |
| tucker   | inputs' (n, r), the core, outputs' (n, r)           | one for each mode             |
| tt       | three-way cores over the inputs, then the outputs   | one for each bond between two |
| ttm      | four-way cores (r, o, i, r'), one for each pair     | one for each bond between two |

Definitions: tensor-train matrices as in TensorLy-Torch's BlockTT, tensor trains over inputs then
outputs as in LoRETTA and CoMERA.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError

Format: TypeAlias = Literal["low-rank", "tucker", "cp", "tt", "ttm"]
FORMATS: tuple[Format, ...] = ("low-rank", "tucker", "cp", "tt", "ttm")

Modes: TypeAlias = tuple[int, ...]
Matrix: TypeAlias = NDArray[np.float64]

_INPUTS = "abcdefgh"
_OUTPUTS = "mnopqruv"
_RANKS = "ABCDEFGHIJKLMNOP"
_MOST_MODES = len(_INPUTS)

LEADING = "txyzw"
"""Indices that no factor has: for tokens, sequences and batches."""


@dataclass(frozen=True)
class Spec:
    """
    A format with its modes and ranks.

    Raises `HeatcError` for a format, modes or ranks that do not belong together.
    """

    format: Format
    inputs: Modes
    outputs: Modes
    ranks: Modes

    def __post_init__(self) -> None:
        _check_modes(self.format, self.inputs, self.outputs)
        wanted = rank_count(self.format, self.inputs, self.outputs)
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
        return _INPUTS[: len(self.inputs)]

    @property
    def output_letters(self) -> str:
        """An index for each output mode."""
        return _OUTPUTS[: len(self.outputs)]

    @property
    def extents(self) -> dict[str, int]:
        """The extent of every index."""
        letters = self.input_letters + self.output_letters + _RANKS[: len(self.ranks)]
        return dict(zip(letters, (*self.inputs, *self.outputs, *self.ranks)))

    @property
    def terms(self) -> tuple[str, ...]:
        """The indices of every factor, in order."""
        return tuple(_TERMS[self.format](self))

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
        limits = rank_limits(self.format, self.inputs, self.outputs)
        return Spec(
            self.format,
            self.inputs,
            self.outputs,
            tuple(min(r, m) for r, m in zip(self.ranks, limits)),
        )


def _low_rank_terms(spec: Spec) -> Iterator[str]:
    yield from ("Aa", "mA")


def _cp_terms(spec: Spec) -> Iterator[str]:
    for letter in spec.input_letters + spec.output_letters:
        yield letter + "A"


def _tucker_terms(spec: Spec) -> Iterator[str]:
    count = len(spec.inputs)
    for letter, rank in zip(spec.input_letters, _RANKS):
        yield letter + rank
    yield _RANKS[: count + len(spec.outputs)]
    for letter, rank in zip(spec.output_letters, _RANKS[count:]):
        yield letter + rank


def _tt_terms(spec: Spec) -> Iterator[str]:
    letters = spec.input_letters + spec.output_letters
    last = len(letters) - 1
    for k, letter in enumerate(letters):
        yield (_RANKS[k - 1] if k else "") + letter + (_RANKS[k] if k < last else "")


def _ttm_terms(spec: Spec) -> Iterator[str]:
    last = len(spec.inputs) - 1
    for k, (i, o) in enumerate(zip(spec.input_letters, spec.output_letters)):
        yield (_RANKS[k - 1] if k else "") + o + i + (_RANKS[k] if k < last else "")


_TERMS = {
    "low-rank": _low_rank_terms,
    "cp": _cp_terms,
    "tucker": _tucker_terms,
    "tt": _tt_terms,
    "ttm": _ttm_terms,
}


# ---- shapes -----------------------------------------------------------------------------------


def shape_text(inputs: Modes, outputs: Modes) -> str:
    """`8x8x12|12x8x8` for (8, 8, 12), (12, 8, 8)."""
    return "|".join("x".join(map(str, modes)) for modes in (inputs, outputs))


def parse_shape(text: str) -> tuple[Modes, Modes]:
    """The input and output modes of `8x8x12|12x8x8`; raises `HeatcError` where it is malformed."""
    if not re.fullmatch(r"\d+(x\d+)*\|\d+(x\d+)*", text):
        raise HeatcError(
            f"malformed shape {text!r}", notes=["expected inputs|outputs, e.g. 8x8x12|12x8x8"]
        )
    inputs, outputs = (tuple(int(n) for n in side.split("x")) for side in text.split("|"))
    if min(*inputs, *outputs) < 1:
        raise HeatcError(f"shape {text!r} has a mode of extent 0")
    return inputs, outputs


def parse_format(text: str) -> Format:
    """A format by name; raises `HeatcError` for another."""
    if text not in FORMATS:
        raise HeatcError(f"unknown format {text!r}", notes=[f"formats: {', '.join(FORMATS)}"])
    return text


def _check_modes(format_: Format, inputs: Modes, outputs: Modes) -> None:
    text = shape_text(inputs, outputs)
    if min(*inputs, *outputs, 1) < 1 or not inputs or not outputs:
        raise HeatcError(f"shape {text} has no modes, or one of extent 0")
    if max(len(inputs), len(outputs)) > _MOST_MODES:
        raise HeatcError(f"shape {text} has more than {_MOST_MODES} modes a side")
    if format_ == "low-rank" and (len(inputs), len(outputs)) != (1, 1):
        raise HeatcError(f"low-rank takes one mode a side, got {text}")
    if format_ == "ttm" and len(inputs) != len(outputs):
        raise HeatcError(f"ttm takes as many input modes as output modes, got {text}")


def balanced(extent: int, modes: int) -> Modes:
    """
    The factorisation of `extent` into `modes` factors whose largest is smallest, ascending.

    Of several, the one whose sum is smallest: 768 in 3 is (8, 8, 12), 3072 in 3 (12, 16, 16).
    """
    best = min(_factorisations(extent, modes, 1), key=lambda m: (m[-1], sum(m)))
    return best


def _factorisations(extent: int, modes: int, least: int) -> Iterator[Modes]:
    """Every ascending factorisation with factors of at least `least`."""
    if modes == 1:
        if extent >= least:
            yield (extent,)
        return
    for first in range(least, math.isqrt(extent) + 1 if modes == 2 else extent + 1):
        if first**modes > extent:
            return
        if extent % first == 0:
            for rest in _factorisations(extent // first, modes - 1, first):
                yield (first, *rest)


def covering(extent: int, modes: int) -> Modes:
    """The most balanced modes whose product is at least `extent`, ascending."""
    side = max(1, math.ceil(round(extent ** (1 / modes), 9)))
    result = [side] * modes
    for k in range(modes):
        if side > 1 and math.prod(result) // side * (side - 1) >= extent:
            result[k] = side - 1
    return tuple(sorted(result))


def default_modes(
    format_: Format, inputs: int, outputs: int, modes: int = 0
) -> tuple[Modes, Modes]:
    """The modes a format gets where none are asked for: balanced, outputs mirrored for tt."""
    if format_ == "low-rank":
        return (inputs,), (outputs,)
    count = modes or (2 if format_ == "ttm" else 3)
    ins, outs = balanced(inputs, count), balanced(outputs, count)
    return ins, outs[::-1] if format_ == "tt" else outs


# ---- ranks ------------------------------------------------------------------------------------


def rank_count(format_: Format, inputs: Modes, outputs: Modes) -> int:
    """How many ranks a format has on these modes."""
    modes = len(inputs) + len(outputs)
    counts = {"low-rank": 1, "cp": 1, "tucker": modes, "tt": modes - 1, "ttm": len(inputs) - 1}
    return counts[format_]


def rank_limits(format_: Format, inputs: Modes, outputs: Modes) -> Modes:
    """The rank at each place above which nothing more can be represented."""
    modes = (*inputs, *outputs)
    if format_ == "low-rank":
        return (min(math.prod(inputs), math.prod(outputs)),)
    if format_ == "cp":
        return (math.prod(modes) // max(modes),)
    if format_ == "tucker":
        whole = math.prod(modes)
        return tuple(min(n, whole // n) for n in modes)
    sites = modes if format_ == "tt" else tuple(i * o for i, o in zip(inputs, outputs))
    cuts = range(1, len(sites))
    return tuple(min(math.prod(sites[:k]), math.prod(sites[k:])) for k in cuts)


def uniform(format_: Format, inputs: Modes, outputs: Modes, rank: int) -> Spec:
    """The format with one rank everywhere, bounded by what each place can use."""
    _check_modes(format_, inputs, outputs)
    count = rank_count(format_, inputs, outputs)
    return Spec(format_, inputs, outputs, (rank,) * count).bounded()


def scaled(format_: Format, inputs: Modes, outputs: Modes, level: int) -> Spec:
    """
    One of a chain of ever larger specs, by a level from 1 on: the uniform rank, and for tucker the
    same share of every mode, in steps of the largest mode.
    """
    if format_ != "tucker":
        return uniform(format_, inputs, outputs, level)
    largest = max(*inputs, *outputs)
    ranks = tuple(max(1, min(n, round(n * level / largest))) for n in (*inputs, *outputs))
    return Spec(format_, inputs, outputs, ranks).bounded()


def top_level(format_: Format, inputs: Modes, outputs: Modes) -> int:
    """The level above which `scaled` grows no more."""
    return (
        max(rank_limits(format_, inputs, outputs), default=1)
        if format_ != "tucker"
        else max(*inputs, *outputs)
    )


# ---- the matrix of factors --------------------------------------------------------------------


def rebuild(spec: Spec, factors: Sequence[NDArray[np.floating]]) -> Matrix:
    """The matrix (O, I) in float64 that factors stand for."""
    shapes = tuple(f.shape for f in factors)
    if shapes != spec.factor_shapes:
        raise HeatcError(f"expected factors of shapes {spec.factor_shapes}, got {shapes}")
    equation = f"{','.join(spec.terms)}->{spec.output_letters}{spec.input_letters}"
    arrays = [np.asarray(f, np.float64) for f in factors]
    tensor: Matrix = np.einsum(equation, *arrays, optimize="greedy")
    return tensor.reshape(math.prod(spec.outputs), math.prod(spec.inputs))
