"""Which rows of an output are compared with the model's, and which must be 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.interpreter import input_names, main_function, output_names
from heatc.samples import MaskValues

Array = NDArray[Any]
Mask = NDArray[np.bool_]


class Rows(NamedTuple):
    """
    The part of an output that has to be the model's.

    Attributes:
        real: over the output's first axes, true where it is compared; None: everywhere.
        zero: whether the rest has to be exactly 0, else nothing is said about it.
    """

    real: Mask | None
    zero: bool = False

    def of(self, array: Array) -> Array:
        """What is compared: (rows, width)."""
        rows = array if self.real is None else array[self.real]
        return rows.reshape(-1, array.shape[-1] if array.ndim > 1 else 1)

    def rest(self, array: Array) -> Array:
        """What has to be 0."""
        if self.real is None or not self.zero:
            return array[:0]
        return array[~self.real]


def real_tokens(
    module: ModuleOp, inputs: Mapping[str, Array], masks: Mapping[str, MaskValues]
) -> Mask | None:
    """The (samples, length) mask of the first input that marks padding; None where none does."""
    for name in input_names(main_function(module)):
        if name in masks and inputs[name].ndim == 2:
            return inputs[name] == masks[name].real
    return None


def output_rows(
    packed: ModuleOp | None, inputs: Mapping[str, Array], masks: Mapping[str, MaskValues]
) -> dict[str, Rows]:
    """
    What is compared of each output, by name; an output that is not named is compared whole.

    `packed` is the level at which padding disappeared, None where there is none: then nothing was
    left out.
    """
    if packed is None:
        return {}
    function = main_function(packed)
    result = function.body.block.last_op
    real = real_tokens(packed, inputs, masks)
    packings = any(isinstance(op, attn.PackingOp) for op in function.body.block.ops)
    if real is None or not packings or not isinstance(result, ReturnOp):
        return {}
    return {
        name: _rows(value, real) for name, value in zip(output_names(function), result.operands)
    }


def _rows(value: SSAValue, real: Mask) -> Rows:
    if isinstance(value.owner, attn.UnpackOp):
        return Rows(real, zero=True)
    shape = nn.shape_of(value)
    if shape[:2] == real.shape:
        return Rows(real)
    samples = np.ones(len(real), np.bool_)
    for op in _sources(value):
        # The row of a token that is masked is 0 by definition.
        if isinstance(op, attn.TokenOp):
            samples &= real[:, op.position.value.data]
    return Rows(samples) if shape[:1] == samples.shape else Rows(None)


def _sources(value: SSAValue) -> set[Operation]:
    """The ops that a value is computed by, back to the rows of tokens."""
    found: set[Operation] = set()
    waiting = [value]
    while waiting:
        owner = waiting.pop().owner
        if not isinstance(owner, Operation) or owner in found:
            continue
        found.add(owner)
        if not isinstance(owner, attn.TokenOp | attn.UnpackOp):
            waiting += owner.operands
    return found
