"""NumPy semantics of the `fixed` dialect."""

from __future__ import annotations

from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc.dialects.fixed import DequantizeOp, QuantizeOp, RequantizeOp
from heatc.fixed_point import requantize
from heatc.interpreter.values import fixed_type, load, store


@register_impls
class FixedFunctions(InterpreterFunctions):
    """Rounding is half to even, overflow saturates."""

    @impl(QuantizeOp)
    def run_quantize(
        self, interpreter: Interpreter, op: QuantizeOp, args: PythonValues
    ) -> PythonValues:
        return (store(args[0], op.result),)

    @impl(DequantizeOp)
    def run_dequantize(
        self, interpreter: Interpreter, op: DequantizeOp, args: PythonValues
    ) -> PythonValues:
        return (store(load(args[0], op.x), op.result),)

    @impl(RequantizeOp)
    def run_requantize(
        self, interpreter: Interpreter, op: RequantizeOp, args: PythonValues
    ) -> PythonValues:
        source, target = fixed_type(op.x), fixed_type(op.result)
        codes = requantize(args[0], source.point.data, target.point.data, target.width.data).codes
        return (codes,)
