"""
Graphs with calls that no converter knows, written by PyTorch in terms of those that converters know.

`ExportedProgram.run_decompositions` does the work: ops in place become ops that return their
result, blocks such as autocast become what is in them, and composite ops without a converter
become their parts. Ops with a converter stay whole.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from heatc.capture.families import all_converters, converters
from heatc.capture.graph import AtenGraph
from heatc.errors import HeatcError

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def unknown_targets(graph: AtenGraph) -> list[str]:
    """The targets of a graph that no converter knows, each once."""
    targets = dict.fromkeys(call.target for call in graph.calls)
    known = converters(targets)
    return [target for target in targets if target not in known]


def decomposed(program: ExportedProgram) -> ExportedProgram:
    """
    A program without calls in place and without blocks, of ops with converters where torch can.

    Raises `HeatcError` where torch fails.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return program.run_decompositions(_table())
    # Decomposing runs torch's own tracing, which may raise anything.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise HeatcError(
            f"torch cannot decompose the program: {type(error).__name__}: {lines[0][:200]}",
            notes=["program.run_decompositions({}) alone shows why"],
        ) from error


def _table() -> dict[Any, Callable[..., Any]]:
    """How torch writes the ops that have no converter."""
    import torch
    from torch._decomp import decomposition_table

    # Rules of other modules end in ops of torch's compiler, which no message should name.
    rules: dict[Any, Any] = {
        op: rule
        for op, rule in decomposition_table.items()
        if rule.__module__ == "torch._decomp.decompositions"
    }
    rules |= torch.export.default_decompositions().items()
    known = all_converters()
    return {op: rule for op, rule in rules.items() if str(op) not in known}
