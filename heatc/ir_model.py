"""IR text as MODEL, with the weights that are named and those beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

from heatc.errors import HeatcError, UsageError
from heatc.ir_weights import weights_beside
from heatc.parsing import input_name, parse_module, read_text
from heatc.passed import names_passed
from heatc.readers.source import STDIN
from heatc.weights import WeightStore

SUFFIX = ".mlir"


def is_ir(model: str) -> bool:
    """Whether a MODEL is IR text: a file with its suffix, or standard input."""
    return model == STDIN or Path(model).suffix == SUFFIX


def refuse_inputs(inputs: object, place: str) -> None:
    """Raise `UsageError` where somebody says shapes of an .mlir MODEL."""
    if inputs:
        raise UsageError("the shapes of an .mlir model are in its text", place=place)


def read_ir(
    context: Context, model: str, weights: Sequence[str]
) -> tuple[ModuleOp, WeightStore, str]:
    """
    The module of an .mlir MODEL, its weights, and what messages call it.

    A weight of the files `weights` comes before one of the same name beside the text. Raises
    `HeatcError` for a text that is no module.
    """
    name = input_name(model)
    module = parse_module(context, read_text(model), name)
    store = WeightStore.open_all(weights)
    try:
        names = names_passed(module)
    except HeatcError as error:
        error.place = name
        raise
    if model != STDIN:
        store.fill(weights_beside(Path(model), names))
    return module, store, name
