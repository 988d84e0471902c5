"""
Activations and norms that a model spells out become one op each.

Assumes the captured or raised level. Two kinds are found by what is computed, not by names:

- A function of one value: sums, products, quotients and functions of it and of numbers. It is compared
  with the known activations on a grid, so that its spelling does not matter: `x * sigmoid(x)`, GELU by its
  formulas. They become `nn.gelu` and `nn.map {function = "silu"}`.
- A value over the root of its mean square: `nn.rms_norm`; of what has its mean taken off, `nn.layer_norm`. A
  weight and an offset beside it are taken in.

Equal up to float rounding. Bounds of one op are tight where those of its parts are not, and the machine has
an instruction for each. Leaves what no such op is.

Example: test/passes/raise_activations.mlir.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects import nn
from heatc.functions import FUNCTIONS
from heatc.interpreter.nn import gelu
from heatc.passes.analysis.spelled_norms import Norm, find_norm
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, insert_before, replace_value

MOST_OPS = 16
"""Ops that a spelled-out activation has at most."""

GRID: NDArray[np.float64] = np.linspace(-12.0, 12.0, 2001)
CLOSE = 1e-6
"""How far values may be apart, in parts of 1 + |x|; the activations differ by 1e-4 and more."""

Values = NDArray[np.float64]

_ARITHMETIC: Mapping[type[Operation], Callable[[Values, Values], Values]] = {
    nn.AddOp: np.add,
    nn.SubOp: np.subtract,
    nn.MulOp: np.multiply,
    nn.DivOp: np.divide,
    nn.PowOp: np.power,
}

_KNOWN: Mapping[str, Values] = {
    "none": gelu(GRID, "none"),
    "tanh": gelu(GRID, "tanh"),
    "quick": GRID * FUNCTIONS["sigmoid"].compute(1.702 * GRID),
    "silu": FUNCTIONS["silu"].compute(GRID),
}
"""The activations on the grid: forms of GELU, and SiLU."""


def _parts(root: Operation) -> list[SSAValue] | None:
    """The values that lead to an op by arithmetic of single elements, nearest first; None for too many."""
    found: dict[SSAValue, None] = {}
    pending = list(root.operands)
    while pending:
        value = pending.pop(0)
        if value in found or isinstance(value.owner, nn.FullOp):
            continue
        found[value] = None
        if len(found) > MOST_OPS:
            return list(found)
        if isinstance(value.owner, Operation) and _is_element_wise(value.owner):
            pending += value.owner.operands
    return list(found)


def _is_element_wise(op: Operation) -> bool:
    return type(op) in _ARITHMETIC or isinstance(op, nn.MapOp | nn.TanhOp)


def _on_grid(root: SSAValue, x: SSAValue) -> Values | None:
    """A value as a function of `x` on the grid, None where it is none."""
    known: dict[SSAValue, Values] = {x: GRID}
    pending = [root]
    for _ in range(4 * MOST_OPS):
        if not pending:
            return known[root]
        value = pending[-1]
        op = value.owner
        if value in known:
            pending.pop()
        elif isinstance(op, nn.FullOp):
            known[value] = np.array(op.value.value.data)
        elif not isinstance(op, Operation) or not _is_element_wise(op):
            return None
        elif missing := [v for v in op.operands if v not in known]:
            pending += missing
        else:
            known[value] = _computed(op, [known[v] for v in op.operands])
    return None


def _computed(op: Operation, operands: list[Values]) -> Values:
    if isinstance(op, nn.MapOp):
        return FUNCTIONS[op.function.data].compute(operands[0])
    if isinstance(op, nn.TanhOp):
        return np.tanh(operands[0])
    return _ARITHMETIC[type(op)](*operands)


def _activation(op: nn.MulOp) -> tuple[str, SSAValue] | None:
    """The activation that a product ends, and the value that it is of."""
    parts = _parts(op)
    if parts is None or not any(_bends(v.owner) for v in parts):
        return None
    for x in parts:
        if x.type != op.result.type:
            continue
        with np.errstate(all="ignore"):
            found = _on_grid(op.result, x)
        if found is None or found.shape != GRID.shape:
            continue
        for name, values in _KNOWN.items():
            if bool((np.abs(found - values) <= CLOSE * (1.0 + np.abs(GRID))).all()):
                return name, x
    return None


def _bends(op: Any) -> bool:
    """Whether an op is what every known activation is made of."""
    if isinstance(op, nn.TanhOp):
        return True
    return isinstance(op, nn.MapOp) and op.function.data in ("erf", "sigmoid")


def _raise_activation(op: nn.MulOp) -> None:
    found = _activation(op)
    if found is None:
        return
    name, x = found
    new = nn.MapOp(x, "silu") if name == "silu" else nn.GeluOp(x, name)
    insert_before(op, new)
    replace_value(op.result, new.result)


def _raise_norm(op: Operation) -> None:
    norm = find_norm(op)
    if norm is None:
        return
    new = _norm_op(op, norm)
    insert_before(op, new)
    replace_value(op.results[0], new.results[0])


def _norm_op(op: Operation, norm: Norm) -> Operation:
    weight = norm.weight
    if weight is None:
        weight = _numbers(op, norm.x, 1.0)
    if not norm.is_centred:
        return nn.RmsNormOp(norm.x, weight, norm.eps)
    offset = norm.offset
    if offset is None:
        offset = _numbers(op, norm.x, 0.0)
    return nn.LayerNormOp(norm.x, weight, offset, norm.eps)


def _numbers(op: Operation, x: SSAValue, value: float) -> SSAValue:
    full = nn.FullOp(value, TensorType(nn.element_of(x), nn.shape_of(x)[-1:]))
    insert_before(op, full)
    return full.result


@dataclass(frozen=True)
class RaiseActivationsPass(ModulePass):
    """Spelled-out activations and norms become one op each; equal up to float rounding."""

    name = "raise-activations"
    effect: ClassVar[Effect] = Effect.TOLERANCE

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        # Last first: a norm takes in the weight and the offset behind it.
        for inner in reversed(list(op.walk())):
            if isinstance(inner, nn.MulOp | nn.AddOp | nn.DivOp) and inner.result.uses:
                _raise_norm(inner)
        erase_dead(op)
        for inner in list(op.walk()):
            if isinstance(inner, nn.MulOp):
                _raise_activation(inner)
        erase_dead(op)
