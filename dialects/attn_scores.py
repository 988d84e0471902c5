"""Steps that compute: parts of queries and keys, scores, probabilities, values."""

from __future__ import annotations

from xdsl.dialects.builtin import (
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    f64,
    i8,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
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
    shape_text,
    tensor_of,
)
from heatc.dialects.attn_steps import (
    BlockOp,
    StepOp,
    block_attr,
    blocks_shape,
    expect_divides,
    expect_one_of,
    scores_shape,
    shape_of_rank,
)
from heatc.dialects.fixed import QType
from heatc.rules import MOST_FINER, PRUNED_SCORES

GATED_VALUES = ("zero", "mean")
"""What `attn.weighted_values` can put out for a pruned head."""


@irdl_op_definition
class SplitOp(StepOp):
    """
    `attn.split %x {finer = 2 : i64}`: integer part and fraction part, same shape.

    The integer part is truncated toward zero at `finer` fraction bits (none without it), of codes
    at no more bits than they have.
    """

    name = "attn.split"
    x = operand_def(AnyTensor)
    integer = result_def(AnyTensor)
    fraction = result_def(AnyTensor)
    finer = opt_prop_def(IntegerAttr)

    def __init__(
        self,
        x: Value,
        finer: int = 0,
        integer_type: Attribute | None = None,
        fraction_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(x).type
        super().__init__(
            operands=[x],
            result_types=[integer_type or type_, fraction_type or type_],
            properties={"finer": IntegerAttr(finer, i64) if finer else None},
        )

    @property
    def bits(self) -> int:
        """By how many bits the integer part is finer than integers."""
        return 0 if self.finer is None else self.finer.value.data

    def verify_(self) -> None:
        shape = tensor_of(self.x).get_shape()
        expect_shape("integer part", self.integer, shape)
        expect_shape("fraction part", self.fraction, shape)
        if not 0 <= self.bits <= MOST_FINER:
            raise VerifyException(f"finer {self.bits} is outside 0..{MOST_FINER}")
        types = [tensor_of(v).get_element_type() for v in (self.x, self.integer, self.fraction)]
        if not any(isinstance(t, QType) for t in types):
            return
        points = [t.point.data if isinstance(t, QType) else None for t in types]
        if points[0] is None or points[1:] != [min(self.bits, points[0]), points[0]]:
            raise VerifyException(
                f"parts at points {points[1]} and {points[2]} are no split of point {points[0]} "
                f"with finer {self.bits}"
            )


class ScoresBase(StepOp):
    """Q K^T of every head of every sequence: (tokens, heads * dim) twice -> (B, heads, S, S)."""

    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)

    def __init__(self, q: Value, k: Value, packing: Value, heads: int, result_type: Attribute):
        super().__init__(
            operands=[q, k, packing],
            result_types=[result_type],
            properties={"heads": IntegerAttr(heads, i64)},
        )

    def verify_(self) -> None:
        q, k = tensor_of(self.q).get_shape(), tensor_of(self.k).get_shape()
        if len(q) != 2 or q != k:
            raise VerifyException(
                f"expected equal shapes (tokens, width), got {shape_text(q)} and {shape_text(k)}"
            )
        expect_divides(self.heads.value.data, q[1])
        shape = scores_shape(packing_of(self.packing), self.heads.value.data)
        expect_shape("result", self.result, shape)


@irdl_op_definition
class ScoresOp(ScoresBase):
    """`attn.scores %q, %k, %p {heads}`: all bits, no pruning."""

    name = "attn.scores"


@irdl_op_definition
class IntegerScoresOp(ScoresBase):
    """`attn.integer_scores %iq, %ik, %p {heads}`: I_Q I_K^T, what HDP decides on."""

    name = "attn.integer_scores"


@irdl_op_definition
class MergeScoresOp(BlockOp):
    """
    `attn.merge_scores %a, %iq, %fq, %ik, %fk, %mask, %p[, %visible] {heads, block, pruned = "zero"}`.

    Kept blocks: a + F_Q I_K^T + I_Q F_K^T (F_Q F_K^T is never computed). Pruned blocks: 0
    (`zero`), no part in the softmax (`neginf`), the integer score (`int`), or the mean integer
    score of the row's pruned entries (`mean`), with `visible` of those of them that are visible.
    """

    name = "attn.merge_scores"
    integer = operand_def(AnyTensor)
    q_integer = operand_def(AnyTensor)
    q_fraction = operand_def(AnyTensor)
    k_integer = operand_def(AnyTensor)
    k_fraction = operand_def(AnyTensor)
    mask = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    visible = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    pruned = prop_def(StringAttr)

    def __init__(
        self,
        integer: Value,
        q: tuple[Value, Value],
        k: tuple[Value, Value],
        mask: Value,
        packing: Value,
        heads: int,
        block: tuple[int, int],
        pruned: str,
        result_type: Attribute | None = None,
        visible: Value | None = None,
    ):
        type_ = SSAValue.get(integer).type if result_type is None else result_type
        super().__init__(
            operands=[integer, *q, *k, mask, packing, visible],
            result_types=[type_],
            properties={
                "heads": IntegerAttr(heads, i64),
                "block": block_attr(block),
                "pruned": StringAttr(pruned),
            },
        )

    def verify_(self) -> None:
        expect_one_of("pruned score", self.pruned, PRUNED_SCORES)
        shape = shape_of_rank("scores", self.integer, 4)
        expect_shape(
            "mask",
            self.mask,
            blocks_shape(shape, self.extents, packing_of(self.packing)),
        )
        expect_shape("result", self.result, shape)
        expect_visible(self.visible, self.integer)


@irdl_op_definition
class MeanQueryOp(StepOp):
    """
    `attn.mean_query %s, %a, %gate, %p`: pruned heads attend with their mean query.

    In heads that the gate (B, heads) prunes every row of the scores s becomes the mean of the
    keys' rows of the integer scores a.
    """

    name = "attn.mean_query"
    scores = operand_def(AnyTensor)
    integer = operand_def(AnyTensor)
    gate = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, scores: Value, integer: Value, gate: Value, packing: Value):
        super().__init__(
            operands=[scores, integer, gate, packing], result_types=[SSAValue.get(scores).type]
        )

    def verify_(self) -> None:
        shape = tensor_of(self.scores).get_shape()
        expect_shape("integer scores", self.integer, shape)
        expect_shape("gate", self.gate, shape[:2])
        expect_shape("result", self.result, shape)


@irdl_op_definition
class LowBitsOp(StepOp):
    """
    `attn.low_bits %x, %p {heads, bits = 4 : i64}`: few bits of each head, and their binary points.

    (tokens, heads * dim) -> i8 of the same shape and i64 (B, heads). Per sequence and head 2^e is
    the least power of two above every magnitude: codes are x * 2^(bits - 1 - e), rounded half to
    even and clipped to bits - 1 bits and a sign, and bits - 1 - e is their point. Zeros stay zeros.
    """

    name = "attn.low_bits"
    x = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    codes = result_def(AnyTensor)
    points = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    bits = prop_def(IntegerAttr)

    def __init__(self, x: Value, packing: Value, heads: int, bits: int):
        x, packing = SSAValue.get(x), SSAValue.get(packing)
        batch = packing_of(packing).batch.data
        super().__init__(
            operands=[x, packing],
            result_types=[
                TensorType(i8, tensor_of(x).get_shape()),
                TensorType(i64, (batch, heads)),
            ],
            properties={"heads": IntegerAttr(heads, i64), "bits": IntegerAttr(bits, i64)},
        )

    def verify_(self) -> None:
        shape, heads = shape_of_rank("rows", self.x, 2), self.heads.value.data
        expect_divides(heads, shape[-1])
        if not 2 <= self.bits.value.data <= 8:
            raise VerifyException(f"bits {self.bits.value.data} is outside 2..8")
        expect_shape("codes", self.codes, shape)
        expect_shape("points", self.points, (packing_of(self.packing).batch.data, heads))


@irdl_op_definition
class ScaleScoresOp(StepOp):
    """
    `attn.scale_scores %s, %pq, %pk, %p`: integer scores of codes at points pq and pk, as values.

    (B, heads, S, S) and (B, heads) twice; s * 2^-(pq + pk), rounded half to even into codes.
    """

    name = "attn.scale_scores"
    scores = operand_def(AnyTensor)
    q_points = operand_def(AnyTensor)
    k_points = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(
        self,
        scores: Value,
        q_points: Value,
        k_points: Value,
        packing: Value,
        result_type: Attribute,
    ):
        super().__init__(operands=[scores, q_points, k_points, packing], result_types=[result_type])

    def verify_(self) -> None:
        shape = tensor_of(self.scores).get_shape()
        expect_shape("points of q", self.q_points, shape[:2])
        expect_shape("points of k", self.k_points, shape[:2])
        expect_shape("result", self.result, shape)


@irdl_op_definition
class ExcludeScoresOp(StepOp):
    """`attn.exclude_scores %s, %mask, %p`: scores that are not kept leave the softmax."""

    name = "attn.exclude_scores"
    scores = operand_def(AnyTensor)
    mask = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)

    def __init__(self, scores: Value, mask: Value, packing: Value):
        super().__init__(operands=[scores, mask, packing], result_types=[SSAValue.get(scores).type])

    def verify_(self) -> None:
        shape = tensor_of(self.scores).get_shape()
        expect_shape("mask", self.mask, shape)
        expect_shape("result", self.result, shape)


@irdl_op_definition
class SoftmaxOp(StepOp):
    """`attn.softmax %s, %p {scale}`: softmax of scale * s over each sequence's real keys."""

    name = "attn.softmax"
    scores = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    scale = prop_def(FloatAttr)

    def __init__(
        self, scores: Value, packing: Value, scale: float, result_type: Attribute | None = None
    ):
        type_ = SSAValue.get(scores).type if result_type is None else result_type
        super().__init__(
            operands=[scores, packing],
            result_types=[type_],
            properties={"scale": FloatAttr(scale, f64)},
        )

    def verify_(self) -> None:
        expect_shape("result", self.result, tensor_of(self.scores).get_shape())


@irdl_op_definition
class WeightedValuesOp(StepOp):
    """
    `attn.weighted_values %probs, %v, %p[, %gate] {heads[, gated = "zero"]}`: P V per head.

    Heads that the gate prunes give 0 (`zero`) or the mean of their values (`mean`).
    """

    name = "attn.weighted_values"
    probabilities = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    gate = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    gated = opt_prop_def(StringAttr)

    def __init__(
        self,
        probabilities: Value,
        v: Value,
        packing: Value,
        gate: Value | None,
        heads: int,
        result_type: Attribute | None = None,
        gated: str = "zero",
    ):
        type_ = SSAValue.get(v).type if result_type is None else result_type
        super().__init__(
            operands=[probabilities, v, packing, gate],
            result_types=[type_],
            properties={
                "heads": IntegerAttr(heads, i64),
                "gated": None if gate is None else StringAttr(gated),
            },
        )

    def verify_(self) -> None:
        v = shape_of_rank("values", self.v, 2)
        expect_divides(self.heads.value.data, v[-1])
        expect_shape("result", self.result, v)
        if (self.gate is None) != (self.gated is None):
            raise VerifyException("a gate says what pruned heads give, and nothing else does")
        if self.gated is not None:
            expect_one_of("output of pruned heads", self.gated, GATED_VALUES)
        if self.gate is not None:
            expect_shape("gate", self.gate, tensor_of(self.probabilities).get_shape()[:2])
