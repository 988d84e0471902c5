"""NumPy semantics of the ops of `nn` on functions of elements, along axes, and of RMS norm."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import f64
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.functions import FUNCTIONS
from heatc.interpreter.values import Array, element_type, load, store


def operand(array: Array, value: SSAValue, result: SSAValue) -> Array:
    """The numbers of an operand, in float64 where the result is: hosts round once, at the end."""
    numbers = load(array, value)
    return numbers.astype(np.float64) if element_type(result) == f64 else numbers


def reduce(x: Array, kind: str, axes: tuple[int, ...]) -> Array:
    """
    One number for the elements along axes.

    Floats are added and multiplied in float64, integers in 64 bits.
    """
    if kind in ("any", "all"):
        truth = x != 0
        return truth.any(axis=axes) if kind == "any" else truth.all(axis=axes)
    if kind in ("max", "min"):
        return x.max(axis=axes) if kind == "max" else x.min(axis=axes)
    wide = x.astype(np.float64) if x.dtype.kind == "f" else x.astype(np.int64)
    if kind == "mean":
        return wide.mean(axis=axes)
    return wide.sum(axis=axes) if kind == "sum" else wide.prod(axis=axes)


def rms_norm(x: Array, weight: Array, eps: float) -> NDArray[np.float64]:
    """RMS norm over the last axis, in float64."""
    x = x.astype(np.float64)
    mean = (x * x).mean(axis=-1, keepdims=True)
    return x / np.sqrt(mean + eps) * weight.astype(np.float64)


@register_impls
class NnMathFunctions(InterpreterFunctions):
    """One method an op; operands that are codes are read as values, results are rounded once."""

    def _binary(self, op: nn.BinaryOp, args: PythonValues, function: Any) -> PythonValues:
        lhs = operand(args[0], op.lhs, op.result)
        rhs = operand(args[1], op.rhs, op.result)
        with np.errstate(all="ignore"):
            return (store(function(lhs, rhs), op.result),)

    @impl(nn.MaximumOp)
    def run_maximum(
        self, interpreter: Interpreter, op: nn.MaximumOp, args: PythonValues
    ) -> PythonValues:
        return self._binary(op, args, np.maximum)

    @impl(nn.MinimumOp)
    def run_minimum(
        self, interpreter: Interpreter, op: nn.MinimumOp, args: PythonValues
    ) -> PythonValues:
        return self._binary(op, args, np.minimum)

    @impl(nn.PowOp)
    def run_pow(self, interpreter: Interpreter, op: nn.PowOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.power)

    @impl(nn.FloorDivOp)
    def run_floor_div(
        self, interpreter: Interpreter, op: nn.FloorDivOp, args: PythonValues
    ) -> PythonValues:
        return self._binary(op, args, np.floor_divide)

    @impl(nn.RemainderOp)
    def run_remainder(
        self, interpreter: Interpreter, op: nn.RemainderOp, args: PythonValues
    ) -> PythonValues:
        return self._binary(op, args, np.remainder)

    @impl(nn.MapOp)
    def run_map(self, interpreter: Interpreter, op: nn.MapOp, args: PythonValues) -> PythonValues:
        x = operand(args[0], op.x, op.result)
        with np.errstate(all="ignore"):
            return (store(FUNCTIONS[op.function.data].compute(x), op.result),)

    @impl(nn.ReduceOp)
    def run_reduce(
        self, interpreter: Interpreter, op: nn.ReduceOp, args: PythonValues
    ) -> PythonValues:
        return (store(reduce(load(args[0], op.x), op.kind.data, op.reduced), op.result),)

    @impl(nn.ArgmaxOp)
    def run_argmax(
        self, interpreter: Interpreter, op: nn.ArgmaxOp, args: PythonValues
    ) -> PythonValues:
        return (np.argmax(load(args[0], op.x), axis=op.axis.value.data),)

    @impl(nn.CumsumOp)
    def run_cumsum(
        self, interpreter: Interpreter, op: nn.CumsumOp, args: PythonValues
    ) -> PythonValues:
        x = load(args[0], op.x)
        wide = x.astype(np.float64 if x.dtype.kind == "f" else np.int64)
        return (store(np.cumsum(wide, axis=op.axis.value.data), op.result),)

    @impl(nn.RmsNormOp)
    def run_rms_norm(
        self, interpreter: Interpreter, op: nn.RmsNormOp, args: PythonValues
    ) -> PythonValues:
        x, weight = (load(a, v) for a, v in zip(args, op.operands))
        return (store(rms_norm(x, weight, op.eps.value.data), op.result),)
