"""
`--config heatc.toml`: options from a file, as if they stood before those of the command line.

    target = "hdp-edge"              # an option of whatever command reads the file
    verify-seconds = 5

    [heatc]                          # of this command alone
    hdp-rule = "ours"
    input-range = ["pixels=-3:3"]    # an option that may be repeated

    [heatc-tune.search]
    points = 4
    programs = true                  # an option without a value

A key is an option's name without dashes. What the command line gives is not read from the file. Paths
are those of the folder that the command runs in, not of the file.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from heatc.errors import UsageError, suggest
from heatc.tools import COMMANDS
from heatc.tools.tune_commands import COMMANDS as TUNE

OPTION = "--config"

LARGEST = 1 << 20

_NOT_CONFIGURED = ("help", "h", "version", "v", "config")
"""Options that mean nothing in a file."""


def add_config_argument(parser: argparse.ArgumentParser) -> None:
    """Adds `--config`, which `ToolParser` reads."""
    parser.add_argument(
        OPTION, metavar="FILE.toml", help="options from a file; the command line wins"
    )


def with_config(parser: argparse.ArgumentParser, words: Sequence[str]) -> list[str]:
    """
    The words of a command line, behind those that its `--config` stands for.

    Raises `UsageError` with the line of a key that the command does not know.
    """
    given = list(itertools.takewhile(lambda word: word != "--", words))
    path = _path(given)
    if path is None:
        return list(words)
    file = _File.read(path)
    actions = {
        name.lstrip("-"): action
        for action in parser._actions  # pyright: ignore[reportPrivateUsage]
        for name in action.option_strings
        if name.lstrip("-") not in _NOT_CONFIGURED
    }
    added: list[str] = []
    for section, key, value in file.options(parser.prog):
        action = actions.get(key)
        if action is None:
            notes = [*suggest(key, actions), f"see {parser.prog} --help"]
            raise file.error(f"{parser.prog} has no option {key!r}", section, key, notes)
        if not _is_given(action, given):
            added += _words(action, key, value, file.place(section, key))
    return [*added, *words]


def _path(words: Sequence[str]) -> str | None:
    """The file that `--config` names last, None without one."""
    found = None
    for word, following in itertools.pairwise([*words, ""]):
        if word == OPTION:
            found = following
        elif word.startswith(f"{OPTION}="):
            found = word.partition("=")[2]
    return found


def _is_given(action: argparse.Action, words: Sequence[str]) -> bool:
    """Whether the command line has an option, in any of its spellings."""
    for name in action.option_strings:
        is_long = name.startswith("--")
        for word in words:
            if word == name or word.startswith(f"{name}="):
                return True
            if not is_long and word.startswith(name) and not word.startswith("--"):
                return True
    return False


def _words(action: argparse.Action, key: str, value: Any, place: str) -> list[str]:
    """An option with its value, as a command line has it."""
    option = next(name for name in action.option_strings if name.lstrip("-") == key)
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise UsageError(f"{key!r} takes true or false, got {value!r}", place=place)
        return [option] if value else []
    if isinstance(value, list):
        values = [str(part) for part in cast("list[Any]", value)]
        if not isinstance(action, argparse._AppendAction):  # pyright: ignore[reportPrivateUsage]
            values = [",".join(values)]
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        values = [str(value)]
    else:
        raise UsageError(f"{key!r} takes a text, a number, or a list of them", place=place)
    # Joined by `=`, so that a value may begin with a dash.
    joined = option.startswith("--")
    return [word for v in values for word in ([f"{option}={v}"] if joined else [option, v])]


@dataclass(frozen=True)
class _File:
    """A configuration: its path, its lines, and what they say."""

    path: str
    lines: Sequence[str]
    data: Mapping[str, Any]

    @classmethod
    def read(cls, path: str) -> _File:
        import tomllib

        from heatc.readers.source import decode, read_bytes

        text = decode(read_bytes(path, "a configuration", LARGEST), path)
        try:
            data = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))
            place = f"{path}:{line[1]}" if line else path
            raise UsageError(f"no TOML: {error}", place=place) from error
        return cls(path, text.splitlines(), data)

    def options(self, command: str) -> Iterator[tuple[str, str, Any]]:
        """Section, key and value of all options for a command, those of its own section last."""
        program, _, name = command.partition(" ")
        for key, value in self.data.items():
            if _table(value) is None:
                yield "", key, value
            elif key not in COMMANDS:
                notes = [*suggest(key, COMMANDS), f"sections: {', '.join(COMMANDS)}"]
                raise self.error(f"no command is called {key!r}", key, "", notes)
        own = _table(self.data.get(program)) or {}
        parts = {key: part for key, value in own.items() if (part := _table(value)) is not None}
        yield from ((program, key, value) for key, value in own.items() if key not in parts)
        self._check_parts(program, parts)
        section = f"{program}.{name}"
        yield from ((section, key, value) for key, value in parts.get(name, {}).items())

    def _check_parts(self, program: str, parts: Mapping[str, Any]) -> None:
        known = TUNE if program == "heatc-tune" else ()
        for key in parts:
            if key not in known:
                notes = suggest(key, known)
                raise self.error(f"{program} has no command {key!r}", f"{program}.{key}", "", notes)

    def error(self, message: str, section: str, key: str, notes: Sequence[str] = ()) -> UsageError:
        """A `UsageError` about a key, or about a section without one."""
        return UsageError(message, place=self.place(section, key), notes=notes)

    def place(self, section: str, key: str) -> str:
        """Path and line of a key in its section, of the section without one."""
        return f"{self.path}:{self._line(section, key)}"

    def _line(self, section: str, key: str) -> int:
        """As far as a search of the text finds it."""
        start = 0
        if section:
            head = re.compile(r"\s*\[\s*" + r"\s*\.\s*".join(map(_quoted, section.split("."))))
            start = next((i for i, line in enumerate(self.lines) if head.match(line)), 0)
        if not key:
            return start + 1
        begin = re.compile(rf"\s*{_quoted(key)}\s*=")
        found = (i for i in range(start, len(self.lines)) if begin.match(self.lines[i]))
        return next(found, start) + 1


def _table(value: Any) -> dict[str, Any] | None:
    """A value that is a table, None for any other."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _quoted(name: str) -> str:
    """The pattern of a key, which may stand in quotes."""
    return rf"[\"']?{re.escape(name)}[\"']?"
