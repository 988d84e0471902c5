"""docs/reference/files.md: every kind of file that heatc writes, and what commands read."""

from __future__ import annotations

from collections.abc import Iterator

from heatc import kinds
from heatc.commands import COMMANDS
from heatc.kinds import Kind
from heatc.tools.reference.markdown import code, head, table

_TEXT = """\
Every file that heatc writes says so, and of which kind it is: `heatc <version> <kind>`. A command replaces no file of
another kind ([why](../design/files.md))."""


def render() -> str:
    """The text of the page."""
    return "\n".join([head("Files", _TEXT), _kinds(), *_commands()])


def _kinds() -> str:
    found = {kind.name: kind for kind in vars(kinds).values() if isinstance(kind, Kind)}
    rows = [(name, "end" if kind.at_end else "beginning") for name, kind in found.items()]
    return f"## Kinds\n\n{table(('kind', 'where the mark is'), rows)}"


def _commands() -> Iterator[str]:
    """What each command reads and writes."""
    for command in COMMANDS:
        rows = [(code(read.option), "read") for read in command.reads]
        rows += [
            (code(write.option), "a folder that is written to" if write.is_folder else "written")
            for write in command.writes
        ]
        yield f"## {command.name}\n\n{table(('option', 'file'), rows)}"
