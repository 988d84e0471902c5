"""
`hdp-run --sweep ... --recompile MODEL`: the model compiled for each machine, by the program's own passes.

The model is captured once. Each machine has a task of its own: compile, run on the same inputs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from heatc.api import Compilation, factor_options, make_context
from heatc.backends.hdp.container import Program, open_program
from heatc.backends.hdp.simulation import simulate, simulate_timing
from heatc.capture import InputSpec
from heatc.errors import HeatcError, InfeasibleError, UsageError
from heatc.hardware import Hardware, render
from heatc.ir_model import read_ir
from heatc.pass_text import read_passes
from heatc.plan import Plan, read_plan
from heatc.progress import ProgressCallback
from heatc.readers.npz import open_npz
from heatc.targets import Hdp, Numpy, Options
from heatc.targets.base import Result
from heatc.targets.text import write_ir
from heatc.temporary import scratch_folder
from heatc.tools.diagnostics import warn
from heatc.tools.run_stats import figures_of, run_of
from heatc.tools.sweep_points import POINTS, Point
from heatc.tuning.common.workers import Workers

_TYPES = {
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i1",
    "float32": "f32",
}
"""What `--inputs` of heatc calls the types of a program's inputs."""


@dataclass(frozen=True)
class _Task:
    """
    What a worker gets: paths and texts, which cost nothing to send.

    Attributes:
        model: the captured model as IR.
        pipeline: the passes of the program.
        machine: the hardware description.
        inputs: the .npz of values; without it `masks` is the .npz of an earlier run.
        output: where the program goes.
    """

    model: str
    pipeline: str
    plan: str | None
    machine: str
    inputs: str | None
    masks: str | None
    output: str
    max_seconds: float


def recompiled(
    args: argparse.Namespace,
    program: Program,
    machines: Sequence[tuple[Mapping[str, str], Hardware]],
    progress: ProgressCallback,
) -> list[Point]:
    """
    The points of a sweep.

    Raises `UsageError` where the options do not say how the program was compiled, `InfeasibleError`
    where the model fits on none of the machines.
    """
    pipeline = program.manifest.options.get("pipeline")
    if not isinstance(pipeline, str):
        raise HeatcError("the program does not say by which passes", place=str(program.path))
    plan = _plan(args, pipeline)
    progress("reading the model", 0, 0)
    with scratch_folder() as scratch:
        model = _captured(args, program, scratch)
        tasks: list[tuple[_Task]] = []
        for number, (_, hardware) in enumerate(machines):
            machine = scratch / f"{number}.yaml"
            machine.write_text(render(hardware), encoding="utf-8")
            # Processes that are kept from another task have its working folder.
            own = None if plan is None else _absolute(args.plan)
            paths = (own, str(machine), _absolute(args.inputs), _absolute(args.masks))
            output = str(scratch / f"{number}.hdp")
            tasks.append((_Task(str(model), pipeline, *paths, output, args.max_seconds),))
        found: list[dict[str, Any]] = []

        def done(number: int, result: dict[str, Any]) -> None:
            found.append(result)
            progress(POINTS, len(found), len(tasks))

        progress(POINTS, 0, len(tasks))
        Workers(args.jobs if find_spec("joblib") else 1).run(_point, tasks, done)
    if all(result["problem"] for result in found):
        raise InfeasibleError(found[0]["problem"], place="--sweep", notes=["no machine fits"])
    return [
        Point(changes, hardware, result["figures"], result["problem"])
        for (changes, hardware), result in zip(machines, found)
    ]


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


def _plan(args: argparse.Namespace, pipeline: str) -> Plan | None:
    """The plan, which has to be there where the program has one, with its factors."""
    names = [spec.name for spec in read_passes(pipeline)]
    has_plan = "apply-plan" in names
    if has_plan and args.plan is None:
        raise UsageError("the program was compiled with a plan: give --plan", place="--recompile")
    if args.plan is not None and not has_plan:
        raise UsageError("the program was compiled without a plan", place="--plan")
    plan = None if args.plan is None else read_plan(args.plan)
    if "heat-decompose" in names and (plan is None or plan.factors is None):
        raise UsageError(
            "the program's factors were made when it was compiled, and would be made anew",
            place="--recompile",
            notes=[
                "heatc-tune distill writes a plan with its factors: compile that, and give --plan"
            ],
        )
    return plan


def _captured(args: argparse.Namespace, program: Program, scratch: Path) -> Path:
    """The captured model as IR, its weights beside it."""
    ports = program.manifest.inputs
    inputs = {port.name: InputSpec(port.shape, _TYPES[port.dtype]) for port in ports}
    options = Options(Numpy(), pipeline=())
    compilation = _fresh(options)
    compilation.capture(args.recompile, inputs)
    told = program.manifest.source.get("model")
    if told not in (None, compilation.source):
        warn(f"the program was made of {told!r}, this is {compilation.source!r}", place="hdp-run")
    path = scratch / "captured.mlir"
    result = Result(compilation.module, compilation.weights, options, compilation.source)
    write_ir(result, path, lambda program: None, runs=False)
    return path


def _fresh(options: Options) -> Compilation:
    return Compilation(options, quiet=True)


def _point(task: _Task) -> dict[str, Any]:
    """Compile for one machine and run: figures by name, or why it does not fit."""
    plan = None if task.plan is None else read_plan(task.plan)
    options = Options(
        Hdp(task.machine),
        plan=plan,
        heat=factor_options(None, None, plan),
        pipeline=read_passes(task.pipeline),
    )
    compilation = _fresh(options)
    module, weights, name = read_ir(make_context(), task.model, [])
    compilation.adopt(module, weights, name)
    try:
        compilation.run()
    except InfeasibleError as error:
        return {"figures": {}, "problem": error.message}
    compilation.write(task.output, "hdp")
    program = open_program(task.output)
    if task.inputs is None:
        assert task.masks is not None
        simulation = simulate_timing(program, open_npz(task.masks), max_seconds=task.max_seconds)
    else:
        file = open_npz(task.inputs)
        arrays = {port.name: np.asarray(file[port.name]) for port in program.manifest.inputs}
        simulation = simulate(program, arrays, max_seconds=task.max_seconds)
    rows = figures_of(run_of(simulation, program.manifest.hardware))
    return {"figures": {row.name: row.value for row in rows}, "problem": ""}
