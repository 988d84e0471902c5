"""
What a model computes of weights and numbers alone, whatever its inputs are.

Values are followed backwards one op at a time: a chain of thousands of ops is as deep as it is long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects.einsum import WeightOp
from heatc.dialects.nn import TOKENS, shape_of
from heatc.interpreter import make_interpreter
from heatc.interpreter.einsum import weight_array
from heatc.weights import WeightStore


def ops_behind(value: SSAValue, known: Callable[[Operation], bool]) -> list[Operation]:
    """
    The ops that lead to a value, each once and after those that it reads.

    What leads to an op that is `known` is left out, and so is whatever no op makes.
    """
    order: dict[Operation, None] = {}
    pending: list[tuple[Operation | None, bool]] = [(_maker(value), False)]
    while pending:
        op, done = pending.pop()
        if op is None or op in order:
            continue
        if done or known(op):
            order[op] = None
            continue
        pending.append((op, True))
        pending += [(_maker(v), False) for v in reversed(op.operands)]
    return list(order)


def _maker(value: SSAValue) -> Operation | None:
    return value.owner if isinstance(value.owner, Operation) else None


class WeightValues:
    """The values that depend on weights alone: `value in weight_values`; found once each."""

    def __init__(self) -> None:
        self._known: dict[Operation, bool] = {}

    def __contains__(self, value: SSAValue) -> bool:
        maker = _maker(value)
        if maker is None:
            return False
        for op in ops_behind(value, self._is_settled):
            if op not in self._known:
                self._known[op] = self._depends_on_weights(op)
        return self._known[maker]

    def _is_settled(self, op: Operation) -> bool:
        if op in self._known or isinstance(op, WeightOp):
            return True
        # Tokens are never a weight's: nothing behind them need be looked at.
        return any(TOKENS in shape_of(result) for result in op.results if _has_shape(result))

    def _depends_on_weights(self, op: Operation) -> bool:
        if isinstance(op, WeightOp):
            return True
        if self._is_settled(op):
            return False
        makers = [_maker(v) for v in op.operands]
        return bool(makers) and all(m is not None and self._known[m] for m in makers)


def _has_shape(value: SSAValue) -> bool:
    return hasattr(value.type, "get_shape")


def first_weight(value: SSAValue) -> WeightOp | None:
    """A weight that a value is, or is computed from; None for what no weight leads to."""
    found = (op for op in ops_behind(value, lambda op: isinstance(op, WeightOp)))
    return next((op for op in found if isinstance(op, WeightOp)), None)


def evaluate(value: SSAValue, weights: WeightStore, *, wide: bool = False) -> Any:
    """
    The array of a value that depends on no input; weights in float64 where it is `wide`.

    Raises `KeyError` for a value that depends on one.
    """
    interpreter = make_interpreter(ModuleOp([]), weights)
    values: dict[SSAValue, Any] = {}
    for op in ops_behind(value, lambda op: isinstance(op, WeightOp)):
        if isinstance(op, WeightOp) and wide:
            values[op.result] = weight_array(op, weights).astype(float)
            continue
        values.update(
            zip(op.results, interpreter.run_op(op, tuple(values[v] for v in op.operands)))
        )
    return values[value]
