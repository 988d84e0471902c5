"""
What passes remark, and where it goes: to the user, or to `--remarks=FILE` and `--remarks=-`.

A context carries the sink that takes remarks, see `heatc.context`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, Self

from heatc import messages, stopping
from heatc.files import atomic_write


@dataclass(frozen=True)
class Remark:
    """
    A decision of a pass.

    Attributes:
        layer: module path of what it is about, as far as it is known.
        place: the module path and source line of the op.
        message: what was decided and why, in words.
        chosen: the same in numbers and names; bytes, tokens and multiply-accumulates are integers.
        weighed: what else was possible, with the same keys.
        shown: whether the user sees it without asking.
    """

    layer: str
    place: str
    message: str
    chosen: Mapping[str, Any]
    weighed: Sequence[Mapping[str, Any]]
    shown: bool

    def __str__(self) -> str:
        return f"{self.place}: remark: {self.message}" if self.place else f"remark: {self.message}"


RemarkSink = Callable[[Remark], None]


def print_remark(found: Remark) -> None:
    """Print to stderr what the user is to see unasked."""
    if found.shown:
        _print(found, str(found))


def _print(found: Remark, text: str) -> None:
    if messages.is_json():
        text = messages.line("remark", found.message, found.place, (), stopping.command())
    print(text, file=sys.stderr)


def drop_remark(found: Remark) -> None:
    """What passes say of trials, and of layers that nobody has, is for nobody."""


class RemarkLog:
    """
    Takes every remark, those included that are not shown unasked.

    `target` is a file, which gets a JSON object a line (`pass`, `layer`, `place`, `message`,
    `chosen`, `weighed`) when the log is left, after an error too, but not when a signal ends it; or
    `-`: all of them as text to stderr. Whoever runs the passes sets `running` to the name of the
    one at work.
    """

    def __init__(self, target: str | PathLike[str]):
        self.target = target
        self.running = ""
        self.lines: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        stopped = kind is not None and not issubclass(kind, Exception)
        if stopped or str(self.target) == "-":
            return
        with atomic_write(self.target, "w") as stream:
            stream.write("".join(f"{line}\n" for line in self.lines))

    def take(self, found: Remark) -> None:
        """Keep a remark; the user sees what is shown unasked."""
        if str(self.target) == "-":
            _print(found, f"{found} [{self.running}]")
            return
        print_remark(found)
        record = {
            "pass": self.running,
            "layer": found.layer,
            "place": found.place,
            "message": found.message,
            "chosen": found.chosen,
            "weighed": list(found.weighed),
        }
        self.lines.append(json.dumps(record, ensure_ascii=False))
