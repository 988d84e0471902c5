"""
How far a model's outputs move when each of its ops is a little off.

Asked for only where a bound is broken: a model that moves as far by itself is not evidence of a
wrong program. docs/design/verification.md says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp
from heatc.verify.levels import run_level
from heatc.weights import WeightStore

Array = NDArray[Any]
Arrays = Mapping[str, Array]
Noise = Callable[[Operation, Array], Any]

FLOAT_NOISE = 2.0**-22
"""Relative: some roundings of float32."""

FACTOR = 8.0
"""A difference within so many times of what noise does is no evidence."""

_ELEMENTWISE = (nn.AddOp, nn.SubOp, nn.MulOp, nn.DivOp, nn.GeluOp, nn.TanhOp)
_SUMS = (
    nn.LinearOp,
    nn.MatmulOp,
    nn.LayerNormOp,
    nn.SoftmaxOp,
    nn.SdpaOp,
    ContractOp,
    attn.ScoresOp,
    attn.SoftmaxOp,
    attn.WeightedValuesOp,
)
"""
Both give a new array. Others may give a view of a weight, which nobody may change.
"""


def float_noise(op: Operation, array: Array) -> Any:
    """The amplitude of roundings in another order: of a sum it follows the row's largest value."""
    sizes = np.abs(array)
    return FLOAT_NOISE * (sizes.max(axis=-1, keepdims=True) if isinstance(op, _SUMS) else sizes)


def code_noise(quanta: Mapping[SSAValue, float]) -> Noise:
    """The amplitude of rounding into codes of which each is worth `quanta`."""
    return lambda op, array: quanta.get(op.results[0], 0.0)


def shaken(
    module: ModuleOp, weights: WeightStore, inputs: Arrays, noise: Noise, seed: int = 0
) -> dict[str, Array]:
    """The outputs where the result of every op has uniform noise of that amplitude."""
    rng = np.random.default_rng(seed)

    def shake(op: Operation, results: Sequence[Any]) -> None:
        if not isinstance(op, (*_ELEMENTWISE, *_SUMS)) or not isinstance(results[0], np.ndarray):
            return
        array = cast(Array, results[0])
        if array.dtype.kind != "f" or not array.ndim or not array.size:
            return
        if array.flags.owndata and array.flags.writeable:
            shift = rng.uniform(-1.0, 1.0, array.shape)
            with np.errstate(invalid="ignore"):
                array += (shift * noise(op, array)).astype(array.dtype)

    return run_level(module, weights, inputs, shake)
