"""NumPy semantics of the `nn` dialect."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from heatc.dialects import nn
from heatc.errors import HeatcError
from heatc.interpreter.nn_math import operand
from heatc.interpreter.values import Array, load, static_shape, store
from heatc.ir_errors import describe_location
from heatc.isa import units


def softmax(x: Array, axis: int = -1) -> Array:
    """Softmax along an axis; a row of nothing but -inf gives NaN, as in PyTorch."""
    with np.errstate(invalid="ignore"):
        e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def masked_softmax(x: Array) -> Array:
    """Softmax along the last axis in which a row of nothing but -inf gives zeros."""
    peak: Array = x.max(axis=-1, keepdims=True)
    e = np.exp(x - np.where(np.isneginf(peak), 0.0, peak).astype(x.dtype))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0.0, 1.0, total).astype(x.dtype)


def _erf(x: NDArray[np.float64]) -> None:
    """In place."""
    # Imported late: most runs of the tools never need scipy.
    from scipy.special import erf

    erf(x, out=x)


def gelu(x: Array, approximate: str) -> Array:
    """GELU in float64."""
    x = x.astype(np.float64)
    if approximate == "tanh":
        return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
    if approximate == "quick":
        return x * 0.5 * (1.0 + np.tanh(0.851 * x))
    gate = x * np.sqrt(0.5)
    _erf(gate)
    gate += 1.0
    x *= 0.5
    x *= gate
    return x


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> NDArray[np.float64]:
    """Layer norm over the last axis, in float64, biased variance."""
    x = x.astype(np.float64)
    centred = x - x.mean(axis=-1, keepdims=True)
    variance = (centred * centred).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * weight.astype(np.float64) + bias.astype(np.float64)


def reshape(x: Array, shape: tuple[int, ...]) -> Array:
    """Row-major reshape; the packed axis takes what is left."""
    return x.reshape(shape)


@register_impls
class NnFunctions(InterpreterFunctions):
    """One method an op; operands that are codes are read as values, results are rounded once."""

    def _binary(self, op: nn.BinaryOp, args: PythonValues, function: Any) -> PythonValues:
        lhs = operand(args[0], op.lhs, op.result)
        rhs = operand(args[1], op.rhs, op.result)
        result = function(lhs, rhs)
        return (store(result, op.result),)

    @impl(nn.AddOp)
    def run_add(self, interpreter: Interpreter, op: nn.AddOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.add)

    @impl(nn.SubOp)
    def run_sub(self, interpreter: Interpreter, op: nn.SubOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.subtract)

    @impl(nn.MulOp)
    def run_mul(self, interpreter: Interpreter, op: nn.MulOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.multiply)

    @impl(nn.DivOp)
    def run_div(self, interpreter: Interpreter, op: nn.DivOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.divide)

    @impl(nn.AndOp)
    def run_and(self, interpreter: Interpreter, op: nn.AndOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.bitwise_and)

    @impl(nn.OrOp)
    def run_or(self, interpreter: Interpreter, op: nn.OrOp, args: PythonValues) -> PythonValues:
        return self._binary(op, args, np.bitwise_or)

    @impl(nn.CompareOp)
    def run_compare(
        self, interpreter: Interpreter, op: nn.CompareOp, args: PythonValues
    ) -> PythonValues:
        return self._binary(op, args, units.COMPARE[op.predicate.data])

    @impl(nn.NotOp)
    def run_not(self, interpreter: Interpreter, op: nn.NotOp, args: PythonValues) -> PythonValues:
        return (store(np.invert(args[0]), op.result),)

    @impl(nn.TanhOp)
    def run_tanh(self, interpreter: Interpreter, op: nn.TanhOp, args: PythonValues) -> PythonValues:
        return (store(np.tanh(operand(args[0], op.x, op.result)), op.result),)

    @impl(nn.ReluOp)
    def run_relu(self, interpreter: Interpreter, op: nn.ReluOp, args: PythonValues) -> PythonValues:
        return (store(np.maximum(load(args[0], op.x), 0), op.result),)

    @impl(nn.CastOp)
    def run_cast(self, interpreter: Interpreter, op: nn.CastOp, args: PythonValues) -> PythonValues:
        # An infinite number becomes some integer, as in PyTorch.
        with np.errstate(invalid="ignore"):
            return (store(load(args[0], op.x), op.result),)

    @impl(nn.GeluOp)
    def run_gelu(self, interpreter: Interpreter, op: nn.GeluOp, args: PythonValues) -> PythonValues:
        return (store(gelu(load(args[0], op.x), op.approximate.data), op.result),)

    @impl(nn.SoftmaxOp)
    def run_softmax(
        self, interpreter: Interpreter, op: nn.SoftmaxOp, args: PythonValues
    ) -> PythonValues:
        x, dim = load(args[0], op.x), op.dim.value.data
        if op.safe is None:
            return (store(softmax(x, dim), op.result),)
        rows = masked_softmax(np.moveaxis(x, dim, -1))
        return (store(np.moveaxis(rows, -1, dim), op.result),)

    @impl(nn.WhereOp)
    def run_where(
        self, interpreter: Interpreter, op: nn.WhereOp, args: PythonValues
    ) -> PythonValues:
        condition, lhs, rhs = args
        return (store(np.where(condition, load(lhs, op.lhs), load(rhs, op.rhs)), op.result),)

    @impl(nn.EmbeddingOp)
    def run_embedding(
        self, interpreter: Interpreter, op: nn.EmbeddingOp, args: PythonValues
    ) -> PythonValues:
        table, ids = args
        if ids.size and not 0 <= ids.min() <= ids.max() < len(table):
            raise HeatcError(
                f"ids from {ids.min()} to {ids.max()} index a table of {len(table)} rows",
                place=describe_location(op.location)[0],
            )
        return (store(load(table[ids], op.table), op.result),)

    @impl(nn.LinearOp)
    def run_linear(
        self, interpreter: Interpreter, op: nn.LinearOp, args: PythonValues
    ) -> PythonValues:
        y = load(args[0], op.x) @ load(args[1], op.weight).T
        if op.bias is not None:
            y = y + load(args[2], op.bias)
        return (store(y, op.result),)

    @impl(nn.MatmulOp)
    def run_matmul(
        self, interpreter: Interpreter, op: nn.MatmulOp, args: PythonValues
    ) -> PythonValues:
        return (store(load(args[0], op.lhs) @ load(args[1], op.rhs), op.result),)

    @impl(nn.SdpaOp)
    def run_sdpa(self, interpreter: Interpreter, op: nn.SdpaOp, args: PythonValues) -> PythonValues:
        q, k, v = args[:3]
        scores = (q @ np.swapaxes(k, -1, -2)) * np.float32(op.scale.value.data)
        if op.mask is not None:
            mask = args[3]
            scores = np.where(mask, scores, -np.inf) if mask.dtype == np.bool_ else scores + mask
        if op.is_causal.value.data:
            scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
        return (store(masked_softmax(scores) @ v, op.result),)

    @impl(nn.LayerNormOp)
    def run_layer_norm(
        self, interpreter: Interpreter, op: nn.LayerNormOp, args: PythonValues
    ) -> PythonValues:
        x, weight, bias = (load(a, v) for a, v in zip(args, op.operands))
        return (store(layer_norm(x, weight, bias, op.eps.value.data), op.result),)

    @impl(nn.ReshapeOp)
    def run_reshape(
        self, interpreter: Interpreter, op: nn.ReshapeOp, args: PythonValues
    ) -> PythonValues:
        return (reshape(args[0], static_shape(op.result)),)

    @impl(nn.TransposeOp)
    def run_transpose(
        self, interpreter: Interpreter, op: nn.TransposeOp, args: PythonValues
    ) -> PythonValues:
        return (np.transpose(args[0], [int(p) for p in op.permutation.get_values()]),)

    @impl(nn.ExpandOp)
    def run_expand(
        self, interpreter: Interpreter, op: nn.ExpandOp, args: PythonValues
    ) -> PythonValues:
        shape = static_shape(op.result)
        if -1 in shape:
            # As many rows as there are tokens in this run.
            shape = (args[0].shape[0], *shape[1:])
        return (np.broadcast_to(args[0], shape),)

    @impl(nn.SliceOp)
    def run_slice(
        self, interpreter: Interpreter, op: nn.SliceOp, args: PythonValues
    ) -> PythonValues:
        return (args[0][slices(op, args[0].shape)],)

    @impl(nn.IndexOp)
    def run_index(
        self, interpreter: Interpreter, op: nn.IndexOp, args: PythonValues
    ) -> PythonValues:
        x, *indices = args
        for size, index in zip(x.shape, indices):
            if index.size and not -size <= index.min() <= index.max() < size:
                raise HeatcError(
                    f"indices from {index.min()} to {index.max()} on an axis of {size}",
                    place=describe_location(op.location)[0],
                )
        return (x[tuple(indices)],)

    @impl(nn.ConcatOp)
    def run_concat(
        self, interpreter: Interpreter, op: nn.ConcatOp, args: PythonValues
    ) -> PythonValues:
        return (np.concatenate(args, axis=op.dim.value.data),)

    @impl(nn.IotaOp)
    def run_iota(self, interpreter: Interpreter, op: nn.IotaOp, args: PythonValues) -> PythonValues:
        (count,) = static_shape(op.result)
        values = op.start.value.data + op.step.value.data * np.arange(count)
        return (store(values, op.result),)

    @impl(nn.FullOp)
    def run_full(self, interpreter: Interpreter, op: nn.FullOp, args: PythonValues) -> PythonValues:
        values = np.full(static_shape(op.result), op.value.value.data, np.float64)
        return (store(values, op.result),)


def slices(op: nn.SliceOp, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The NumPy slices of an `nn.slice`; the packed axis is taken whole."""
    starts = [int(s) for s in op.starts.get_values()]
    steps = [int(s) for s in op.steps.get_values()]
    sizes = [extent if size < 0 else size for size, extent in zip(static_shape(op.result), shape)]
    return tuple(
        slice(start, start + (size - 1) * step + 1, step)
        for start, size, step in zip(starts, sizes, steps)
    )
