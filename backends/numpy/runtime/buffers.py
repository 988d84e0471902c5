# pyright: basic
"""Matrices that are kept from call to call, and scratch of a thread."""

import math
import threading

import numpy as np

_buffers = {}


def _buffer(key, rows, tokens):
    size = rows * tokens
    flat = _buffers.get(key)
    if flat is None or flat.size < size:
        flat = _buffers[key] = np.empty(size, np.float32)
    return flat[:size].reshape(rows, tokens)


def matrix(name, rows, tokens):
    """The (rows, tokens) buffer `name`, kept from call to call."""
    return _buffer((name, rows), rows, tokens)


def tile(name, rows, tokens):
    """A (rows, tokens) matrix in the place of the last one that was called `name`."""
    return _buffer(name, rows, tokens)


_local = threading.local()


def scratch(name, shape):
    """A buffer of the calling thread's own."""
    size = math.prod(shape)
    flat = getattr(_local, name, None)
    if flat is None or flat.size < size:
        flat = np.empty(size, np.float32)
        setattr(_local, name, flat)
    return flat[:size].reshape(shape)


def transposed(x, out):
    """(tokens, width) as (width, tokens), copied into `out`."""
    np.copyto(out, x.T)
    return out
