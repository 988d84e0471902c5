"""
Contractions of tokens with one weight become products that the co-processor has.

Assumes pairwise contractions (`lower-contractions`). Takes steps that sum axes of the tokens lying
side by side, and that put the weight's own axes in their place. Such a step gets merged axes and a
weight matrix (new, gone): the normal form of `passes/analysis/normal_form.py`. Reshapes of tokens
cost nothing; operations on weights are left to `fold-weights`. Slices of a joint linear's result
(queries, keys and values) become linears of their own, which read the same tokens.

Exact: the same sums. Leaves linears as they are, and steps that keep an index of their weight,
which have no product on the machine.

Example (test/passes/shape_products.mlir): `"tab,maA->tmAb"` of tensor<?x2x4xf32> becomes
`"taq,oa->toq"` with a weight of 15 x 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from heatc.dialects.einsum import ContractOp
from heatc.dialects.nn import AddOp, ReshapeOp, SliceOp, TransposeOp, element_of, shape_of
from heatc.passes.analysis.constants import WeightValues
from heatc.passes.analysis.normal_form import Product, product_of
from heatc.passes.analysis.products import row_form
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, fold_reshapes, insert_before, replace_value


@dataclass(frozen=True)
class _Step:
    """A product, and the order of the weight's axes that makes it a matrix."""

    product: Product
    order: list[int]


def _step_of(op: ContractOp, weights: WeightValues) -> _Step | None:
    """How a contraction is a product, None where it is none."""
    form = row_form(op)
    if form is None or form.is_batched or not form.depth or op.inputs[1] not in weights:
        return None
    if op.inputs[0] in weights:
        return None
    product = Product(math.prod(form.lead), form.depth, form.columns, math.prod(form.rest))
    return _Step(product, list(form.order))


def _matrix(op: ContractOp, step: _Step) -> SSAValue:
    """The weight as a matrix (new, gone)."""
    weight = op.inputs[1]
    if step.order != sorted(step.order):
        transpose = TransposeOp(weight, step.order)
        insert_before(op, transpose)
        weight = transpose.result
    return _reshaped(op, weight, (step.product.new, step.product.gone))


def _reshaped(op: ContractOp, value: SSAValue, shape: tuple[int, ...]) -> SSAValue:
    """A value in another shape, past a reshape that this one undoes."""
    if isinstance(value.owner, ReshapeOp) and shape_of(value.owner.x) == shape:
        return value.owner.x
    if shape_of(value) == shape:
        return value
    reshape = ReshapeOp(value, shape)
    insert_before(op, reshape)
    return reshape.result


def _rewrite(op: ContractOp, step: _Step) -> None:
    product, element = step.product, element_of(op.result)
    rows = shape_of(op.inputs[0])[0]
    x = _reshaped(op, op.inputs[0], (rows, *product.inputs))
    type_ = TensorType(element, [rows, *product.outputs])
    new = ContractOp(
        product.equation, [x, _matrix(op, step)], type_, None, op.decomposition, op.fuse
    )
    insert_before(op, new)
    replace_value(op.result, _reshaped(op, new.result, shape_of(op.result)))
    op.detach()
    op.erase()


def _split(op: ContractOp, weights: WeightValues) -> None:
    """Slices of a linear's result become linears with as many rows of the weight and the bias."""
    step = _step_of(op, weights)
    if step is None or not step.product.is_linear or len(shape_of(op.result)) != 2:
        return
    total = op.result
    add = total.get_user_of_unique_use()
    bias = _bias(add, weights) if isinstance(add, AddOp) else None
    if isinstance(add, AddOp) and bias is not None:
        total = add.result
    slices = [use.operation for use in total.uses]
    if not slices or not all(isinstance(s, SliceOp) and _is_columns(s) for s in slices):
        return
    x, weight = op.inputs[0], _matrix(op, step)
    producer = x.owner
    if isinstance(producer, ContractOp):
        # More than one step reads what was kept for one.
        producer.fuse = None
    for part in slices:
        assert isinstance(part, SliceOp)
        _replace_slice(part, op, x, weight, bias)


def _bias(op: AddOp, weights: WeightValues) -> SSAValue | None:
    """The row that a sum adds, which depends on weights alone."""
    rows = [v for v in (op.lhs, op.rhs) if v in weights and len(shape_of(v)) == 1]
    return rows[0] if rows else None


def _is_columns(op: SliceOp) -> bool:
    """Whether an op takes neighbouring columns of all rows."""
    starts, steps = (tuple(int(n) for n in a.get_values()) for a in (op.starts, op.steps))
    return starts[0] == 0 and steps == (1, 1) and shape_of(op.x)[0] == shape_of(op.result)[0]


def _replace_slice(
    part: SliceOp, op: ContractOp, x: SSAValue, weight: SSAValue, bias: SSAValue | None
) -> None:
    start, (_, width) = int(part.starts.get_values()[1]), shape_of(part.result)
    rows = SliceOp(weight, [start, 0], [width, shape_of(weight)[1]])
    insert_before(part, rows)
    product = Product(1, shape_of(weight)[1], width, 1)
    inputs = [x, rows.result]
    linear = ContractOp(product.equation, inputs, part.result.type, None, op.decomposition)
    insert_before(part, linear)
    result = linear.result
    if bias is not None:
        own = SliceOp(bias, [start], [width])
        add = AddOp(result, own.result, result.type)
        insert_before(part, own, add)
        result = add.result
    replace_value(part.result, result)


@dataclass(frozen=True)
class ShapeProductsPass(ModulePass):
    """Steps on merged axes, weights as matrices; exact."""

    name = "shape-products"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        weights = WeightValues()
        for inner in list(op.walk()):
            if isinstance(inner, ContractOp):
                _split(inner, weights)
        erase_dead(op)
        for inner in list(op.walk()):
            if not isinstance(inner, ContractOp) or product_of(inner) is not None:
                continue
            step = _step_of(inner, weights)
            if step is not None:
                _rewrite(inner, step)
        fold_reshapes(op)
        erase_dead(op)
