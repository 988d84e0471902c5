"""
What instructions do to data: exactly (`Values`), or not at all (`Shapes`).

The functions of the instructions check, charge and count; what they compute goes through the
object here, so that both modes run the same program, cost the same and differ in values only.
Arrays are those of `heatc.machine.datapath`: (P, m, n) of the cores at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Codes, Reals
from heatc.isa import units
from heatc.isa.table import R_BATCH, R_LENGTH, R_TOKENS
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.memory import NUMPY_DTYPES, Array
from heatc.machine.state import ACC_LIMIT, Extent, MachineState, Trap

Extents = tuple[int, ...]


class Decisions(Protocol):
    """Where masks and gates come from when no scores are computed."""

    def mask(self, pc: int, state: MachineState, first: Extent, rows: int, columns: int) -> Mask:
        """The kept blocks (active, rows, columns) of block rows from `first` (active,) on."""
        ...

    def gate(self, pc: int, state: MachineState) -> Mask:
        """The active cores whose head is kept, (active,)."""
        ...

    def cascade(self, pc: int, heads: int, keep: int) -> Mask:
        """The `keep` heads of the current sequence that go on, (heads,)."""
        ...


class Values:
    """Bit-exact arithmetic."""

    def product(self, a: Reals, b: Reals, transposed: bool) -> Reals:
        """a b or a b^T."""
        return datapath.product(a, b, transposed)

    def plus(self, a: Reals, b: Reals) -> Reals:
        """a + b, both accumulators; a's place may take the sum."""
        if len(a) < len(b):
            # What is the same on all cores, and what is not.
            return a + b
        a += b
        return a

    def masked(self, array: Reals, kept: Mask) -> Reals:
        """The array, 0 where not kept."""
        return array * kept

    def bounded(self, values: Reals, peak: float) -> float:
        """
        A bound of accumulators that fits 48 bits: measured when `peak`, a cheap one, does not.

        Raises:
            Trap: a value needs more bits.
        """
        if peak < ACC_LIMIT or values.size == 0:
            return peak
        actual = max(float(values.max()), -float(values.min()))
        if actual >= ACC_LIMIT:
            raise Trap(f"an accumulator reaches {actual:.6g}, beyond 48 bits")
        return actual

    def biased(self, values: Reals, row: Reals, shift: int) -> Reals:
        """values + row * 2**shift."""
        return values + row * 2.0**shift

    def requantise(
        self, values: Reals, shift: int, dtype: str, *, owned: bool = False
    ) -> tuple[Array, int]:
        """
        Codes of an ISA dtype after a rounded shift, and how many saturated.

        `owned`: nobody else needs the values, their place may be used.
        """
        out = values if owned else None
        codes, saturated = datapath.requantise(values, shift, datapath.WIDTHS[dtype], out)
        return codes.astype(NUMPY_DTYPES[dtype], order="K"), saturated

    def divided(self, values: Reals, length: int, shift: int, dtype: str) -> tuple[Array, int]:
        """Codes of values / length after a rounded shift, and how many saturated."""
        return self.requantise(values / length, shift, dtype, owned=True)

    def split(self, codes: Array, point: int, dtypes: tuple[str, str]) -> tuple[Array, Array]:
        """Integer and fraction parts of int16 codes in ISA dtypes that hold them."""
        integer, fraction = datapath.split(cast("NDArray[np.int16]", codes), point)
        whole, rest = (NUMPY_DTYPES[dtype] for dtype in dtypes)
        return integer.astype(whole, order="K"), fraction.astype(rest, order="K")

    def block_sums(
        self, values: Reals, positive: tuple[Reals, int] | None, block: tuple[int, int]
    ) -> Reals:
        """
        Sums over blocks of magnitudes, or of what lies above the row's mean.

        `positive` has the sums of the rows (P, m, 1) and the length that they are over.
        """
        if positive is None:
            return datapath.block_sums(np.abs(values), block)
        sums, length = positive
        return datapath.block_sums(np.maximum(values * length - sums, 0.0), block)

    def column_sums(self, values: Reals) -> Reals:
        """Sums of the rows, (P, 1, n)."""
        return values.sum(axis=1, keepdims=True)

    def pruned_probability(self, p: Reals, kept: Mask) -> Reals:
        """What stands in each row (P, m, 1) where its first column is not kept, 0 if all are."""
        return datapath.pruned_probability(p, kept)

    def less(self, array: Reals, column: Reals) -> Reals:
        """The array (P, m, n) less a column (P, m, 1)."""
        return array - column

    def plus_outer(self, array: Reals, column: Reals, row: Reals) -> Reals:
        """The array (P, m, n) plus the product of a column (P, m, 1) and a row (P, 1, n)."""
        return array + column * row

    def integer_scores(self, values: Reals) -> tuple[Array, int]:
        """Scores in int32, and how many saturated."""
        result, saturated = datapath.saturate(values, 32)
        return result.astype(np.int32, order="C"), saturated

    def mask(
        self, pc: int, state: MachineState, importance: Reals, rho: float | Reals, first: Extent
    ) -> tuple[Mask, Codes]:
        """
        The live cores' kept blocks of block rows from `first` on, and sums of importance.

        `rho` is that of all cores, or (live, 1).
        """
        codes = importance.astype(np.int64)
        return units.block_mask(codes, rho), codes.sum(axis=(1, 2))

    def decided(
        self,
        pc: int,
        state: MachineState,
        first: Extent,
        size: Extents,
        compute: Callable[[], Mask],
    ) -> Mask:
        """The live cores' mask (P, *size) of block rows from `first` on: `compute()`."""
        return compute()

    def gate(
        self, pc: int, state: MachineState, tau: float | Reals, importance: str = "abs"
    ) -> Mask:
        """The active cores whose head is important enough; `tau` of all, or (active,)."""
        theta = state.theta_head[: state.active]
        kept = units.head_gate(theta, state.registers[R_LENGTH], tau, importance)
        return kept | (np.asarray(tau) <= 0)

    def cascade(self, pc: int, sums: Array, keep: int) -> Mask:
        """The `keep` heads of the greatest sums (H,), of equal ones the first."""
        return units.head_ranking(sums.astype(np.float64), keep, np.ones(sums.shape, np.bool_))

    def magnitudes(self, values: Reals, real: Mask | None) -> Reals:
        """The sum of magnitudes, (P, 1, 1), of the rows (P, m, 1) that are `real`, None for all."""
        parts = np.abs(values) if real is None else np.abs(values) * real
        return parts.sum(axis=(1, 2), keepdims=True)

    def tallied(self, sums: Reals, before: Array | None, shift: int) -> Array:
        """
        before + sums * 2**shift as int64, (P, 1, 1).

        Raises:
            Trap: a value needs more bits than an accumulator has.
        """
        total = sums * 2.0**shift
        if before is not None:
            total = total + before.astype(np.float64)
        self.bounded(total, ACC_LIMIT)
        return total.astype(np.int64)

    def merge(
        self,
        parts: tuple[Reals, Reals, Reals],
        kept: Mask,
        points: datapath.MergePoints,
        rule: str,
        mean: Callable[[], Reals],
    ) -> tuple[Array, int]:
        """The adder; `mean` gives what pruned scores become under the rule `mean`."""
        return datapath.merge(parts, kept, points, rule, mean() if rule == "mean" else None)

    def softmax(self, codes: Array, point: int, multiplier: int, shift: int) -> Array:
        """The softmax unit on int32 codes; int16 probabilities."""
        if not codes.size:
            return np.zeros(codes.shape, np.int16)
        scale = units.SoftmaxScale(multiplier, shift)
        return datapath.softmax(cast("NDArray[np.int32]", codes), point, scale)

    def excluded(self, codes: Array, kept: Mask) -> Array:
        """Scores in int32, excluded where not kept."""
        return np.where(kept, codes, np.int32(units.EXCLUDED))

    def peak(self, values: Reals) -> Reals:
        """The greatest magnitude of each core, (P, 1, 1)."""
        return np.abs(values).max(axis=(1, 2), keepdims=True, initial=0.0)

    def greater(self, a: Reals, b: Reals) -> Reals:
        """The greater of two numbers, by core."""
        return np.maximum(a, b)

    def bit_lengths(self, peaks: Reals) -> Codes:
        """The bits of each core's greatest magnitude (P, 1, 1), an integer."""
        return np.frexp(peaks)[1].astype(np.int64)

    def low(self, values: Reals, peaks: Reals, bits: int, dtype: str) -> Array:
        """Low-bit codes of an ISA dtype that holds them; beyond the peak they are clipped."""
        limit = float((1 << (bits - 1)) - 1)
        scaled = np.rint(self.scaled(values, bits - 1 - self.bit_lengths(peaks)))
        return np.clip(scaled, -limit, limit).astype(NUMPY_DTYPES[dtype])

    def scaled(self, values: Reals, exponents: Codes) -> Reals:
        """values * 2**exponents (P, 1, 1)."""
        return np.ldexp(values, exponents)

    def fetched(self, shape: Extents, read: Callable[[], Array]) -> Array:
        """What a load brings, `read()`."""
        return read()

    def selected(self, array: Array, wanted: Mask) -> Array:
        """Loaded parts, their rows 0 where not wanted (P, rows)."""
        return np.where(wanted[:, :, None], array, np.zeros((), array.dtype))

    def store(self, write: Callable[[], None]) -> None:
        """Write to memory."""
        write()

    def host(self, shape: Extents, compute: Callable[[], Reals]) -> Reals:
        """What the host computes, float64 of a shape."""
        return compute()

    def begin(self, state: MachineState) -> None:
        """Before the first instruction of a run."""

    def real(self, shape: Extents, mask: Array | None) -> Mask:
        """The real tokens (B, S) of a batch: those that the mask does not hide, or all."""
        return np.ones(shape, np.bool_) if mask is None else mask.reshape(shape) != 0


class Shapes(Values):
    """
    No arithmetic: arrays have their shapes and zeros that take no memory; masks are given.

    `lengths` are the tokens of each sequence, None where the program's own mask says them. What
    depends on values cannot happen: nothing saturates, no accumulator overflows.
    """

    def __init__(self, decisions: Decisions, lengths: Sequence[int] | None = None):
        self._decisions = decisions
        self._lengths = None if lengths is None else tuple(lengths)

    def product(self, a: Reals, b: Reals, transposed: bool) -> Reals:
        return blank(max(len(a), len(b)), a.shape[1], b.shape[1 if transposed else 2])

    def plus(self, a: Reals, b: Reals) -> Reals:
        return max(a, b, key=len)

    def masked(self, array: Reals, kept: Mask) -> Reals:
        return array

    def bounded(self, values: Reals, peak: float) -> float:
        return 0.0

    def biased(self, values: Reals, row: Reals, shift: int) -> Reals:
        return values

    def requantise(
        self, values: Reals, shift: int, dtype: str, *, owned: bool = False
    ) -> tuple[Array, int]:
        return values, 0

    def divided(self, values: Reals, length: int, shift: int, dtype: str) -> tuple[Array, int]:
        return values, 0

    def split(self, codes: Array, point: int, dtypes: tuple[str, str]) -> tuple[Array, Array]:
        return codes, codes

    def block_sums(
        self, values: Reals, positive: tuple[Reals, int] | None, block: tuple[int, int]
    ) -> Reals:
        cores, rows, columns = values.shape
        return blank(cores, -(-rows // block[0]), -(-columns // block[1]))

    def column_sums(self, values: Reals) -> Reals:
        return blank(values.shape[0], 1, values.shape[2])

    def pruned_probability(self, p: Reals, kept: Mask) -> Reals:
        return blank(*p.shape[:2], 1)

    def less(self, array: Reals, column: Reals) -> Reals:
        return array

    def plus_outer(self, array: Reals, column: Reals, row: Reals) -> Reals:
        return blank(max(len(array), len(column), len(row)), *array.shape[1:])

    def integer_scores(self, values: Reals) -> tuple[Array, int]:
        return values, 0

    def mask(
        self, pc: int, state: MachineState, importance: Reals, rho: float | Reals, first: Extent
    ) -> tuple[Mask, Codes]:
        rows, columns = importance.shape[1:]
        kept = self._decisions.mask(pc, state, first, rows, columns)
        return state.take(kept), np.zeros(1, np.int64)

    def decided(
        self,
        pc: int,
        state: MachineState,
        first: Extent,
        size: Extents,
        compute: Callable[[], Mask],
    ) -> Mask:
        rows, columns = size
        return state.take(self._decisions.mask(pc, state, first, rows, columns))

    def gate(
        self, pc: int, state: MachineState, tau: float | Reals, importance: str = "abs"
    ) -> Mask:
        return self._decisions.gate(pc, state)

    def cascade(self, pc: int, sums: Array, keep: int) -> Mask:
        return self._decisions.cascade(pc, sums.size, keep)

    def magnitudes(self, values: Reals, real: Mask | None) -> Reals:
        return blank(len(values), 1, 1)

    def tallied(self, sums: Reals, before: Array | None, shift: int) -> Array:
        return sums

    def merge(
        self,
        parts: tuple[Reals, Reals, Reals],
        kept: Mask,
        points: datapath.MergePoints,
        rule: str,
        mean: Callable[[], Reals],
    ) -> tuple[Array, int]:
        return parts[1], 0

    def softmax(self, codes: Array, point: int, multiplier: int, shift: int) -> Array:
        return codes

    def excluded(self, codes: Array, kept: Mask) -> Array:
        return codes

    def peak(self, values: Reals) -> Reals:
        return blank(values.shape[0], 1, 1)

    def greater(self, a: Reals, b: Reals) -> Reals:
        return a

    def bit_lengths(self, peaks: Reals) -> Codes:
        return np.zeros((1, 1, 1), np.int64)

    def low(self, values: Reals, peaks: Reals, bits: int, dtype: str) -> Array:
        return values

    def scaled(self, values: Reals, exponents: Codes) -> Reals:
        return values

    def fetched(self, shape: Extents, read: Callable[[], Array]) -> Array:
        return blank(*shape)

    def selected(self, array: Array, wanted: Mask) -> Array:
        return array

    def store(self, write: Callable[[], None]) -> None:
        pass

    def host(self, shape: Extents, compute: Callable[[], Reals]) -> Reals:
        return blank(*shape)

    def begin(self, state: MachineState) -> None:
        lengths = self._lengths or ()
        starts = [0, *accumulate(lengths)]
        state.sequences = [(start, length, 0) for start, length in zip(starts, lengths)]
        state.registers[R_TOKENS], state.registers[R_BATCH] = starts[-1], len(lengths)

    def real(self, shape: Extents, mask: Array | None) -> Mask:
        if self._lengths is None:
            return super().real(shape, mask)
        batch, length = shape
        lengths = (*self._lengths, *(0,) * (batch - len(self._lengths)))
        least = length if mask is None else 0
        if len(lengths) > batch or not all(least <= n <= length for n in lengths):
            raise Trap(f"sequences of {lengths} tokens are none of {batch} x {length}")
        return np.arange(length) < np.array(lengths)[:, None]


_ZERO = np.zeros((), np.float64)


def blank(*shape: int) -> Any:
    """Zeros of a shape that share one element."""
    return np.broadcast_to(_ZERO, shape)
