"""NumPy semantics of the `host` dialect."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType, f64
from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_terminator,
    register_impls,
)

from heatc.dialects import nn
from heatc.dialects.host import TaskOp, YieldOp


@register_impls
class HostFunctions(InterpreterFunctions):
    """A task runs its region, in float64 where its values have that type."""

    @impl(TaskOp)
    def run_task(self, interpreter: Interpreter, op: TaskOp, args: PythonValues) -> PythonValues:
        if _is_wide(op):
            # Whatever a host register is loaded with, it holds float64.
            args = tuple(_widened(value) for value in args)
        return interpreter.run_ssacfg_region(op.body, args, "host.task")

    @impl_terminator(YieldOp)
    def run_yield(
        self, interpreter: Interpreter, op: YieldOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()


def _is_wide(op: TaskOp) -> bool:
    """Whether a task computes in float64, as all do once types are fixed point."""
    results = [r for inner in op.body.block.ops for r in inner.results]
    return any(isinstance(r.type, TensorType) and nn.element_of(r) == f64 for r in results)


def _widened(value: Any) -> Any:
    """Floats of a narrower type as float64; anything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    array = cast(NDArray[Any], value)
    return array.astype(np.float64, copy=False) if array.dtype.kind == "f" else array
