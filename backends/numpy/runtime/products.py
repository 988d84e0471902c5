# pyright: basic
"""Products with weights, and what follows them."""

import functools
import math

import numpy as np

from heatc.backends.numpy.runtime.constants import TILE
from heatc.backends.numpy.runtime.prelude import weights
from heatc.backends.numpy.runtime.workers import workers


def add(x, y, out):
    """out = x + y."""
    workers.run(lambda i, j: np.add(x[i:j], y[i:j], out=out[i:j]), len(x), grain=16)
    return out


def slices(count, size):
    """range(count) in as few slices of at most `size` as there can be, of nearly one length."""
    even = -(-count // max(1, -(-count // size)))
    step = max(1, min(size, -(-even // 16) * 16))
    return [slice(i, min(i + step, count)) for i in range(0, count, step)]


@functools.cache
def oriented(name, order, shape):
    """The weight `name` with its axes in another order, then in another shape; copied once."""
    return np.ascontiguousarray(weights()[name].transpose(order)).reshape(shape)


def finish(out, start, stop, bias, activation, residual):
    """out = activation(out + bias) + residual on rows `start` to `stop`, a tile at a time."""
    tile = max(1, TILE // max(out.shape[1], 1))
    for row in range(start, stop, tile):
        rows = slice(row, min(row + tile, stop))
        y = out[rows]
        if bias is not None:
            np.add(y, bias[rows, None], out=y)
        if activation is not None:
            activation(y, out=y)
        if residual is not None:
            np.add(y, residual[rows], out=y)


def product(weight, x, out):
    """
    out = weight @ x, a few rows of `weight` at a time.

    OpenBLAS's AVX-512 kernels multiply without copying the weight into their own order first
    where rows * depth * tokens is at most 10 ** 6. The row counts are the ones that run fast.
    """
    depth, tokens = x.shape
    limit = 10**6 // max(depth * tokens, 1)
    some = next((c for c in (24, 12, 8, 4) if c <= limit), 0)
    if not workers.small_products or not weight.flags.c_contiguous or some < 8 and tokens % 32:
        some = 0
    if some:
        whole = len(weight) // some * some
        parts = weight[:whole].reshape(whole // some, some, depth)
        np.matmul(parts, x, out=out[:whole].reshape(whole // some, some, tokens))
        weight, out = weight[whole:], out[whole:]
    if len(weight):
        np.matmul(weight, x, out=out)


def linear(weight, bias, x, out, activation=None, residual=None):
    """out = activation(weight @ x + bias) + residual, for x (in, tokens)."""

    def part(start, stop):
        product(weight[start:stop], x, out[start:stop])
        finish(out, start, stop, bias, activation, residual)

    workers.run(part, len(weight), grain=16)
    return out


def contract(weight, x, out, lead, rest=(), bias=None, activation=None, residual=None):
    """
    out[lead, n, rest] = weight[lead, rest, n, k] x[lead, k, rest], for x (lead * k * rest, tokens).

    The axes that are summed lie side by side, so that no operand is copied. A weight (n, k) is the
    same everywhere, one without `rest` for all that lies behind. Then out = activation(out + bias)
    + residual.
    """
    n, k = weight.shape[-2:]
    tokens = x.shape[1]
    behind = rest or (len(x) // (math.prod(lead) * k),)
    sides = (x, k), (out, n)
    if not rest and x.flags.c_contiguous and out.flags.c_contiguous:
        # The tokens follow what lies behind: all are columns of one product.
        x, y = (m.reshape(*lead, rows, behind[0] * tokens) for m, rows in sides)
    else:
        sides = (m.reshape(*lead, rows, *behind, tokens) for m, rows in sides)
        x, y = (np.moveaxis(m, len(lead), -2) for m in sides)
        if weight.ndim > 2 and not rest:
            weight = weight[..., None, :, :]
    own = weight.ndim > 2 and len(weight) > 1

    def some(start, stop):
        if lead or rest:
            np.matmul(weight[start:stop] if own else weight, x[start:stop], out=y[start:stop])
        else:
            np.matmul(weight[start:stop], x, out=y[..., start:stop, :])

    def finished(start, stop):
        some(start, stop)
        finish(out, start * rows, stop * rows, bias, activation, residual)

    if lead or not rest:
        count = lead[0] if lead else n
        rows = len(out) // count
        workers.run(finished, count, grain=1 if lead else 16)
        return out
    workers.run(some, rest[0])
    if any(given is not None for given in (bias, activation, residual)):
        workers.run(lambda i, j: finish(out, i, j, bias, activation, residual), len(out), grain=16)
    return out
