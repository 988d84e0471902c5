"""What a module reads and multiplies: its parameters, their bytes, its multiply-accumulates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xdsl.dialects.builtin import FixedBitwidthType, IntegerType, ModuleOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.passes.analysis.tokens import most_tokens

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Counts:
    """
    Attributes:
        parameters: elements of all weights that the module reads, each weight once; positions and
            other integers are none.
        bytes: what all weights take in the types that the module reads them in.
        macs: multiply-accumulates of products with weights and of attention, at full length and
            before attention is pruned.
    """

    parameters: int
    bytes: int
    macs: int


def count(module: ModuleOp) -> Counts:
    """The counts of a module above the fixed level, whose contractions have two operands."""
    tokens = most_tokens(module)
    sizes: dict[str, int] = {}
    parameters = size = 0
    for op in sorted(_weights(module), key=lambda op: len(op.keys)):
        new = _new_elements(op, sizes)
        element = op.result.type.get_element_type()
        assert isinstance(element, FixedBitwidthType)
        size += new * -(-element.bitwidth // 8)
        parameters += 0 if isinstance(element, IntegerType) else new
    macs = sum(_macs(op, tokens) for op in module.walk())
    return Counts(parameters, size, macs)


def _weights(module: ModuleOp) -> list[WeightOp]:
    return [op for op in module.walk() if isinstance(op, WeightOp)]


def _new_elements(op: WeightOp, sizes: dict[str, int]) -> int:
    """The elements of a weight's parts that `sizes` had not; a part may be read on its own, too."""
    new = [key for key in dict.fromkeys(op.keys) if key not in sizes]
    if not new:
        return 0
    elements = math.prod(nn.shape_of(op.result))
    elements -= sum(sizes[key] for key in op.keys if key in sizes)
    sizes |= dict.fromkeys(new, 0)
    sizes[new[0]] = elements
    return elements


def _macs(op: Operation, tokens: int) -> int:
    match op:
        case ContractOp():
            terms, _ = parse_equation(op.equation.data)
            extents: dict[str, int] = {}
            for term, value in zip(terms, op.inputs):
                extents |= dict(zip(term, _shape(value, tokens)))
            return math.prod(extents.values())
        case nn.LinearOp():
            return math.prod(_shape(op.x, tokens)) * nn.shape_of(op.weight)[0]
        case nn.MatmulOp():
            return math.prod(_shape(op.result, tokens)) * _shape(op.lhs, tokens)[-1]
        case attn.SdpaOp():
            return _attention(op, tokens)
        case _:
            return 0


def _attention(op: attn.SdpaOp, tokens: int) -> int:
    """Scores and weighted values; every query meets every key."""
    q, k, v = (_shape(value, tokens) for value in (op.q, op.k, op.v))
    if op.packing is None:
        return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    batch, length = attn.packing_of(op.packing).shape
    return batch * length * length * (q[-1] + v[-1])


def _shape(value: SSAValue, tokens: int) -> Shape:
    """The shape of a tensor, packed tokens as many as there is room for."""
    return tuple(tokens if extent < 0 else extent for extent in nn.shape_of(value))
