"""
The `attn` dialect: packed tokens, attention, and attention pruned by HDP.

Padding disappears once, see `heatc.dialects.attn_packing`: every tensor is (tokens, width), a
sequence's rows are its L keys, then the masked positions that are read. Scores are (batch, heads,
S, S): a sequence's rows against its L keys, zero elsewhere. Only keys decide: head gates, peaks,
sums over heads and mean queries see their rows alone. Rows of masked positions begin a row of
blocks of their own, behind those of the keys.

Attention is one op: `attn.sdpa` as the model has it, then `attn.pruned` with the steps of its rule in
a region. docs/design/rules.md is normative for what the steps compute:

* rules `paper`, `ours` and `topk`: `split -> integer_scores -> block_importance -> block_mask (or
  topk_mask), head_gate -> merge_scores[ -> mean_query] -> softmax -> weighted_values`;
* without pruning: `scores -> softmax -> weighted_values`;
* rules that predict with codes of few bits: `low_bits -> integer_scores -> ... -> exclude_scores`
  between scores and softmax;
* `spatten` gates heads by `head_importance -> head_ranking` of the layers before;
* masks of the model's own are `visible` and `visible_blocks` for whatever decides, and `bias_scores`,
  `hide_scores` behind the scores: `heatc.dialects.attn_masks`.
"""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntegerAttr, StringAttr, f64, i1, i64
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

from heatc.dialects.attn_decisions import (
    BlockImportanceOp,
    BlockMaskOp,
    HeadGateOp,
    HeadImportanceOp,
    HeadRankingOp,
    ProbabilityMaskOp,
    TopkMaskOp,
)
from heatc.dialects.attn_masks import (
    BiasScoresOp,
    HideScoresOp,
    VisibleBlocksOp,
    VisibleOp,
)
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
from heatc.dialects.attn_pruned import PrunedOp, YieldOp, inside, outside, readers
from heatc.dialects.attn_rule import RuleAttr
from heatc.dialects.attn_scores import (
    GATED_VALUES,
    ExcludeScoresOp,
    IntegerScoresOp,
    LowBitsOp,
    MeanQueryOp,
    MergeScoresOp,
    ScaleScoresOp,
    ScoresBase,
    ScoresOp,
    SoftmaxOp,
    SplitOp,
    WeightedValuesOp,
)
from heatc.dialects.attn_steps import (
    blocks_shape,
    expect_divides,
    expect_one_of,
    scores_shape,
)

__all__ = [
    "GATED_VALUES",
    "BiasScoresOp",
    "BlockImportanceOp",
    "BlockMaskOp",
    "ExcludeScoresOp",
    "HeadGateOp",
    "HeadImportanceOp",
    "HeadRankingOp",
    "HideScoresOp",
    "IntegerScoresOp",
    "LowBitsOp",
    "MeanQueryOp",
    "MergeScoresOp",
    "PackOp",
    "PackingOp",
    "PackingType",
    "ProbabilityMaskOp",
    "PrunedOp",
    "RealOp",
    "RuleAttr",
    "ScaleScoresOp",
    "ScoresBase",
    "ScoresOp",
    "SoftmaxOp",
    "SplitOp",
    "TokenOp",
    "TopkMaskOp",
    "UnpackOp",
    "ValuesAttr",
    "VisibleBlocksOp",
    "VisibleOp",
    "WeightedValuesOp",
    "YieldOp",
    "blocks_shape",
    "inside",
    "outside",
    "packing_of",
    "readers",
    "scores_shape",
    "tensor_of",
]

KEYLESS = ("zero", "nan")
"""What `attn.sdpa` can put out for a row whose scores are all -inf."""


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
        expect_divides(self.heads.value.data, q[-1])
        expect_divides(self.heads.value.data, v[-1])
        expect_shape("result", self.result, (*q[:-1], v[-1]))
        self._verify_masks()

    def _verify_masks(self) -> None:
        if (self.empty is None) == bool(self.masks):
            raise VerifyException("masks say what a row without a key gives, and nothing else does")
        if self.empty is not None:
            expect_one_of("output of a row without a key", self.empty, KEYLESS)
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
        VisibleOp,
        VisibleBlocksOp,
        BiasScoresOp,
        HideScoresOp,
        SoftmaxOp,
        WeightedValuesOp,
        PrunedOp,
        YieldOp,
    ],
    [PackingType, ValuesAttr, RuleAttr],
)
