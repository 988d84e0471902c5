"""The summary of `heatc-export`: what was written, and how near it is to the plan's NumPy program."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, NamedTuple

from heatc.tools.summary.keys import COMPARED, COUNTED, TOLD, Key, Section
from heatc.tools.summary.output import Summary

if TYPE_CHECKING:
    from heatc.export.session import Result

COMMAND = "heatc-export"


class Exported(NamedTuple):
    """What was written, by its folder."""

    folder: str
    result: Result


class Difference(NamedTuple):
    """How far one form is from the NumPy program."""

    form: str
    largest: float


FOLDER: Section[Exported] = Section(
    "folder",
    "what was written",
    (
        Key("file", "text", TOLD, "path of the folder", lambda e: e.folder),
        Key("files", "list of text", TOLD, "the names in it", lambda e: e.result.files),
        Key(
            "factorised_layers_count",
            "count",
            COUNTED,
            "layers with factors",
            lambda e: e.result.layers,
        ),
        Key(
            "parameters_count",
            "count",
            COUNTED,
            "of the whole model; null without the format torch",
            lambda e: e.result.parameters or None,
        ),
        Key(
            "free_axes",
            "lists of axes by input",
            TOLD,
            "axes that may have another extent than captured",
            lambda e: e.result.axes,
        ),
    ),
)
DIFFERENCES: Section[Difference] = Section(
    "differences",
    "of each form from the plan's NumPy program; empty where they were not compared",
    (
        Key("form", "text", TOLD, "the file", lambda d: d.form),
        Key("largest", "of outputs", COMPARED, "largest absolute difference", lambda d: d.largest),
    ),
    is_list=True,
)

SECTIONS: tuple[Section[Any], ...] = (FOLDER, DIFFERENCES)


def summarize(arguments: argparse.Namespace, result: Result) -> Summary:
    """The summary of an export."""
    sections = {
        FOLDER.name: FOLDER.of(Exported(arguments.output, result)),
        DIFFERENCES.name: DIFFERENCES.of_all(
            Difference(*one) for one in result.differences.items()
        ),
    }
    return Summary(COMMAND, sections, _text(arguments.output, result))


def _text(output: str, result: Result) -> str:
    lines = [f"{output}: {', '.join(result.files)}"]
    parameters = f", {result.parameters:,} parameters in all" if result.parameters else ""
    lines.append(f"factorised layers: {result.layers}{parameters}")
    free = [f"{name} (axis {', '.join(map(str, a))})" for name, a in result.axes.items() if a]
    lines.append(f"free extents: {'; '.join(free) or 'none, shapes are those that were captured'}")
    if not result.differences:
        return "\n".join([*lines, "not compared with the NumPy program"])
    lines.append("largest absolute difference from the plan's NumPy program, measured:")
    lines += [f"  {name:30} {value:.2g}" for name, value in result.differences.items()]
    return "\n".join(lines)
