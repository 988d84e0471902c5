"""How far a run of hostile inputs has come, kept in a file so that it can go on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.support.fuzz.judge import Fault

KEPT = 8
"""Cases that are noted of each fault."""


class StateError(Exception):
    """A state file that belongs to another run."""


@dataclass
class Tally:
    """
    What is known of one kind.

    Attributes:
        next: the first case that was handed to no worker.
        open: spans of cases that were handed out and are not all done.
        codes: runs by exit code (`None` for an exception that escaped).
        seconds: of all runs together, `cpu` those of the processor.
        slowest: seconds of the slowest that ended.
    """

    next: int = 0
    open: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    codes: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0
    cpu: float = 0.0
    slowest: float = 0.0

    @property
    def done(self) -> int:
        """Cases that were run."""
        return self.codes.total()


@dataclass
class Seen:
    """A fault, how often it was seen, and the first cases (kind, number) that show it."""

    fault: Fault
    count: int = 0
    cases: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])


@dataclass
class State:
    """
    The tallies by kind and the faults by signature.

    `key` is what cases depend on (seed, commit, corpus): a run goes on with the same one only.
    """

    key: dict[str, Any]
    tallies: dict[str, Tally] = field(default_factory=dict[str, Tally])
    faults: dict[str, Seen] = field(default_factory=dict[str, Seen])

    @property
    def done(self) -> int:
        """Cases of all kinds."""
        return sum(tally.done for tally in self.tallies.values())

    def tally(self, kind: str) -> Tally:
        """Of a kind, made where there is none yet."""
        return self.tallies.setdefault(kind, Tally())

    def note(self, kind: str, index: int, fault: Fault) -> bool:
        """Takes a fault in; True where it is the first of its signature."""
        seen = self.faults.setdefault(fault.signature, Seen(fault))
        seen.count += 1
        if len(seen.cases) < KEPT:
            seen.cases.append((kind, index))
        return seen.count == 1

    def write(self, path: Path, held: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Writes the file, whole or not at all; `held` are spans that workers have in hand."""
        content = {
            "key": self.key,
            "kinds": {
                name: {
                    "next": t.next,
                    "open": [*t.open, *held.get(name, ())],
                    "codes": dict(t.codes),
                    "seconds": t.seconds,
                    "cpu": t.cpu,
                    "slowest": t.slowest,
                }
                for name, t in self.tallies.items()
            },
            "faults": [
                {**seen.fault.to_json(), "count": seen.count, "cases": seen.cases}
                for seen in self.faults.values()
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
        part.replace(path)


def read(path: Path, key: Mapping[str, Any]) -> State:
    """The state of a run with this key; raises `StateError` where the file is another run's."""
    if not path.exists():
        return State(dict(key))
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["key"] != dict(key):
        raise StateError(f"{path} is of another run: {content['key']}, this is {dict(key)}")
    state = State(dict(key))
    for name, entry in content["kinds"].items():
        spans = [(start, stop) for start, stop in entry["open"]]
        times = (entry["seconds"], entry["cpu"], entry["slowest"])
        state.tallies[name] = Tally(entry["next"], spans, Counter(entry["codes"]), *times)
    for entry in content["faults"]:
        fault = Fault(entry["what"], entry["place"], entry["line"], entry["message"])
        cases = [(kind, index) for kind, index in entry["cases"]]
        state.faults[fault.signature] = Seen(fault, entry["count"], cases)
    return state
