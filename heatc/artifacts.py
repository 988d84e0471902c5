"""
What a command reads and writes, and what is refused of it before any work.

`heatc.commands` declares it for every command; here it is checked: no output is an input, no two
outputs are one, none is where it cannot be, and none replaces a file that heatc did not write as one
of that kind.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from heatc.errors import HeatcError
from heatc.files import check_folder, check_writable, from_os_error, is_stream
from heatc.kinds import Kind

Values = Mapping[str, Any]
"""What was given, by the names of a parser's options."""


@dataclass(frozen=True)
class Input:
    """A file that a command reads, on behalf of an option or argument."""

    path: Path
    option: str


@dataclass(frozen=True)
class Output:
    """A file that a command writes; `is_derived` where it was not named itself."""

    path: Path
    option: str
    kind: Kind
    is_derived: bool = False

    def __str__(self) -> str:
        return f"the {self.kind.name} of {self.option}" if self.is_derived else self.option


@dataclass(frozen=True)
class Folder:
    """A folder that a command makes and writes in."""

    path: Path
    option: str

    def __str__(self) -> str:
        return self.option


# --- Declarations -----------------------------------------------------------------------------


def itself(path: Path) -> Iterable[Path]:
    """Of an input that is one file: that file."""
    return (path,)


@dataclass(frozen=True)
class Read:
    """An option whose value, or values, name something to read; `files` finds the files of it."""

    key: str
    option: str
    files: Callable[[Path], Iterable[Path]] = itself

    def inputs(self, values: Values) -> list[Input]:
        """What is read."""
        return [Input(f, self.option) for p in _paths(values.get(self.key)) for f in self.files(p)]


@dataclass(frozen=True)
class Write:
    """
    An option whose value names a file to write, or a folder.

    `files` gives every file that then appears, with its kind, from the path and all values.
    """

    key: str
    option: str
    files: Callable[[Path, Values], Iterable[tuple[Path, Kind]]]
    is_folder: bool = False

    def outputs(self, values: Values) -> list[Output]:
        """What is written."""
        return [
            Output(file, self.option, kind, file != path)
            for path in _paths(values.get(self.key))
            for file, kind in self.files(path, values)
        ]

    def folders(self, values: Values) -> list[Folder]:
        """The folders that are made."""
        return [Folder(p, self.option) for p in _paths(values.get(self.key)) if self.is_folder]


def _paths(value: Any) -> list[Path]:
    """The paths of an option's value; none where it was not given, or is a standard stream."""
    given = cast("Iterable[Any]", value) if isinstance(value, list | tuple) else (value,)
    return [Path(v) for v in given if _is_path(v) and str(v) not in ("", "-")]


def _is_path(value: Any) -> bool:
    return isinstance(value, str | os.PathLike)


@dataclass(frozen=True)
class Command:
    """The declaration of a command."""

    name: str
    reads: tuple[Read, ...] = ()
    writes: tuple[Write, ...] = ()

    def inputs(self, values: Values) -> list[Input]:
        """Every file that is read."""
        return [found for read in self.reads for found in read.inputs(values)]

    def outputs(self, values: Values) -> list[Output]:
        """Every file that is written."""
        return [found for write in self.writes for found in write.outputs(values)]

    def folders(self, values: Values) -> list[Folder]:
        """Every folder that is made."""
        return [found for write in self.writes for found in write.folders(values)]

    def check(self, values: Values) -> None:
        """
        Refuse what would destroy something, and what cannot be written; nothing is made yet.

        Raises `HeatcError` with the file and a remedy.
        """
        try:
            inputs, outputs = self.inputs(values), self.outputs(values)
            folders = self.folders(values)
            _check_apart(outputs, folders)
            _check_inputs(outputs, inputs)
            for output in outputs:
                _check_ours(output)
        except OSError as error:
            raise from_os_error(error) from error
        except ValueError as error:
            # A null character in a name.
            raise HeatcError(f"not a name of a file: {error}") from error
        for folder in folders:
            check_folder(folder.path)
        to_make = {folder.path for folder in folders if not folder.path.exists()}
        for output in outputs:
            if output.path.parent not in to_make:
                check_writable(output.path)


# --- Checks -----------------------------------------------------------------------------------


def _check_apart(outputs: list[Output], folders: list[Folder]) -> None:
    """No two outputs are one file, and no output is a folder, or within a file, of another."""
    taken: dict[str, Output] = {}
    for output in outputs:
        for name in _names(output.path):
            other = taken.setdefault(name, output)
            if other is not output:
                raise HeatcError(
                    f"{other} and {output} are one file",
                    place=str(output.path),
                    notes=["give one of them another name"],
                )
    for place in [*folders, *outputs]:
        for above in _places_above(place):
            if above in taken:
                raise HeatcError(
                    f"{place} needs a folder where {taken[above]} puts a file",
                    place=str(place.path),
                    notes=["give one of them another name"],
                )


def _check_inputs(outputs: list[Output], inputs: list[Input]) -> None:
    read = {name: found for found in inputs for name in _names(found.path)}
    for output in outputs:
        for name in _names(output.path):
            if name in read:
                raise HeatcError(
                    f"{output} would overwrite an input",
                    place=str(output.path),
                    notes=[f"{read[name].option} reads it", f"give {output.option} another name"],
                )


def _check_ours(output: Output) -> None:
    """What exists is a file that heatc wrote as one of this kind, or an empty one."""
    path = output.path
    if not path.is_file() or path.stat().st_size == 0 or output.kind.is_kind_of(path):
        return
    raise HeatcError(
        f"{output} would replace a file that heatc did not write as {output.kind.name}",
        place=str(path),
        notes=[f"move it away, or give {output.option} another name"],
    )


def _names(path: Path) -> list[str]:
    """What a file is known by: its path without links, and its number in the file system."""
    if is_stream(path):
        return []
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        return [real]
    status = os.stat(real)
    return [real, f"{status.st_dev}:{status.st_ino}"]


def _places_above(place: Output | Folder) -> list[str]:
    """The folders that a place is in, itself if it is a folder."""
    real = Path(os.path.realpath(place.path))
    above = [str(parent) for parent in real.parents]
    return [str(real), *above] if isinstance(place, Folder) else above
