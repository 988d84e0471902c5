"""The options of `hdp-run --sweep`, and what is refused of them; `heatc.tools.sweep` does the work."""

from __future__ import annotations

import argparse

from heatc.errors import UsageError
from heatc.hardware.variants import Sweep, changes_of, parse_sweep
from heatc.tools.quantities import FUNCTIONAL

_WITHOUT_OTHERS = (
    ("output", "-o"),
    ("reference", "--reference"),
    ("layers", "--layers"),
    ("save_masks", "--save-masks"),
    ("trace", "--trace"),
    ("keep_masks", "--keep-masks"),
    ("json", "--json"),
)


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """`--sweep` and what belongs to it."""
    add = parser.add_argument_group("the same on other machines (modelled)").add_argument
    add(
        "--sweep",
        metavar="KEY=VALUE,..",
        action="append",
        default=[],
        help='other values of a key of the hardware file, e.g. "dram.bandwidth=6.4,25.6 GB/s"; '
        "several give their product (docs/reference/hardware.md has the keys)",
    )
    add("--recompile", metavar="MODEL", help="compile this model for each machine")
    add("--plan", metavar="PLAN.json", help="the plan that the program was compiled with")
    add("--jobs", metavar="N", type=int, default=-1, help="compilations at once; all cores")


def check_sweep(args: argparse.Namespace) -> list[Sweep]:
    """
    The sweeps that are asked for, none without the option.

    Raises `UsageError` for wrong ones, and for options that do not go with them.
    """
    if not args.sweep:
        for name in ("recompile", "plan"):
            if getattr(args, name) is not None:
                raise UsageError("it belongs to --sweep", place=f"--{name}")
        return []
    for name, option in _WITHOUT_OTHERS:
        if getattr(args, name):
            notes = ["--sweep writes a table, and sweep.csv and sweep.json to --stats DIR"]
            raise UsageError(f"{option} does not go with --sweep", place=option, notes=notes)
    if args.model == FUNCTIONAL:
        raise UsageError("--sweep shows what is modelled", place="--model")
    if args.plan is not None and args.recompile is None:
        raise UsageError("it belongs to --recompile", place="--plan")
    if args.jobs == 0 or args.jobs < -1:
        raise UsageError("expected 1 or more, or -1 for all cores", place="--jobs")
    sweeps = [parse_sweep(text) for text in args.sweep]
    changes_of(sweeps)
    return sweeps
