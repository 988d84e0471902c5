"""What the ops of `act` compute."""

from __future__ import annotations

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc_relu6.dialect import Relu6Op


@register_impls
class ActFunctions(InterpreterFunctions):
    """One method an op."""

    @impl(Relu6Op)
    def run_relu6(self, interpreter: Interpreter, op: Relu6Op, args: PythonValues) -> PythonValues:
        return (np.clip(args[0], 0, 6),)


SEMANTICS = ActFunctions()
