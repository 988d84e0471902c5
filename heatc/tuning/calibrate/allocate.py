"""
Which setting each head gets, so that all heads pay the same price for a block.

Every head has options, each with an error and a number of kept blocks. For a price of one block,
each head takes the option of least `error + price * kept`; no other choice keeps as few blocks
with less error in sum (H. Everett, Operations Research 11, 1963). A higher price never keeps
more, so that the price for a budget is found by bisection.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeadOptions:
    """
    Thresholds that H heads may get, with what they do.

    `error` and `kept` are (H, options); `rho_b` and `tau_h` are the thresholds that they stand for.
    """

    error: Array
    kept: Array
    rho_b: Array
    tau_h: Array


@dataclass(frozen=True)
class HeadChoice:
    """The option of each head, and what it comes to."""

    index: NDArray[np.intp]
    error: Array
    kept: Array


def choose_at_price(error: Array, kept: Array, price: float) -> HeadChoice:
    """Each head's option of least `error + price * kept`; of equal ones the one that keeps less."""
    cost = error + price * kept
    least = cost.min(axis=1, keepdims=True)
    tied = cost <= least + 1e-12 * np.abs(least)
    index = np.where(tied, kept, np.inf).argmin(axis=1)
    rows = np.arange(len(error))
    return HeadChoice(index, error[rows, index], kept[rows, index])


def choose_within_budget(error: Array, kept: Array, budget: float) -> tuple[HeadChoice, float]:
    """
    The choice of the least price that keeps at most `budget` blocks, and that price.

    Raises `ValueError` where the budget is below what can be reached.
    """
    if kept.min(axis=1).sum() > budget:
        raise ValueError(f"no choice keeps {budget:g} blocks or fewer")
    low, high = 0.0, _highest(error, kept)
    for _ in range(200):
        middle = (low + high) / 2
        if choose_at_price(error, kept, middle).kept.sum() <= budget:
            high = middle
        else:
            low = middle
    return choose_at_price(error, kept, high), high


def _highest(error: Array, kept: Array) -> float:
    """A price at which every head takes what keeps least."""
    spread = float((error.max(axis=1) - error.min(axis=1)).max(initial=0.0))
    steps = np.diff(np.sort(kept, axis=1), axis=1)
    smallest = float(steps[steps > 0].min(initial=1.0))
    return (spread + 1.0) / smallest


TAU_SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
"""Shares of the sequences that a candidate threshold prunes a head for."""
UNGATED = (0.0,)
"""The same where no head is pruned."""


def head_options(
    rho_b: tuple[float, ...],
    error: Array,
    kept: Array,
    score: Array,
    gated: Array,
    shares: tuple[float, ...] = TAU_SHARES,
) -> HeadOptions:
    """
    All pairs of rho_B and tau_H, from measurements by sequence.

    A tau_H prunes a head for one of `shares` of the sequences. `error` and `kept` are (rho, N, H),
    `score` (what tau_H is compared with) and `gated` (the error of a pruned head) are (N, H). A
    threshold lies halfway between two scores.
    """
    rhos, count, heads = error.shape
    order = score.argsort(axis=0)
    cuts = sorted({round(share * count) for share in shares})
    sorted_error = np.take_along_axis(error, order[None], axis=1)
    sorted_kept = np.take_along_axis(kept, order[None], axis=1)
    above_error, above_kept = _suffix_sums(sorted_error), _suffix_sums(sorted_kept)
    below = np.cumsum(np.take_along_axis(gated, order, axis=0), axis=0)
    below = np.concatenate([np.zeros((1, heads)), below])
    ranked = np.take_along_axis(score, order, axis=0)
    shape = (rhos, len(cuts), heads)
    errors, blocks, taus = (np.zeros(shape) for _ in range(3))
    for c, cut in enumerate(cuts):
        errors[:, c] = above_error[:, cut] + below[cut]
        blocks[:, c] = above_kept[:, cut]
        taus[:, c] = _threshold(ranked, cut)
    rho = np.broadcast_to(np.asarray(rho_b)[:, None, None], shape)
    return HeadOptions(*(x.reshape(-1, heads).T.copy() for x in (errors, blocks, rho, taus)))


def _suffix_sums(values: Array) -> Array:
    """(rho, N, H) -> (rho, N + 1, H): the sum from each position on."""
    rhos, count, heads = values.shape
    sums = np.zeros((rhos, count + 1, heads))
    sums[:, :count] = np.cumsum(values[:, ::-1], axis=1)[:, ::-1]
    return sums


def _threshold(ranked: Array, cut: int) -> Array:
    """(H,): a tau_H that prunes the `cut` lowest scores; 0 prunes none."""
    if cut == 0:
        return np.zeros_like(ranked[0])
    above: Array = 4.0 * ranked[-1] + 1e-6 if cut == len(ranked) else ranked[cut]
    return (ranked[cut - 1] + above) / 2
