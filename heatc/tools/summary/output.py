"""Where a summary goes: the table to stdout, or to stderr, and the JSON to a file or stdout."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from heatc.errors import UsageError
from heatc.files import atomic_write
from heatc.kinds import SUMMARY
from heatc.tools.diagnostics import add_quiet_argument
from heatc.tools.summary.keys import SCHEMA
from heatc.tools.summary.next_steps import NEXT, Step

STDOUT = "-"


@dataclass(frozen=True)
class Summary:
    """
    What a command tells.

    Attributes:
        command: what was run: `heatc`, `heatc-tune search`.
        sections: the objects of the JSON by name.
        text: the table, before the next steps.
        steps: the commands to try next.
    """

    command: str
    sections: Mapping[str, Any]
    text: str
    steps: Sequence[Step] = field(default_factory=list[Step])

    def json_text(self) -> str:
        """The file's text; a number that is not finite is none."""
        data = {"schema": SCHEMA, "command": self.command, **self.sections}
        data[NEXT.name] = NEXT.of_all(self.steps)
        return SUMMARY.json_text(_finite(data))

    def table(self) -> str:
        """The table, and what to try next below it."""
        if not self.steps:
            return self.text
        lines = [f"  # {step.purpose}\n  {step.command}" for step in self.steps]
        return "\n".join([self.text, "", "next", *lines])


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--quiet`."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        help="write what the table says as JSON (docs/reference/summary.md); - for stdout, "
        "which then has no table",
    )
    add_quiet_argument(parser)


def check_output(arguments: argparse.Namespace, *, stdout_is_taken: bool = False) -> None:
    """Raise `UsageError` where the JSON and a program both go to standard output."""
    if arguments.json == STDOUT and stdout_is_taken:
        raise UsageError(
            "the program and the JSON both go to standard output",
            place="--json",
            notes=["give -o or --json a file"],
        )


def wants_summary(arguments: argparse.Namespace) -> bool:
    """Whether anybody reads a summary."""
    return not arguments.quiet or arguments.json is not None


def show(summary: Summary, arguments: argparse.Namespace, *, stdout_is_taken: bool = False) -> None:
    """Print the table and write the JSON, as the options say."""
    if arguments.json not in (None, STDOUT):
        with atomic_write(arguments.json, "w") as stream:
            stream.write(summary.json_text())
    if arguments.json == STDOUT:
        sys.stdout.write(summary.json_text())
    elif not arguments.quiet:
        print(summary.table(), file=sys.stderr if stdout_is_taken else sys.stdout)


def _finite(value: Any) -> Any:
    """JSON has no numbers that are not finite."""
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]  # pyright: ignore[reportUnknownVariableType]
    return value
