"""Verdicts counted, and a state file from which a long run goes on where it ended."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.support.differential.judge import Verdict

_EXAMPLES = 3


@dataclass
class Tally:
    """
    How many programs were judged, and what was found, by target.

    `counts` has "right", "refused", "wrong" and "refused when run" of each target, with their
    reasons; `examples` the first programs of each reason; `both` counts those that are right on
    every target.
    """

    programs: int = 0
    both: int = 0
    seconds: float = 0.0
    counts: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    examples: dict[tuple[str, str, str], list[str]] = field(
        default_factory=dict[tuple[str, str, str], list[str]]
    )

    def add(self, name: str, verdicts: Iterable[Verdict]) -> None:
        """Count the verdicts of one program."""
        verdicts = list(verdicts)
        self.programs += 1
        self.both += all(verdict.kind == "right" for verdict in verdicts)
        for verdict in verdicts:
            self._count((verdict.target, verdict.kind, verdict.reason), name)
            for reason in dict.fromkeys(verdict.later):
                self._count((verdict.target, "refused when run", reason), name)

    def _count(self, key: tuple[str, str, str], name: str) -> None:
        self.counts[key] += 1
        examples = self.examples.setdefault(key, [])
        if len(examples) < _EXAMPLES:
            examples.append(name)

    def merge(self, other: Tally) -> None:
        """Add what another part of the run found."""
        self.programs += other.programs
        self.both += other.both
        self.seconds += other.seconds
        self.counts.update(other.counts)
        for key, names in other.examples.items():
            self.examples[key] = [*self.examples.get(key, ()), *names][:_EXAMPLES]

    def count(self, target: str, kind: str) -> int:
        """How many programs of a target are of a kind."""
        return sum(n for (t, k, _), n in self.counts.items() if (t, k) == (target, kind))

    def is_wrong(self) -> bool:
        """Whether any program was wrong."""
        return any(kind == "wrong" and n for (_, kind, _), n in self.counts.items())

    def reasons(self, target: str, kind: str) -> dict[str, int]:
        """Reasons of a kind with their counts, the most frequent first."""
        found = {r: n for (t, k, r), n in self.counts.items() if (t, k) == (target, kind)}
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def entry(self) -> dict[str, Any]:
        """The tally as JSON."""
        rows = [[*key, n, self.examples[key]] for key, n in self.counts.items()]
        return {
            "programs": self.programs,
            "both": self.both,
            "seconds": round(self.seconds, 1),
            "counts": sorted(rows, key=lambda row: row[:3]),
        }


def read_entry(entry: Mapping[str, Any]) -> Tally:
    """The tally that `Tally.entry` wrote."""
    tally = Tally(entry["programs"], entry["both"], entry["seconds"])
    for target, kind, reason, count, examples in entry["counts"]:
        tally.counts[target, kind, reason] = count
        tally.examples[target, kind, reason] = examples
    return tally


class State:
    """
    What is done of a run: a tally for each task, kept in a file that is replaced as a whole.

    `key` says what the run is; a file of another run is refused. Tasks with wrong verdicts are not
    done: they are what is mended.
    """

    def __init__(self, path: Path | None, key: Mapping[str, Any]):
        self.path, self.key = path, dict(key)
        self.done: dict[str, Tally] = {}
        if path is None or not path.exists():
            return
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["key"] != self.key:
            raise ValueError(f"{path} is the state of another run: {content['key']}")
        found = {task: read_entry(entry) for task, entry in content["done"].items()}
        self.done = {task: tally for task, tally in found.items() if not tally.is_wrong()}

    def add(self, task: str, tally: Tally) -> None:
        """A task is done."""
        self.done[task] = tally
        if self.path is None:
            return
        done = {name: found.entry() for name, found in self.done.items()}
        part = self.path.with_name(f"{self.path.name}.part")
        part.write_text(json.dumps({"key": self.key, "done": done}), encoding="utf-8")
        os.replace(part, self.path)

    def total(self, tasks: Iterable[str]) -> Tally:
        """The tally of several tasks."""
        whole = Tally()
        for task in tasks:
            whole.merge(self.done[task])
        return whole
