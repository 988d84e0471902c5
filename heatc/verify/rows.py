"""Which positions of an output are compared with the model's, and which have to be 0."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.interpreter import input_names, main_function, output_names
from heatc.interpreter.nn import NnFunctions
from heatc.interpreter.nn_math import NnMathFunctions
from heatc.interpreter.values import Packing
from heatc.passes.analysis.ports import output_paddings
from heatc.samples import MaskValues

Array = NDArray[Any]
Mask = NDArray[np.bool_]

_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.ExpandOp, nn.SliceOp)


class Rows(NamedTuple):
    """
    The part of an output that has to be the model's; the rest has to be exactly 0.

    `kept` broadcasts to the output. None: all of it is compared.
    """

    kept: Mask | None = None

    def of(self, array: Array) -> Array:
        """What is compared, (values,)."""
        return array.reshape(-1) if self.kept is None else array[self._wide(array)]

    def rest(self, array: Array) -> Array:
        """What has to be 0, (values,)."""
        return array.reshape(-1)[:0] if self.kept is None else array[~self._wide(array)]

    def _wide(self, array: Array) -> Mask:
        return np.broadcast_to(np.asarray(self.kept), array.shape)


class Tokens(NamedTuple):
    """
    The tokens of an input: `real` (samples, length), and `rows`, the flat positions that a packed
    value has, in its order.
    """

    real: Mask
    rows: NDArray[np.int64]


def tokens_of(
    packed: ModuleOp | None, inputs: Mapping[str, Array], masks: Mapping[str, MaskValues]
) -> Tokens | None:
    """What a packed module makes of an input; None where it packs nothing away."""
    packing = None if packed is None else packing_of(packed)
    if packed is None or packing is None or packing.mask is None:
        return None
    type_ = attn.packing_of(packing.result)
    for name in input_names(main_function(packed)):
        if name in masks and inputs[name].size == type_.shape[0] * type_.shape[1]:
            real = masks[name].tells(inputs[name]).reshape(type_.shape)
            return Tokens(real, Packing.of(real, type_.reads).rows)
    return None


def packing_of(module: ModuleOp) -> attn.PackingOp | None:
    """What packs the tokens of a module; None where nothing does."""
    ops = main_function(module).body.block.ops
    return next((op for op in ops if isinstance(op, attn.PackingOp)), None)


def output_rows(packed: ModuleOp | None, tokens: Tokens | None) -> dict[str, Rows]:
    """
    What is compared of each output, by name; an output that is not named is compared whole.

    `packed` is the level at which padding disappeared, whose result attributes say which outputs
    are 0 at masked positions.
    """
    if packed is None or tokens is None:
        return {}
    function = main_function(packed)
    result = function.body.block.last_op
    assert isinstance(result, ReturnOp)
    paddings = zip(output_names(function), result.operands, output_paddings(function))
    return {
        name: Rows(_kept(value, tokens.real) if padding == "zero" else None)
        for name, value, padding in paddings
    }


def _kept(value: SSAValue, real: Mask) -> Mask:
    """
    Where a value that is 0 at masked positions is not.

    Such a value came back from packed rows and was moved since, or a mask was laid over it.
    """
    owner = value.owner
    if isinstance(owner, attn.RealOp):
        return real
    if isinstance(owner, attn.UnpackOp):
        shape = nn.shape_of(value)
        return np.broadcast_to(real.reshape(*real.shape, *(1,) * (len(shape) - 2)), shape)
    if isinstance(owner, nn.WhereOp):
        return _kept(owner.condition, real)
    if isinstance(owner, nn.AndOp):
        return _kept(owner.lhs, real) & _kept(owner.rhs, real)
    assert isinstance(owner, _MOVES), f"{owner} leaves no zeros"
    return _moved(owner, _kept(owner.operands[0], real))


def _moved(op: Operation, mask: Mask) -> Mask:
    interpreter = Interpreter(ModuleOp([]))
    interpreter.register_implementations(NnFunctions())
    interpreter.register_implementations(NnMathFunctions())
    return interpreter.run_op(op, (mask,))[0]
