"""
What the ops of an attention say, read before anything is tiled.

An attention of the fixed level is an `attn.pruned`. Its steps are those of its rule: scores, decisions on
blocks, scores or heads, the softmax, and weighted values. The steps say all that the machine does. The name
of the rule is not asked for, so that a rule of another package needs no line here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.isa.table import BLOCK, split_dtypes
from heatc.isa.units import probability_code
from heatc.passes.rewriting import at
from heatc.passes.tiling.attention_plan import AttentionShape, MaskShape
from heatc.passes.tiling.cascade import importance_of, ranking_of, source_of
from heatc.passes.tiling.values import fixed_type, isa_dtype, owner_of

SINGLE = (1, 1)
"""The block of rules that decide on single scores."""


@dataclass(frozen=True)
class Pruning:
    """
    What mean filtering or `topk` decides on, and the ops that decide (for locations).

    Thresholds are one for all heads, or one a head; `importance` is that of attn.block_importance,
    `point` the binary point of integer scores, `block` the size of a block. With a `density` there is
    no threshold: that share of each row's blocks is kept.
    """

    rho_b: tuple[float, ...]
    tau_h: tuple[float, ...]
    pruned: str
    mask: Operation | None
    gate: Operation | None
    importance: str = "abs"
    point: int = 0
    block: tuple[int, int] = BLOCK
    density: float = 0.0

    @property
    def positive(self) -> bool:
        """Whether importance is what lies above the mean of a row."""
        return self.importance == "positive"


@dataclass(frozen=True)
class Prediction:
    """
    What low-bit scores decide on: single scores that have no part in the softmax.

    A round of mean filtering for each of `bits` with its ratio in `ratios`, the second among what the
    first one keeps; or, without ratios, the scores at `point` whose probability, at the attention's
    own scale, has a code above `code`. `masks` are the ops that decide, a round each.
    """

    bits: tuple[int, ...]
    ratios: tuple[float, ...]
    masks: tuple[Operation | None, ...]
    point: int = 0
    code: int = 0


@dataclass(frozen=True)
class ScoreSteps:
    """
    What the model's own masks do to scores: values outside of the attention.

    `visible` hide, `biases` are added, `shifts` bits finer than scores. `step` is what the steps of the
    attention take for what is visible, None where all is. `keyless` is that of `attn.hide_scores`.
    `least` hides behind that once more, with `least_keyless`; the last `biases_behind` of the biases
    are added between both.
    """

    visible: tuple[SSAValue, ...] = ()
    biases: tuple[SSAValue, ...] = ()
    shifts: tuple[int, ...] = ()
    keyless: str = "zero"
    step: SSAValue | None = None
    least: SSAValue | None = None
    least_keyless: str = "zero"
    biases_behind: int = 0

    @property
    def any(self) -> bool:
        """Whether there are any."""
        return bool(self.visible or self.biases)


@dataclass(frozen=True)
class AttentionParts:
    """
    The parts of an attention.

    Attributes:
        op: the attention.
        values: the step that puts out its result.
        scale: of the softmax.
        planes: q, k and v, or the integer and fraction parts of q and k, and v.
        points: binary points of q, k, v, the scores `s` and the output `o`; those of split q and k,
            and of scores with integer parts, above their integer parts.
        pruning: blocks that integer scores decide on, if any.
        prediction: single scores that low-bit codes decide on, if any.
        ranking: what lists the heads of dense attention, if anything does.
        importance: what adds the output to the importance of heads, if anything does.
        sums: the importance of heads so far, if it is read.
        gated: what pruned heads put out.
        masks: what the model's own masks do to scores.
    """

    op: attn.PrunedOp
    values: attn.WeightedValuesOp
    scale: float
    planes: dict[str, SSAValue]
    points: dict[str, int]
    pruning: Pruning | None
    prediction: Prediction | None
    ranking: attn.HeadRankingOp | None
    importance: attn.HeadImportanceOp | None
    sums: SSAValue | None
    gated: str
    masks: ScoreSteps = ScoreSteps()

    @property
    def cascades(self) -> bool:
        """Whether it has to do with the importance of heads."""
        return self.ranking is not None or self.importance is not None

    @property
    def heads(self) -> int:
        """Heads that it has; `ranking` may leave out some."""
        return self.values.heads.value.data

    @property
    def block(self) -> tuple[int, int]:
        """Query rows and key columns of what is decided on."""
        if self.prediction is not None:
            return SINGLE
        return BLOCK if self.pruning is None else self.pruning.block

    def shape(self) -> AttentionShape:
        """What its tiles depend on."""
        _, length = attn.packing_of(self.values.packing).shape
        pruning, prediction, ranking = self.pruning, self.prediction, self.ranking
        planes = ((name, _dtype(value)) for name, value in self.planes.items())
        shape = AttentionShape(
            length,
            self.heads if ranking is None else ranking.keep.value.data,
            nn.shape_of(self.values.v)[1] // self.heads,
            pruning is not None,
            pruning is not None and pruning.gate is not None,
            tuple((name, dtype) for name, dtype in planes if dtype != "i16"),
            "zero" if pruning is None else pruning.pruned,
            pruning is not None and pruning.positive and self.masks.step is None,
            self.gated,
            0 if self.sums is None else self.heads,
            self.importance is not None,
            self.block,
            0.0 if pruning is None else pruning.density,
            visible=tuple(_mask_shape(value) for value in self.masks.visible),
            biases=tuple(_mask_shape(value) for value in self.masks.biases),
            least=None if self.masks.least is None else _mask_shape(self.masks.least),
            biases_behind=self.masks.biases_behind,
        )
        if prediction is None:
            return shape
        return replace(shape, bits=prediction.bits, likely=not prediction.ratios)


def _mask_shape(value: SSAValue) -> MaskShape:
    """How a mask lies in memory."""
    batch, heads, rows, _ = nn.shape_of(value)
    return MaskShape(isa_dtype(nn.element_of(value)), heads, batch > 1, rows > 1)


def _dtype(value: SSAValue) -> str:
    """The dtype of the tensor of a value; a split one lies in two planes of their own."""
    split = value.owner
    if not isinstance(split, attn.SplitOp):
        return isa_dtype(nn.element_of(value))
    fraction = fixed_type(split.fraction).point.data - fixed_type(split.integer).point.data
    return split_dtypes(fraction)[0 if value is split.integer else 1]


def read_attention(attention: attn.PrunedOp) -> AttentionParts:
    """The parts of an attention; raises `PassFailedException` for what the machine has no unit for."""
    op: attn.WeightedValuesOp = owner_of(attention.yielded[0], attn.WeightedValuesOp)
    softmax: attn.SoftmaxOp = owner_of(op.probabilities, attn.SoftmaxOp)
    kinds = (attn.ScoresOp, attn.MergeScoresOp, attn.MeanQueryOp, attn.ExcludeScoresOp)
    masks, unmasked = _score_steps(softmax.scores)
    scores, prediction = owner_of(unmasked, *kinds), None
    gate, gated = op.gate, "zero" if op.gated is None else op.gated.data
    _expect(op, len(_packings(attention)) == 1, "steps of several packings")
    if isinstance(scores, attn.MeanQueryOp | attn.ExcludeScoresOp):
        _expect(op, not masks.any, f"{scores.name} beside masks of the model's own")
    if isinstance(scores, attn.MeanQueryOp):
        _expect(op, gate is None, "a gate behind heads that have their mean query")
        integer, gate, gated = scores.integer, scores.gate, "col"
        scores = owner_of(scores.scores, attn.MergeScoresOp)
        _expect(op, integer is scores.integer, "the mean query of other scores")
    if isinstance(scores, attn.ExcludeScoresOp):
        prediction = _prediction(op, scores, softmax)
        scores = owner_of(scores.scores, attn.ScoresOp)
    pruning, ranking, importance = None, None, None
    if isinstance(scores, attn.MergeScoresOp):
        pruning = _pruning(op, scores, gate, masks.step)
        _expect(op, gated == "zero" or not masks.any, "means of pruned heads beside masks")
        planes = {
            "q": scores.q_integer,
            "q.fraction": scores.q_fraction,
            "k": scores.k_integer,
            "k.fraction": scores.k_fraction,
        }
        points = {k: _point(planes[f"{k}.fraction"]) - _point(planes[k]) for k in ("q", "k")}
    else:
        planes = {"q": scores.q, "k": scores.k}
        points = {k: _point(v) for k, v in planes.items()}
        ranking, importance = ranking_of(op), importance_of(op)
    planes["v"] = op.v
    points |= {"v": _point(op.v), "s": _point(softmax.scores), "o": _point(op.result)}
    return AttentionParts(
        attention,
        op,
        softmax.scale.value.data,
        {name: attn.outside(value) for name, value in planes.items()},
        points,
        pruning,
        prediction,
        ranking,
        importance,
        _sums(op, ranking, importance),
        gated,
        masks,
    )


def _score_steps(scores: SSAValue) -> tuple[ScoreSteps, SSAValue]:
    """What is done to scores right before the softmax, and the scores before that."""
    hides = list[attn.HideScoresOp]()
    biases, shifts, behind = list[SSAValue](), list[int](), 0
    while isinstance(scores.owner, attn.BiasScoresOp | attn.HideScoresOp):
        step = scores.owner
        if isinstance(step, attn.HideScoresOp):
            hides.insert(0, step)
            behind = len(biases)
        else:
            biases.insert(0, attn.outside(step.bias))
            shifts.insert(0, _point(step.bias) - _point(scores))
        scores = step.scores
    found = ScoreSteps(biases=tuple(biases), shifts=tuple(shifts))
    if not hides:
        return found, scores
    first, *last = hides
    seen: attn.VisibleOp = owner_of(first.visible, attn.VisibleOp)
    found = replace(
        found,
        visible=tuple(map(attn.outside, seen.masks)),
        keyless=first.keyless.data,
        step=seen.result,
        biases_behind=behind,
    )
    if not last:
        _expect(first, not behind, "a bias of scores that are hidden")
        return found, scores
    _expect(first, len(last) == 1, "scores that are hidden three times")
    least: attn.VisibleOp = owner_of(last[0].visible, attn.VisibleOp)
    _expect(first, len(least.masks) == 1, "scores that are hidden twice by several masks")
    mask, least_keyless = attn.outside(least.masks[0]), last[0].keyless.data
    return replace(found, least=mask, least_keyless=least_keyless), scores


def _point(value: SSAValue) -> int:
    return fixed_type(value).point.data


def _sums(
    op: attn.WeightedValuesOp,
    ranking: attn.HeadRankingOp | None,
    importance: attn.HeadImportanceOp | None,
) -> SSAValue | None:
    """The importance of heads so far, one for all who read it."""
    read = [] if importance is None else [importance.before]
    read += [] if ranking is None else [ranking.importance]
    sums = [None if value is None else source_of(value) for value in read]
    if sums and sums[-1] is not sums[0]:
        raise PassFailedException(f"{at(op)}heads are ranked by other sums than these they add to")
    return sums[-1] if sums else None


def _packings(attention: attn.PrunedOp) -> set[SSAValue]:
    """What the steps take for the rows of sequences."""
    values = (value for op in attention.steps for value in op.operands)
    return {value for value in values if isinstance(value.type, attn.PackingType)}


def _pruning(
    op: attn.WeightedValuesOp,
    scores: attn.MergeScoresOp,
    gated: SSAValue | None,
    visible: SSAValue | None,
) -> Pruning:
    """What is decided on blocks of integer scores; the machine has one chain of steps for it."""
    mask = owner_of(scores.mask, attn.BlockMaskOp, attn.TopkMaskOp)
    topk = isinstance(mask, attn.TopkMaskOp)
    gate: attn.HeadGateOp | None = None
    if gated is not None:
        gate = owner_of(gated, attn.HeadGateOp)
    theta: attn.BlockImportanceOp = owner_of(mask.theta, attn.BlockImportanceOp)
    integer: attn.IntegerScoresOp = owner_of(scores.integer, attn.IntegerScoresOp)
    parts = (scores.q_integer, scores.q_fraction), (scores.k_integer, scores.k_fraction)
    split = all(_are_split(whole, fraction) for whole, fraction in parts)
    _expect(op, split, "integer and fraction parts of other values")
    _expect(op, _sees(mask, visible), "blocks among those of another mask")
    seen = [theta.visible, *([] if gate is None else [gate.visible])]
    means = scores.pruned.data == "mean"
    seen.append(scores.visible if means else visible)
    same = all(value is visible for value in seen)
    _expect(op, same, "decisions on other scores than those that are visible")
    _expect(op, theta.scores is scores.integer, "the importance of other scores")
    own = (integer.q, integer.k) == (scores.q_integer, scores.k_integer)
    _expect(op, own, "integer scores of other parts than are merged")
    deciding = [theta, mask, *([] if gate is None else [gate])]
    same = all(one.extents == scores.extents for one in deciding)
    _expect(op, same, "blocks of several sizes in one attention")
    if gate is not None:
        alike = gate.theta is mask.theta and gate.importance == theta.importance
        _expect(op, alike, "a gate by another importance than that of the blocks")
    return Pruning(
        () if topk else mask.ratios,
        () if gate is None else gate.thresholds,
        scores.pruned.data,
        mask,
        gate,
        theta.importance.data,
        _point(scores.integer),
        scores.extents,
        mask.density.value.data if topk else 0.0,
    )


def _sees(mask: attn.BlockMaskOp | attn.TopkMaskOp, visible: SSAValue | None) -> bool:
    """Whether a mask is decided among the blocks that have a visible score, and no others."""
    if mask.among is None or visible is None:
        return mask.among is None and visible is None
    among = mask.among.owner
    if not isinstance(among, attn.VisibleBlocksOp):
        return False
    return among.visible is visible and among.extents == mask.extents


def _prediction(
    op: attn.WeightedValuesOp, excluded: attn.ExcludeScoresOp, softmax: attn.SoftmaxOp
) -> Prediction:
    """What low-bit scores decide on, of the operands of the scores that are left."""
    scores: attn.ScoresOp = owner_of(excluded.scores, attn.ScoresOp)
    mask = owner_of(excluded.mask, attn.BlockMaskOp, attn.ProbabilityMaskOp)
    if isinstance(mask, attn.ProbabilityMaskOp):
        predicted: attn.SoftmaxOp = owner_of(mask.probabilities, attn.SoftmaxOp)
        scaled: attn.ScaleScoresOp = owner_of(predicted.scores, attn.ScaleScoresOp)
        _expect(op, predicted.scale == softmax.scale, "a prediction at another scale")
        bits = _low_bits(op, scaled.scores, scores, (scaled.q_points, scaled.k_points))
        code = probability_code(mask.threshold.value.data)
        return Prediction((bits,), (), (mask,), _point(scaled.result), code)
    first = mask if mask.among is None else owner_of(mask.among, attn.BlockMaskOp)
    _expect(op, first.among is None, "more than two rounds of low-bit scores")
    rounds = (mask,) if mask is first else (first, mask)
    for one in rounds:
        _expect(op, one.extents == SINGLE, "low-bit scores in blocks")
        _expect(op, len(one.ratios) == 1, "ratios of low-bit scores that differ by head")
    bits = tuple(_low_bits(op, one.theta, scores) for one in rounds)
    return Prediction(bits, tuple(one.ratios[0] for one in rounds), rounds)


def _are_split(integer: SSAValue, fraction: SSAValue) -> bool:
    """Whether two values are the parts of one."""
    split = integer.owner
    return isinstance(split, attn.SplitOp) and (split.integer, split.fraction) == (
        integer,
        fraction,
    )


def _expect(op: Operation, holds: bool, what: str) -> None:
    """Refuse what the machine has no unit for."""
    if not holds:
        raise PassFailedException(f"{at(op)}the machine has no unit for {what}")


def _low_bits(
    op: Operation,
    scores: SSAValue,
    full: attn.ScoresOp,
    points: tuple[SSAValue, SSAValue] | None = None,
) -> int:
    """
    The bits of low-bit scores, whose codes must be those of the operands of all scores.

    `points` are what the scores are scaled by, if they are.
    """
    low: attn.IntegerScoresOp = owner_of(scores, attn.IntegerScoresOp)
    q, k = (owner_of(value, attn.LowBitsOp) for value in (low.q, low.k))
    alike = (q.x, k.x, q.bits) == (full.q, full.k, k.bits)
    _expect(op, alike, "low-bit scores of other operands than the scores")
    own = (low.q, low.k) == (q.codes, k.codes) and points in (None, (q.points, k.points))
    _expect(op, own, "low-bit scores at points of other codes")
    return q.bits.value.data
