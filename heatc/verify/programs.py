"""The programs that are checked: how each kind runs, and what can be seen inside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.backends.hdp.container import open_program
from heatc.backends.hdp.simulation import simulate
from heatc.backends.numpy.program import LoadedProgram
from heatc.isa.table import ISA
from heatc.isa.words import Inst
from heatc.verify.levels import run_level
from heatc.verify.trace import Trace
from heatc.weights import WeightStore

Array = NDArray[Any]
Arrays = Mapping[str, Array]

_HOST_WORK = {
    "hget": "embedding",
    "hadd": "add",
    "hln": "layer norm",
    "hgelu": "gelu",
    "htanh": "tanh",
    "hrelu": "relu",
    "hfun": "",
    "hop": "",
    "hsel": "where",
    "hrms": "rms norm",
    "hsoft": "softmax",
    "hrope": "rotation",
    "hdot": "matmul",
    "hred": "",
    "hredr": "",
    "hscan": "cumsum",
}
"""
What the host's instructions of the machine compute, or "" where a field says it.

Vector units do some of it where there are any.
"""


def host_work(instructions: Sequence[Inst], lanes: int) -> list[str]:
    """What the host computes in a program on a machine with so many lanes of vector units."""
    found: set[str] = set()
    for mnemonic, choice in {(i.mnemonic, _choice(i)) for i in instructions}:
        if mnemonic in _HOST_WORK and not (lanes and ISA[mnemonic].vector):
            found.add(_HOST_WORK[mnemonic] or choice)
    return sorted(found)


def _choice(instruction: Inst) -> str:
    """The name of an instruction's enumeration, if it has one."""
    pairs = zip(instruction.instruction.fields, instruction.operands)
    return next((field.choices[int(value)] for field, value in pairs if field.choices), "")


class CheckedProgram(Protocol):
    """A program that was written; it is entered while it is run."""

    parts: tuple[str, ...]
    """What the user may want to know of it: approximated, done by the host."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
        /,
    ) -> None: ...

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """The outputs by name."""
        ...

    def trace(self, inputs: Arrays) -> Trace:
        """The values inside of a run, by module path."""
        ...


class _Plain:
    """A program that holds nothing while it is entered."""

    parts: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Module(_Plain):
    """A module that stands for its text."""

    def __init__(self, module: ModuleOp, weights: WeightStore):
        self._module, self._weights = module, weights

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Interpret it."""
        return run_level(self._module, self._weights, inputs)

    def trace(self, inputs: Arrays) -> Trace:
        """What the interpreter's observer sees."""
        trace = Trace()
        run_level(self._module, self._weights, inputs, trace.observe)
        return trace


class HdpFile(_Plain):
    """A `.hdp` file on the functional machine."""

    def __init__(self, path: Path):
        self._program = open_program(path)
        used = {i.mnemonic for i in self._program.instructions}
        lanes = self._program.manifest.hardware.vector_lanes
        host = host_work(self._program.instructions, lanes)
        self.parts = ("approximated: softmax",) if "softmax" in used else ()
        if host:
            self.parts += (f"on the host: {', '.join(host)}",)

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Simulate it."""
        return dict(simulate(self._program, inputs).outputs)

    def trace(self, inputs: Arrays) -> Trace:
        """The codes of the tensors that debug.json names."""
        trace = Trace()
        for name, codes in simulate(self._program, inputs, layers=True).layers.items():
            kind, _, symbol = name.partition("/")
            if kind == "codes":
                trace.add(symbol, np.asarray(codes))
        return trace


class NumpyFile(_Plain):
    """An emitted `.py` file in a namespace of its own; `weights` is the file beside it."""

    def __init__(self, path: Path, weights: Path):
        self._path, self._weights = path, weights
        self._loaded: LoadedProgram | None = None

    def __exit__(self, *_: object) -> None:
        if self._loaded is not None:
            self._loaded.__exit__()

    def run(self, inputs: Arrays) -> dict[str, Array]:
        """Call its `main`; all runs share one load, as those of a user do."""
        if self._loaded is None:
            self._loaded = LoadedProgram(self._path, self._weights)
        return self._loaded(inputs)

    def trace(self, inputs: Arrays) -> Trace:
        """What the program binds to names, rows first."""
        trace = Trace()

        def observe(path: str, value: Any) -> None:
            if isinstance(value, np.ndarray):
                trace.add(path, np.array(cast(Array, value)))

        with LoadedProgram(self._path, self._weights, observe) as program:
            program(inputs)
        return trace
