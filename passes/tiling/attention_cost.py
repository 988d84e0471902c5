"""
What an attention plan is taken to cost: the mean over lengths, and a bound below it.

The bound needs no counting, so that the planner can leave out plans that cannot win.
"""

from __future__ import annotations

import math

from heatc.hardware import Hardware
from heatc.hardware.costs import macs_per_pe
from heatc.isa.table import DTYPES
from heatc.passes.tiling.attention_cycles import counted_cycles
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.passes.tiling.packing import up

_TIE = 1e-9
"""Costs this close count as equal, relative."""


def expected_cycles(plan: AttentionPlan, hw: Hardware, limit: float = math.inf) -> float:
    """
    Estimated cycles of a sequence, the mean over `_lengths`; infinity once beyond `limit`.

    What is not counted yet stands with its bound, so that a plan that cannot win is dropped while
    its longest sequence is counted.
    """
    lengths = _lengths(plan)
    most = limit * sum(lengths.values()) * (1 + _TIE)
    done, rest = 0.0, least_cycles(plan, hw) * sum(lengths.values())
    for length, n in lengths.items():
        rest -= n * _bound(plan, hw, length)
        done += n * counted_cycles(plan, hw, length, (most - done - rest) / n)
        if done + rest > most:
            return math.inf
    return done / sum(lengths.values())


def least_cycles(plan: AttentionPlan, hw: Hardware) -> float:
    """What `expected_cycles` cannot go below: the PE array alone, or the bytes alone."""
    lengths = _lengths(plan)
    total = sum(n * _bound(plan, hw, length) for length, n in lengths.items())
    return total / sum(lengths.values())


def _lengths(plan: AttentionPlan) -> dict[int, int]:
    """
    Four lengths and their weights, the longest first and most.

    Tiles are made for the longest sequence and have to do for shorter ones, where large row
    tiles leave cores without work.
    """
    return {max(1, plan.shape.length * i // 4): 1 + 3 * (i == 4) for i in (4, 3, 2, 1)}


def _bound(plan: AttentionPlan, hw: Hardware, length: int) -> float:
    """Cycles that either the PE array or the DMA engine certainly takes."""
    rounds, steps = up(plan.shape.heads, hw.cores // plan.parts), up(length, plan.step)
    last = min(plan.rows, length - (steps - 1) * plan.step)
    sizes = [(plan.rows, steps - 1), (last, 1)]
    products = sum(n * _products(plan, hw, rows, length) for rows, n in sizes)
    dma = _loaded(plan, length, steps) / hw.dram_bytes_per_cycle
    return max(rounds * products, dma)


def _products(plan: AttentionPlan, hw: Hardware, rows: int, length: int) -> float:
    """The least cycles of the PE array for a row tile."""
    shape, fill = plan.shape, hw.pe_rows + hw.pe_columns - 2
    high, dim, parts = up(rows, hw.pe_rows), shape.dim, up(length, plan.part)
    local = "v" in plan.local_planes
    read = shape.share if plan.picked else 1.0
    work = high * dim * hw.fold_overlap + read * high * length * up(dim, hw.pe_columns)
    work += fill * (parts if local and not plan.resident else 1)
    folds = high * up(length, hw.pe_columns)
    steps = up(dim, _macs(plan, hw, "q", "k"))
    if shape.bits:
        low = up(dim, macs_per_pe(max(shape.bits), max(shape.bits), hw.split_bits))
        picked = steps + (len(shape.bits) - 1) * low
        work += shape.share * high * length / hw.pe_columns * picked
        return work + folds * (low + hw.fold_overlap) + fill * parts
    if not shape.pruned:
        return work + folds * (steps + hw.fold_overlap) + fill * parts
    passes = 1 + (shape.gate and up(shape.length, plan.step) > 1)
    fractions = up(dim, _macs(plan, hw, "q.fraction", "k"))
    fractions += up(dim, _macs(plan, hw, "q", "k.fraction"))
    work += passes * (folds * steps + fill)
    return work + shape.share * high * length / hw.pe_columns * fractions


def _macs(plan: AttentionPlan, hw: Hardware, a: str, b: str) -> int:
    """Multiply-accumulates a PE and cycle of two planes."""
    return macs_per_pe(*(8 * DTYPES[plan.shape.dtype(n)] for n in (a, b)), hw.split_bits)


def _loaded(plan: AttentionPlan, length: int, steps: int) -> int:
    """Bytes of DRAM traffic of a sequence."""
    shape, names = plan.shape, plan.local_planes
    again = 1 if plan.resident and not plan.chained else steps
    first = 1 + int(shape.gate and plan.steps > 1)
    times = dict.fromkeys(names, again) | {"q": first}
    if shape.pruned:
        times["q.fraction"] = 1
    if shape.bits:
        times["q"] += 1
    loaded = [(name, n) for name, n in times.items()] + [("v", 1)]
    if plan.shared:
        loaded += [("k", 1)] + ([] if "v" in names else [("v", 1)])
    elif shape.pruned and not plan.resident:
        loaded.append(("k", again * first))
    return shape.heads * sum(n * shape.plane_bytes(plane, length) for plane, n in loaded)
