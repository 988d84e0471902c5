"""
JSON that may be anything: bounded before it is built, with nothing that JSON does not have.

Refused are repeated keys, numbers that are not finite, characters that no text can hold, and
what is too large: a few bytes such as `[[[[` are many objects in memory.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, cast

from heatc.errors import HeatcError
from heatc.readers.source import decode, read_bytes

DEEPEST = 64
MOST_VALUES = 1 << 21
"""Values of a text: each may take some hundred bytes of memory."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


def read_json(
    path: str | os.PathLike[str],
    what: str,
    most: int,
    notes: Sequence[str] = (),
    *,
    finite: bool = True,
) -> dict[str, Any]:
    """The JSON object of a file of at most `most` bytes; `what` says what it is ("a plan")."""
    return parse_json(read_bytes(path, what, most), os.fspath(path), notes, finite=finite)


def parse_json(
    data: bytes, place: str, notes: Sequence[str] = (), *, finite: bool = True
) -> dict[str, Any]:
    """
    The JSON object in `data`; raises `HeatcError` naming `place`, with `notes`.

    Without `finite` the numbers Infinity and NaN are taken, which Python writes.
    """

    def fail(message: str) -> NoReturn:
        raise HeatcError(message, place=place, notes=notes)

    _check_size(data, fail)
    text = decode(data, place)
    try:
        numbers: dict[str, Any] = {"parse_constant": _constant, "parse_float": _finite}
        value = json.loads(text, object_pairs_hook=_unique, **(numbers if finite else {}))
        if _SURROGATE.search(data):
            # Half of a pair of surrogates is no character: whoever prints it fails.
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        fail(f"not JSON: {str(error)[:120]}")
    if not isinstance(value, dict):
        fail(f"expected a JSON object, got {kind_of(value)}")
    return cast(dict[str, Any], value)


def kind_of(value: Any) -> str:
    """What a JSON value is called."""
    names = {"dict": "an object", "list": "an array", "str": "a string", "NoneType": "null"}
    names |= {"bool": "a boolean", "int": "a number", "float": "a number"}
    return names[type(value).__name__]


def _check_size(data: bytes, fail: Callable[[str], NoReturn]) -> None:
    """Refuse what would build too many values or too deep ones; text inside strings counts too."""
    opened = data.count(b"[") + data.count(b"{")
    if opened + data.count(b",") > MOST_VALUES:
        fail(f"more than {MOST_VALUES} values")
    if opened <= DEEPEST:
        return
    brackets = _STRING.sub(b"", data).translate(None, _NO_BRACKETS)
    depths = itertools.accumulate(map(_STEPS.__getitem__, brackets[: 2 * MOST_VALUES]))
    if max(depths, default=0) > DEEPEST:
        fail(f"nested more than {DEEPEST} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without a key that stands twice."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"key {twice[:60]!r} stands twice")
    return found


def _constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value
