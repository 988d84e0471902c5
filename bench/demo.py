"""
The demo: a real model, real labelled sentences, and everything that heatc does to them.

    python bench/demo.py [FOLDER]        (or: make demo)

A classifier of film reviews (all-MiniLM-L6-v2 with a logistic head) is compiled as it is, with
factorised weights (HEAT), with pruned attention (HDP) and with both. Every program runs on test
sentences that nothing was trained on, and is scored by their labels. What was made lies in build/demo,
report.html is a page about it.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Idle OpenMP threads that spin steal the second core from the one that works.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from bench.support.data.texts import MissingError
from bench.support.demo import steps, tables
from bench.support.demo.commands import ROOT, CommandError


def main(arguments: list[str]) -> int:
    """Makes everything and prints two tables; 1 if something is missing."""
    folder = Path(arguments[0]) if arguments else ROOT / "build" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    console, start = Console(highlight=False), time.perf_counter()
    try:
        made = steps.run(folder, console)
    except (MissingError, CommandError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    tables.show(made, console)
    seconds = time.perf_counter() - start
    console.print(f"\n{made.report} shows it all ({seconds:.0f} s).", soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
