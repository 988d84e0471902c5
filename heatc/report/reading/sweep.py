"""sweep.json of `hdp-run --sweep`: what a program costs on machines that differ in some keys."""

from __future__ import annotations

from pathlib import Path

from heatc.readers.json_text import read_json
from heatc.report.material import FigureInfo, SweepPoint, SweepRun
from heatc.report.reading.source import LARGEST_JSON, Part, expect_schema, source_file


def read_sweep(path: Path, name: str) -> SweepRun:
    """The sweep; raises `HeatcError` where it is not as hdp-run writes it."""
    sweep = Part(read_json(path, "sweep.json", LARGEST_JSON), str(path))
    expect_schema(sweep, 1)
    units, kinds = sweep.get("units"), sweep.get("kinds").parts()
    infos = [FigureInfo(n, units.get(n).text(), kind.text(), "") for n, kind in kinds.items()]
    keys = {
        key: [t.text() for t in part.list()] for key, part in sweep.get("sweeps").parts().items()
    }
    return SweepRun(
        name=name,
        program=sweep.get("program").text(),
        program_sha256=sweep.get("program_sha256").text(),
        planned_for=sweep.get("planned_for").text(),
        is_recompiled=bool(sweep.get("is_recompiled").value),
        keys=keys,
        columns={info.name: info for info in infos},
        points=[_point(point, keys) for point in sweep.get("points").list()],
        files=[source_file(path)],
    )


def _point(part: Part, keys: dict[str, list[str]]) -> SweepPoint:
    changes = {key: part.get("changes").get(key).text() for key in keys}
    figures = {name: figure.number() for name, figure in part.get("figures").parts().items()}
    problem = part.get("problem")
    return SweepPoint(changes, figures, "" if problem.value is None else problem.text())
