"""Inputs of a random program: several cases of padding, the same on every machine."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bench.support.differential.masks import Keep
from bench.support.differential.program import Array, Arrays, Padding, Port, Program

CASES = ("whole", "right", "left", "holes", "one", "empty", "odd")


@dataclass(frozen=True)
class Case:
    """
    Inputs by name, and what is real in them.

    `reals` are the positions that each mask lets through, by input, `real` those that every mask
    does. Masks of the case `odd` hold values that a program may refuse when it runs.
    """

    name: str
    inputs: Arrays
    real: Keep
    reals: Mapping[str, Keep] = field(default_factory=dict[str, Keep])

    def padded(self, masks: Sequence[str]) -> Keep:
        """Positions that one of some masks masks."""
        hidden = np.zeros(self.real.shape, np.bool_)
        for name in masks:
            hidden |= ~self.reals[name]
        return hidden

    @property
    def empty(self) -> list[int]:
        """The sequences without any real token."""
        return [int(i) for i in np.flatnonzero(~self.real.any(axis=1))]


def cases(program: Program) -> Iterator[Case]:
    """The cases that the program's masks can say; without a mask, two with other values."""
    if not program.padding:
        yield _case(program, "whole", "whole")
        yield _case(program, "again", "whole")
        return
    patterns = set(program.padding[0].patterns)
    for padding in program.padding[1:]:
        patterns &= set(padding.patterns)
    for name in ("whole", *program.padding[0].patterns, "empty"):
        if name in patterns or name in ("whole", "empty"):
            yield _case(program, name, name)
    if program.odd and any(padding.odd for padding in program.padding):
        yield _case(program, "odd", "holes")


def _case(program: Program, name: str, pattern: str) -> Case:
    random = np.random.RandomState(zlib.crc32(f"{program.seed}/{name}".encode()))
    e = program.extents
    keep = _pattern(pattern, e.batch, e.length, random)
    masks = {p.port: p for p in program.padding}
    inputs: Arrays = {}
    for port in program.ports:
        inputs[port.name] = _filled(port, random, keep)
        padding = masks.get(port.name)
        if padding is None:
            continue
        encode = padding.odd if name == "odd" and padding.odd is not None else padding.encode
        inputs[port.name] = _encoded(port, encode(keep, random), inputs[port.name])
    real = np.ones((e.batch, e.length), np.bool_)
    reals = {p.port: _evaluated(p, inputs[p.port]) for p in program.padding}
    for keep in reals.values():
        real &= keep
    return Case(name, inputs, real, reals)


def _encoded(port: Port, mask: Array, ids: Array) -> Array:
    """A mask, or ids that are 0 where they are padding."""
    if port.role != "ids":
        return mask
    return np.where(mask > 0, np.maximum(ids, 1), 0).astype(ids.dtype)


def _evaluated(padding: Padding, mask: Array) -> Keep:
    names: dict[str, Any] = {"torch": torch, "m": torch.from_numpy(mask)}
    return eval(padding.real, names).numpy()


def _pattern(name: str, batch: int, length: int, random: np.random.RandomState) -> Keep:
    """Which tokens are real; every case but the whole one has padding where there is room."""
    keep = np.ones((batch, length), np.bool_)
    if name == "whole" or length < 2:
        return keep & (name != "empty")
    counts = random.randint(1, length, batch)
    position = np.arange(length)
    if name == "empty":
        keep = position < random.randint(1, length + 1, batch)[:, None]
        keep[random.randint(batch)] = False
    elif name == "right":
        keep = position < counts[:, None]
    elif name == "left":
        keep = position >= length - counts[:, None]
    elif name == "holes":
        keep = random.rand(batch, length) < 0.6
        keep[np.arange(batch), random.randint(0, length, batch)] = True
    elif name == "one":
        keep = position == random.randint(0, length, batch)[:, None]
    elif name == "one first":
        keep = np.broadcast_to(position == 0, (batch, length)).copy()
    return keep


def _filled(port: Port, random: np.random.RandomState, keep: Keep) -> Array:
    """What an input holds that is no mask."""
    if port.role == "ids":
        return random.randint(0, port.limit, port.shape).astype(port.dtype)
    if port.role == "keys":
        batch, length = port.shape
        return _pattern("holes", batch, length, random).astype(port.dtype)
    if port.role == "segments":
        return random.randint(0, 2, port.shape).astype(port.dtype)
    if port.role == "float":
        return random.standard_normal(port.shape).astype(port.dtype)
    if port.role == "integers":
        return _integers(port, random)
    return np.zeros(port.shape, port.dtype)


def _integers(port: Port, random: np.random.RandomState) -> Array:
    """Small numbers, and some at the ends of the type where that is narrow."""
    if port.dtype == "bool":
        return random.rand(*port.shape) < 0.5
    limits = np.iinfo(port.dtype)
    low, high = max(-4, int(limits.min)), 5
    small = random.randint(low, high, port.shape)
    if limits.bits > 16:
        return small.astype(port.dtype)
    ends = random.choice(np.array([limits.min, limits.max, limits.max - 1]), port.shape)
    return np.where(random.rand(*port.shape) < 0.3, ends, small).astype(port.dtype)
