"""What is evaluated, told apart by content: programs, models and plans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from heatc import kinds
from heatc.errors import HeatcError
from heatc.files import from_os_error
from heatc.readers.npz import open_npz
from heatc.tuning.evaluate.hdp_program import HdpProgram
from heatc.tuning.evaluate.numpy_program import NumpyProgram
from heatc.tuning.evaluate.program import Program

HDP, NUMPY, MODEL, PLAN = "hdp program", "numpy program", "model", "plan"

_PROGRAMS = {HDP: HdpProgram, NUMPY: NumpyProgram}
"""What is run as it is."""


@dataclass(frozen=True)
class Subject:
    """Something to evaluate: `name` as it was given, `kind`, and the program that runs for it."""

    name: str
    kind: str
    program: Program
    plan_sha256: str | None = None


def kind_of(path: Path) -> str:
    """
    What a path holds: `HDP`, `NUMPY`, `PLAN`, else `MODEL`.

    Raises `HeatcError` for what heatc wrote and is none of them.
    """
    try:
        if path.is_dir():
            return MODEL
        if kinds.HDP.is_kind_of(path):
            return HDP
        if kinds.PROGRAM.is_kind_of(path):
            return NUMPY
        for kind in (kinds.FRONT, kinds.REPORT, kinds.EVALUATION):
            if kind.is_kind_of(path):
                raise HeatcError(
                    f"a {kind.name} is nothing that can be evaluated",
                    place=str(path),
                    notes=["give the plans, programs or models that it names"],
                )
    except OSError as error:
        raise from_os_error(error, path) from error
    _refuse_by_suffix(path)
    return PLAN if path.suffix == ".json" else MODEL


def _refuse_by_suffix(path: Path) -> None:
    if path.suffix == ".py":
        raise HeatcError(
            "not a NumPy program that heatc wrote",
            place=str(path),
            notes=["its code would run: only programs of heatc MODEL -o x.py are evaluated"],
        )
    if path.suffix == ".npz":
        open_npz(path)
        raise HeatcError("data is nothing that can be evaluated", place=str(path), notes=["--data"])


def program_of(path: Path, kind: str) -> Program:
    """The program in a file of kind `HDP` or `NUMPY`."""
    return _PROGRAMS[kind](path)
