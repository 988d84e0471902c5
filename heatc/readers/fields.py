"""Typed access to untrusted JSON: every mismatch is a `HeatcError` that names the field."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from heatc.errors import HeatcError

T = TypeVar("T")

_WORDS: dict[type, str] = {dict: "an object", list: "a list", str: "a string", int: "an integer"}


def expect(value: object, kind: type[T], what: str) -> T:
    """`value`, which must be of the given kind; `what` names it in the error."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        word = _WORDS.get(kind, kind.__name__)
        raise HeatcError(f"expected {word} for {what}, got {short(value)}")
    return value


def get(record: object, key: str, kind: type[T]) -> T:
    """The field `key` of an object, which must be of the given kind."""
    fields = _object(record, f"the object with {key!r}")
    if key not in fields:
        raise HeatcError(f"field {key!r} is missing")
    return expect(fields[key], kind, f"field {key!r}")


def only_field(record: object, what: str) -> tuple[str, Any]:
    """Key and value of a tagged union: an object with one field."""
    fields = _object(record, what)
    if len(fields) != 1:
        raise HeatcError(f"expected one field for {what}, got {short(sorted(map(str, fields)))}")
    return next(iter(fields.items()))


def _object(value: object, what: str) -> dict[str, Any]:
    return cast("dict[str, Any]", expect(value, dict, what))


def short(value: object, most: int = 60) -> str:
    """A value as messages show it."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
