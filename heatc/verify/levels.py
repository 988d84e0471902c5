"""What a compilation leaves behind for the check: copies of the module, and how to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.errors import HeatcError
from heatc.interpreter import (
    Observer,
    input_names,
    main_function,
    make_interpreter,
    output_names,
)
from heatc.passed import name_of
from heatc.passes.effect import Effect, effect_of
from heatc.passes.heat_decompose import HeatDecomposePass
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.pipeline import Instrument
from heatc.universe import PASSES
from heatc.weights import WeightStore

Array = NDArray[Any]
Arrays = Mapping[str, Array]

MACHINE_LEVEL = ("tile-for-hdp", "lower-to-hdp", "allocate-buffers")
"""Passes after which a module is an instruction stream: it runs on the functional machine."""


@dataclass
class Levels(Instrument):
    """
    The levels that a program is compared with; copies hold no weights and cost milliseconds.

    Attributes:
        captured: what the model computes.
        packed: the level at which padding disappears, which says what is compared.
        unchanged: the last level that still has to compute the same, where a pass changes values.
        fixed: the level whose codes the machine must have, on HDP targets.
        factorised: whether weights were replaced by factors.
        pruned: the rules that prune attention, by name, none that leaves out nothing.
        changed: the passes of other packages that declare that they change values, by name.
        is_partitioned: whether what was read is below the levels that have a model's meaning.
    """

    captured: ModuleOp | None = None
    packed: ModuleOp | None = None
    unchanged: ModuleOp | None = None
    fixed: ModuleOp | None = None
    factorised: bool = False
    pruned: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    is_partitioned: bool = False

    def resume(self, module: ModuleOp, passes: Sequence[str]) -> None:
        """
        Take a module that has been through passes for the model.

        What the passes changed of the model's values is not looked at again. One that is partitioned
        is held against nothing: `is_partitioned`.
        """
        names = {name_of(text) for text in passes}
        self.is_partitioned = bool(names & {"partition-host", "assign-fixed-point", *MACHINE_LEVEL})
        if self.is_partitioned:
            return
        self.captured = module.clone()
        if "pack-tokens" in names:
            self.packed = module.clone()

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Keep what capture gave, and what comes before the first change of values."""
        if self.captured is None and not self.is_partitioned:
            self.captured = module.clone()
        if isinstance(pass_, HeatDecomposePass):
            self.factorised = True
        if isinstance(pass_, InsertHdpPass):
            self.pruned = pass_.pruning(module)
        if pass_.name not in PASSES and effect_of(pass_) is not Effect.EXACT:
            self.changed = (*self.changed, pass_.name)
        if self.unchanged is None and self.changes_values:
            self.unchanged = module.clone()

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Keep the levels that have a meaning of their own."""
        if pass_.name == "pack-tokens":
            self.packed = module.clone()
        if pass_.name == "assign-fixed-point":
            self.fixed = module.clone()

    @property
    def changes_values(self) -> bool:
        """Whether the program is meant to compute something else than the model."""
        return self.factorised or bool(self.pruned) or bool(self.changed)


def run_level(
    module: ModuleOp, weights: WeightStore, inputs: Arrays, observer: Observer | None = None
) -> dict[str, Array]:
    """
    The outputs of `main` by name.

    Values are dropped after their last reader, so that a long model fits where it can run at all;
    `observer` sees the results of every op.
    """
    function = main_function(module)
    block = function.body.block
    last = _last_readers(block)
    values: dict[SSAValue, Any] = {
        a: np.asarray(inputs[n]) for n, a in zip(input_names(function), block.args)
    }
    interpreter = make_interpreter(module, weights, observer)
    for op in block.ops:
        arguments = tuple(values[v] for v in op.operands)
        if isinstance(op, ReturnOp):
            return dict(zip(output_names(function), map(np.asarray, arguments)))
        values.update(zip(op.results, interpreter.run_op(op, arguments)))
        for value in last.get(op, ()):
            values.pop(value, None)
    raise HeatcError("function 'main' does not end with func.return")


def _last_readers(block: Block) -> dict[Operation, list[SSAValue]]:
    """For every op the values that no later op reads."""
    last: dict[SSAValue, Operation] = {}
    for op in block.ops:
        last.update(dict.fromkeys((*op.operands, *op.results), op))
    dropped: dict[Operation, list[SSAValue]] = {}
    for value, op in last.items():
        dropped.setdefault(op, []).append(value)
    return dropped
