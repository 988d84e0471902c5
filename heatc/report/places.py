"""Modules of the same place in every block: names that differ in numbers alone."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def place_of(path: str) -> str:
    """`encoder.layer.*.output.dense` of `encoder.layer.3.output.dense`."""
    return _NUMBER.sub("*", path)


def numbers_of(path: str) -> str:
    """`3` of `encoder.layer.3.output.dense`, `1.2` where there are two numbers, else nothing."""
    return ".".join(_NUMBER.findall(path))
