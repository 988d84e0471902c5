"""
The formats of a factorised weight: which factors there are and which equation they make.

| format   | factors                                             | ranks                         |
|----------|-----------------------------------------------------|-------------------------------|
| low-rank | A (r, I), B (O, r)                                  | r                             |
| cp       | one (n, r) for each mode, inputs first              | r, shared by all factors      |
| tucker   | inputs' (n, r), the core, outputs' (n, r)           | one for each mode             |
| tt       | three-way cores over the inputs, then the outputs   | one for each bond between two |
| ttm      | four-way cores (r, o, i, r'), one for each pair     | one for each bond between two |

Definitions: tensor-train matrices as in TensorLy-Torch's BlockTT, tensor trains over inputs then
outputs as in LoRETTA and CoMERA. A format is one file here, or an object that another package names
in the group of entry points `heatc.formats`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.heat.formats.definition import (
    FORMATS,
    REGISTRY,
    Format,
    Found,
    Spec,
    Weight,
    WeightFormat,
    find_format,
)
from heatc.heat.formats.modes import (
    LEADING,
    Modes,
    balanced,
    covering,
    parse_shape,
    shape_text,
)
from heatc.heat.norm import Matrix

__all__ = [
    "FORMATS",
    "LEADING",
    "REGISTRY",
    "Format",
    "Found",
    "Modes",
    "Spec",
    "Weight",
    "WeightFormat",
    "balanced",
    "covering",
    "default_modes",
    "find_format",
    "parse_format",
    "parse_shape",
    "rank_limits",
    "rebuild",
    "scaled",
    "shape_text",
    "top_level",
    "uniform",
]


def parse_format(text: str) -> Format:
    """A format by name; raises `HeatcError` for another."""
    return find_format(text).name


def default_modes(
    format_: Format, inputs: int, outputs: int, modes: int = 0
) -> tuple[Modes, Modes]:
    """The modes a format gets where none are asked for."""
    return find_format(format_).default_modes(inputs, outputs, modes)


def rank_limits(format_: Format, inputs: Modes, outputs: Modes) -> Modes:
    """The rank at each place above which nothing more can be represented."""
    return find_format(format_).rank_limits(inputs, outputs)


def uniform(format_: Format, inputs: Modes, outputs: Modes, rank: int) -> Spec:
    """The format with one rank everywhere, bounded by what each place can use."""
    count = find_format(format_).rank_count(inputs, outputs)
    return Spec(format_, inputs, outputs, (rank,) * count).bounded()


def scaled(format_: Format, inputs: Modes, outputs: Modes, level: int) -> Spec:
    """One of a chain of ever larger specs, by a level from 1 on."""
    ranks = find_format(format_).scaled_ranks(inputs, outputs, level)
    return Spec(format_, inputs, outputs, ranks).bounded()


def top_level(format_: Format, inputs: Modes, outputs: Modes) -> int:
    """The level above which `scaled` grows no more."""
    return find_format(format_).top_level(inputs, outputs)


def rebuild(spec: Spec, factors: Sequence[NDArray[np.floating]]) -> Matrix:
    """The matrix (O, I) in float64 that factors stand for."""
    shapes = tuple(f.shape for f in factors)
    if shapes != spec.factor_shapes:
        raise HeatcError(f"expected factors of shapes {spec.factor_shapes}, got {shapes}")
    equation = f"{','.join(spec.terms)}->{spec.output_letters}{spec.input_letters}"
    arrays = [np.asarray(f, np.float64) for f in factors]
    tensor: Matrix = np.einsum(equation, *arrays, optimize="greedy")
    return tensor.reshape(math.prod(spec.outputs), math.prod(spec.inputs))
