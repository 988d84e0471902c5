"""Types, binary points and bounds: what `assign-fixed-point` says of every value."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.fixed import QType
from heatc.fixed_point import limits, point_for
from heatc.interpreter import input_names
from heatc.isa.table import ACC_BITS
from heatc.passes.analysis.bounds import Bound
from heatc.passes.rewriting import at, insert_before
from heatc.weights import WeightStore

ACTIVATION_WIDTH = 16
WEIGHT_WIDTH = 16
BIAS_WIDTH = 32
SCORE_WIDTH = 32
ACCUMULATOR_WIDTH = ACC_BITS
MAX_POINT = 64
"""The finest point of a fixed-point type; the coarsest is minus this."""

Vector = NDArray[np.float64]


def typed(shape: tuple[int, ...], width: int, point: int) -> TensorType[Attribute]:
    return TensorType(QType(width, point), shape)


def point_of(op: Operation, largest: float, width: int, what: str) -> int:
    """The finest binary point at which a magnitude fits; refuses those that no type holds."""
    if largest <= limits(width)[1] * 2.0**MAX_POINT:
        return point_for(largest, width)
    raise PassFailedException(
        f"{at(op)}{what} can be as large as {largest:.3g}, which no fixed-point type "
        f"of {width} bits holds: use --target numpy, or scale the weights that lead there"
    )


def fixed_of(value: SSAValue) -> QType:
    element = nn.element_of(value)
    if not isinstance(element, QType):
        raise PassFailedException(
            f"{_reader(value)}nothing says how large {_called(value)} can be, so that it has no "
            "fixed-point type; use --target numpy for this model, or norm it before"
        )
    return element


def _reader(value: SSAValue) -> str:
    """The place of the first op that reads a value."""
    return next((at(use.operation) for use in value.uses if at(use.operation)), "")


def _called(value: SSAValue) -> str:
    """How a message calls a value that has no binary point: by the input that it comes from."""
    value = attn.outside(value)
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    if not isinstance(value, BlockArgument):
        return "the operand"
    function = value.owner.parent_op()
    known = input_names(function) if isinstance(function, FuncOp) else ()
    return f"input {known[value.index]!r}" if value.index < len(known) else "an input"


def nn_element(value: SSAValue) -> Attribute | None:
    """The element type of a value that is a tensor, else None (packings)."""
    return nn.element_of(value) if isinstance(value.type, TensorType) else None


class Assigner(ABC):
    """
    What is known while one function is rewritten.

    Attributes:
        new: old values to fixed ones.
        known: bounds of the new ones.
        max_length: the most tokens of a sequence.
    """

    def __init__(self, weights: WeightStore, max_length: int):
        self.weights = weights
        self.max_length = max_length
        self.new: dict[SSAValue, SSAValue] = {}
        self.known: dict[SSAValue, Bound] = {}

    @abstractmethod
    def run(self, block: Block) -> None:
        """Rewrite every op of a block, in order."""

    def of(self, value: SSAValue) -> SSAValue:
        """The fixed form of a value."""
        return self.new.get(value, value)

    def bind(self, old: SSAValue, new: SSAValue) -> None:
        """Use `new` for `old` from here on."""
        new.name_hint = old.name_hint
        self.new[old] = new

    def place(self, anchor: Operation, op: Operation) -> None:
        """Insert an op at the place of the one it stands for."""
        insert_before(anchor, op)
        op.location = anchor.location

    def rounded(self, op: Operation, bound: Bound) -> tuple[int, Bound]:
        """The binary point of a 16-bit value that `op` makes, and the bound of its codes."""
        point = point_of(op, bound.largest, ACTIVATION_WIDTH, "its result")
        return point, bound.rounded(point)

    def row(self, value: SSAValue) -> Bound:
        """What is known of the last axis of a value."""
        return self.bound(value).over(nn.shape_of(value)[-1])

    def bound(self, value: SSAValue) -> Bound:
        """What is known of a value; `PassFailedException` where it came with codes of its own."""
        if value not in self.known:
            raise PassFailedException(f"nothing is known of the values of {value.type}")
        return self.known[value]
