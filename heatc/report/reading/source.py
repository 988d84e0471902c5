"""Files with their digests, and JSON whose parts are what they should be."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.readers.fields import short
from heatc.report.material import SourceFile
from heatc.report.numbers import Number

LARGEST_JSON = 64 << 20
LARGEST_TEXT = 64 << 20


def source_file(path: Path) -> SourceFile:
    """A file with its digest, size and date; `HeatcError` where it cannot be read."""
    try:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        status = path.stat()
    except OSError as error:
        raise from_os_error(error, path) from error
    return SourceFile(path, digest, status.st_size, status.st_mtime)


class Part:
    """A JSON value at a place of a file; what is asked for and is not there is a `HeatcError`."""

    def __init__(self, value: Any, place: str, key: str = ""):
        self.value = value
        self._place = place
        self._key = key

    def object(self) -> dict[str, Any]:
        """The value as an object."""
        if not isinstance(self.value, dict):
            raise self.error(f"expected an object, found {short(self.value)}")
        return cast("dict[str, Any]", self.value)

    def has(self, key: str) -> bool:
        """Whether an object has a key."""
        return key in self.object()

    def get(self, key: str) -> Part:
        """A key of an object, which must be there."""
        table, name = self.object(), f"{self._key}.{key}" if self._key else key
        if key not in table:
            raise self.error(f"the key {key!r} is missing")
        return Part(table[key], self._place, name)

    def parts(self) -> dict[str, Part]:
        """The parts of an object by key."""
        return {key: self.get(key) for key in self.object()}

    def list(self) -> list[Part]:
        """The elements of a list."""
        if not isinstance(self.value, list):
            raise self.error(f"expected a list, found {short(self.value)}")
        values = cast("list[Any]", self.value)
        return [Part(v, self._place, f"{self._key}[{i}]") for i, v in enumerate(values)]

    def text(self) -> str:
        """The value as a text."""
        if not isinstance(self.value, str):
            raise self.error(f"expected a text, found {short(self.value)}")
        return self.value

    def integer(self, low: int = 0) -> int:
        """The value as an integer of at least `low`."""
        if type(self.value) is not int or self.value < low:
            raise self.error(f"expected an integer from {low}, found {short(self.value)}")
        return self.value

    def number(self) -> Number:
        """The value as a number, or None for null."""
        is_number = isinstance(self.value, int | float) and not isinstance(self.value, bool)
        if self.value is not None and not is_number:
            raise self.error(f"expected a number or null, found {short(self.value)}")
        return cast("Number", self.value)

    def error(self, message: str) -> HeatcError:
        """What is wrong here."""
        text = f"{self._key}: {message}" if self._key else message
        return HeatcError(text, place=self._place, notes=["let the command write it again"])


def expect_schema(part: Part, version: int) -> None:
    """Raise `HeatcError` for a file of another version than is read here."""
    found = part.get("schema").integer()
    if found != version:
        raise part.error(f"schema {found}, this heatc reads {version}")
