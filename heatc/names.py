"""
What files are called that a command writes beside the one that was named, or into a folder.

No two of them meet: `x.json`, `x.py` and `x.mlir` may lie side by side, each with its own.
"""

from __future__ import annotations

import re
from pathlib import Path

STATS = ("stats.json", "stats.txt", "layers.csv", "hardware.yaml", "program.json")
"""What `hdp-run --stats` writes into its folder."""

TIMELINE, KEPT_MASKS = "timeline.json", "masks.npz"
"""What it writes there too: of a run that models time, and with `--keep-masks`."""

SWEEP = ("sweep.csv", "sweep.json")
"""What `hdp-run --sweep --stats` writes into its folder instead."""

DIVERGENCE = tuple(
    f"{name}.npz" for name in ("inputs", "model", "level", "reals", "codes", "module", "program")
)
"""What `--dump-divergence` writes into its folder: the inputs, and the outputs of each stage."""

FRONT_FILE, FRONT_PLAN, FRONT_REPORT = "front.json", "plan.json", "report.json"
"""What `heatc-tune search` writes into its folder, beside points and machines."""

EXPORT_FILE, MODELING_FILE, MODEL_WEIGHTS_FILE = "export.json", "modeling.py", "model.safetensors"
PROGRAM_FILE, ONNX_FILE, ONNX_WEIGHTS_FILE = "model.pt2", "model.onnx", "model.onnx.data"
"""What `heatc-export` writes into its folder."""


def labels_file(data: Path) -> Path:
    """`x.labels.json` of the data set `x.npz`."""
    return data.with_suffix(".labels.json")


def weights_file(program: Path) -> Path:
    """`x.safetensors` of the NumPy program `x.py`."""
    return program.with_suffix(".safetensors")


def ir_weights_file(text: Path) -> Path:
    """`x.mlir.safetensors` of the text `x.mlir`: its weights; of another text the factors."""
    return text.with_name(f"{text.name}.safetensors")


def factors_file(plan: Path) -> Path:
    """`x.factors.safetensors` of the plan `x.json`."""
    return plan.with_suffix(".factors.safetensors")


def report_file(plan: Path) -> Path:
    """`x.report.json` of the plan `x.json`."""
    return plan.with_suffix(".report.json")


PHASE = re.compile(r"\d\d-")
"""What the name of a phase's file begins with."""


def phase_file(number: int, name: str) -> str:
    """`07-pack-tokens.mlir` of the seventh pass; what was captured is number 0."""
    return f"{number:02d}-{name}.mlir"


def phase_files(passes: list[str]) -> list[str]:
    """The files of a pipeline's phases."""
    return [phase_file(number, name) for number, name in enumerate(["captured", *passes])]


def point_file(number: int) -> str:
    """The plan of a point of a front, from 0."""
    return f"{number:02d}.json"


def plan_file(number: int) -> str:
    """The plan of a point of `heatc-tune compress`, from 1."""
    return f"{number:02d}.json"


def compressed_program(is_numpy: bool) -> str:
    """The program of `heatc-tune compress`."""
    return "prog.py" if is_numpy else "prog.hdp"


def machine_file(number: int) -> str:
    """The machine of a point of a front, from 0."""
    return f"hardware-{number:02d}.yaml"
