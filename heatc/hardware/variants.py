"""
Machines that differ from one another in some keys: `dram.bandwidth=6.4,12.8,25.6 GB/s`.

Several such lists give the product of them.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from heatc.errors import UsageError
from heatc.hardware.description import Hardware, near, too_large
from heatc.hardware.schema import SCHEMA, Key
from heatc.hardware.values import WrongValue, expected, read_value

MOST_VARIANTS = 1024

_SWEEP = "--sweep"
_KEYS = {key.path: key for key in SCHEMA}
_NUMBER = re.compile(r"[\d.]+(?:[eE][+-]?\d+)?")
_TIMES = ("dram.latency", "host.call")
"""Keys that are times, kept as cycles: a slower clock makes them fewer."""


@dataclass(frozen=True)
class Sweep:
    """A key and the values that it takes, as texts with their units."""

    key: Key
    texts: tuple[str, ...]


def parse_sweep(text: str) -> Sweep:
    """
    A key and a list of values, `key=value,value unit`; a unit that a value lacks is the last one's.

    Blocks have commas of their own: their values are separated by `;`. Raises `UsageError` for an
    unknown key and for a value that the key does not take.
    """
    path, equals, values = (part.strip() for part in text.partition("="))
    key = _KEYS.get(path)
    if key is None:
        section = path.partition(".")[0]
        beside = [k for k in _KEYS if k.startswith(f"{section}.")]
        notes = [*near(path, _KEYS), *([f"keys here: {', '.join(beside)}"] if beside else [])]
        notes.append("docs/reference/hardware.md has every key")
        raise UsageError(f"unknown key {path[:80]!r}", place=_SWEEP, notes=notes)
    if not equals or not values:
        notes = [f"e.g. {path}={_example(key)}", expected(key)]
        raise UsageError(f"{path}: no value is given", place=_SWEEP, notes=notes)
    parts = [part.strip() for part in values.split(";" if key.is_blocks else ",")]
    unit = _NUMBER.sub("", parts[-1], count=1).strip()
    texts = [f"{part} {unit}" if unit and _NUMBER.fullmatch(part) else part for part in parts]
    for value in texts:
        _read(key, value, 1)
    if len(set(texts)) < len(texts):
        raise UsageError(f"{path}: a value is given twice", place=_SWEEP)
    return Sweep(key, tuple(texts))


def _example(key: Key) -> str:
    return key.units[0].example if key.units else "4,8"


def _read(key: Key, text: str, clock: int) -> Any:
    try:
        return read_value(key, text, clock)
    except WrongValue as error:
        message = f"{key.path}: {error}"
        raise UsageError(message, place=_SWEEP, notes=error.notes) from None


def changes_of(sweeps: Sequence[Sweep]) -> list[dict[str, str]]:
    """
    The product of some sweeps: what each machine has in the place of the first one's, by key.

    Raises `UsageError` for a key that is swept twice, and for more than `MOST_VARIANTS` machines.
    """
    names = [sweep.key.path for sweep in sweeps]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is swept twice", place=_SWEEP, notes=["give all values at once"])
    count = math.prod(len(sweep.texts) for sweep in sweeps)
    if count > MOST_VARIANTS:
        raise UsageError(f"{count} machines, at most {MOST_VARIANTS}", place=_SWEEP)
    return [dict(zip(names, texts)) for texts in itertools.product(*(s.texts for s in sweeps))]


def variant(hardware: Hardware, changes: Mapping[str, str]) -> Hardware:
    """
    A machine with other values of some keys.

    With another clock, latencies keep their time and get other cycles, unless they are changed
    themselves. Raises `UsageError` for values that do not go together.
    """
    clock = hardware.clock_hz
    values: dict[str, Any] = {}
    if "clock" in changes:
        clock = _read(_KEYS["clock"], changes["clock"], 1)
        for path in _TIMES:
            name = _KEYS[path].attribute
            values[name] = math.ceil(getattr(hardware, name) * clock / hardware.clock_hz)
    for path, text in changes.items():
        values[_KEYS[path].attribute] = _read(_KEYS[path], text, clock)
    name = ", ".join([hardware.name, *(f"{path} {text}" for path, text in changes.items())])
    sources = {**hardware.sources, **dict.fromkeys(changes, _SWEEP)}
    found = replace(hardware, name=name, sources=sources, **values)
    if problem := too_large(found):
        raise UsageError(problem, place=_SWEEP, notes=["such a machine cannot be simulated"])
    return found
