"""
The `attn` dialect: packed tokens, attention, and attention pruned by HDP.

Padding disappears once, see `heatc.dialects.attn_packing`: every tensor is (tokens, width), a
sequence's rows are its L keys, then the masked positions that are read. Scores are (batch, heads,
S, S): a sequence's rows against its L keys, zero elsewhere. Only keys decide: head gates, peaks,
sums over heads and mean queries see their rows alone. Rows of masked positions begin a row of
blocks of their own, behind those of the keys.

HDP attention (rules `paper`, `ours`, `topk`) is the chain
`split -> integer_scores -> block_importance -> block_mask (or topk_mask), head_gate ->
merge_scores[ -> mean_query] -> softmax -> weighted_values`; without pruning it is
`scores -> softmax -> weighted_values`. Rules that predict with low-bit codes put
`low_bits -> integer_scores -> ... -> exclude_scores` between scores and softmax; `spatten` gates
heads by `head_importance -> head_ranking` of the layers before. docs/design/rules.md is normative.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    f64,
    i1,
    i8,
    i64,
)
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    var_operand_def,
)
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.hints import isa

from heatc.dialects.attn_packing import (
    AnyTensor,
    AttnOp,
    PackingOp,
    PackingType,
    PackOp,
    RealOp,
    TokenOp,
    UnpackOp,
    Value,
    ValuesAttr,
    expect_shape,
    packing_of,
    shape_text,
    tensor_of,
)
from heatc.dialects.attn_rule import RuleAttr
from heatc.dialects.fixed import QType
from heatc.rules import IMPORTANCES, MOST_FINER, PRUNED_SCORES

__all__ = ["packing_of", "tensor_of"]

GATED_VALUES = ("zero", "mean")
"""What `attn.weighted_values` can put out for a pruned head."""

KEYLESS = ("zero", "nan")
"""What `attn.sdpa` can put out for a row whose scores are all -inf."""


def _expect_divides(heads: int, width: int) -> None:
    if heads < 1 or width % heads:
        raise VerifyException(f"{heads} heads do not divide width {width}")


def _expect_one_of(what: str, name: StringAttr, known: Sequence[str]) -> None:
    if name.data not in known:
        raise VerifyException(f"unknown {what} {name.data!r}, expected one of {tuple(known)}")


def _shape_of_rank(what: str, value: SSAValue, rank: int) -> tuple[int, ...]:
    shape = tensor_of(value).get_shape()
    if len(shape) != rank:
        raise VerifyException(f"expected {what} of rank {rank}, got shape {shape_text(shape)}")
    return shape


def _block_attr(block: Sequence[int]) -> DenseArrayBase[IntegerType]:
    return DenseArrayBase.from_list(i64, list(block))


def _expect_block(block: DenseArrayBase[IntegerType]) -> tuple[int, int]:
    extents = tuple(int(b) for b in block.get_values())
    if len(extents) != 2 or min(extents) < 1:
        raise VerifyException(f"expected a block of two positive extents, got {extents}")
    return extents[0], extents[1]


def blocks_shape(
    shape: Sequence[int], block: Sequence[int], packing: PackingType
) -> tuple[int, ...]:
    """
    (B, H, S, S) -> (B, H, ceil(S / rows), ceil(S / columns)).

    Rows of masked positions begin a block of their own, so that there can be a row of blocks more.
    """
    rows, columns = (-(-n // b) for n, b in zip(shape[2:], block))
    return (*shape[:2], rows + bool(packing.reads and block[0] > 1), columns)


def per_head(values: Sequence[float]) -> Attribute:
    """The attribute of one value for all heads, or of one a head."""
    if len(values) == 1:
        return FloatAttr(values[0], f64)
    return DenseArrayBase.from_list(f64, list(values))


def head_values(what: str, attribute: Attribute) -> tuple[float, ...]:
    """What `per_head` was made of; `VerifyException` for another attribute."""
    values: tuple[float, ...] = ()
    if isa(attribute, FloatAttr):
        values = (attribute.value.data,)
    elif isa(attribute, DenseArrayBase) and attribute.elt_type == f64:
        values = cast("DenseArrayBase[Float64Type]", attribute).get_values()
    if not values:
        raise VerifyException(f"expected {what} to be one f64 or an array of them, got {attribute}")
    return values


def _expect_count(what: str, values: Sequence[float], heads: int) -> None:
    if len(values) not in (1, heads):
        raise VerifyException(f"{what} has {len(values)} values for {heads} heads")


@irdl_op_definition
class SdpaOp(AttnOp):
    """
    `attn.sdpa %q, %k, %v ...`: multi-head attention, heads side by side in the last axis.

    q, k, v and the result are (B, S, heads * dim), or (tokens, heads * dim) with a packing: then
    a sequence's rows attend to its keys. `masks` (each broadcast to B, heads, S, S) are applied to
    the scaled scores in order, as the model spells them: numbers are added; where a mask of truth
    values is false the score becomes its entry of `fills`. `keyless` is what a row gives whose
    scores are all -inf: `zero` as PyTorch's fused attention, or `nan` as its softmax. `rule` is how a
    plan has it pruned.
    """

    name = "attn.sdpa"
    q = operand_def(AnyTensor)
    k = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    packing = opt_operand_def(PackingType)
    masks = var_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    scale = prop_def(FloatAttr)
    filled = opt_prop_def(ArrayAttr[FloatAttr], prop_name="fills")
    empty = opt_prop_def(StringAttr, prop_name="keyless")
    rule = opt_prop_def(RuleAttr)
    irdl_options = (AttrSizedOperandSegments(as_property=True), ParsePropInAttrDict())
    assembly_format = (
        "$q `,` $k `,` $v (`packed` $packing^ `:` type($packing))? "
        "(`masks` $masks^ `:` type($masks))? attr-dict "
        "`:` type($q) `,` type($k) `,` type($v) `->` type($result)"
    )

    def __init__(
        self,
        q: Value,
        k: Value,
        v: Value,
        heads: int,
        scale: float,
        *,
        packing: Value | None = None,
        masks: Sequence[Value] = (),
        fills: Sequence[float] = (),
        keyless: str = "zero",
        result_type: Attribute | None = None,
    ):
        type_ = SSAValue.get(q).type if result_type is None else result_type
        filled = ArrayAttr(FloatAttr(fill, f64) for fill in fills) if fills else None
        super().__init__(
            operands=[q, k, v, packing, list(masks)],
            result_types=[type_],
            properties={
                "heads": IntegerAttr(heads, i64),
                "scale": FloatAttr(scale, f64),
                "fills": filled,
                "keyless": StringAttr(keyless) if masks else None,
            },
        )

    @property
    def fills(self) -> tuple[float, ...]:
        """What a score becomes where each mask is false; 0 for a mask that is added."""
        if self.filled is None:
            return (0.0,) * len(self.masks)
        return tuple(fill.value.data for fill in self.filled.data)

    @property
    def keyless(self) -> str:
        """What a row gives whose scores are all -inf, see `KEYLESS`; without masks there is none."""
        return "zero" if self.empty is None else self.empty.data

    def verify_(self) -> None:
        q, k, v = (tensor_of(x).get_shape() for x in (self.q, self.k, self.v))
        shapes = ", ".join(shape_text(shape) for shape in (q, k, v))
        rank = 3 if self.packing is None else 2
        if not len(q) == len(k) == len(v) == rank:
            raise VerifyException(f"expected rank {rank}, got shapes {shapes}")
        if q[-1] != k[-1] or k[:-1] != v[:-1] or q[:-1] != k[:-1]:
            raise VerifyException(f"shapes {shapes} do not attend to each other")
        _expect_divides(self.heads.value.data, q[-1])
        _expect_divides(self.heads.value.data, v[-1])
        expect_shape("result", self.result, (*q[:-1], v[-1]))
        self._verify_masks()

    def _verify_masks(self) -> None:
        if (self.empty is None) == bool(self.masks):
            raise VerifyException("masks say what a row without a key gives, and nothing else does")
        if self.empty is not None:
            _expect_one_of("output of a row without a key", self.empty, KEYLESS)
        if len(self.fills) != len(self.masks):
            raise VerifyException(f"{len(self.fills)} fills for {len(self.masks)} masks")
        for mask in self.masks:
            type_ = tensor_of(mask)
            if type_.get_element_type() == i1 and self.filled is None:
                raise VerifyException("a mask of truth values needs a fill")
            self._verify_mask(type_.get_shape())

    def _verify_mask(self, shape: Sequence[int]) -> None:
        if self.packing is not None:
            batch, length = packing_of(self.packing).shape
        else:
            batch, length, _ = tensor_of(self.q).get_shape()
        full = (batch, self.heads.value.data, length, length)
        fits = (a in (1, b) for a, b in zip(reversed(shape), reversed(full)))
        if len(shape) > 4 or not all(fits):
            raise VerifyException(f"mask of shape {shape_text(shape)} does not broadcast to {full}")


@irdl_op_definition
class SplitOp(AttnOp):
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


def scores_shape(packing: PackingType, heads: int) -> tuple[int, int, int, int]:
    """(B, heads, S, S)."""
    batch, length = packing.shape
    return batch, heads, length, length


class ScoresBase(AttnOp):
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
        _expect_divides(self.heads.value.data, q[1])
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
class BlockImportanceOp(AttnOp):
    """
    `attn.block_importance %a, %p {block = array<i64: 2, 2>, importance = "abs"}`: theta per block.

    (B, H, S, S) -> (B, H, ceil(S / rows), ceil(S / columns)): the sum over the scores of each
    block of |score| (`abs`), or of L times the part of the score above the mean of its row of L
    keys (`positive`). Blocks start at the first key of each sequence, and again at the first row
    that is no key: where padding is read there is a row of blocks more.
    """

    name = "attn.block_importance"
    scores = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    block = prop_def(DenseArrayBase.constr(i64))
    importance = prop_def(StringAttr)

    def __init__(
        self,
        scores: Value,
        packing: Value,
        block: tuple[int, int],
        result_type: Attribute,
        importance: str = "abs",
    ):
        super().__init__(
            operands=[scores, packing],
            result_types=[result_type],
            properties={"block": _block_attr(block), "importance": StringAttr(importance)},
        )

    def verify_(self) -> None:
        shape = _shape_of_rank("scores", self.scores, 4)
        expect_shape(
            "result",
            self.result,
            blocks_shape(shape, _expect_block(self.block), packing_of(self.packing)),
        )
        _expect_one_of("importance", self.importance, IMPORTANCES)


@irdl_op_definition
class BlockMaskOp(AttnOp):
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
    block = prop_def(DenseArrayBase.constr(i64))

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
            properties={"rho_b": per_head(rho_b), "block": _block_attr(block)},
        )

    @property
    def ratios(self) -> tuple[float, ...]:
        """rho_b, one for all heads or one a head."""
        return head_values("rho_b", self.ratio)

    def verify_(self) -> None:
        shape = _shape_of_rank("importance", self.theta, 4)
        _expect_count("rho_b", self.ratios, shape[1])
        for rho_b in self.ratios:
            if not -1.0 < rho_b < 1.0:
                raise VerifyException(f"rho_b {rho_b} is outside (-1, 1)")
        _expect_block(self.block)
        expect_shape("result", self.result, shape)
        if self.among is not None:
            expect_shape("mask", self.among, shape)


@irdl_op_definition
class TopkMaskOp(AttnOp):
    """
    `attn.topk_mask %theta, %p {density = 0.25 : f64, block}`: i1, 1 where a block is kept.

    Of each row of n real blocks the max(1, ceil(density * n)) of the greatest theta; of equal ones
    those further left.
    """

    name = "attn.topk_mask"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    density = prop_def(FloatAttr)
    block = prop_def(DenseArrayBase.constr(i64))

    def __init__(self, theta: Value, packing: Value, density: float, block: tuple[int, int]):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing],
            result_types=[TensorType(i1, tensor_of(theta).get_shape())],
            properties={"density": FloatAttr(density, f64), "block": _block_attr(block)},
        )

    def verify_(self) -> None:
        density = self.density.value.data
        if not 0.0 < density <= 1.0:
            raise VerifyException(f"density {density} is outside (0, 1]")
        _expect_block(self.block)
        expect_shape("result", self.result, tensor_of(self.theta).get_shape())


@irdl_op_definition
class HeadGateOp(AttnOp):
    """
    `attn.head_gate %theta, %p {tau_h = 1.5 : f64, importance = "abs", block}`: i1 (B, heads), 1 if kept.

    A head is pruned when the mean of its theta is below tau_h (one value, or one a head): the sum of
    its keys' rows over L * L real scores, of `positive` importance over L * L * L.
    """

    name = "attn.head_gate"
    theta = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    threshold = prop_def(Attribute, prop_name="tau_h")
    importance = prop_def(StringAttr)
    block = prop_def(DenseArrayBase.constr(i64))

    def __init__(
        self,
        theta: Value,
        packing: Value,
        tau_h: Sequence[float],
        block: tuple[int, int],
        importance: str = "abs",
    ):
        theta = SSAValue.get(theta)
        super().__init__(
            operands=[theta, packing],
            result_types=[TensorType(i1, tensor_of(theta).get_shape()[:2])],
            properties={
                "tau_h": per_head(tau_h),
                "importance": StringAttr(importance),
                "block": _block_attr(block),
            },
        )

    @property
    def thresholds(self) -> tuple[float, ...]:
        """tau_h, one for all heads or one a head."""
        return head_values("tau_h", self.threshold)

    def verify_(self) -> None:
        shape = _shape_of_rank("importance", self.theta, 4)
        _expect_count("tau_h", self.thresholds, shape[1])
        _expect_one_of("importance", self.importance, IMPORTANCES)
        _expect_block(self.block)
        expect_shape("result", self.result, shape[:2])


@irdl_op_definition
class MergeScoresOp(AttnOp):
    """
    `attn.merge_scores %a, %iq, %fq, %ik, %fk, %mask, %p {heads, block, pruned = "zero"}`.

    Kept blocks: a + F_Q I_K^T + I_Q F_K^T (F_Q F_K^T is never computed). Pruned blocks: 0
    (`zero`), no part in the softmax (`neginf`), the integer score (`int`), or the mean integer
    score of the row's pruned entries (`mean`).
    """

    name = "attn.merge_scores"
    integer = operand_def(AnyTensor)
    q_integer = operand_def(AnyTensor)
    q_fraction = operand_def(AnyTensor)
    k_integer = operand_def(AnyTensor)
    k_fraction = operand_def(AnyTensor)
    mask = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    block = prop_def(DenseArrayBase.constr(i64))
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
    ):
        type_ = SSAValue.get(integer).type if result_type is None else result_type
        super().__init__(
            operands=[integer, *q, *k, mask, packing],
            result_types=[type_],
            properties={
                "heads": IntegerAttr(heads, i64),
                "block": _block_attr(block),
                "pruned": StringAttr(pruned),
            },
        )

    def verify_(self) -> None:
        _expect_one_of("pruned score", self.pruned, PRUNED_SCORES)
        shape = _shape_of_rank("scores", self.integer, 4)
        expect_shape(
            "mask",
            self.mask,
            blocks_shape(shape, _expect_block(self.block), packing_of(self.packing)),
        )
        expect_shape("result", self.result, shape)


@irdl_op_definition
class MeanQueryOp(AttnOp):
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
class LowBitsOp(AttnOp):
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
        shape, heads = _shape_of_rank("rows", self.x, 2), self.heads.value.data
        _expect_divides(heads, shape[-1])
        if not 2 <= self.bits.value.data <= 8:
            raise VerifyException(f"bits {self.bits.value.data} is outside 2..8")
        expect_shape("codes", self.codes, shape)
        expect_shape("points", self.points, (packing_of(self.packing).batch.data, heads))


@irdl_op_definition
class ScaleScoresOp(AttnOp):
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
class ProbabilityMaskOp(AttnOp):
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
class ExcludeScoresOp(AttnOp):
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
class HeadImportanceOp(AttnOp):
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
        _expect_divides(heads, _shape_of_rank("rows", self.x, 2)[-1])
        shape = (packing_of(self.packing).batch.data, heads)
        if self.before is not None:
            expect_shape("importance before", self.before, shape)
        expect_shape("result", self.result, shape)


@irdl_op_definition
class HeadRankingOp(AttnOp):
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
        shape = _shape_of_rank("importance", self.importance, 2)
        if not 1 <= self.keep.value.data <= shape[-1]:
            raise VerifyException(f"keep {self.keep.value.data} is outside 1..{shape[-1]}")
        expect_shape("result", self.result, shape)
        if self.gate is not None:
            expect_shape("gate", self.gate, shape)


@irdl_op_definition
class SoftmaxOp(AttnOp):
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
class WeightedValuesOp(AttnOp):
    """
    `attn.weighted_values %probs, %v, %p[, %gate] {heads[, gated = "zero"]}`: P V per head.

    Heads that the gate prunes give 0 (`zero`) or the mean of their values (`mean`). `plan` says the
    tiles of the attention that ends here, once they are chosen.
    """

    name = "attn.weighted_values"
    probabilities = operand_def(AnyTensor)
    v = operand_def(AnyTensor)
    packing = operand_def(PackingType)
    gate = opt_operand_def(AnyTensor)
    result = result_def(AnyTensor)
    heads = prop_def(IntegerAttr)
    gated = opt_prop_def(StringAttr)
    plan = opt_prop_def(Attribute)

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
        v = _shape_of_rank("values", self.v, 2)
        _expect_divides(self.heads.value.data, v[-1])
        expect_shape("result", self.result, v)
        if (self.gate is None) != (self.gated is None):
            raise VerifyException("a gate says what pruned heads give, and nothing else does")
        if self.gated is not None:
            _expect_one_of("output of pruned heads", self.gated, GATED_VALUES)
        if self.gate is not None:
            expect_shape("gate", self.gate, tensor_of(self.probabilities).get_shape()[:2])


ATTN = Dialect(
    "attn",
    [
        PackingOp,
        PackOp,
        UnpackOp,
        TokenOp,
        RealOp,
        SdpaOp,
        SplitOp,
        ScoresOp,
        IntegerScoresOp,
        BlockImportanceOp,
        BlockMaskOp,
        TopkMaskOp,
        HeadGateOp,
        MergeScoresOp,
        MeanQueryOp,
        LowBitsOp,
        ScaleScoresOp,
        ProbabilityMaskOp,
        ExcludeScoresOp,
        HeadImportanceOp,
        HeadRankingOp,
        SoftmaxOp,
        WeightedValuesOp,
    ],
    [PackingType, ValuesAttr, RuleAttr],
)
