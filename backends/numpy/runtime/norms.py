# pyright: basic
"""Layer norm, of matrices and of arrays."""

import numpy as np

from heatc.backends.numpy.runtime.buffers import scratch
from heatc.backends.numpy.runtime.workers import workers


def layer_norm(x, weight, bias, eps, out):
    """out = (x - mean) / sqrt(variance + eps) * weight + bias over the rows of each column."""
    average = np.full((1, len(x)), 1 / len(x), np.float32)
    weight, bias, eps = weight[:, None], bias[:, None], np.float32(eps)

    def part(start, stop):
        y, square = out[:, start:stop], scratch("square", (len(x), stop - start))
        np.subtract(x[:, start:stop], average @ x[:, start:stop], out=y)
        np.multiply(y, y, out=square)
        deviation = average @ square
        np.add(deviation, eps, out=deviation)
        np.sqrt(deviation, out=deviation)
        np.divide(y, deviation, out=y)
        np.multiply(y, weight, out=y)
        np.add(y, bias, out=y)

    workers.run(part, x.shape[1], grain=16)
    return out


def plain_layer_norm(x, weight, bias, eps):
    """Layer norm over the last axis."""
    y = x - x.mean(axis=-1, keepdims=True)
    return y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight + bias


def rms_norm(x, weight, eps):
    """x / sqrt(mean(x ** 2) + eps) * weight over the last axis."""
    return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + np.float32(eps)) * weight
