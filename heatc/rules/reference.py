"""
What rules mean, in NumPy on real numbers: what several of them share.

This shares no code with the ops that rules insert, nor with the units of the machine.
"""

from __future__ import annotations

import math

import numpy as np

from heatc.rules.definition import Head, Mask, Reals


def kept_of_row(values: Reals, rho_b: float) -> Mask:
    """Which values reach their threshold."""
    mean = float(values.sum()) / len(values)
    edge = float(values.max()) if rho_b >= 0 else -float(values.min())
    return values >= rho_b * edge + (1.0 - abs(rho_b)) * mean


def low_bits(x: Reals, keys: int, bits: int) -> tuple[Reals, int]:
    """Few bits of (M, dim), and by which power of two they are scaled: by that of the keys."""
    largest = float(np.abs(x[:keys]).max())
    exponent = math.floor(math.log2(largest)) + 1 if largest > 0 else 0
    limit = 2 ** (bits - 1) - 1
    return np.clip(np.rint(x * 2.0 ** (bits - 1 - exponent)), -limit, limit), exponent


def softmax(scores: Reals) -> Reals:
    """Of each row; a row without a finite score is 0."""
    weights = np.zeros_like(scores)
    for row, values in zip(weights, scores):
        if values.max() > -np.inf:
            row[:] = np.exp(values - values.max())
            row /= row.sum()
    return weights


def masked(scores: Reals, head: Head) -> Reals:
    """Scaled scores (M, L) with the bias, and without what is hidden."""
    if head.bias is not None:
        scores = scores + head.bias
    if head.visible is None:
        return scores
    scores = _hidden(scores, head.visible, head.keyless)
    if head.least is None or head.level is None:
        return scores
    return _hidden(scores + head.level, head.least, head.least_keyless)


def _hidden(scores: Reals, visible: Mask, keyless: str) -> Reals:
    blind: Mask = ~np.any(visible, axis=1, keepdims=True)
    level = np.where(scores == -np.inf, -np.inf, 0.0)
    instead = {"zero": -np.inf, "refuse": np.nan, "mean": level}.get(keyless, scores)
    return np.where(blind, instead, np.where(visible, scores, -np.inf))


def dense(q: Reals, k: Reals, v: Reals, scale: float, head: Head | None = None) -> Reals:
    """Attention that prunes nothing."""
    scores = q @ k.T * scale
    return softmax(scores if head is None else masked(scores, head)) @ v


def of_kept(q: Reals, k: Reals, v: Reals, scale: float, kept: Mask) -> Reals:
    """Attention in which the other scores have no part."""
    return softmax(np.where(kept, q @ k.T * scale, -np.inf)) @ v
