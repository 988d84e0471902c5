# pyright: basic
"""Attention of packed rows and of padded arrays."""

import numpy as np

from heatc.backends.numpy.runtime.buffers import scratch
from heatc.backends.numpy.runtime.constants import LOWEST, TILE, TINY
from heatc.backends.numpy.runtime.workers import workers


def masked(scores, mask, fill):
    """Add a mask to scores in place; one of truth values leaves `fill` where it is false."""
    if mask.dtype == np.bool_:
        np.copyto(scores, np.float32(fill), where=~mask)
    else:
        with np.errstate(over="ignore"):
            np.add(scores, mask, out=scores)


def attention(q, k, v, packing, heads, scale, out, masks=(), safe=True):
    """
    Multi-head attention of every sequence's rows to its keys, for q, k, v (heads * dim, tokens).

    Scores are (heads, keys, queries): then every operand is a view, also of one fused
    product of queries, keys and values. The division by the sums comes after the product
    with v, which has fewer rows than the scores. `masks` are pairs of a mask (batch, heads, length,
    length) and its fill. A row whose scores are all -inf gives 0 if `safe`, else NaN.
    """
    tokens, scale = q.shape[1], np.float32(scale)
    q, k, v, out_heads = (x.reshape(heads, len(x) // heads, tokens) for x in (q, k, v, out))

    def sequence(columns, keys, number, start, stop):
        m, n = columns.stop - columns.start, keys.stop - keys.start
        some = max(1, TILE // (m * n))
        for first in range(start, stop, some):
            h = slice(first, min(first + some, stop))
            scaled = scratch("scaled", (h.stop - first, q.shape[1], m))
            scores = scratch("scores", (h.stop - first, n, m))
            np.multiply(q[h, :, columns], scale, out=scaled)
            np.matmul(k[h, :, keys].transpose(0, 2, 1), scaled, out=scores)
            for mask, fill in masks:
                at = packing.places(number)
                own = mask[number, h][:, at][:, :, at[:n]]
                masked(scores, own.transpose(0, 2, 1), fill)
            highest = scores.max(axis=1, keepdims=True)
            if safe:
                np.maximum(highest, LOWEST, out=highest)
            np.subtract(scores, highest, out=scores)
            np.exp(scores, out=scores)
            sums = scores.sum(axis=1, keepdims=True)
            if safe:
                np.maximum(sums, TINY, out=sums)
            result = out_heads[h, :, columns]
            np.matmul(v[h, :, keys], scores, out=result)
            np.divide(result, sums, out=result)

    def part(start, stop):
        with np.errstate(invalid="warn" if safe else "ignore"):
            for number, (columns, keys) in enumerate(zip(packing.columns, packing.keys)):
                if keys.start < keys.stop:
                    sequence(columns, keys, number, start, stop)

    workers.run(part, heads)
    return out


def softmax(x, axis, safe=False):
    """Softmax along an axis; nothing but -inf gives NaN, or 0 if `safe`."""
    highest = x.max(axis=axis, keepdims=True, initial=-np.inf)
    if safe:
        highest = np.maximum(highest, LOWEST)
    with np.errstate(invalid="ignore"):
        y = np.exp(x - highest)
        sums = y.sum(axis=axis, keepdims=True)
        return y / (np.maximum(sums, TINY) if safe else sums)


def padded_attention(q, k, v, heads, scale, masks=(), safe=True):
    """
    Multi-head attention of all positions to all, on (batch, length, heads * dim).

    `masks` are pairs of a mask, which broadcasts to the scores, and its fill. A row whose scores
    are all -inf gives 0 if `safe`, else NaN.
    """
    batch, length = q.shape[:2]
    q, k, v = (x.reshape(batch, length, heads, -1).transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = (q * np.float32(scale)) @ k.transpose(0, 1, 3, 2)
    for mask, fill in masks:
        masked(scores, mask, fill)
    result = softmax(scores, -1, safe) @ v
    return result.transpose(0, 2, 1, 3).reshape(batch, length, -1)


def scaled_dot_product(q, k, v, scale, mask=None, causal=False):
    """softmax(q k' * scale + mask) v over the last two axes; 0 for a query that sees no key."""
    scores = (q * np.float32(scale)) @ np.swapaxes(k, -1, -2)
    if mask is not None:
        masked(scores, mask, -np.inf)
    if causal:
        masked(scores, np.tri(*scores.shape[-2:], dtype=np.bool_), -np.inf)
    return softmax(scores, -1, safe=True) @ v
