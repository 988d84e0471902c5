"""
What instructions do to data: exactly (`Values`), or not at all (`Shapes`).

The functions of the instructions check, charge and count; what they compute goes through the
object here, so that both modes run the same program, cost the same and differ in values only.
Arrays are those of `heatc.machine.datapath`: (P, m, n) of the cores at work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from heatc.fixed_point import Codes, Reals
from heatc.isa import units
from heatc.isa.table import ACC_BITS, R_BATCH, R_LENGTH, R_TOKENS
from heatc.isa.units import Mask
from heatc.machine.memory import Array
from heatc.machine.state import ACC_LIMIT, Extent, MachineState, Tensor, Trap

A = TypeVar("A", bound=NDArray[Any])

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
    """
    Bit-exact arithmetic.

    Shapes come from the instruction table; what is computed has them.
    """

    def array(self, shape: Extents, compute: Callable[[], A]) -> A:
        """What an instruction computes: `compute()`, which has this shape."""
        made = compute()
        assert made.shape == shape, (made.shape, shape)
        return made

    def codes(self, shape: Extents, compute: Callable[[], tuple[A, int]]) -> tuple[A, int]:
        """The same where values saturate: codes of this shape, and how many did."""
        made = compute()
        assert made[0].shape == shape, (made[0].shape, shape)
        return made

    def pair(self, shape: Extents, compute: Callable[[], tuple[A, A]]) -> tuple[A, A]:
        """Two arrays of one shape."""
        one, other = compute()
        assert one.shape == other.shape == shape, (one.shape, other.shape, shape)
        return one, other

    def bounded(self, values: Reals, peak: float) -> float:
        """
        A bound of accumulators that fits their bits: measured when `peak`, a cheap one, does not.

        Raises:
            Trap: a value needs more bits.
        """
        if peak < ACC_LIMIT or values.size == 0:
            return peak
        actual = max(float(values.max()), -float(values.min()))
        if actual >= ACC_LIMIT:
            raise Trap(f"an accumulator reaches {actual:.6g}, beyond {ACC_BITS} bits")
        return actual

    def mask(
        self,
        pc: int,
        state: MachineState,
        importance: Reals,
        rho: float | Reals,
        first: Extent,
        among: Mask | None = None,
    ) -> tuple[Mask, Codes]:
        """
        The live cores' kept blocks of block rows from `first` on, and sums of importance.

        `rho` is that of all cores, or (live, 1); `among` are the blocks that are ranked, None for all.
        """
        codes = importance.astype(np.int64)
        return units.block_mask(codes, rho, among), codes.sum(axis=(1, 2))

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
        self,
        pc: int,
        state: MachineState,
        tau: float | Reals,
        importance: str = "abs",
        number: Codes | None = None,
    ) -> Mask:
        """
        The active cores whose head is important enough; `tau` of all, or (active,).

        `number` are the scores that importances are the sums of, None for all.
        """
        theta = state.theta_head[: state.active]
        whole = units.gate_number(state.registers[R_LENGTH], importance)
        kept = units.head_gate(theta, whole if number is None else number, tau)
        return kept | (np.asarray(tau) <= 0)

    def cascade(self, pc: int, sums: Array, keep: int) -> Mask:
        """The `keep` heads of the greatest sums (H,), of equal ones the first."""
        return units.head_ranking(sums.astype(np.float64), keep, np.ones(sums.shape, np.bool_))

    def store(self, write: Callable[[], None]) -> None:
        """Write to memory."""
        write()

    def expect_known(self, tensor: Tensor) -> None:
        """Trap where nothing says what a mask in memory holds."""

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

    def array(self, shape: Extents, compute: Callable[[], A]) -> A:
        return blank(*shape)

    def codes(self, shape: Extents, compute: Callable[[], tuple[A, int]]) -> tuple[A, int]:
        return blank(*shape), 0

    def pair(self, shape: Extents, compute: Callable[[], tuple[A, A]]) -> tuple[A, A]:
        return blank(*shape), blank(*shape)

    def bounded(self, values: Reals, peak: float) -> float:
        return 0.0

    def mask(
        self,
        pc: int,
        state: MachineState,
        importance: Reals,
        rho: float | Reals,
        first: Extent,
        among: Mask | None = None,
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
        self,
        pc: int,
        state: MachineState,
        tau: float | Reals,
        importance: str = "abs",
        number: Codes | None = None,
    ) -> Mask:
        return self._decisions.gate(pc, state)

    def cascade(self, pc: int, sums: Array, keep: int) -> Mask:
        return self._decisions.cascade(pc, sums.size, keep)

    def store(self, write: Callable[[], None]) -> None:
        pass

    def expect_known(self, tensor: Tensor) -> None:
        if tensor.writable:
            raise Trap(
                "the model's own mask depends on inputs, which timing alone does not have",
                "run with --model both",
            )

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


@lru_cache(maxsize=1 << 12)
def blank(*shape: int) -> Any:
    """Zeros of a shape that share one element; nobody can write to them."""
    return np.broadcast_to(_ZERO, shape)
