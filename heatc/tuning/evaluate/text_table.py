"""Rows of text: csv, tsv and jsonl with named columns; what is wrong is told with its line."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from heatc.errors import HeatcError, suggest
from heatc.files import from_os_error

_LONGEST_FIELD = 1 << 20
"""Characters of one field."""


class Row(NamedTuple):
    """The values of a row by column, and the line that it ends in."""

    line: int
    values: Mapping[str, str]


def read_rows(path: Path, needed: Sequence[str]) -> list[Row]:
    """
    All rows of a file whose name ends in .csv, .tsv or .jsonl, in order.

    Every row has the columns that are `needed`, and they are not empty. Raises `HeatcError` with the
    line: a column that is missing, an empty value, text that is no UTF-8, a row of another form.
    """
    rows: list[Row] = []
    for row in _rows(path):
        _check(row, needed, str(path))
        rows.append(row)
    if not rows:
        raise HeatcError("the file has no rows", place=str(path), notes=[_HEADER])
    return rows


def columns_of(path: Path) -> list[str]:
    """The columns of the first row, none where there is no row; see `read_rows` for what is raised."""
    rows = _rows(path)
    first = next(rows, None)
    rows.close()
    return [] if first is None else list(first.values)


_HEADER = "the first line names the columns, every other line is a sample"


def _rows(path: Path) -> Generator[Row]:
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise HeatcError(
            f"text is read from {', '.join(_READERS)}", place=str(path), notes=["convert the file"]
        )
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in read(stream, str(path)):
                line = row.line
                yield row
    except OSError as error:
        raise from_os_error(error, path) from error
    except UnicodeDecodeError as error:
        # Text is decoded ahead of the line that is read.
        reason = f"the text is no UTF-8 some way after line {line}: {error.reason}"
        raise HeatcError(reason, place=str(path)) from None


def _check(row: Row, needed: Sequence[str], place: str) -> None:
    for column in needed:
        if column not in row.values:
            known = list(row.values)
            raise HeatcError(
                f"no column {column!r}",
                place=f"{place}:{row.line}",
                notes=[*suggest(column, known), f"columns: {', '.join(known)[:400]}"],
            )
        if not row.values[column].strip():
            raise HeatcError(
                f"column {column!r} is empty",
                place=f"{place}:{row.line}",
                notes=["leave such rows out"],
            )


def _separated(delimiter: str) -> Callable[[IO[str], str], Iterator[Row]]:
    def read(stream: IO[str], place: str) -> Iterator[Row]:
        # The limit is the process's: whoever reads a csv file after this one has its own back.
        former = csv.field_size_limit(_LONGEST_FIELD)
        quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
        reader = csv.reader(stream, delimiter=delimiter, quoting=quoting, strict=True)
        header: list[str] = []
        try:
            for cells in reader:
                if not header:
                    header = _header(cells, place)
                elif cells:
                    yield Row(reader.line_num, _named(header, cells, f"{place}:{reader.line_num}"))
                else:
                    raise HeatcError("the line is empty", place=f"{place}:{reader.line_num}")
        except csv.Error as error:
            raise HeatcError(str(error), place=f"{place}:{reader.line_num}") from None
        finally:
            csv.field_size_limit(former)

    return read


def _header(cells: Sequence[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if len(set(names)) < len(names) or not all(names):
        raise HeatcError(
            f"the first line is no header: {', '.join(names)[:200]}",
            place=f"{place}:1",
            notes=[_HEADER],
        )
    return names


def _named(header: Sequence[str], cells: Sequence[str], place: str) -> dict[str, str]:
    if len(cells) != len(header):
        raise HeatcError(
            f"{len(cells)} fields, the header has {len(header)}",
            place=place,
            notes=["put a field that holds the separator into double quotes (csv alone)"],
        )
    return dict(zip(header, cells))


def _objects(stream: IO[str], place: str) -> Iterator[Row]:
    for number, text in enumerate(stream, 1):
        here = f"{place}:{number}"
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", "") or type(error).__name__
            raise HeatcError(f"not a JSON object: {reason}", place=here) from None
        if not isinstance(found, dict):
            raise HeatcError("expected a JSON object a line", place=here)
        yield Row(number, {str(k): _text(v) for k, v in found.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _text(value: object) -> str:
    """A value as csv would have it; nothing for null."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


_READERS: Mapping[str, Callable[[IO[str], str], Iterator[Row]]] = {
    ".csv": _separated(","),
    ".tsv": _separated("\t"),
    ".jsonl": _objects,
}
"""What reads a file, by the end of its name."""
