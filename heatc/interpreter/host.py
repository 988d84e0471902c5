"""NumPy semantics of the `host` dialect."""

from __future__ import annotations

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

from heatc.dialects.host import TaskOp, YieldOp


@register_impls
class HostFunctions(InterpreterFunctions):
    """A task runs its region."""

    @impl(TaskOp)
    def run_task(self, interpreter: Interpreter, op: TaskOp, args: PythonValues) -> PythonValues:
        return interpreter.run_ssacfg_region(op.body, args, "host.task")

    @impl_terminator(YieldOp)
    def run_yield(
        self, interpreter: Interpreter, op: YieldOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()
