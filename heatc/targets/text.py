"""Forms that are text: a file, or standard output, and factors in a file beside it."""

from __future__ import annotations

from pathlib import Path

from heatc import kinds
from heatc.errors import UsageError
from heatc.files import safetensors_bytes, together
from heatc.kinds import Kind
from heatc.names import ir_factors_file
from heatc.targets.base import Check, Form, Result
from heatc.weights import WeightStore

IR = Form("ir", ".mlir", kinds.IR, is_text=True, has_factors=True)
"""The module itself, which every target has."""


def write_ir(result: Result, output: Path | None, check: Check, *, runs: bool) -> None:
    """Write the module; `runs`: it is above the machine level, and can be run as it is."""
    from heatc.verify.programs import Module

    check((lambda: Module(result.module, result.weights)) if runs else None)
    write_text(f"{result.module!s}\n", kinds.IR, result.weights, output)


def write_text(text: str, kind: Kind, weights: WeightStore, output: Path | None) -> None:
    """
    A text, and the factors, which have no place in it, in a file beside it.

    Raises `UsageError` where there are factors and no file.
    """
    added = weights.added
    if output is None:
        if added:
            raise UsageError(
                f"{len(added)} factors need a file", place="-o", notes=["give -o x.mlir"]
            )
        print(text, end="")
        return
    with together() as files:
        if added:
            factors = {name: weights[name] for name in added}
            stream = files.open(ir_factors_file(output))
            stream.write(safetensors_bytes(factors, kinds.IR_FACTORS))
        files.open(output, "w").write(kind.line() + text)
