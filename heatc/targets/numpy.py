"""The target `numpy`: a Python file and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from xdsl.utils.arg_spec import ArgSpec

from heatc import kinds
from heatc.kinds import Kind
from heatc.names import weights_file
from heatc.targets.base import Check, Form, Options, Result


def _weights(program: Path) -> list[tuple[Path, Kind]]:
    return [(weights_file(program), kinds.WEIGHTS)]


NAME = "numpy"
FORM = Form("numpy", ".py", kinds.PROGRAM, beside=_weights)


@dataclass(frozen=True)
class Numpy:
    """See the module's docstring; attention is dense."""

    name: str = NAME
    forms: tuple[Form, ...] = (FORM,)
    hw: None = None
    prunes: bool = False
    summary: str = "a readable Python file that needs NumPy and safetensors, and its weights"

    def passes(self, options: Options) -> Sequence[ArgSpec]:
        """Projections that read the same become one; steps are fused for a level-2 cache."""
        fused = [ArgSpec("fuse-projections", {}), ArgSpec("dce", {})] if options.level > 0 else []
        return (*fused, ArgSpec("fuse-einsums", {}))

    def write(self, result: Result, form: str, output: Path | None, check: Check) -> None:
        """Write the file and the weights beside it."""
        from heatc.backends.numpy.emit import emit_program

        assert output is not None

        def checked(program: Path | None, weights: Path | None) -> None:
            from heatc.verify.programs import NumpyFile

            if program is None or weights is None:
                check(None)
            else:
                check(partial(NumpyFile, program, weights))

        emit_program(result.module, result.weights, output, check=checked)
