"""
`hdp-run --sweep "dram.bandwidth=6.4,12.8,25.6 GB/s"`: what a program costs on machines like its own.

The masks are those of one run. Without `--recompile` every machine runs the same instructions, which
were planned for the program's own machine; with it the model is compiled for each of them.
"""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from heatc.backends.hdp.container import Program, open_program
from heatc.files import make_folder, together
from heatc.hardware import Hardware, load_hardware
from heatc.hardware.variants import Sweep, changes_of, variant
from heatc.kinds import SWEEP_JSON
from heatc.names import SWEEP
from heatc.plan import hardware_sha256
from heatc.progress import ProgressCallback
from heatc.tools.diagnostics import remark
from heatc.tools.run_stats import FIGURES, file_sha256
from heatc.tools.summary.texts import table, value_text
from heatc.tools.sweep_points import Masks, Point, check_fits, timed

SCHEMA = 1
"""Of sweep.json."""

_SHOWN = {
    "total_cycles": "cycles",
    "time_seconds": "time",
    "dram_read_bytes": "DRAM read",
    "dram_written_bytes": "written",
    "energy_joules": "energy",
    "energy_delay_product_joule_seconds": "EDP",
    "pe_utilisation_percent": "PEs busy",
}
"""The figures of the table by their names, and how it calls them; the files have all."""


def run_sweep(
    args: argparse.Namespace,
    sweeps: Sequence[Sweep],
    masks_of: Callable[[Program], Masks],
    progress: ProgressCallback,
) -> str:
    """
    Time the program on every machine, write the files, and return the table.

    `masks_of` gives the masks of the run that is timed. Raises `InfeasibleError` for a machine that the
    program does not fit on, or where the model fits on none.
    """
    program = open_program(args.program)
    base = program.manifest.hardware if args.hw is None else load_hardware(args.hw)
    machines = [(changes, variant(base, changes)) for changes in changes_of(sweeps)]
    if args.recompile is None:
        for changes, hardware in machines:
            check_fits(program, hardware, changes)
        points = timed(program, machines, masks_of(program), args.max_seconds, progress)
        remark(
            f"every machine runs what was planned for {program.manifest.hardware.name}; --recompile MODEL "
            "plans for each",
            place="hdp-run",
        )
    else:
        from heatc.tools.sweep_recompiled import recompiled

        points = recompiled(args, program, machines, progress)
    if args.stats is not None:
        _write(args, program, base, sweeps, points)
    return _table(points)


# --- What is shown and written ----------------------------------------------------------------


def _table(points: Sequence[Point]) -> str:
    units = {quantity.name: quantity.unit for quantity in FIGURES}
    keys = list(points[0].changes)
    rows = [[*keys, *_SHOWN.values()]]
    for point in points:
        cells = list(point.changes.values())
        if point.problem:
            rows.append([*cells, f"does not fit: {point.problem}"])
            continue
        cells += [value_text(point.figures[name], units[name]) for name in _SHOWN]
        rows.append(cells)
    return f"{table(rows)}\nall figures but the keys are modelled"


def _write(
    args: argparse.Namespace,
    program: Program,
    base: Hardware,
    sweeps: Sequence[Sweep],
    points: Sequence[Point],
) -> None:
    folder = make_folder(args.stats)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "program": program.path.name,
        "program_sha256": file_sha256(program.path),
        "planned_for": program.manifest.hardware.name,
        "hardware": base.name,
        "is_recompiled": args.recompile is not None,
        "sweeps": {sweep.key.path: list(sweep.texts) for sweep in sweeps},
        "units": {quantity.name: quantity.unit for quantity in FIGURES},
        "kinds": {quantity.name: str(quantity.kind) for quantity in FIGURES},
        "points": [_entry(point) for point in points],
    }
    with together() as files:
        for name, text in zip(SWEEP, (_csv(points), SWEEP_JSON.json_text(data))):
            files.open(Path(folder) / name, "w").write(text)


def _entry(point: Point) -> dict[str, Any]:
    return {
        "changes": dict(point.changes),
        "hw_sha256": hardware_sha256(point.hardware),
        "problem": point.problem or None,
        "figures": dict(point.figures),
    }


def _csv(points: Sequence[Point]) -> str:
    """A row a machine; names of figures end in their units, keys have theirs in the values."""
    names = [quantity.name for quantity in FIGURES]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["point", *points[0].changes, *names, "problem"])
    for number, point in enumerate(points):
        values = ["" if (v := point.figures.get(n)) is None else v for n in names]
        writer.writerow([number, *point.changes.values(), *values, point.problem])
    return stream.getvalue()
