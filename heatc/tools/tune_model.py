"""What the commands of `heatc-tune` share: the model, captured for the data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatc.errors import HeatcError, UsageError
from heatc.readers.npz import LABELS, forms_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heatc.api import Compilation
    from heatc.capture import InputSpec
    from heatc.targets import Options
    from heatc.tools.diagnostics import ToolParser

BATCH = 32
"""Samples at once where the batch is ours to choose."""


def add_model_options(parser: ToolParser) -> None:
    """The options that say which model it is."""
    add = parser.add_argument
    add("--inputs", metavar="SPEC", help='e.g. "input_ids=1x128:i64,attention_mask=1x128:i64"')
    add("--weights", metavar="FILE", help="safetensors file of the weights of an .mlir MODEL")
    add("--trust-pickle", action="store_true", help="unpickle MODEL: runs code that it contains")


def check_plan_name(arguments: argparse.Namespace) -> None:
    """A plan, and what comes beside it, are found by the suffix of its name."""
    if Path(arguments.output).suffix != ".json":
        raise UsageError(f"expected a name that ends in .json: {arguments.output!r}", place="-o")


def folder_option(name: str | None) -> Path | None:
    """The folder that an option names, None where it was not given."""
    return Path(name) if name else None


def captured(
    arguments: argparse.Namespace,
    arrays: Mapping[str, NDArray[Any]],
    batch: int,
    options: Options | None = None,
    *,
    quiet: bool = False,
) -> Compilation:
    """The model, captured; a folder is exported for the shapes of the data and this batch."""
    from heatc.api import Compilation
    from heatc.targets import Numpy, Options

    compilation = Compilation(options or Options(Numpy(), level=0), quiet=quiet)
    path = Path(arguments.model)
    if path.suffix == ".mlir":
        _adopt_ir(arguments, compilation)
        return compilation
    inputs = model_inputs(arguments, arrays, batch)
    compilation.capture(path, inputs, trust_pickle=arguments.trust_pickle)
    return compilation


def model_inputs(
    arguments: argparse.Namespace, arrays: Mapping[str, NDArray[Any]], batch: int
) -> Mapping[str, InputSpec] | None:
    """What --inputs says, else the shapes of the data for a folder, else None: the file says it."""
    from heatc.capture import InputSpec, parse_inputs

    if arguments.inputs:
        return parse_inputs(arguments.inputs)
    if not Path(arguments.model).is_dir():
        return None
    given = {n: a for n, a in forms_of(arrays).items() if n != LABELS and len(a.shape) > 1}
    return {
        n: InputSpec((batch, *a.shape[1:]), "f32" if a.dtype.kind == "f" else "i64")
        for n, a in given.items()
    }


def _adopt_ir(arguments: argparse.Namespace, compilation: Compilation) -> None:
    """The module of an .mlir MODEL, which no pass has changed."""
    from heatc.api import make_context
    from heatc.ir_model import read_ir, refuse_inputs
    from heatc.passed import passed

    refuse_inputs(arguments.inputs, "--inputs")
    compilation.check_model(arguments.model)
    weights = [arguments.weights] if arguments.weights else []
    module, store, name = read_ir(make_context(), arguments.model, weights)
    if behind := passed(module):
        raise HeatcError(
            f"the module has been through {behind[-1]}, tuning begins at what was captured",
            place=name,
            notes=["give 00-captured.mlir"],
        )
    compilation.adopt(module, store, name)
