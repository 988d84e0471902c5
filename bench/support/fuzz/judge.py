"""What is asked of every run of a tool, and what is wrong with one that fails it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.support.fuzz import references, traces
from bench.support.fuzz.case import Case

ACCEPTED = (0, 3)
"""Exit codes of tools that took their inputs: a reference that differs (3) was read too."""

INTERNAL_ERROR = 70
ALLOWED = (0, 1, 2, 3, 4, 130)

HANG, MEMORY, CRASH = "over the time limit", "over the memory bound", "crash"
TRACEBACK, INTERNAL, CODE = "traceback", "exit 70", "unknown exit code"
LENIENT, SILENT, LEFT, CHANGED, VERSION = (
    "accepted what a reference reader refuses",
    "no message",
    "leftover",
    "input changed",
    "old version refused without saying so",
)

_UNFINISHED = (".tmp", ".part")
_VERSION = re.compile(r"schema|version|instruction set", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """
    How a run ended.

    Attributes:
        code: the exit code, None where an exception escaped.
        stderr: what was printed there; `trace` the traceback, where there is one.
        folder: where the tool ran.
        seconds: on the wall; `cpu` of this process.
    """

    code: int | None
    stderr: str
    trace: str
    folder: Path
    seconds: float = 0.0
    cpu: float = 0.0


@dataclass(frozen=True)
class Fault:
    """
    Something that must not happen.

    Attributes:
        what: the kind of fault, in the words above.
        place: where, without line numbers: the same fault has the same place.
        line: where, with the line number.
        message: the exception, or the message that was printed.
    """

    what: str
    place: str
    line: str
    message: str

    @property
    def signature(self) -> str:
        """The same for the same fault."""
        return f"{self.what} | {self.place}"

    def to_json(self) -> dict[str, Any]:
        """As the state file has it."""
        return asdict(self)


def judge(case: Case, run: Run) -> list[Fault]:
    """What is wrong with a run that ended."""
    found = [*_ending(run), *_files(case, run)]
    if run.code in ACCEPTED:
        found += _lenient(case, run)
    elif case.old and not _VERSION.search(run.stderr):
        message = _first_line(run.stderr).partition("error:")[2]
        found.append(Fault(VERSION, _numberless(message), "", run.stderr[:300]))
    return found


def ended_badly(what: str, dump: str) -> Fault:
    """The fault of a worker that was ended or died, from the stack that it left."""
    found = traces.frames(dump)
    return Fault(what, traces.place(found), traces.line_of(found), "")


def _ending(run: Run) -> Iterator[Fault]:
    if run.code == INTERNAL_ERROR or run.trace:
        what = INTERNAL if run.code == INTERNAL_ERROR else TRACEBACK
        yield _of_trace(what, run)
    elif run.code not in ALLOWED:
        yield Fault(CODE, f"exit {run.code}", "", _first_line(run.stderr))
    elif run.code not in (0, 130) and "error:" not in run.stderr:
        yield Fault(SILENT, f"exit {run.code}", "", run.stderr[-300:])


def _of_trace(what: str, run: Run) -> Fault:
    found, error = traces.last_traceback(run.trace)
    kind = error.split(":")[0].rpartition(".")[2][:60]
    return Fault(what, f"{kind} at {traces.place(found)}", traces.line_of(found), error[:300])


def _files(case: Case, run: Run) -> Iterator[Fault]:
    """Files that were there and are others now, and files that should be gone."""
    for name, content in case.files.items():
        path = run.folder / name
        same = path.is_file() and path.read_bytes() == content
        # One that is named once is there to be written; twice, it is read or written by two.
        if not same and (_named(name, case) != 1 or run.code not in ACCEPTED):
            options = [w for w, after in zip(case.argv, case.argv[1:]) if after == name]
            what = f"{Path(name).suffix} by {' '.join(options) or 'no option'}"
            yield Fault(CHANGED, what, "", " ".join(case.argv)[:300])
    for path in run.folder.rglob("*"):
        left = path.name.startswith(".heatc-") or path.suffix in _UNFINISHED
        if left and path.name not in case.files:
            yield Fault(LEFT, f"{path.suffix} after exit {run.code}", "", path.name)


def _named(name: str, case: Case) -> int:
    """How often a command names a file."""
    pattern = re.compile(rf"(?<![\w./-]){re.escape(name)}(?![\w./-])")
    return sum(len(pattern.findall(word)) for word in case.argv)


def _lenient(case: Case, run: Run) -> Iterator[Fault]:
    for name, reader in case.references:
        data = case.stdin if name == "-" else case.files[name]
        if reason := references.refusal(reader, data):
            yield Fault(LENIENT, f"{reader}: {_numberless(reason)}", "", f"{name}: {reason}")


def _first_line(text: str) -> str:
    return next((line for line in text.splitlines() if "error:" in line), text[:100])[:200]


def _numberless(text: str) -> str:
    """A message without its numbers and names, so that the same complaint looks the same."""
    text = text.splitlines()[0] if text else ""
    text = re.sub(r"'[^']*'?|\"[^\"]*\"?|`[^`]*`?|\(.*\)?", "_", text)
    return re.sub(r"\d+|at line.*|while decoding.*", "N", text)[:120]
