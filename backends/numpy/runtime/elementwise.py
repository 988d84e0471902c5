# pyright: basic
"""Functions of single elements."""

import math

import numpy as np

from heatc.backends.numpy.runtime.buffers import scratch
from heatc.backends.numpy.runtime.constants import TILE
from heatc.backends.numpy.runtime.workers import workers

# x Phi(x) = max(x, 0) - |x| Phi(-|x|), and Phi(-a) = exp(p(a)) with this polynomial, fitted so
# that a Phi(-a) is off by 4.4e-7 at most; constant first.
GELU = [
    np.float32(c)
    for c in (
        -0.6931732623361733,
        -0.797665334799351,
        -0.3188424949813825,
        -0.035923982783416145,
        0.004910635165991625,
        -0.0003280725620786767,
    )
]


def gelu(x, out):
    """out = x Phi(x), the exact (erf) GELU, to 1e-6; `out` may be `x`."""
    a, p = scratch("gelu_a", x.shape), scratch("gelu_p", x.shape)
    np.abs(x, out=a)
    np.multiply(a, GELU[-1], out=p)
    for c in GELU[-2:0:-1]:
        np.add(p, c, out=p)
        np.multiply(p, a, out=p)
    np.add(p, GELU[0], out=p)
    np.exp(p, out=p)
    np.multiply(a, p, out=a)
    np.maximum(x, np.float32(0), out=out)
    np.subtract(out, a, out=out)


def gelu_tanh(x, out):
    """out = x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x ** 3))); `out` may be `x`."""
    t = scratch("gelu_a", x.shape)
    np.multiply(x, x, out=t)
    np.multiply(t, np.float32(0.044715 * math.sqrt(2 / math.pi)), out=t)
    np.add(t, np.float32(math.sqrt(2 / math.pi)), out=t)
    np.multiply(t, x, out=t)
    np.tanh(t, out=t)
    np.add(t, np.float32(1), out=t)
    np.multiply(t, np.float32(0.5), out=t)
    np.multiply(x, t, out=out)


def gelu_quick(x, out):
    """out = x / (1 + exp(-1.702 x)); `out` may be `x`."""
    t = scratch("gelu_a", x.shape)
    np.multiply(x, np.float32(0.851), out=t)
    np.tanh(t, out=t)
    np.add(t, np.float32(1), out=t)
    np.multiply(t, np.float32(0.5), out=t)
    np.multiply(x, t, out=out)


def relu(x, out):
    """out = max(x, 0); `out` may be `x`."""
    np.maximum(x, np.float32(0), out=out)


def sigmoid(x):
    """1 / (1 + exp(-x)), without an overflow."""
    return np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))


def silu(x):
    """x / (1 + exp(-x))."""
    return x * sigmoid(x)


def erf(x):
    """The error function, to 2e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    a = np.abs(x)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * a)
    p = np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = p * t + np.float32(c)
    return np.copysign(np.float32(1) - p * t * np.exp(-a * a), x)


def elementwise(function, x):
    """A new array, function(x)."""
    out = np.empty(x.shape, x.dtype)
    function(np.ascontiguousarray(x), out=out)
    return out


def apply(function, x, out):
    """out = function(x) elementwise, a tile at a time on every core."""
    tile = max(1, TILE // max(x.shape[1], 1))

    def part(start, stop):
        for row in range(start, stop, tile):
            rows = slice(row, min(row + tile, stop))
            function(x[rows], out=out[rows])

    workers.run(part, len(x), grain=16)
    return out
