"""
What is tiled, as far as its tiles depend on it: products of the fixed level, and groups of them.

Read from the ops alone, so that planner and emitter see the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Data, Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp, only_reader
from heatc.dialects.fixed import DequantizeOp, QuantizeOp, RequantizeOp
from heatc.dialects.hdp_plans import LinearPlanAttr
from heatc.dialects.host import TaskOp, YieldOp
from heatc.isa.table import split_dtypes
from heatc.passes.analysis.normal_form import Product, product_of
from heatc.passes.rewriting import at
from heatc.passes.tiling.left import LeftShape
from heatc.passes.tiling.linear_plan import LinearShape
from heatc.passes.tiling.values import fixed_type, isa_dtype, only_user, owner_of

_ELEMENTWISE = (DequantizeOp, nn.GeluOp, nn.ReluOp, nn.TanhOp, QuantizeOp, YieldOp)
"""What a task may consist of whose operand is cut into columns."""

Tiles = TypeVar("Tiles")


@dataclass(frozen=True)
class Step:
    """A product and what rounds it."""

    op: RequantizeOp
    contract: ContractOp
    bias: SSAValue | None
    product: Product


def step_of(op: RequantizeOp) -> Step:
    """The product that an op rounds; raises `PassFailedException` where the machine has none."""
    contract, bias = contraction_of(op)
    product = product_of(contract)
    if product is None:
        raise PassFailedException(
            f"{at(op)}the machine has no product for the contraction "
            f"{contract.equation.data!r}; choose a path for the machine (order-contractions objective=edp)"
        )
    return Step(op, contract, bias, product)


def contraction_of(op: RequantizeOp) -> tuple[ContractOp, SSAValue | None]:
    """The contraction that is rounded, and its bias."""
    total, bias = op.x.owner, None
    if isinstance(total, nn.AddOp):
        bias = total.rhs
        owner_of(bias, WeightOp)
        total = total.lhs.owner
    if isinstance(total, nn.ReshapeOp):
        total = total.x.owner
    if not isinstance(total, ContractOp):
        raise PassFailedException(f"{at(op)}expected {ContractOp.name} before {op.name}")
    return total, bias


def group_of(op: RequantizeOp) -> list[Step]:
    """
    The steps from this one to the first whose result leaves the chip.

    A group is a loop over packed tokens: what has none of them leaves at every step.
    """
    steps = [step_of(op)]
    if nn.TOKENS not in nn.shape_of(op.result):
        return steps
    while steps[-1].contract.fuse is not None:
        reader = only_reader(steps[-1].op.result)
        if reader is None:
            break
        user: Any = reader.result.get_user_of_unique_use()
        while not isinstance(user, RequantizeOp):
            user = user.results[0].get_user_of_unique_use()
        steps.append(step_of(user))
    return steps


def plan_of(op: RequantizeOp | attn.PrunedOp, kind: type[Data[Tiles]]) -> Tiles:
    """The tiles that an op's plan says; raises `PassFailedException` where it has none of a kind."""
    if not isinstance(op.plan, kind):
        raise PassFailedException(f"{at(op)}{op.name} has no {kind.name}: run plan-tiles first")
    return cast("Data[Tiles]", op.plan).data


def panels_of(value: SSAValue) -> int:
    """In how many tensors a value lies, side by side: those of a linear, or of the task behind it."""
    owner = value.owner
    if isinstance(owner, TaskOp) and len(owner.inputs) == 1 and len(owner.outputs) == 1:
        owner = owner.inputs[0].owner
    if isinstance(owner, RequantizeOp) and isinstance(owner.plan, LinearPlanAttr):
        return owner.plan.data.panels
    return 1


def planes_of(op: RequantizeOp) -> tuple[str, ...]:
    """The dtypes of what a product writes: one tensor, or two planes if it is only split."""
    splits = [use.operation for use in attn.readers(op.result)]
    if not splits or not all(isinstance(split, attn.SplitOp) for split in splits):
        return (isa_dtype(nn.element_of(op.result)),)
    point = fixed_type(op.result).point.data
    return split_dtypes(point - integer_point(op, point))


def integer_point(op: RequantizeOp, point: int) -> int:
    """The binary point of the integer parts of a value that is split."""
    splits = [use.operation for use in attn.readers(op.result)]
    integers = {fixed_type(s.integer).point.data for s in splits if isinstance(s, attn.SplitOp)}
    if len(integers) != 1:
        raise PassFailedException(
            f"{at(op)}integer parts at points {sorted(integers)} of one value"
        )
    if point < 0:
        raise PassFailedException(
            f"{at(op)}a binary point of {point} leaves no room for the "
            "integer part that hdp decides on"
        )
    return integers.pop()


class Shapes:
    """Shapes of the products of a function; `capacity` is the most packed tokens of a run."""

    def __init__(self, function: FuncOp):
        ops = list(function.body.block.ops)
        packings = [op for op in ops if isinstance(op, attn.PackingOp)]
        self.capacity = max(
            (math.prod(attn.packing_of(op.result).shape) for op in packings), default=0
        )
        ends = [op for op in ops if isinstance(op, ReturnOp)]
        self.returned = {value for op in ends for value in op.operands}

    def rows(self, value: SSAValue, tokens: int = 0) -> tuple[int, int]:
        """Rows of a value at most (of a tile of `tokens`), a token or a sequence one; their width."""
        most = tokens or self.capacity
        if most == 0 and nn.TOKENS in nn.shape_of(value):
            raise PassFailedException("packed tokens without an attn.packing")
        rows, *rest = (most if n == nn.TOKENS else n for n in nn.shape_of(value))
        return rows, math.prod(rest)

    def linear(self, step: Step, tokens: int = 0) -> LinearShape:
        """The shape of a linear with one plane."""
        product, x = step.product, step.contract.inputs[0]
        rows, _ = self.rows(step.contract.result, tokens)
        panels = panels_of(x)
        bias = step.bias
        return LinearShape(
            rows * product.pre,
            product.gone,
            product.new,
            bias=bias is not None,
            panel=product.gone // panels if panels > 1 else 0,
            pre=product.pre if bias is None else product.bias_rows(nn.shape_of(bias)[0]),
        )

    def left(self, step: Step, planes: tuple[str, ...], tokens: int = 0) -> LeftShape:
        """The shape of a product with the weight on the left."""
        rows, _ = self.rows(step.contract.result, tokens)
        product = step.product
        axes = product.gone, product.new, product.post
        return LeftShape(rows * product.pre, *axes, planes, step.bias is not None)

    def behind(self, step: Step) -> Step | None:
        """The linear behind an element-wise task, if a linear's result has no other use."""
        task = only_user(step.op.result, TaskOp)
        if task is None or len(task.inputs) != 1 or len(task.outputs) != 1:
            return None
        if not all(isinstance(inner, _ELEMENTWISE) for inner in task.body.block.ops):
            return None
        contract = only_user(task.outputs[0], ContractOp)
        if contract is None or not is_linear(contract) or task.outputs[0] in self.returned:
            return None
        user: Any = only_user(contract.result, nn.AddOp) or contract
        second = only_user(user.results[0], RequantizeOp)
        if second is None or nn.TOKENS not in nn.shape_of(step.op.result):
            return None
        return step_of(second)

    def written(self, step: Step, panels: int, tokens: int = 0) -> LinearShape:
        """The shape of a linear, or of one panel of its result, with the planes that it writes."""
        shape = self.linear(step, tokens)
        if panels > 1:
            return replace(shape, columns=shape.columns // panels)
        return replace(shape, planes=planes_of(step.op))


def is_linear(op: Operation) -> bool:
    """Whether a contraction is a linear of the machine."""
    product = product_of(op)
    return product is not None and product.is_linear
