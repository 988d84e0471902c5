"""
YAML that may be anything: bounded before it is built, without aliases and repeated keys.

An alias stands for a whole tree again, so that some lines can be a billion nodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, cast

import yaml
from yaml.constructor import SafeConstructor

from heatc.errors import HeatcError
from heatc.readers.source import read_bytes

MOST_NODES = 1 << 17

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: str | os.PathLike[str], what: str, most: int, deepest: int) -> yaml.Node | None:
    """
    The tree of a YAML file of at most `most` bytes and `deepest` levels, None of an empty one.

    Raises `HeatcError` with file and line; `what` says what the file is ("a hardware file").
    """
    data, place = read_bytes(path, what, most), os.fspath(path)
    try:
        # libyaml composes recursively and overflows the stack on deep nesting: look at events first.
        _check_events(data, place, deepest)
        root = cast(yaml.Node | None, yaml.compose(data, _LOADER))  # pyright: ignore[reportUnknownMemberType]
    except (yaml.YAMLError, ValueError) as error:
        raise _not_yaml(error, place) from error
    if root is not None:
        _check_keys(root, place)
    return root


def values(node: yaml.Node, place: str) -> Any:
    """What a checked tree stands for: dicts, lists, texts, numbers; raises `HeatcError`."""
    try:
        return cast(Any, SafeConstructor()).construct_document(node)
    # A tag such as !!bool on a text that is none fails anywhere.
    except Exception as error:
        raise _not_yaml(error, place) from error


def _check_events(data: bytes, place: str, deepest: int) -> None:
    depth = 0
    events = cast(Iterator[yaml.Event], yaml.parse(data, _LOADER))  # pyright: ignore[reportUnknownMemberType]
    for count, event in enumerate(events):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        message = ""
        if depth > deepest:
            message = f"nested more than {deepest} deep"
        elif count >= MOST_NODES:
            message = f"more than {MOST_NODES} values"
        elif isinstance(event, yaml.AliasEvent):
            message = "an alias (*name), write the value itself"
        if message:
            raise HeatcError(message, place=f"{place}:{_line(event.start_mark)}")


def _check_keys(root: yaml.Node, place: str) -> None:
    """Refuse keys that stand twice, or are no text."""
    nodes = [root]
    while nodes:
        node = nodes.pop()
        if isinstance(node, yaml.SequenceNode):
            nodes += cast(list[yaml.Node], node.value)
        if not isinstance(node, yaml.MappingNode):
            continue
        seen: set[str] = set()
        for key, child in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
            line = f"{place}:{_line(key.start_mark)}"
            if not isinstance(key, yaml.ScalarNode):
                raise HeatcError("a key is a plain text", place=line)
            if key.value in seen:
                raise HeatcError(f"the key {key.value[:60]!r} is given twice", place=line)
            seen.add(str(key.value))
            nodes.append(child)


def _line(mark: Any) -> int:
    return int(mark.line) + 1


def _not_yaml(error: Exception, place: str) -> HeatcError:
    mark = getattr(error, "problem_mark", None)
    where = f"{place}:{_line(mark)}" if mark is not None else place
    reason = str(getattr(error, "problem", None) or error) or type(error).__name__
    return HeatcError(f"not YAML: {reason.splitlines()[0]}", place=where)
