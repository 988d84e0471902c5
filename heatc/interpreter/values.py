"""How values of the IR are held: NumPy arrays by element type, and the packing of a batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    Float32Type,
    Float64Type,
    IntegerType,
    TensorType,
    i1,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects.fixed import QType
from heatc.fixed_point import decode, encode

Array = NDArray[Any]


@dataclass(frozen=True)
class Packing:
    """
    The real tokens of a batch.

    Attributes:
        mask: (B, S) bool, true where a token is real.
        rows: (tokens,) int64, flat position b * S + s of each real token, in order.
        starts: (B,) first packed row of each sequence.
        lengths: (B,) number of real tokens of each sequence.
    """

    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_]) -> Packing:
        """The packing of a (B, S) mask."""
        lengths = mask.sum(axis=1).astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        return cls(mask, np.flatnonzero(mask).astype(np.int64), starts, lengths)

    def sequences(self) -> list[slice]:
        """The packed rows of each sequence."""
        return [slice(int(s), int(s + n)) for s, n in zip(self.starts, self.lengths)]


def element_type(value: SSAValue) -> Attribute:
    """The element type of a tensor value."""
    return cast(TensorType[Attribute], value.type).get_element_type()


def static_shape(value: SSAValue) -> tuple[int, ...]:
    """The shape of a tensor value; -1 for the packed axis."""
    shape = cast(TensorType[Attribute], value.type).get_shape()
    return tuple(-1 if n == DYNAMIC_INDEX else n for n in shape)


def is_fixed(value: SSAValue) -> bool:
    """Whether the value holds codes."""
    return isinstance(element_type(value), QType)


def fixed_type(value: SSAValue) -> QType:
    """The fixed-point type of a value that must have one."""
    type_ = element_type(value)
    if not isinstance(type_, QType):
        raise InterpretationError(f"expected a fixed-point tensor, got {value.type}")
    return type_


def dtype_of(element: Attribute) -> type[Any]:
    """The NumPy dtype in which an element type is held."""
    if isinstance(element, QType):
        return np.int64
    if isinstance(element, Float32Type):
        return np.float32
    if isinstance(element, Float64Type):
        return np.float64
    if isinstance(element, IntegerType):
        return np.bool_ if element == i1 else np.int64
    raise InterpretationError(f"no array form of element type {element}")


def load(array: Array, value: SSAValue) -> Array:
    """The numbers of an operand: codes become their exact float64 values."""
    type_ = element_type(value)
    return decode(array, type_.point.data) if isinstance(type_, QType) else array


def store(array: Array, value: SSAValue) -> Array:
    """A result in its declared type: float64 values are rounded into codes once."""
    type_ = element_type(value)
    if isinstance(type_, QType):
        return encode(np.asarray(array, np.float64), type_.point.data, type_.width.data).codes
    return np.asarray(array).astype(dtype_of(type_), copy=False)
