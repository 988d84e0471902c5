"""
SCALE-Sim 3.0.0 as a peer: an environment of its own, and its answers, kept by configuration.

It needs `numpy<2`, hence the environment: `heatc/scalesim` in the user's cache folder, made by
venv and pip when it is missing. Answers lie there too, since a GEMM can take a minute and more.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.support.data import texts as data

PINS = ("scalesim==3.0.0", "numpy<2")
SCRIPT = Path(__file__).with_name("scalesim_run.py")


@dataclass(frozen=True)
class Case:
    """
    An (m, k) times (k, n) product on an array; sizes in elements, a word is an element.

    `words` a cycle on each of the three memory ports, 0: ideal. `sram_kib` of each operand.
    """

    m: int
    n: int
    k: int
    rows: int = 32
    columns: int = 32
    words: int = 0
    sram_kib: int = 1024

    @property
    def folds(self) -> int:
        """Folds of an output-stationary array."""
        return -(-self.m // self.rows) * -(-self.n // self.columns)

    def __str__(self) -> str:
        return f"{self.m}x{self.k}x{self.n}"


@dataclass(frozen=True)
class Answer:
    """
    What SCALE-Sim says: `demands` are its cycles without stalls, `stalls` those on top.

    `cached`: the answer is one of an earlier run, and so is its time.
    """

    demands: int
    stalls: int
    seconds: float
    cached: bool


def folder() -> Path:
    """Where environment and answers lie."""
    return data.cache_folder().parent / "scalesim"


def simulate(case: Case) -> Answer:
    """SCALE-Sim's answer; `MissingError` if it can be neither found nor installed."""
    configuration = json.dumps({"pins": PINS, **dataclasses.asdict(case)}, sort_keys=True)
    digest = hashlib.sha256(configuration.encode()).hexdigest()
    path = folder() / "answers" / f"{digest[:32]}.json"
    cached = path.is_file()
    if not cached:
        result = subprocess.run(
            [_python(), SCRIPT, json.dumps(dataclasses.asdict(case))],
            check=False,
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            raise data.MissingError(f"SCALE-Sim failed on {case}: {reason}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(result.stdout, encoding="utf-8")
        part.replace(path)
    found = json.loads(path.read_text(encoding="utf-8"))
    return Answer(int(found["lines"]), int(found["stalls"]), float(found["seconds"]), cached)


def _python() -> Path:
    """The Python of SCALE-Sim's environment, which is made if it is missing."""
    python = folder() / "bin" / "python"
    probe = [python, "-c", "import scalesim"]
    if python.exists() and subprocess.run(probe, check=False, capture_output=True).returncode == 0:
        return python
    folder().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder().parent) as name:
        made = Path(name) / "venv"
        for command in (
            [sys.executable, "-m", "venv", made],
            [made / "bin" / "python", "-m", "pip", "install", "--quiet", *PINS],
        ):
            result = subprocess.run(command, check=False, capture_output=True, text=True)
            if result.returncode != 0:
                reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
                raise data.MissingError(f"no environment for {PINS[0]}: {reason}")
        shutil.copytree(made, folder(), dirs_exist_ok=True, symlinks=True)
    return python
