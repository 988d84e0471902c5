"""Damage to bytes, whatever they mean."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

INTERESTING = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
LARGEST = 1 << 20
"""Bytes that a damaged file has at most."""


def damage(rng: Random, data: bytes, most: int = 4) -> bytes:
    """One to `most` damages one after the other; most often one."""
    count = min(most, 1 + int(rng.expovariate(1.0)))
    for _ in range(count):
        data = rng.choice(_DAMAGES)(rng, data)[:LARGEST]
    return data


def _place(rng: Random, data: bytes, size: int = 1) -> int:
    """A position, near the begin or the end in half of the cases: headers stand there."""
    last = max(len(data) - size, 0)
    near = rng.randrange(4)
    if near == 0:
        return min(rng.randrange(64), last)
    if near == 1:
        return max(last - rng.randrange(96), 0)
    return rng.randint(0, last)


def _length(rng: Random, data: bytes) -> int:
    return max(1, min(len(data), int(rng.expovariate(1 / 16))))


def _flip(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([(data[at] if data else 0) ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _set(rng: Random, data: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _number(rng: Random, data: bytes) -> bytes:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(INTERESTING)
    if rng.random() < 0.3:
        value = (1 << 8 * size) - 1 - value
    at = _place(rng, data, size)
    number = (value % (1 << 8 * size)).to_bytes(size, "little")
    return data[:at] + number + data[at + size :]


def _delete(rng: Random, data: bytes) -> bytes:
    at, size = _place(rng, data), _length(rng, data)
    return data[:at] + data[at + size :]


def _repeat(rng: Random, data: bytes) -> bytes:
    at, size = _place(rng, data), _length(rng, data)
    span = data[at : at + size]
    return data[:at] + span * rng.choice((2, 2, 3, 100)) + data[at + size :]


def _insert(rng: Random, data: bytes) -> bytes:
    at, size = _place(rng, data), _length(rng, data)
    new = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:at] + new + data[at:]


def _move(rng: Random, data: bytes) -> bytes:
    size = _length(rng, data)
    source, target = _place(rng, data, size), _place(rng, data, size)
    return data[:target] + data[source : source + size] + data[target + size :]


def _truncate(rng: Random, data: bytes) -> bytes:
    return data[: rng.choice((rng.randint(0, len(data)), max(len(data) - rng.randrange(64), 0)))]


def _extend(rng: Random, data: bytes) -> bytes:
    return data + rng.choice((b"\0", b"\n", bytes(64), data[:64], rng.randbytes(32)))


_DAMAGES: tuple[Callable[[Random, bytes], bytes], ...] = (
    _flip,
    _flip,
    _set,
    _number,
    _number,
    _delete,
    _repeat,
    _insert,
    _move,
    _truncate,
    _extend,
)
