"""How values of the IR are held: NumPy arrays by element type, and the packing of a batch."""

from __future__ import annotations

from collections.abc import Sequence
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
from heatc.dialects.nn import is_unsigned
from heatc.errors import HeatcError
from heatc.fixed_point import decode, encode

Array = NDArray[Any]


@dataclass(frozen=True)
class Packing:
    """
    The rows of a batch: of each sequence its keys, then the masked positions that are read.

    Attributes:
        mask: (B, S) bool, true where a token is real.
        rows: (tokens,) int64, flat position b * S + s of each row, in order.
        starts: (B,) first row of each sequence.
        lengths: (B,) number of keys, the real tokens, of each sequence.
        extras: (B,) number of rows behind them.
    """

    mask: NDArray[np.bool_]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    extras: NDArray[np.int64]

    @classmethod
    def of(cls, mask: NDArray[np.bool_], reads: Sequence[int] = ()) -> Packing:
        """
        The packing of a (B, S) mask; `reads` are the positions that have rows where masked.

        Raises `HeatcError` for a sequence without a real token whose padding is read.
        """
        read = np.zeros(mask.shape, np.bool_)
        read[:, list(reads)] = True
        read &= ~mask
        lengths, extras = (m.sum(axis=1).astype(np.int64) for m in (mask, read))
        _expect_keys(lengths, extras)
        counts = lengths + extras
        if not extras.any():
            rows = np.flatnonzero(mask).astype(np.int64)
        else:
            base = np.arange(len(mask)) * mask.shape[1]
            rows = np.concatenate([_places(own) + at for own, at in zip(zip(mask, read), base)])
        return cls(mask, rows, np.cumsum(counts) - counts, lengths, extras)

    @classmethod
    def joined(cls, packings: Sequence[Packing]) -> Packing:
        """The packing of several batches as one."""
        mask = np.concatenate([p.mask for p in packings])
        batches = np.cumsum([0, *(p.mask.size for p in packings)])
        rows = np.concatenate([p.rows + start for p, start in zip(packings, batches)])
        lengths = np.concatenate([p.lengths for p in packings])
        extras = np.concatenate([p.extras for p in packings])
        counts = lengths + extras
        return cls(mask, rows, np.cumsum(counts) - counts, lengths, extras)

    def sequences(self) -> list[slice]:
        """The rows of each sequence's keys."""
        return [slice(int(s), int(s + n)) for s, n in zip(self.starts, self.lengths)]

    def queries(self) -> list[slice]:
        """All rows of each sequence."""
        ends = self.starts + self.lengths + self.extras
        return [slice(int(s), int(e)) for s, e in zip(self.starts, ends)]

    def positions(self, sequence: int) -> NDArray[np.int64]:
        """The positions in its sequence of each of a sequence's rows."""
        return self.rows[self.queries()[sequence]] - sequence * self.mask.shape[1]


def _places(own: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> NDArray[np.int64]:
    """The positions of a sequence's keys, then those that are read."""
    return np.concatenate([np.flatnonzero(part) for part in own]).astype(np.int64)


def _expect_keys(lengths: NDArray[np.int64], extras: NDArray[np.int64]) -> None:
    empty = np.flatnonzero((lengths == 0) & (extras > 0))
    if empty.size:
        raise HeatcError(
            f"row {int(empty[0])} of the batch has no real token, and an output depends on it",
            notes=["give every row at least one token that the mask does not hide"],
        )


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
    """The NumPy dtype in which an element type is held; integers of every width in 64 bits."""
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
    """A result in its declared type: float64 values are rounded into codes once, integers wrap."""
    type_ = element_type(value)
    if isinstance(type_, QType):
        return encode(np.asarray(array, np.float64), type_.point.data, type_.width.data).codes
    array = np.asarray(array)
    narrow = _narrow(type_)
    if narrow is not None:
        return _wrapped(array, narrow)
    return array.astype(dtype_of(type_), copy=False)


def _narrow(type_: Attribute) -> np.dtype[Any] | None:
    """The type of integers of fewer than 64 bits, None for all others."""
    sign = "u" if is_unsigned(type_) else "i"
    if not isinstance(type_, IntegerType) or type_.bitwidth in (1, 64):
        return None
    return np.dtype(f"{sign}{type_.bitwidth // 8}")


def _wrapped(array: Array, narrow: np.dtype[Any]) -> Array:
    """Integers modulo 2^width, as PyTorch has them; floats are cut off first."""
    if array.dtype.kind == "f" and narrow.itemsize < 4:
        array = array.astype(np.int64)
    return array.astype(narrow).astype(np.int64)
