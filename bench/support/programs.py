"""
The documented commands, as the benchmarks use them: `heatc` and `hdp-run`, in this process.

Both are called by their entry points with the arguments that a shell would pass, so that what
is measured is what a user gets, without starting Python and importing torch each time.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Arrays: TypeAlias = dict[str, Array]

CORE_ENGINES = ("pe", "se", "adder", "softmax")


class CommandError(Exception):
    """A command that ended with another exit code than 0."""


def command(tool: str, arguments: Sequence[object]) -> None:
    """
    Runs a tool in this process.

    Args:
        tool: its module in `heatc.tools`, such as "main" for `heatc`.
        arguments: what follows the command's name.

    Raises:
        CommandError: it did not end with 0; its message is on stderr.
    """
    words = [str(argument) for argument in arguments]
    main: Callable[[Sequence[str]], int] = importlib.import_module(f"heatc.tools.{tool}").main
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    if code != 0:
        raise CommandError(f"heatc.tools.{tool} {' '.join(words)} ended with {code}")


def signature(inputs: Mapping[str, Array]) -> str:
    """The value of `--inputs` for arrays: "input_ids=1x64:i64,..."."""
    return ",".join(f"{name}={_shape(value)}:i64" for name, value in inputs.items())


def compile_model(model: Path, output: Path, inputs: Mapping[str, Array], *options: object) -> Path:
    """
    `heatc MODEL -o OUTPUT --inputs ...`, with the shapes of `inputs`.

    Not checked by `heatc`: whoever compiles here compares or measures the program.
    """
    words = [model, "-o", output, "--inputs", signature(inputs), "--no-verify"]
    command("main", [*words, *options])
    return output


def paper(rho_b: float, tau_h: float) -> tuple[str, ...]:
    """The options of rule `paper`; written with "=" because thresholds may be negative."""
    return ("--hdp-rule=paper", f"--rho-b={rho_b}", f"--tau-h={tau_h}")


# ---- NumPy programs ---------------------------------------------------------------------------


class NumpyProgram:
    """A compiled `x.py`, loaded from its file."""

    def __init__(self, path: Path):
        spec = importlib.util.spec_from_file_location(f"heatc_program_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        self._main = cast(Callable[..., Arrays], module.main)

    def __call__(self, inputs: Mapping[str, Array]) -> Arrays:
        """Runs `main`; the outputs are copied, since a program may reuse its buffers."""
        return {name: np.array(value) for name, value in self._main(**inputs).items()}


# ---- HDP programs -----------------------------------------------------------------------------


@dataclass
class Run:
    """What one `hdp-run` gave."""

    outputs: Arrays
    layers: Arrays
    """What `--layers` wrote: `codes/NAME`, `mask/NAME`, `gate/NAME`"""
    stats: dict[str, Any] = field(default_factory=dict[str, Any])

    def busy(self, engine: str) -> int:
        """Modelled busy cycles of one engine, over all cores."""
        return int(self.stats["modelled"][f"{engine}_busy_cycles"])

    @property
    def cycles(self) -> int:
        """Modelled cycles of the whole run."""
        return int(self.stats["modelled"]["total_cycles"])

    def kept(self, what: str) -> float | None:
        """The share of "blocks" or "heads" that was kept, in percent; None without pruning."""
        return self.stats["functional"][f"kept_{what}_percent"]


def run_hdp(program: Path, inputs: Mapping[str, Array], *, layers: bool = False) -> Run:
    """`hdp-run PROGRAM --inputs in.npz -o out.npz --stats DIR [--layers layers.npz]`."""
    with tempfile.TemporaryDirectory(prefix="heatc-bench-") as name:
        folder = Path(name)
        np.savez(folder / "in.npz", **cast(Any, dict(inputs)))
        arguments: list[object] = [program, "--inputs", folder / "in.npz"]
        arguments += ["-o", folder / "out.npz", "--stats", folder / "stats"]
        arguments += ["--layers", folder / "layers.npz"] if layers else []
        command("run", arguments)
        stats = json.loads((folder / "stats" / "stats.json").read_text(encoding="utf-8"))
        found = read_arrays(folder / "layers.npz") if layers else {}
        return Run(read_arrays(folder / "out.npz"), found, stats)


def points(program: Path) -> dict[str, int]:
    """The binary points that the compiler chose, out of the program's manifest."""
    with zipfile.ZipFile(program) as archive:
        return json.loads(archive.read("manifest.json"))["points"]


def read_arrays(path: Path) -> Arrays:
    """All arrays of an `.npz`."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _shape(value: Array) -> str:
    return "x".join(str(size) for size in value.shape)
