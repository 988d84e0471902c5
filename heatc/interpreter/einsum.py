"""NumPy semantics of the `einsum` dialect."""

from __future__ import annotations

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.fixed_point import Codes, encode, matmul, storage_dtype
from heatc.interpreter.values import Array, fixed_type, is_fixed, static_shape, store
from heatc.weights import WeightStore


def weight_array(op: WeightOp, weights: WeightStore) -> Array:
    """
    The weight an op names, in its type: a view of the file where no change is asked for.

    Raises `HeatcError` for an unknown name or a wrong checksum, `InterpretationError` for another
    shape.
    """
    if op.checksum is not None:
        weights.check(op.keys, op.checksum.data)
    parts = [weights[name] for name in op.keys]
    array: Array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=0)
    if op.permutation is not None:
        array = np.transpose(array, [int(p) for p in op.permutation.get_values()])
    if array.shape != static_shape(op.result):
        raise InterpretationError(
            f"weight {op.keys} has shape {array.shape}, the ir says {static_shape(op.result)}"
        )
    if is_fixed(op.result):
        point, width = fixed_type(op.result).point.data, fixed_type(op.result).width.data
        # Products are exact in any dtype, and most bytes of a model are those of its products.
        multiplied = all(isinstance(use.operation, ContractOp) for use in op.result.uses)
        return encode(array, point, width, storage_dtype(width) if multiplied else np.int64).codes
    return store(array, op.result)


def exact_contract(equation: str, a: Codes, b: Codes) -> Codes:
    """An exact pairwise contraction of codes whose contracted indices are last in both terms."""
    (left, right), result = parse_equation(equation)
    if result == left[:-1] + right[:-1] and left[-1] == right[-1]:
        rows = matmul(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]).T)
        return rows.reshape(*a.shape[:-1], *b.shape[:-1])
    return np.einsum(equation, a.astype(np.int64), b.astype(np.int64))


@register_impls
class EinsumFunctions(InterpreterFunctions):
    """Weights come from a store, contractions run on BLAS."""

    def __init__(self, weights: WeightStore):
        self.weights = weights
        super().__init__()

    @impl(WeightOp)
    def run_weight(
        self, interpreter: Interpreter, op: WeightOp, args: PythonValues
    ) -> PythonValues:
        return (weight_array(op, self.weights),)

    @impl(ContractOp)
    def run_contract(
        self, interpreter: Interpreter, op: ContractOp, args: PythonValues
    ) -> PythonValues:
        if not any(is_fixed(v) for v in op.inputs):
            return (store(np.einsum(op.equation.data, *args, optimize=True), op.result),)
        points = sum(fixed_type(v).point.data for v in op.inputs)
        if len(args) != 2 or points != fixed_type(op.result).point.data:
            raise InterpretationError(
                f"a contraction of codes takes two operands and result point {points}"
            )
        return (exact_contract(op.equation.data, *args),)
