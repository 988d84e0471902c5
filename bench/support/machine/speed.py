"""The part `speed` of bench/machine.py: the simulator beside the NumPy program, and its memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import transformers

from bench import main_job
from bench.support import programs
from bench.support.machine.setup import Bench, Table, random_inputs
from bench.support.parts import Part
from bench.support.programs import Arrays, NumpyProgram
from bench.support.report import Row
from heatc.backends.hdp import simulate
from heatc.backends.hdp.container import Program
from heatc.machine.energy import energy_report


def speed_part(bench: Bench) -> Part:
    """`hdp-run`'s work (values, cycles, energy) on BERT-Base against the NumPy program, and its memory."""
    model = bench.bert("bert-base", num_hidden_layers=bench.sizes.depth)
    inputs = random_inputs(bench.sizes.lengths[0])
    path = bench.folder / "bert-base.py"
    with main_job.quiet():
        programs.compile_model(model, path, inputs)
    size = 4 * sum(
        p.numel() for p in cast(Any, transformers.BertModel).from_pretrained(model).parameters()
    )
    plain = NumpyProgram(path)
    table: Table = []
    rows: list[Row] = []
    shape = f"BERT-Base 1x{bench.sizes.lengths[0]} (random weights)"
    for rule, options in (("none", ("--hdp-rule=none",)), ("paper", programs.paper(0.0, 0.0))):
        program = bench.compiled(model, inputs, "hdp-edge", *options)
        machine, plain_seconds = alternately(
            bench.sizes.repeats, lambda p=program: charged(p, inputs), lambda: plain(inputs)
        )
        command, peak, start = hdp_run(bench, program, inputs)
        above = (peak - start) / size
        what = f"{shape}, functional + timing + energy, hdp-edge, rule {rule}"
        time_row = Row(
            f"{what}: against the NumPy executor", machine / plain_seconds, "x its time", 5, "<="
        )
        memory_row = Row(
            f"{what}: peak memory of hdp-run above its start", above, "x fp32 weights", 2, "<="
        )
        rows += [time_row, memory_row]
        table.append({
            "rule": rule, "simulation, s": machine, "NumPy program, s": plain_seconds,
            "hdp-run, whole command, s": command, "hdp-run, peak MiB": peak / 2**20,
            "hdp-run, MiB at its start": start / 2**20, "fp32 weights, MiB": size / 2**20,
        })  # fmt: skip
    program = bench.compiled(model, inputs, "hdp-edge", *programs.paper(0.0, 0.0))
    seconds = timing_alone(bench, program, inputs)
    what = f"hdp-run --model=timing on stored masks, {shape}, hdp-edge, rule paper, whole command"
    rows.append(Row(what, seconds, "s", 2, "<="))
    return Part(rows, {f"speed: {shape}": table})


def timing_alone(bench: Bench, program: Program, inputs: Arrays) -> float:
    """Median seconds of the command that computes no values."""
    source, masks = bench.folder / "in.npz", bench.folder / "masks.npz"
    np.savez(source, **cast(Any, inputs))
    programs.command("run", [program.path, "--inputs", source, "--save-masks", masks, "-q"])
    arguments = (program.path, "--model=timing", "--masks", masks, "-q")
    repeats = min(3, bench.sizes.repeats)
    return main_job.median(bench.folder, repeats, "heatc.tools.run", *arguments).seconds


def charged(program: Program, inputs: Arrays) -> float:
    """One simulation with its energy, as `hdp-run` does it."""
    results = simulate(program, inputs).results
    return energy_report(results, program.manifest.hardware).joules


def alternately(repeats: int, *calls: Callable[[], object]) -> tuple[float, ...]:
    """Median seconds of each call; they take turns, so that a busy computer slows all of them."""
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(repeats + 1):
        for mine, call in zip(times, calls):
            start = time.perf_counter()
            call()
            if turn:
                mine.append(time.perf_counter() - start)
    return tuple(statistics.median(mine) for mine in times)


def hdp_run(bench: Bench, program: Program, inputs: Arrays) -> tuple[float, int, int]:
    """Seconds and peak bytes of the command, and what it needs before it opens a program."""
    source, target = bench.folder / "in.npz", bench.folder / "out.npz"
    np.savez(source, **cast(Any, inputs))
    arguments = (program.path, "--inputs", source, "-o", target, "-q")
    run = main_job.median(bench.folder, min(3, bench.sizes.repeats), "heatc.tools.run", *arguments)
    start = main_job.watched(bench.folder, "heatc.tools.run", "--help")
    return run.seconds, run.peak_bytes, start.peak_bytes
