"""Forms that are text: a file, or standard output, and factors in a file beside it."""

from __future__ import annotations

from pathlib import Path

from heatc import kinds
from heatc.errors import UsageError
from heatc.files import safetensors_bytes, together
from heatc.ir_weights import weights_read, write_weights
from heatc.kinds import Kind
from heatc.names import ir_weights_file
from heatc.targets.base import Check, Form, Result
from heatc.weights import WeightStore

IR = Form("ir", ".mlir", kinds.IR, is_text=True, has_factors=True, has_weights=True)
"""The module itself, which every target has."""


def write_ir(result: Result, output: Path | None, check: Check, *, runs: bool) -> None:
    """
    Write the module, and its weights in a file beside it; `runs`: it can be run as it is.

    That is so above the machine level.
    """
    from heatc.verify.programs import Module

    check((lambda: Module(result.module, result.weights)) if runs else None)
    text = f"{result.module!s}\n"
    if output is None:
        write_text(text, kinds.IR, result.weights, None)
        return
    names = weights_read(result.module, result.weights)
    with together() as files:
        stream = files.open(ir_weights_file(output))
        write_weights(stream, result.weights, names)
        files.open(output, "w").write(kinds.IR.line() + text)


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
            stream = files.open(ir_weights_file(output))
            stream.write(safetensors_bytes(factors, kinds.IR_FACTORS))
        files.open(output, "w").write(kind.line() + text)
