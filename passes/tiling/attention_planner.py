"""
How large the tiles of an attention are.

`plan_attention` tries the sensible tile sizes, drops those whose tiles do not fit the buffers, and
takes the one whose instructions, counted (`heatc.passes.tiling.attention_cycles`), take the fewest
cycles. Everything is decided for the largest run; shorter sequences run fewer iterations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import product

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.passes.tiling.attention_cost import expected_cycles, least_cycles
from heatc.passes.tiling.attention_plan import AttentionPlan, AttentionShape
from heatc.passes.tiling.packing import PLANNED_TOKENS, align, up


def _divisors(value: int) -> list[int]:
    return [d for d in range(1, value + 1) if value % d == 0]


MOST_KEY_TILES = 8
"""Keys of dense scores lie in at most this many tiles of the shared buffer."""


def attention_plans(shape: AttentionShape, hw: Hardware) -> Iterator[AttentionPlan]:
    """The sensible plans of an attention, whether or not their tiles fit."""
    most_rows, most_keys = (align(shape.length, extent) for extent in shape.block)
    row_sizes = {hw.pe_rows * k for k in (1, 2, 3, 4, 6, 8)}
    row_sizes |= {up(hw.pe_rows, k) for k in (2, 4, 8, 16)}
    row_sizes = {min(align(n, shape.block[0]), most_rows) for n in row_sizes}
    key_sizes = {hw.pe_columns * k for k in (1, 2, 3, 4, 6, 8, 12, 16)}
    key_sizes |= {up(hw.pe_columns, k) for k in (2, 4, 8)} | {most_keys}
    key_sizes = {min(align(n, shape.block[1]), most_keys) for n in key_sizes}
    for parts in _divisors(hw.cores):
        for rows in sorted(row_sizes):
            if (parts - 1) * rows >= most_rows:
                continue
            for keys in sorted(key_sizes):
                for shared in (False, True) if parts == hw.cores and not shape.bits else (False,):
                    for slots, summed in product((1, 2), (False, True)[: 1 + shape.even]):
                        plan = AttentionPlan(shape, parts, rows, keys, shared, slots, summed)
                        if not _is_useful(plan):
                            continue
                        yield plan


def _is_useful(plan: AttentionPlan) -> bool:
    shape = plan.shape
    if plan.slots > 1 and plan.steps == 1 and (not plan.shared or shape.gate):
        return False
    return not plan.shared or shape.pruned or plan.key_parts <= MOST_KEY_TILES


def _fits(plan: AttentionPlan, hw: Hardware) -> bool:
    return plan.local_bytes <= hw.local_buffer_bytes and plan.shared_bytes <= hw.shared_buffer_bytes


def cheapest(plans: Sequence[AttentionPlan], hw: Hardware) -> AttentionPlan | None:
    """The plan of the fewest estimated cycles, then slots and rows, whose tiles fit; None if none."""
    bounded = [(least_cycles(p, hw), p) for p in plans]
    best: tuple[tuple[float, int, int, int], AttentionPlan] | None = None
    for least, plan in sorted(bounded, key=lambda item: item[0]):
        if best is not None and least >= best[0][0]:
            break
        if not _fits(plan, hw):
            continue
        cycles = expected_cycles(plan, hw, best[0][0] if best else math.inf)
        rank = (cycles, plan.slots, plan.rows, plan.keys)
        if best is None or rank < best[0]:
            best = rank, plan
    return None if best is None else best[1]


@lru_cache(maxsize=512)
def plan_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """The cheapest tiles of an attention; `InfeasibleError` if none fit."""
    plans = list(attention_plans(shape, hw))
    best = cheapest(plans, hw)
    if best is not None:
        return best
    least = min((p.local_bytes, p.shared_bytes) for p in plans if not p.shared)[0]
    raise InfeasibleError(
        f"an attention of {shape.length} tokens with heads of {shape.dim} does not fit",
        notes=[
            f"its smallest tiles need {least:,} bytes, a local buffer has {hw.local_buffer_bytes:,}",
            f"raise buffers.local to {up(least, 1024)} KiB" + _shorter(shape, hw),
        ],
    )


def _shorter(shape: AttentionShape, hw: Hardware) -> str:
    """The most tokens that fit, as an alternative."""
    low, high = 0, shape.length
    while high - low > 1:
        middle = (low + high) // 2
        least = min(p.local_bytes for p in attention_plans(replace(shape, length=middle), hw))
        low, high = (middle, high) if least <= hw.local_buffer_bytes else (low, middle)
    return f" or compile for at most {low} tokens" if low else ""


def plan_token_attention(shape: AttentionShape, hw: Hardware) -> AttentionPlan:
    """Tiles of an attention, planned for a multiple of `PLANNED_TOKENS` where that fits."""
    try:
        return plan_attention(replace(shape, length=align(shape.length, PLANNED_TOKENS)), hw)
    except InfeasibleError:
        return plan_attention(shape, hw)
