"""
What is held against what.

    model    the captured level in the interpreter, which is what PyTorch computes
    level    the last level that still has to compute the same, where a pass changes values
    reals    the fixed-point level with real numbers in place of codes
    codes    the fixed-point level
    module   what a program was emitted from
    program  the file
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp

from heatc.interpreter import main_function
from heatc.intervals import Interval
from heatc.passes.analysis.ports import input_ranges
from heatc.samples import MaskValues, mask_inputs
from heatc.verify.compare import CLOSE, IDENTICAL, ROUNDED, Bound
from heatc.verify.levels import Levels, run_level
from heatc.verify.reals import Quanta, with_reals
from heatc.verify.rows import packing_of
from heatc.verify.trace import Trace
from heatc.weights import WeightStore

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Stage = Literal["model", "level", "reals", "codes", "module", "program"]


class Step(NamedTuple):
    """One stage held against another."""

    expected: Stage
    found: Stage
    bound: Bound

    @property
    def reference(self) -> str:
        """How a message calls what is right."""
        return "the model" if self.expected == "model" else "its own level"


def name_of(stage: Stage) -> str:
    """How a message calls what may be wrong."""
    return "the program" if stage == "program" else "the compiled module"


class Stages:
    """The modules of one compilation that are run; `written` is what the program was emitted from."""

    def __init__(self, levels: Levels, written: ModuleOp, weights: WeightStore):
        assert levels.captured is not None
        self.levels = levels
        self.captured = levels.captured
        self.packed = levels.packed
        self.weights = weights
        self.masks: Mapping[str, MaskValues] = mask_inputs(levels.packed or levels.captured)
        self.modules: dict[Stage, ModuleOp] = {"model": levels.captured, "module": written}
        self.quanta: Quanta = {}
        fixed = levels.fixed
        self.ranges: Mapping[str, Interval] = (
            {} if fixed is None else input_ranges(main_function(fixed))
        )
        if levels.unchanged is not None:
            self.modules["level"] = levels.unchanged
        if levels.fixed is not None:
            self.modules["codes"] = levels.fixed
            if not levels.changes_values:
                self.modules["reals"], self.quanta = with_reals(levels.fixed)

    @property
    def level_is_packed(self) -> bool:
        """Whether padding is gone from the level that still has to compute the same."""
        level = self.levels.unchanged
        return level is not None and packing_of(level) is not None

    def run(self, stage: Stage, inputs: Arrays) -> dict[str, Array]:
        """What a module computes."""
        with np.errstate(all="ignore"):
            return run_level(self.modules[stage], self.weights, inputs)

    def run_model(self, inputs: Arrays) -> tuple[dict[str, Array], bool]:
        """What the model computes, and whether numbers became infinite on the way."""
        found: list[str] = []

        def note(kind: str, flag: int) -> None:
            found.append(kind)

        with np.errstate(all="ignore", over="call", call=note):
            outputs = run_level(self.modules["model"], self.weights, inputs)
        return outputs, bool(found)

    def trace(self, stage: Stage, inputs: Arrays, *, codes: bool = False) -> Trace:
        """The values inside of it."""
        trace = Trace(codes)
        with np.errstate(all="ignore"):
            run_level(self.modules[stage], self.weights, inputs, trace.observe)
        return trace

    @property
    def steps(self) -> tuple[Step, ...]:
        """What has to hold, from the model to the program, so that the first fault is named."""
        if self.levels.changes_values:
            fixed = self.levels.fixed is not None
            own = Step("codes", "program", IDENTICAL) if fixed else Step("module", "program", CLOSE)
            return Step("model", "level", CLOSE), own
        if self.levels.fixed is None:
            return (Step("model", "program", CLOSE),)
        return (
            Step("model", "reals", CLOSE),
            Step("reals", "codes", ROUNDED),
            Step("codes", "program", IDENTICAL),
        )

    @property
    def parts(self) -> tuple[str, ...]:
        """How the program is meant to differ from the model."""
        parts = [f"pruned by {', '.join(self.levels.pruned)}"] if self.levels.pruned else []
        parts += [f"changed by {', '.join(self.levels.changed)}"] if self.levels.changed else []
        return (*parts, "factors in place of weights") if self.levels.factorised else tuple(parts)
