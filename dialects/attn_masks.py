"""
Steps that take the model's own masks: numbers that are added to scores, and scores that are hidden.

A mask has padded coordinates: it broadcasts to (B, heads, S, S), positions of queries by positions of
keys, and an axis of extent 1 is the same for all. The score of a row and a key has the mask's entry at
the positions that the packing says. A bias is in units of scores: what the model adds behind its
scale is divided by the scale where the bias is made.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntegerAttr, StringAttr, TensorType, i1, i64
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, var_operand_def
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.attn_packing import (
    AnyTensor,
    PackingType,
    Value,
    expect_shape,
    packing_of,
    shape_text,
    tensor_of,
)
from heatc.dialects.attn_steps import (
    BlockOp,
    StepOp,
    block_attr,
    blocks_shape,
    expect_one_of,
    scores_shape,
    shape_of_rank,
)
from heatc.isa.table import KEYLESS_ROWS


def expect_broadcast(what: str, mask: SSAValue, full: Sequence[int]) -> None:
    """Raise `VerifyException` for a mask that is no spread (B, heads, S, S)."""
    shape = shape_of_rank(what, mask, 4)
    if any(own not in (1, whole) for own, whole in zip(shape, full)):
        text = shape_text(tuple(full))
        raise VerifyException(f"{what} of shape {shape_text(shape)} does not broadcast to {text}")


def expect_visible(visible: SSAValue | None, scores: SSAValue) -> None:
    """Raise `VerifyException` where what is visible is no truth value for each score."""
    if visible is None:
        return
    expect_shape("visible scores", visible, tensor_of(scores).get_shape())
    element = tensor_of(visible).get_element_type()
    if element != i1:
        raise VerifyException(f"expected visible scores of i1, got {element}")


@irdl_op_definition
class VisibleOp(StepOp):
    """
    `attn.visible %p, %mask... {heads}`: i1 (B, heads, S, S), 1 where a row sees a key.

    Each mask is i1 in padded coordinates, and hides where it is 0. Beyond a sequence's own rows and
    keys nothing is visible.
    """

    name = "attn.visible"
    packing = operand_def(PackingType)
    masks = var_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)

    def __init__(self, packing: Value, masks: Sequence[Value], heads: int):
        shape = scores_shape(packing_of(SSAValue.get(packing)), heads)
        super().__init__(
            operands=[packing, list(masks)],
            result_types=[TensorType(i1, shape)],
            properties={"heads": IntegerAttr(heads, i64)},
        )

    def verify_(self) -> None:
        shape = scores_shape(packing_of(self.packing), self.heads.value.data)
        if not self.masks:
            raise VerifyException("expected a mask that says what is visible")
        for mask in self.masks:
            expect_broadcast("mask", mask, shape)
            element = tensor_of(mask).get_element_type()
            if element != i1:
                raise VerifyException(f"expected a mask of i1, got {element}")
        expect_shape("result", self.result, shape)


@irdl_op_definition
class VisibleBlocksOp(BlockOp):
    """
    `attn.visible_blocks %visible, %p {block = array<i64: 2, 2>}`: i1, 1 where a block has a visible score.

    Blocks are those of `attn.block_importance`.
    """

    name = "attn.visible_blocks"
    visible = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, visible: Value, packing: Value, block: tuple[int, int]):
        visible, packing = SSAValue.get(visible), SSAValue.get(packing)
        shape = blocks_shape(tensor_of(visible).get_shape(), block, packing_of(packing))
        super().__init__(
            operands=[visible, packing],
            result_types=[TensorType(i1, shape)],
            properties={"block": block_attr(block)},
        )

    def verify_(self) -> None:
        shape = shape_of_rank("visible scores", self.visible, 4)
        expect_visible(self.visible, self.visible)
        expect_shape(
            "result", self.result, blocks_shape(shape, self.extents, packing_of(self.packing))
        )


@irdl_op_definition
class BiasScoresOp(StepOp):
    """
    `attn.bias_scores %s, %bias, %p`: scores plus a bias in padded coordinates, in units of scores.

    Codes of the bias are rounded half to even to the scores' point, and the sum saturates.
    """

    name = "attn.bias_scores"
    scores = operand_def(AnyTensor)
    bias = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, scores: Value, bias: Value, packing: Value):
        super().__init__(operands=[scores, bias, packing], result_types=[SSAValue.get(scores).type])

    def verify_(self) -> None:
        shape = shape_of_rank("scores", self.scores, 4)
        expect_broadcast("bias", self.bias, shape)
        expect_shape("result", self.result, shape)


@irdl_op_definition
class HideScoresOp(StepOp):
    """
    `attn.hide_scores %s, %visible, %p {keyless = "zero"}`: what a row does not see leaves the softmax.

    `keyless` is what a row gives that sees no key, see `KEYLESS_ROWS`.
    """

    name = "attn.hide_scores"
    scores = operand_def(AnyTensor)
    visible = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    keyless = prop_def(StringAttr)

    def __init__(self, scores: Value, visible: Value, packing: Value, keyless: str):
        super().__init__(
            operands=[scores, visible, packing],
            result_types=[SSAValue.get(scores).type],
            properties={"keyless": StringAttr(keyless)},
        )

    def verify_(self) -> None:
        expect_visible(self.visible, self.scores)
        expect_one_of("output of a row without a key", self.keyless, KEYLESS_ROWS)
        expect_shape("result", self.result, tensor_of(self.scores).get_shape())


def mask_type(element: Attribute, shape: Sequence[int]) -> TensorType[Attribute]:
    """The type of a mask with all four axes."""
    return TensorType(element, (1,) * (4 - len(shape)) + tuple(shape))
