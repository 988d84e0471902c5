"""NumPy semantics of the `einsum` dialect."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.utils.exceptions import InterpretationError

from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.errors import HeatcError
from heatc.fixed_point import Codes, encode, matmul, storage_dtype
from heatc.interpreter.values import Array, fixed_type, is_fixed, static_shape, store
from heatc.ir_errors import describe_location
from heatc.weights import WeightStore


def weight_array(op: WeightOp, weights: WeightStore) -> Array:
    """
    The weight an op names, in its type: a view of the file where no change is asked for.

    Raises `HeatcError` for an unknown name, a wrong checksum or another shape.
    """
    if op.checksum is not None:
        weights.check(op.keys, op.checksum.data)
    parts = [weights[name] for name in op.keys]
    order = None if op.permutation is None else [int(p) for p in op.permutation.get_values()]
    _check_shapes(op, [part.shape for part in parts], order)
    array: Array = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=0)
    if order is not None:
        array = np.transpose(array, order)
    if is_fixed(op.result):
        point, width = fixed_type(op.result).point.data, fixed_type(op.result).width.data
        # Products are exact in any dtype, and most bytes of a model are those of its products.
        multiplied = all(isinstance(use.operation, ContractOp) for use in op.result.uses)
        return encode(array, point, width, storage_dtype(width) if multiplied else np.int64).codes
    return store(array, op.result)


def _check_shapes(
    op: WeightOp, shapes: Sequence[tuple[int, ...]], order: Sequence[int] | None
) -> None:
    """Raise `HeatcError` where tensors, one below the other and turned, have not the op's shape."""
    first = shapes[0]
    whole = first if len(shapes) == 1 else (sum(s[0] for s in shapes if s), *first[1:])
    axes = range(len(whole)) if order is None else order
    fits = all(s[1:] == first[1:] and len(s) == len(first) for s in shapes)
    fits = fits and sorted(axes) == list(range(len(whole)))
    if fits and tuple(whole[a] for a in axes) == static_shape(op.result):
        return
    where, path = describe_location(op.location)
    raise HeatcError(
        f"weight {', '.join(op.keys)} has shape {' and '.join(map(str, shapes))}, "
        f"the IR says {static_shape(op.result)}",
        place=where,
        notes=[*([f"in {path}"] if path else []), "these are the weights of another model"],
    )


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
