"""Steps that decide: on blocks of scores, single scores and heads."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import (
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f64,
    i1,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    prop_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException

from heatc.dialects.attn_masks import expect_visible
from heatc.dialects.attn_packing import (
    AnyTensor,
    PackingType,
    Value,
    expect_shape,
    packing_of,
    tensor_of,
)
from heatc.dialects.attn_steps import (
    BlockOp,
    StepOp,
    block_attr,
    blocks_shape,
    expect_count,
    expect_divides,
    expect_one_of,
    head_values,
    per_head,
    shape_of_rank,
)
from heatc.rules import IMPORTANCES


@irdl_op_definition
class BlockImportanceOp(BlockOp):
    """
    `attn.block_importance %a, %p[, %visible] {block = array<i64: 2, 2>, importance = "abs"}`: theta per block.

    (B, H, S, S) -> (B, H, ceil(S / rows), ceil(S / columns)): the sum over the scores of each
    block of |score| (`abs`), or of L times the part of the score above the mean of its row of L
    keys (`positive`). Blocks start at the first key of each sequence, and again at the first row
    that is no key: where padding is read there is a row of blocks more. With `visible` only scores
    that are visible count, and L is the number of them in the score's row.
    """

    name = "attn.block_importance"
    scores = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    visible = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    importance = prop_def(StringAttr)

    def __init__(
        self,
        scores: Value,
        packing: Value,
        block: tuple[int, int],
        result_type: Attribute,
        importance: str = "abs",
        visible: Value | None = None,
    ):
        super().__init__(
            operands=[scores, packing, visible],
            result_types=[result_type],
            properties={"block": block_attr(block), "importance": StringAttr(importance)},
        )

    def verify_(self) -> None:
        shape = shape_of_rank("scores", self.scores, 4)
        expect_shape(
            "result",
            self.result,
            blocks_shape(shape, self.extents, packing_of(self.packing)),
        )
        expect_one_of("importance", self.importance, IMPORTANCES)
        expect_visible(self.visible, self.scores)


@irdl_op_definition
class BlockMaskOp(BlockOp):
    """
    `attn.block_mask %theta, %p[, %among] {rho_b = 0.5, block}`: i1, 1 where a block is kept.

    The threshold of each row of blocks is rho_b * max + (1 - rho_b) * mean for rho_b >= 0, else
    -rho_b * min + (1 + rho_b) * mean, over the row's real blocks (those of the mask `among` where
    it is given, and only they are kept), in float64. rho_b is one value, or one a head.
    """

    name = "attn.block_mask"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    among = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    ratio = prop_def(Attribute, prop_name="rho_b")

    def __init__(
        self,
        theta: Value,
        packing: Value,
        rho_b: Sequence[float],
        block: tuple[int, int],
        among: Value | None = None,
    ):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing, among],
            result_types=[TensorType(i1, tensor_of(theta).get_shape())],
            properties={"rho_b": per_head(rho_b), "block": block_attr(block)},
        )

    @property
    def ratios(self) -> tuple[float, ...]:
        """rho_b, one for all heads or one a head."""
        return head_values("rho_b", self.ratio)

    def verify_(self) -> None:
        shape = shape_of_rank("importance", self.theta, 4)
        expect_count("rho_b", self.ratios, shape[1])
        for rho_b in self.ratios:
            if not -1.0 < rho_b < 1.0:
                raise VerifyException(f"rho_b {rho_b} is outside (-1, 1)")
        _ = self.extents
        expect_shape("result", self.result, shape)
        if self.among is not None:
            expect_shape("mask", self.among, shape)


@irdl_op_definition
class TopkMaskOp(BlockOp):
    """
    `attn.topk_mask %theta, %p[, %among] {density = 0.25 : f64, block}`: i1, 1 where a block is kept.

    Of each row of n real blocks (of those of the mask `among` where it is given) the
    max(1, ceil(density * n)) of the greatest theta; of equal ones those further left.
    """

    name = "attn.topk_mask"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    among = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    density = prop_def(FloatAttr)

    def __init__(
        self,
        theta: Value,
        packing: Value,
        density: float,
        block: tuple[int, int],
        among: Value | None = None,
    ):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing, among],
            result_types=[TensorType(i1, tensor_of(theta).get_shape())],
            properties={"density": FloatAttr(density, f64), "block": block_attr(block)},
        )

    def verify_(self) -> None:
        density = self.density.value.data
        if not 0.0 < density <= 1.0:
            raise VerifyException(f"density {density} is outside (0, 1]")
        _ = self.extents
        shape = tensor_of(self.theta).get_shape()
        expect_shape("result", self.result, shape)
        if self.among is not None:
            expect_shape("mask", self.among, shape)


@irdl_op_definition
class HeadGateOp(BlockOp):
    """
    `attn.head_gate %theta, %p[, %visible] {tau_h = 1.5 : f64, importance = "abs", block}`: i1 (B, heads).

    A head is pruned, 0, when the mean of its theta is below tau_h (one value, or one a head): the sum of
    its keys' rows over L * L real scores, of `positive` importance over L * L * L. With `visible` the
    number is the sum of n, or of n * n, over these rows, each of which sees n keys.
    """

    name = "attn.head_gate"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    visible = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    threshold = prop_def(Attribute, prop_name="tau_h")
    importance = prop_def(StringAttr)

    def __init__(
        self,
        theta: Value,
        packing: Value,
        tau_h: Sequence[float],
        block: tuple[int, int],
        importance: str = "abs",
        visible: Value | None = None,
    ):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing, visible],
            result_types=[TensorType(i1, tensor_of(theta).get_shape()[:2])],
            properties={
                "tau_h": per_head(tau_h),
                "importance": StringAttr(importance),
                "block": block_attr(block),
            },
        )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """tau_h, one for all heads or one a head."""
        return head_values("tau_h", self.threshold)

    def verify_(self) -> None:
        shape = shape_of_rank("importance", self.theta, 4)
        expect_count("tau_h", self.thresholds, shape[1])
        expect_one_of("importance", self.importance, IMPORTANCES)
        _ = self.extents
        expect_shape("result", self.result, shape[:2])
        if self.visible is not None:
            expect_visible(self.visible, self.visible)


@irdl_op_definition
class ProbabilityMaskOp(StepOp):
    """
    `attn.probability_mask %probs, %p {threshold = 0.002 : f64}`: i1, 1 where a score is kept.

    Those above the threshold, and the first greatest of every row.
    """

    name = "attn.probability_mask"
    probabilities = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    threshold = prop_def(FloatAttr)

    def __init__(self, probabilities: Value, packing: Value, threshold: float):
        probabilities = SSAValue.get(probabilities)
        super().__init__(
            operands=[probabilities, packing],
            result_types=[TensorType(i1, tensor_of(probabilities).get_shape())],
            properties={"threshold": FloatAttr(threshold, f64)},
        )

    def verify_(self) -> None:
        threshold = self.threshold.value.data
        if not 0.0 <= threshold < 1.0:
            raise VerifyException(f"threshold {threshold} is outside [0, 1)")
        expect_shape("result", self.result, tensor_of(self.probabilities).get_shape())


@irdl_op_definition
class HeadImportanceOp(StepOp):
    """
    `attn.head_importance %o, %p[, %before] {heads}`: f64 (B, heads), the sum of |o| of each head.

    Over the keys' rows of each sequence and the head's width, added to `before`.
    """

    name = "attn.head_importance"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    before = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)

    def __init__(self, x: Value, packing: Value, heads: int, before: Value | None = None):
        packing = SSAValue.get(packing)
        batch = packing_of(packing).batch.data
        super().__init__(
            operands=[x, packing, before],
            result_types=[TensorType(f64, (batch, heads))],
            properties={"heads": IntegerAttr(heads, i64)},
        )

    def verify_(self) -> None:
        heads = self.heads.value.data
        expect_divides(heads, shape_of_rank("rows", self.x, 2)[-1])
        shape = (packing_of(self.packing).batch.data, heads)
        if self.before is not None:
            expect_shape("importance before", self.before, shape)
        expect_shape("result", self.result, shape)


@irdl_op_definition
class HeadRankingOp(StepOp):
    """
    `attn.head_ranking %importance[, %gate] {keep = 9 : i64}`: i1 (B, heads), 1 where a head is kept.

    The `keep` most important heads of each sequence (of equal ones the first), among those of the
    gate before.
    """

    name = "attn.head_ranking"
    importance = operand_def(AnyTensor)
    gate = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    keep = prop_def(IntegerAttr)

    def __init__(self, importance: Value, keep: int, gate: Value | None = None):
        importance = SSAValue.get(importance)
        super().__init__(
            operands=[importance, gate],
            result_types=[TensorType(i1, tensor_of(importance).get_shape())],
            properties={"keep": IntegerAttr(keep, i64)},
        )

    def verify_(self) -> None:
        shape = shape_of_rank("importance", self.importance, 2)
        if not 1 <= self.keep.value.data <= shape[-1]:
            raise VerifyException(f"keep {self.keep.value.data} is outside 1..{shape[-1]}")
        expect_shape("result", self.result, shape)
        if self.gate is not None:
            expect_shape("gate", self.gate, shape)
