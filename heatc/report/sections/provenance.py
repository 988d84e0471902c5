"""Where every figure comes from: files with digests and dates, versions, options, the machine."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Sequence
from typing import Any

from heatc.report.chart import Block
from heatc.report.html import Cell, Html, definitions, details, table, tag
from heatc.report.material import EvaluationRun, Material, PlanRun, Run, SimulatedRun, SweepRun
from heatc.version import VERSION

Json = Any


def draw(material: Material) -> Sequence[Block]:
    """The files of all runs, and what each run says of itself."""
    lead = tag("p", f"This page was written by heatc {VERSION}.", class_="lead")
    parts = [details(run.name, *_told(run)) for run in material.runs]
    return [lead, _files(material), *parts]


def _files(material: Material) -> Html:
    rows = [
        [
            Cell(str(file.path)),
            Cell(run.name),
            Cell(f"{file.size:,}", file.size, "number"),
            Cell(_date(file.modified)),
            Cell(tag("code", file.sha256)),
        ]
        for run in material.runs
        for file in run.files
    ]
    head = ["File", "Run", "Bytes", "Written (UTC)", "SHA-256"]
    return table(head, rows, caption="Files that were read")


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _told(run: Run) -> Iterator[Html]:
    if isinstance(run, SimulatedRun):
        yield from _simulated(run)
    elif isinstance(run, EvaluationRun):
        yield definitions(_pairs(run.data["provenance"]))
    elif isinstance(run, PlanRun):
        yield definitions(_plan(run))
    elif isinstance(run, SweepRun):
        program = f"{run.program}, SHA-256 {run.program_sha256}"
        yield definitions([("program", program), ("planned for", run.planned_for)])
    else:
        yield tag("p", run.conditions)


def _simulated(run: SimulatedRun) -> Iterator[Html]:
    stats, program = run.stats, run.stats["program"]
    pairs = [
        ("command", f"hdp-run {program['file']} --stats {run.folder} --model={stats.get('model')}"),
        ("simulated by", str(stats.get("producer", ""))),
        ("program", str(program["file"])),
        ("program's SHA-256", str(program.get("sha256", "not told"))),
        ("compiled by", str(program["producer"])),
    ]
    if "inputs" in stats:
        pairs.append(("inputs", f"{stats['inputs']['file']}, SHA-256 {stats['inputs']['sha256']}"))
    pairs += [(f"model: {name}", value) for name, value in _pairs(program["source"])]
    pairs += [(f"option {name}", value) for name, value in _pairs(program["options"])]
    yield definitions(pairs)
    yield details(f"Hardware file of {run.hardware.name}", tag("pre", run.hardware_text))


def _plan(run: PlanRun) -> list[tuple[str, str]]:
    plan = run.plan
    return [
        ("schema", str(plan.schema)),
        ("model's digest", plan.model_sha256 or "any model"),
        ("machine's digest", plan.hw_sha256 or "any machine"),
        ("seed", "not told" if plan.seed is None else str(plan.seed)),
        (
            "factors",
            "found when it is compiled" if plan.factors is None else plan.factors.path.name,
        ),
    ]


def _pairs(table_: dict[str, Json]) -> list[tuple[str, str]]:
    return [(name, _text(value)) for name, value in table_.items()]


def _text(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
