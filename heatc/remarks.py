"""What passes remark, kept for the user: `--remarks=FILE` and `--remarks=-`."""

from __future__ import annotations

import json
import sys
from os import PathLike
from types import TracebackType
from typing import Self

from heatc.files import atomic_write
from heatc.passes.rewriting import Remark, RemarkSink, print_remark, set_remark_sink


class RemarkLog:
    """
    Takes every remark while it is entered, those included that are not shown unasked.

    `target` is a file, which gets a JSON object a line (`pass`, `layer`, `place`, `message`,
    `chosen`, `weighed`) when the log is left, after an error too, but not when a signal ends it; or
    `-`: all of them as text to stderr. Whoever runs the passes sets `running` to the name of the
    one at work.
    """

    def __init__(self, target: str | PathLike[str]):
        self.target = target
        self.running = ""
        self.lines: list[str] = []
        self._before: RemarkSink = print_remark

    def __enter__(self) -> Self:
        self._before = set_remark_sink(self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        set_remark_sink(self._before)
        stopped = kind is not None and not issubclass(kind, Exception)
        if stopped or str(self.target) == "-":
            return
        with atomic_write(self.target, "w") as stream:
            stream.write("".join(f"{line}\n" for line in self.lines))

    def _take(self, found: Remark) -> None:
        if str(self.target) == "-":
            print(f"{found} [{self.running}]", file=sys.stderr)
            return
        self._before(found)
        record = {
            "pass": self.running,
            "layer": found.layer,
            "place": found.place,
            "message": found.message,
            "chosen": found.chosen,
            "weighed": list(found.weighed),
        }
        self.lines.append(json.dumps(record, ensure_ascii=False))
