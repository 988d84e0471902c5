"""
Every family of encoders through heatc: which compile, and whether what they compute is right.

    python bench/families.py                         all parts; writes bench/results/families.json
    python bench/families.py --part families --only bert --jobs 0     some models; writes nothing
    python bench/families.py --state run.json        a run that may be killed, and goes on
    python bench/families.py --page                  docs/families.md from the results

The zoo of models is in bench/support/families/; docs/families.md says what is judged and how.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

# One thread a process: two processes then use both cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import transformers
from rich.console import Console

from bench.support import parts, report, sources
from bench.support.families import capture, page, pruned, summary, tasks
from bench.support.families.entry import Entry
from bench.support.families.first import first_run
from bench.support.families.heat import COSINE, HEAT, heated
from bench.support.families.judge import judge
from bench.support.families.zoo import zoo
from bench.support.heat.page import tables as as_tables
from bench.support.parts import Part
from bench.support.report import Row

RESULT = report.RESULTS / "families.json"
SEED = 0
QUICK = "one head, route and attention each"
_WORDS = "|"


@dataclass(frozen=True)
class Study:
    """A part of the bench: its tasks of some models, what does one, what they come to."""

    tasks: Callable[[Sequence[Entry]], list[str]]
    run: tasks.Work
    part: Callable[[summary.Entries], Part]


@cache
def entries() -> Mapping[str, Entry]:
    """The zoo by name; the libraries that it uses say nothing."""
    logging: Any = cast(Any, transformers).logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return {entry.name: entry for entry in zoo()}


# ---- Families against PyTorch --------------------------------------------------------------------


def family_tasks(chosen: Sequence[Entry]) -> list[str]:
    """Each model by each route with each implementation of attention."""
    return [
        _WORDS.join(("families", entry.name, implementation, route))
        for entry in chosen
        for implementation in entry.implementations
        for route in entry.routes
    ]


def judge_family(task: str) -> list[dict[str, Any]]:
    """The verdicts of one task."""
    _, name, implementation, route = task.split(_WORDS)
    tasks.prepare()
    found = judge(entries()[name], implementation, route)
    return [dataclasses.asdict(verdict) for verdict in found]


def family_part(found: summary.Entries) -> Part:
    """Rows and tables of the verdicts."""
    return Part(
        summary.rows(found),
        {
            "families: summary": summary.families(found),
            "families: heads": summary.heads(found),
            "families: wrong": summary.faults(found, "wrong"),
            "families: refused": summary.faults(found, "refused"),
        },
    )


# ---- One model of each family --------------------------------------------------------------------


def _one_each(part: str, chosen: Sequence[Entry], route: str) -> list[str]:
    """The first model of each family that has a route."""
    first: dict[str, str] = {}
    for entry in chosen:
        if route in entry.routes:
            first.setdefault(entry.family, entry.name)
    return [_WORDS.join((part, name)) for name in first.values()]


def heat_tasks(chosen: Sequence[Entry]) -> list[str]:
    """A family, factorised."""
    return _one_each("heat", chosen, "archive")


def judge_heat(task: str) -> list[dict[str, Any]]:
    """What `heat.heated` says of one family."""
    tasks.prepare()
    return [heated(entries()[task.split(_WORDS)[1]])]


def heat_part(found: summary.Entries) -> Part:
    """How many families are right factorised."""
    what = (
        f"--heat {HEAT} on each family: compiles, HDP agrees with NumPy >= {COSINE}, "
        "shared layers are counted once"
    )
    return Part(_held(what, found), {"heat: low-rank": list(map(_told, found))})


def first_tasks(chosen: Sequence[Entry]) -> list[str]:
    """A family's folder."""
    return _one_each("first", chosen, "folder")


def judge_first(task: str) -> list[dict[str, Any]]:
    """What `first.first_run` says of one family."""
    tasks.prepare()
    return [first_run(entries()[task.split(_WORDS)[1]])]


def first_part(found: summary.Entries) -> Part:
    """How many families need no option beyond `--inputs`."""
    what = "a family's first run from nothing (heatc FOLDER -o x.py): no option beyond --inputs"
    return Part(_held(what, found), {"first: from nothing": list(map(_told, found))})


def rule_tasks(chosen: Sequence[Entry]) -> list[str]:
    """Each kind of mask with each rule; the models are of their own."""
    return [_WORDS.join(("rules", mask, rule)) for mask in pruned.MASKS for rule in pruned.RULES]


def judge_rule(task: str) -> list[dict[str, Any]]:
    """What `pruned.compared` says of one mask and rule."""
    tasks.prepare()
    _, mask, rule = task.split(_WORDS)
    return [pruned.compared(mask, rule)]


def rule_part(found: summary.Entries) -> Part:
    """How many kinds of masks and biases are the oracle's, bit for bit."""
    rows: list[Row] = []
    for rule in pruned.RULES:
        what = (
            f"the same with --hdp-rule {rule}, oracle that imports nothing of heatc: masks and "
            "outputs bit-identical, one model of each kind of mask and bias"
        )
        rows += _held(what, [case for case in found if case["rule"] == rule], "kinds")
    return Part(rows, {"rules: oracle": list(map(_told, found))})


def _held(what: str, found: summary.Entries, unit: str = "families") -> list[Row]:
    right, wrong = (sum(case["kind"] == kind for case in found) for kind in ("right", "wrong"))
    return [
        Row(what, right, unit, len(found), ">="),
        Row(f"{what}: wrong", wrong, unit, 0, "<="),
    ]


def _told(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case without numbers of no meaning, its message short."""
    line = {name: value for name, value in case.items() if name != "message"}
    return {**line, "message": summary.normalised(case["message"])}


STUDIES: dict[str, Study] = {
    "families": Study(family_tasks, judge_family, family_part),
    "rules": Study(rule_tasks, judge_rule, rule_part),
    "heat": Study(heat_tasks, judge_heat, heat_part),
    "first": Study(first_tasks, judge_first, first_part),
}
PARTS = (*STUDIES, "capture")


# ---- Command -------------------------------------------------------------------------------------


def key() -> str:
    """A digest of the compiler and of what makes and judges models."""
    own = sorted((report.ROOT / "bench" / "support" / "families").glob("*.py"))
    return sources.digest("heatc.tools.main", "heatc.tools.run") + sources.of_files(own)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description="every family of encoders through heatc")
    add = result.add_argument
    add("--part", action="append", choices=PARTS, help="one part alone")
    add("--before", type=Path, metavar="DIR", help="an older checkout, which part capture needs")
    add("--only", action="append", metavar="NAME", help="models whose name has it; writes nothing")
    add("--quick", action="store_true", help="one head, route and attention of each family")
    add("--jobs", type=int, default=2, help="processes (2), 0 for this one")
    add("--state", type=Path, metavar="FILE", help="where a run is kept that may be killed")
    add("--list", action="store_true", help="print the names of all models")
    add("--messages", action="store_true", help="print every message as a whole")
    add("--page", action="store_true", help="write docs/families.md from the results")
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the parts asked for; 0 if nothing is wrong."""
    options = parser().parse_args(arguments)
    if options.page:
        content = json.loads(RESULT.read_text(encoding="utf-8"))
        page.PAGE.write_text(page.page(content), encoding="utf-8")
        return 0
    if options.list:
        print("\n".join(entries()))
        return 0
    chosen = [entry for entry in entries().values() if _is_chosen(entry, options.only)]
    state = tasks.State(options.state, key())
    names = options.part or [name for name in PARTS if name in STUDIES or options.before]
    if "capture" in names and options.before is None:
        parser().error("part capture needs --before")
    found: dict[str, Part] = {}
    try:
        for name in names:
            if name == "capture":
                found[name] = capture.capture_part(options.before)
                continue
            study = STUDIES[name]
            todo = study.tasks(quick(chosen) if options.quick else chosen)
            tasks.run(todo, study.run, state, options.jobs)
            cases = [case for task in todo for case in state.done[task]]
            found[name] = study.part(cases)
            if options.quick:
                mark(found[name])
            if options.messages:
                print(json.dumps([c for c in cases if c.get("message")], indent=1))
    except KeyboardInterrupt:
        return 130
    _show(found)
    if not options.only:
        parts.merge(RESULT, found, PARTS, report.provenance(_command(names, options), SEED))
    rows = [row for part in found.values() for row in part.rows]
    return int(any("wrong" in row.what and not row.holds for row in rows))


def _command(names: Sequence[str], options: argparse.Namespace) -> str:
    """The command that makes the same figures, whatever files are called here."""
    words = ["python bench/families.py", *(f"--part {name}" for name in names)]
    words += ["--before CHECKOUT"] if "capture" in names else []
    return " ".join([*words, *(["--quick"] if options.quick else [])])


def quick(chosen: Sequence[Entry]) -> list[Entry]:
    """Each family's first model, and all that are no models of transformers; by one route."""
    found: dict[str, Entry] = {}
    for entry in chosen:
        name = entry.family if entry.routes[1:] else entry.name
        few = {"implementations": entry.implementations[-1:], "routes": entry.routes[:1]}
        found.setdefault(name, dataclasses.replace(entry, **few))
    return list(found.values())


def mark(part: Part) -> None:
    """Say in every row that it is of a quick round."""
    marked = [dataclasses.replace(row, what=f"{row.what} ({QUICK})") for row in part.rows]
    part.rows = marked


def _is_chosen(entry: Entry, names: Sequence[str] | None) -> bool:
    return not names or any(name.lower() in entry.name.lower() for name in names)


def _show(found: Mapping[str, Part]) -> None:
    console = Console()
    for part in found.values():
        for name, table in part.tables.items():
            if table:
                console.print(name)
                print("\n".join(as_tables(cast(Any, table))))
        report.show(part.rows, console)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
