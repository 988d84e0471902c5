"""
How inputs and outputs of a weight are split into modes.

A weight W has O outputs and I inputs, y = W x. Its inputs are split into modes i1 x i2 x ... = I,
its outputs into o1 x o2 x ... = O. A shape is written `8x8x12|12x8x8`, inputs before outputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import TypeAlias

from heatc.errors import HeatcError

Modes: TypeAlias = tuple[int, ...]

INPUTS = "abcdefgh"
OUTPUTS = "mnopqruv"
RANKS = "ABCDEFGHIJKLMNOP"
MOST_MODES = len(INPUTS)

LEADING = "txyzw"
"""Indices that no factor has: for tokens, sequences and batches."""


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


def check_modes(inputs: Modes, outputs: Modes) -> None:
    """Raise `HeatcError` for modes that no format has."""
    text = shape_text(inputs, outputs)
    if min(*inputs, *outputs, 1) < 1 or not inputs or not outputs:
        raise HeatcError(f"shape {text} has no modes, or one of extent 0")
    if max(len(inputs), len(outputs)) > MOST_MODES:
        raise HeatcError(f"shape {text} has more than {MOST_MODES} modes a side")


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
