"""
Contractions of tokens with one weight become products that the co-processor has.

Assumes pairwise contractions (`lower-contractions`). A step that sums axes of the tokens lying
side by side, and puts the weight's own in their place, gets merged axes and a weight matrix
(new, gone): the normal form of `passes/analysis/normal_form.py`. Reshapes of tokens cost nothing; what
is done to weights is left to `fold-weights`. Exact: the same sums. Leaves steps that keep an index
of their weight, and linears, as they are; the former have no product on the machine.

Example (test/passes/shape_products.mlir): `"tab,maA->tmAb"` of tensor<?x2x4xf32> becomes
`"taq,oa->toq"` with a weight of 15 x 2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.nn import TOKENS, ReshapeOp, TransposeOp, element_of, shape_of
from heatc.passes.analysis.normal_form import Product, product_of
from heatc.passes.analysis.products import row_form
from heatc.passes.effect import Effect
from heatc.passes.rewriting import erase_dead, fold_reshapes, insert_before, replace_value


@dataclass(frozen=True)
class _Step:
    """A product, and the order of the weight's axes that makes it a matrix."""

    product: Product
    order: list[int]


def _is_weight(value: SSAValue) -> bool:
    """Whether a value depends on weights alone."""
    owner = value.owner
    if not isinstance(owner, Operation) or isinstance(owner, WeightOp):
        return isinstance(owner, WeightOp)
    if TOKENS in shape_of(value):
        # Seen without a walk through the model, whose depth has no bound.
        return False
    return bool(owner.operands) and all(_is_weight(v) for v in owner.operands)


def _step_of(op: ContractOp) -> _Step | None:
    """How a contraction is a product, None where it is none."""
    form = row_form(op)
    if form is None or form.is_batched or not form.depth or not _is_weight(op.inputs[1]):
        return None
    if _is_weight(op.inputs[0]):
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


@dataclass(frozen=True)
class ShapeProductsPass(ModulePass):
    """Steps on merged axes, weights as matrices; exact."""

    name = "shape-products"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        for inner in list(op.walk()):
            if not isinstance(inner, ContractOp) or product_of(inner) is not None:
                continue
            step = _step_of(inner)
            if step is not None:
                _rewrite(inner, step)
        fold_reshapes(op)
        erase_dead(op)
