"""Faults as files: each with the input that shows it, and a case that is run again."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.support.fuzz.case import KINDS, Case
from bench.support.fuzz.corpus import Corpus
from bench.support.fuzz.judge import Fault
from bench.support.fuzz.pool import Pool
from bench.support.fuzz.state import State, Tally
from bench.support.fuzz.worker import Setting
from heatc.names import factors_file


@dataclass(frozen=True)
class Keeper:
    """Writes the first case of every fault below `folder`, None for nowhere."""

    folder: Path | None
    setting: Setting
    corpus: Corpus

    def __call__(self, kind: str, index: int, fault: Fault) -> None:
        """Keeps a case."""
        if self.folder is not None:
            case = KINDS[kind].case(self.setting.seed, index, self.corpus)
            name = re.sub(r"[^\w.-]+", "-", f"{kind}-{index}-{fault.what}")
            write(self.folder / name, KINDS[kind].entry, case, self.corpus, fault)


def write(folder: Path, entry: str, case: Case, corpus: Corpus, fault: Fault | None) -> None:
    """
    A folder with `case/`, in which the tool is to be run, what it needs of the corpus in `base/`,
    and `fault.json` with the arguments.
    """
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "case").mkdir(parents=True)
    for name, content in case.files.items():
        path = folder / "case" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for name in sorted(
        {n for word in case.argv for n in re.findall(r"\.\./base/([\w./-]+)", word)}
    ):
        _copy(corpus.folder / name, folder / "base" / name)
    (folder / "stdin").write_bytes(case.stdin)
    content = {
        "entry": entry,
        "argv": list(case.argv),
        "fault": None if fault is None else fault.to_json(),
    }
    (folder / "fault.json").write_text(json.dumps(content, indent=1), encoding="utf-8")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    elif source.is_file():
        shutil.copyfile(source, target)
    if source.suffix == ".json" and factors_file(source).is_file():
        shutil.copyfile(factors_file(source), factors_file(target))


def again(text: str, setting: Setting, corpus: Corpus) -> int:
    """Runs one case, `KIND:NUMBER`, in a process of its own and prints what came out."""
    name, _, number = text.rpartition(":")
    if name not in KINDS:
        print(f"error: no kind {name!r}; --list names them")
        return 2
    index = int(number)
    case = KINDS[name].case(setting.seed, index, corpus)
    print(f"{KINDS[name].entry}: {' '.join(case.argv)[:2000]!r}")
    state = State({}, {name: Tally(next=index)})
    pool = Pool({name: index + 1}, state, setting, 1, lambda *_: None)
    pool.run()
    for code in state.tallies[name].codes:
        print(f"exit {code}, {state.tallies[name].seconds:.2f} s")
    for seen in state.faults.values():
        print(f"{seen.fault.signature}\n    {seen.fault.line}\n    {seen.fault.message}")
    return int(bool(state.faults))
