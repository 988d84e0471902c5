"""
The fixed-point level with real numbers in place of codes.

It computes what the level would compute if nothing were rounded and nothing saturated, so that a
wrong operand, scale or bias shows at float32's accuracy, not at that of 16 bits.
"""

from __future__ import annotations

from typing import cast

from xdsl.dialects.builtin import ModuleOp, TensorType, f32
from xdsl.ir import Attribute, SSAValue
from xdsl.rewriter import Rewriter

from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp, RequantizeOp

Quanta = dict[SSAValue, float]


def with_reals(module: ModuleOp) -> tuple[ModuleOp, Quanta]:
    """
    A copy of a fixed-point module that computes on real numbers.

    The second result has, for the values of the copy that were codes, what one code is worth. The
    copy is for the interpreter alone: it would not pass the verifier.
    """
    module = module.clone()
    quanta: Quanta = {}
    for op in list(module.walk()):
        for value in op.results:
            quanta |= _retype(value)
        for region in op.regions:
            for block in region.blocks:
                for argument in block.args:
                    quanta |= _retype(argument)
    for op in list(module.walk()):
        if isinstance(op, QuantizeOp | DequantizeOp | RequantizeOp):
            quantum = quanta.pop(op.result, 0.0)
            quanta[op.x] = max(quantum, quanta.get(op.x, 0.0))
            op.result.replace_all_uses_with(op.x)
            Rewriter.erase_op(op)
    return module, quanta


def _retype(value: SSAValue) -> Quanta:
    """Codes become float32; their worth is remembered."""
    if not isinstance(value.type, TensorType):
        return {}
    type_ = cast(TensorType[Attribute], value.type)
    element = type_.get_element_type()
    if not isinstance(element, QType):
        return {}
    real: TensorType[Attribute] = TensorType(f32, type_.get_shape())
    return {Rewriter.replace_value_with_new_type(value, real): 2.0**-element.point.data}
