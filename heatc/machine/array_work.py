"""What instructions of the PE array share: products, folds, rounding, operands fetched again."""

from __future__ import annotations

from heatc.fixed_point import Reals
from heatc.hardware.costs import macs_per_pe
from heatc.isa.shapes import Shape
from heatc.isa.table import BITS
from heatc.isa.units import Mask
from heatc.machine import datapath
from heatc.machine.core_tiles import by_core, live_copies, over
from heatc.machine.execution import Execution
from heatc.machine.memory import Array
from heatc.machine.state import Contents, Tile, Times


def product_of(
    run: Execution,
    shape: Shape,
    x: Contents,
    y: Contents,
    transposed: bool,
    kept: Mask | None = None,
) -> Reals:
    """x y or x y^T of the live cores, 0 where not `kept`."""
    a, b = run.state.take(x.reals()), run.state.take(y.reals())
    if kept is None:
        return run.values.array(over(shape, a, b), lambda: datapath.product(a, b, transposed))
    return run.values.array(
        over(shape, a, b, kept), lambda: datapath.product(a, b, transposed) * kept
    )


def macs_of(run: Execution, left: Tile, right: Tile) -> int:
    """Multiply-accumulates a PE and cycle at the widths of two operands."""
    return macs_per_pe(BITS[left.dtype], BITS[right.dtype], run.hardware.split_bits)


def requantised(
    run: Execution, values: Reals, shift: int, dtype: str, *, owned: bool = False
) -> Array:
    """Codes of accumulators of the live cores, which have their shape; saturated ones are counted."""
    codes, saturated = run.values.codes(
        values.shape, lambda: datapath.requantised(values, shift, dtype, owned=owned)
    )
    run.saturated(live_copies(run.state, codes, saturated))
    return codes


def refetch(run: Execution, nbytes: int) -> int:
    """Fetch operands again; returns when they are there."""
    for action in ("dma", "dram_read", "local_write"):
        run.works.act(run.pc, action, nbytes)
    return run.board.refetch(run.pc, nbytes)


def masked_folds(run: Execution, blocks: Mask) -> Times:
    """Folds of masked products: kept blocks, packed row by row."""
    hardware, (high, wide) = run.hardware, run.state.block
    folds = datapath.block_folds(blocks, wide, hardware.pe_columns)
    return by_core(run.state, datapath.group_peaks(folds, hardware.pe_rows, high))
