"""
Readers of what `heatc-report` shows, and which of them a RUN is for.

What a RUN is is told by its content: the mark that heatc wrote into the file (`heatc.kinds`), and of
a folder the file in it. A reader is one module with a function, and a line in `READERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from heatc import kinds
from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.kinds import Kind
from heatc.names import FRONT_FILE, STATS, SWEEP
from heatc.report.material import Run
from heatc.report.reading.evaluation import read_evaluation
from heatc.report.reading.front import read_front
from heatc.report.reading.plan import looks_like_plan, read_plan_run
from heatc.report.reading.stats_folder import read_stats_folder
from heatc.report.reading.sweep import read_sweep


@dataclass(frozen=True)
class Reader:
    """
    What reads one kind of RUN.

    Attributes:
        kind: of the file that tells what it is.
        file: its name where RUN may be the folder of it, else empty.
        what: it is called in messages.
        read: takes the path of that file and the name of the run.
    """

    kind: Kind
    file: str
    what: str
    read: Callable[[Path, str], Run]


READERS = (
    Reader(kinds.STATS_JSON, STATS[0], "a folder of hdp-run --stats", read_stats_folder),
    Reader(kinds.SWEEP_JSON, SWEEP[1], "a folder of hdp-run --sweep", read_sweep),
    Reader(kinds.FRONT, FRONT_FILE, "a front of heatc-tune search or compress", read_front),
    Reader(kinds.PLAN, "", "a plan.json", read_plan_run),
    Reader(kinds.EVALUATION, "", "an eval.json of heatc-tune eval", read_evaluation),
)


def read_run(path: Path, name: str) -> Run:
    """
    What a RUN holds.

    Raises `HeatcError` where it is nothing that a report shows, or something is wrong in it.
    """
    try:
        reader, file = _reader(path)
    except OSError as error:
        raise from_os_error(error, path) from error
    return reader.read(file, name)


def _reader(path: Path) -> tuple[Reader, Path]:
    found = _in_folder(path) if path.is_dir() else _of_file(path)
    if len(found) == 1:
        return found[0]
    if found:
        names = " and ".join(file.name for _, file in found)
        raise HeatcError(
            f"the folder holds {names}", place=str(path), notes=["name the file that you mean"]
        )
    *others, last = (reader.what for reader in READERS)
    raise HeatcError(
        "nothing that a report shows",
        place=str(path),
        notes=[f"expected {', '.join(others)}, or {last}"],
    )


def _in_folder(folder: Path) -> list[tuple[Reader, Path]]:
    named = [(reader, folder / reader.file) for reader in READERS if reader.file]
    return [(r, file) for r, file in named if file.is_file() and r.kind.is_kind_of(file)]


def _of_file(path: Path) -> list[tuple[Reader, Path]]:
    marked = [(reader, path) for reader in READERS if reader.kind.is_kind_of(path)]
    if marked or not looks_like_plan(path):
        return marked
    return [(reader, path) for reader in READERS if reader.kind is kinds.PLAN]
