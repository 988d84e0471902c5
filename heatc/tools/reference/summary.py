"""docs/reference/summary.md: the keys of `--json` of every command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from heatc.tools.reference.markdown import code, head, table
from heatc.tools.summary import (
    calibrated,
    compiled,
    compressed,
    distilled,
    exported,
    searched,
    simulated,
    tokenized,
)
from heatc.tools.summary.keys import KINDS, SCHEMA, Section
from heatc.tools.summary.next_steps import NEXT

SECTIONS: Mapping[str, Sequence[Section[Any]]] = {
    compiled.COMMAND: compiled.SECTIONS,
    simulated.COMMAND: simulated.SECTIONS,
    tokenized.COMMAND: tokenized.SECTIONS,
    compressed.COMMAND: compressed.SECTIONS,
    searched.COMMAND: searched.SECTIONS,
    calibrated.COMMAND: calibrated.SECTIONS,
    distilled.COMMAND: distilled.SECTIONS,
    exported.COMMAND: exported.SECTIONS,
}
"""The sections of each command's JSON, beside those that all have."""

_TEXT = f"""\
At its end every command prints a table, unless `--quiet` says not to. `--json FILE` writes the same facts
as JSON, `--json -` to standard output, which then has no table. What `heatc` compiles to standard output
leaves no room for the table there: it goes to standard error. The figures of `heatc-tune eval` are
[evaluation](evaluation.md)'s.

All files have `producer`, `schema` ({SCHEMA}), `command`, the sections below and `next`. A value that there
is not is null. The name of a number ends in its unit, or in `count`. A *run* is one call of the program on a
whole batch. *EDP* is energy times time.
"""


def render() -> str:
    """The text of the page."""
    return "\n".join([head("Summaries", _TEXT), *_parts()])


def _parts() -> Iterator[str]:
    yield table(("kind", "what such a value is"), KINDS.items())
    for command, sections in SECTIONS.items():
        yield f"## {command}\n"
        for section in sections:
            yield _section(command, section)
    yield "## Every command\n"
    yield _section("Every command", NEXT)


def _section(command: str, section: Section[Any]) -> str:
    what = "A list of objects: " if section.is_list else ""
    rows = [(code(k.name), k.unit, k.kind, k.meaning) for k in section.keys]
    text = f"{what}{section.meaning}.\n"
    return "\n".join(
        [
            f"### {command}: `{section.name}`\n",
            text,
            table(("key", "unit", "kind", "meaning"), rows),
        ]
    )
