"""Programs of models and plans: compiled for the evaluation, and gone with its scratch folder."""

from __future__ import annotations

from pathlib import Path

from heatc.api import Compilation, factor_options
from heatc.plan import Plan
from heatc.targets import Hdp, Numpy, Options
from heatc.tuning.evaluate.hdp_program import HdpProgram
from heatc.tuning.evaluate.numpy_program import NumpyProgram
from heatc.tuning.evaluate.program import Program


def options_of(target: Hdp | Numpy, plan: Plan | None, calibrate: str | None) -> Options:
    """
    How a model is compiled: dense, or as a plan says.

    `calibrate` is what factors are found on, where a plan does not bring its own.
    """
    needs = plan is not None and bool(plan.heat) and plan.factors is None
    data = calibrate if needs else None
    return Options(target, plan=plan, heat=factor_options(None, data, plan), calibrate=data)


def compile_into(folder: Path, stem: str, compilation: Compilation) -> Program:
    """
    Run a compilation that has its model, and write the program into a folder.

    It is not checked against the model: that is what the evaluation measures. Raises `HeatcError` for
    what does not compile.
    """
    target = compilation.options.target
    form = target.forms[0]
    path = folder / f"{stem}{form.suffix}"
    compilation.run()
    compilation.write(path, form.name)
    return HdpProgram(path) if isinstance(target, Hdp) else NumpyProgram(path)
