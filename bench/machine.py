"""
The HDP machine model, validated and measured: every figure of it, by one command.

    python bench/machine.py                    all parts; writes bench/results/machine.json
    python bench/machine.py --parts speed,...  some parts, merged into that file
    python bench/machine.py --only softmax     one part (see --help); writes nothing
    python bench/machine.py --quick            small shapes; writes nothing
    python bench/machine.py --page             only writes docs/machine_figures.md anew

Cycles and bytes are those of the modelled machine; seconds are those of this computer. Whoever
writes the results also writes docs/machine_figures.md, which shows them as tables.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.support import parts, programs, report
from bench.support.data import texts as data
from bench.support.machine import page as machine_page
from bench.support.machine.attention import attention_part
from bench.support.machine.models import mechanisms_part, models_part
from bench.support.machine.scalesim import scalesim_part
from bench.support.machine.setup import FULL, QUICK, SEED, Bench, Sizes
from bench.support.machine.softmax import softmax_part
from bench.support.machine.speed import speed_part
from bench.support.parts import Part
from heatc.errors import HeatcError

RESULT = report.RESULTS / "machine.json"

PARTS: dict[str, Callable[[Bench], Part]] = {
    "scalesim": scalesim_part,
    "speed": speed_part,
    "attention": attention_part,
    "models": models_part,
    "mechanisms": mechanisms_part,
    "softmax": softmax_part,
}


def run_parts(names: Sequence[str], sizes: Sizes) -> dict[str, Part]:
    """Runs parts one after the other."""
    with tempfile.TemporaryDirectory(prefix="heatc-machine-") as folder:
        bench = Bench(sizes, Path(folder))
        return parts.run({name: partial(PARTS[name], bench) for name in names})


def write(found: Mapping[str, Part], arguments: Sequence[str]) -> None:
    """Merges parts into the result file, in the order of `PARTS`, and writes the page."""
    origin = report.provenance(" ".join(["python bench/machine.py", *arguments]), SEED)
    parts.merge(RESULT, found, tuple(PARTS), origin)
    machine_page.write(RESULT)


def main(arguments: Sequence[str]) -> int:
    """Runs the parts asked for; 0 if every row of them holds."""
    parser = argparse.ArgumentParser(description="the HDP machine model, validated and measured")
    parser.add_argument(
        "--only", action="append", choices=list(PARTS), help="one part; writes nothing"
    )
    parser.add_argument("--parts", help=f"merge these into the results: {','.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small shapes; writes nothing")
    parser.add_argument("--page", action="store_true", help="only write docs/machine_figures.md")
    options = parser.parse_args(arguments)
    if options.page:
        machine_page.write(RESULT)
        return 0
    names = options.only or (options.parts.split(",") if options.parts else list(PARTS))
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part is called {unknown[0]!r}: {', '.join(PARTS)}")
    try:
        found = run_parts(names, QUICK if options.quick else FULL)
    except (data.MissingError, programs.CommandError, HeatcError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    rows = [row for part in found.values() for row in part.rows]
    report.show(rows)
    if options.quick or options.only:
        for part in found.values():
            print(json.dumps(part.tables, indent=1))
    else:
        write(found, arguments)
    return int(not all(row.holds for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
