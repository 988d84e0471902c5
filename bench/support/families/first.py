"""A family's first run from nothing: the installed command on a folder, and the program's own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.support import report
from bench.support.families import judge
from bench.support.families.entry import Arrays, Entry

SECONDS = 300


def first_run(entry: Entry) -> dict[str, Any]:
    """`heatc FOLDER -o x.py --inputs ...`, then `python x.py in.npz out.npz`, beside PyTorch."""
    implementation = entry.implementations[-1]
    module = entry.module(implementation)
    line: dict[str, Any] = {"family": entry.family, "head": entry.head, "kind": "", "error": 0.0}
    with tempfile.TemporaryDirectory(prefix="heatc-families-") as name:
        folder = Path(name)
        model = judge.save_folder(module, implementation, folder / "model")
        inputs, keep = entry.given("right" if "right" in entry.masks else "none")
        np.savez(folder / "in.npz", **inputs)  # pyright: ignore[reportArgumentType]
        words = ",".join(f"{n}={spec}" for n, spec in judge.specs(entry.inputs).items())
        command = [Path(sys.executable).parent / "heatc", model, "-o", folder / "x.py"]
        code, text = _run(command + ["--inputs", words])
        if code:
            kind = "refused" if code == 1 else "wrong"
            return line | {"kind": kind, "message": f"heatc ended with {code}: {text}"}
        code, text = _run([sys.executable, folder / "x.py", folder / "in.npz", folder / "out.npz"])
        if code:
            return line | {"kind": "wrong", "message": f"x.py ended with {code}: {text}"}
        with np.load(folder / "out.npz") as archive:
            got: Arrays = {key: archive[key] for key in archive.files}
        program = judge.load_numpy(folder / "x.py")
    found = judge.compared(entry, judge.reference(module, inputs), got, keep, program, "numpy")
    kind = "wrong" if found.message else "right"
    return line | {"kind": kind, "error": found.error, "message": found.message}


def _run(command: list[Any]) -> tuple[int, str]:
    """The exit code of a command of this tree, and the line of its error."""
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(report.ROOT)}
    try:
        run = subprocess.run(
            [str(word) for word in command],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no end within {SECONDS} s"
    lines = [line for line in run.stderr.splitlines() if "error: " in line]
    return run.returncode, (lines or run.stderr.splitlines()[-1:] or [""])[0]
