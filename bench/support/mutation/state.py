"""What a run of bench/mutation.py knows: outcomes by mutant, and which test runs which line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from bench.support import report
from bench.support.mutation.lines import Lines, file_of

Hashes = Mapping[str, str]


def hashes(files: list[Path]) -> dict[str, str]:
    """What files hold, by their path from the root of the repository."""
    return {
        str(file): hashlib.sha256((report.ROOT / file).read_bytes()).hexdigest() for file in files
    }


class State:
    """
    Kept on disk after each outcome; a run goes on there, also where the repository changed since.

    A mutant that was killed stays so as long as its module is the same, since tests are added and
    not taken away. One that survived is tried again where any test changed, or where only the
    fastest tests of its line were asked and all shall be. Lines are recorded anew of tests that
    changed, and of all where a module did.

    `found` is, by the mutant's name, its `part`, `module`, `outcome`, and the `diff` of a survivor.
    """

    def __init__(self, path: Path | None, modules: list[Path], tests: list[Path], thorough: bool):
        self.path, self.thorough = path, thorough
        self.modules, self.tests = hashes(modules), hashes(tests)
        self.found: dict[str, dict[str, str]] = {}
        self.lines = Lines([], [], {})
        self._lock = Lock()
        if path is not None and path.exists():
            self._read(json.loads(path.read_text()))

    def _read(self, kept: dict[str, Any]) -> None:
        same = {
            name for name, digest in self.modules.items() if kept["modules"].get(name) == digest
        }
        known = {file for file, digest in self.tests.items() if kept["tests"].get(file) == digest}
        if len(same) == len(self.modules):
            self.lines = Lines(**kept["lines"]).only(known)
        for key, found in kept["found"].items():
            is_settled = found["outcome"] in ("killed", "timeout")
            asked_all = found["asked"] == "all" or not self.thorough
            if found["module"] in same and (
                is_settled or (kept["tests"] == self.tests and asked_all)
            ):
                self.found[key] = found

    def unrecorded(self) -> list[Path]:
        """The tests whose lines are not known."""
        known = {file_of(name) for name in self.lines.names}
        return [Path(file) for file in self.tests if file not in known]

    def add(self, key: str, outcome: Mapping[str, str]) -> None:
        """Keep an outcome."""
        with self._lock:
            self.found[key] = {**outcome, "asked": "all" if self.thorough else "fastest"}
            self.write()

    def write(self) -> None:
        """The state as it stands."""
        if self.path is None:
            return
        kept = {"modules": self.modules, "tests": self.tests}
        kept |= {"lines": vars(self.lines), "found": self.found}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(kept))
        part.replace(self.path)
