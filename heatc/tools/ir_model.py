"""IR text as MODEL, with the weights that are named and those beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp

from heatc.errors import HeatcError, UsageError
from heatc.readers.source import STDIN

if TYPE_CHECKING:
    from heatc.weights import WeightStore


def read_ir(
    model: str, weights: Sequence[str], inputs: str | None
) -> tuple[ModuleOp, WeightStore, str]:
    """
    The module of an .mlir MODEL, its weights, and what messages call it.

    A weight of the files `weights` comes before one of the same name beside the text. Raises
    `HeatcError` for a text that is no module.
    """
    from heatc.api import make_context
    from heatc.ir_weights import weights_beside
    from heatc.passed import names_passed
    from heatc.tools.parsing import input_name, parse_module, read_text
    from heatc.weights import WeightStore

    if inputs:
        raise UsageError("the shapes of an .mlir MODEL are in its text", place="--inputs")
    name = input_name(model)
    module = parse_module(make_context(), read_text(model), name)
    store = WeightStore.open_all(weights)
    try:
        names = names_passed(module)
    except HeatcError as error:
        error.place = name
        raise
    if model != STDIN:
        store.fill(weights_beside(Path(model), names))
    return module, store, name
