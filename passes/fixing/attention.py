"""The types of the steps of attention: scores of 32 bits, importances of 48, probabilities of 16."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import QType
from heatc.fixed_point import limits
from heatc.interpreter.einsum import weight_array
from heatc.isa.units import PROBABILITY_POINT
from heatc.passes.analysis import bounds
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.finite import check_finite
from heatc.passes.analysis.host_bounds import MUST_BE_FINITE
from heatc.passes.fixing.common import (
    ACCUMULATOR_WIDTH,
    ACTIVATION_WIDTH,
    SCORE_WIDTH,
    Assigner,
    fixed_of,
    point_of,
    typed,
)
from heatc.passes.fixing.widths import FINE_BIAS, FINEST_BIAS
from heatc.passes.rewriting import at
from heatc.weights import WeightStore


class AttentionAssigner(Assigner):
    """Rewrites steps; `rewriters` has the method for each kind of them."""

    def __init__(self, weights: WeightStore, max_length: int):
        super().__init__(weights, max_length)
        self.rewriters: dict[type[Operation], Callable[..., SSAValue | None]] = {
            attn.ScoresOp: self.scores,
            attn.IntegerScoresOp: self.integer_scores,
            attn.BlockImportanceOp: self.importance,
            attn.BlockMaskOp: self.carry,
            attn.TopkMaskOp: self.carry,
            attn.HeadGateOp: self.carry,
            attn.ScaleScoresOp: self.scale,
            attn.ProbabilityMaskOp: self.carry,
            attn.ExcludeScoresOp: self.exclude,
            attn.MeanQueryOp: self.mean_query,
            attn.VisibleOp: self.carry,
            attn.VisibleBlocksOp: self.carry,
            attn.BiasScoresOp: self.bias_scores,
            attn.HideScoresOp: self.hide_scores,
            attn.HeadImportanceOp: self.carry,
            attn.HeadRankingOp: self.carry,
            attn.MergeScoresOp: self.merge,
            attn.SoftmaxOp: self.softmax,
            attn.WeightedValuesOp: self.values,
        }

    def attention(self, op: attn.PrunedOp) -> None:
        """The steps in their region, on the fixed forms of what they are given."""
        for value in self._biases(op):
            if isinstance(value.owner, WeightOp) and value not in self.new:
                self._bias_weight(op, value.owner)
        op.operands = [self.of(value) for value in op.inputs]
        for argument, value in zip(op.body.block.args, op.inputs):
            self._follow(argument, value)
        self.run(op.body.block)
        for result, value in zip(op.outputs, op.yielded):
            self._follow(result, value)

    def _follow(self, value: SSAValue, other: SSAValue) -> None:
        """Give a value the type of another one that it stands for, and what is known of it."""
        new = Rewriter.replace_value_with_new_type(value, other.type)
        if other in self.known:
            self.known[new] = self.known[other]

    def carry(self, op: Operation) -> SSAValue:
        """An op whose results are no codes, or codes of their own: on the new operands."""
        new = op.create(
            operands=[self.of(v) for v in op.operands],
            result_types=[r.type for r in op.results],
            properties=dict(op.properties),
        )
        self.place(op, new)
        for old, result in zip(op.results, new.results):
            self.bind(old, result)
        return new.results[0]

    def split(self, op: attn.SplitOp) -> None:
        """Integer part at `finer` bits or the value's own, fraction part at the value's own."""
        x = self.of(op.x)
        point, shape = fixed_of(x).point.data, nn.shape_of(op.x)
        integer = typed(shape, ACTIVATION_WIDTH, min(op.bits, point))
        split = attn.SplitOp(x, op.bits, integer, typed(shape, ACTIVATION_WIDTH, point))
        self.place(op, split)
        self.bind(op.integer, split.integer)
        self.bind(op.fraction, split.fraction)
        self.known[split.integer] = self.known[split.fraction] = self.bound(x)

    def _reach(self, q: SSAValue, k: SSAValue, heads: int, dropped: bool = False) -> float:
        """The largest magnitude of a score; truncated parts may add up to more."""
        reach = bounds.of_scores(self.row(q), self.row(k), heads)
        return reach + (nn.shape_of(q)[-1] // heads if dropped else 0)

    def _score_point(self, op: Operation, reach: float, finest: int) -> int:
        if not reach <= limits(SCORE_WIDTH)[1]:
            raise PassFailedException(f"{at(op)}scores of magnitude {reach:.3g} do not fit 32 bits")
        return min(finest, point_of(op, reach, SCORE_WIDTH, "its scores"))

    def _dense_point(self, op: Operation, q: SSAValue, k: SSAValue, heads: int) -> int:
        """The point of scores with all bits."""
        finest = fixed_of(q).point.data + fixed_of(k).point.data
        return self._score_point(op, self._reach(q, k, heads), finest)

    def scores(self, op: attn.ScoresOp) -> SSAValue:
        """All bits of Q K^T, rounded to 32."""
        q, k, heads = self.of(op.q), self.of(op.k), op.heads.value.data
        reach = self._reach(q, k, heads) + self._added_behind(op.result)
        finest = fixed_of(q).point.data + fixed_of(k).point.data
        point = self._score_point(op, reach, finest)
        type_ = typed(nn.shape_of(op.result), SCORE_WIDTH, point)
        new = attn.ScoresOp(q, k, self.of(op.packing), heads, type_)
        self.place(op, new)
        return new.result

    def integer_scores(self, op: attn.IntegerScoresOp) -> SSAValue:
        """Exact, 32 bits."""
        q, k, heads = self.of(op.q), self.of(op.k), op.heads.value.data
        if not isinstance(nn.element_of(q), QType):
            return self.carry(op)
        point = fixed_of(q).point.data + fixed_of(k).point.data
        reach = self._reach(q, k, heads, dropped=True)
        if self._score_point(op, reach, point) < point:
            raise PassFailedException(
                f"{at(op)}integer scores of magnitude {reach:.3g} with {point} "
                "fraction bits do not fit 32 bits: make the integer part less fine"
            )
        type_ = typed(nn.shape_of(op.result), SCORE_WIDTH, point)
        new = attn.IntegerScoresOp(q, k, self.of(op.packing), heads, type_)
        self.place(op, new)
        return new.result

    def importance(self, op: attn.BlockImportanceOp) -> SSAValue:
        """Sums of importances, 48 bits."""
        scores = self.of(op.scores)
        rows, columns = op.extents
        largest = limits(SCORE_WIDTH)[1] * rows * columns
        if op.importance.data == "positive":
            largest *= 2 * self.max_length
        if largest > limits(ACCUMULATOR_WIDTH)[1]:
            raise PassFailedException(
                f"{at(op)}sums over blocks of {rows} x {columns} scores of "
                f"{self.max_length} tokens can overflow {ACCUMULATOR_WIDTH} bits"
            )
        type_ = typed(nn.shape_of(op.result), ACCUMULATOR_WIDTH, fixed_of(scores).point.data)
        new = attn.BlockImportanceOp(
            scores,
            self.of(op.packing),
            (rows, columns),
            type_,
            op.importance.data,
            None if op.visible is None else self.of(op.visible),
        )
        self.place(op, new)
        return new.result

    def merge(self, op: attn.MergeScoresOp) -> SSAValue:
        """Integer and fraction products, rounded to 32 bits."""
        qi, qf, ki, kf = (
            self.of(v) for v in (op.q_integer, op.q_fraction, op.k_integer, op.k_fraction)
        )
        heads = op.heads.value.data
        rest = [fixed_of(f).point.data - fixed_of(i).point.data for f, i in ((qf, qi), (kf, ki))]
        finest = max(rest) + fixed_of(qi).point.data + fixed_of(ki).point.data
        reach = self._reach(qi, ki, heads, dropped=True) + self._added_behind(op.result)
        point = self._score_point(op, reach, finest)
        rows, columns = op.extents
        new = attn.MergeScoresOp(
            self.of(op.integer),
            (qi, qf),
            (ki, kf),
            self.of(op.mask),
            self.of(op.packing),
            heads,
            (rows, columns),
            op.pruned.data,
            typed(nn.shape_of(op.result), SCORE_WIDTH, point),
            None if op.visible is None else self.of(op.visible),
        )
        self.place(op, new)
        return new.result

    def scale(self, op: attn.ScaleScoresOp) -> SSAValue:
        """Scores of low-bit codes, at the point that scores with all bits have."""
        scores = op.scores.owner
        assert isinstance(scores, attn.IntegerScoresOp)
        q, k = (_low_bits_of(v) for v in (scores.q, scores.k))
        point = self._dense_point(op, self.of(q), self.of(k), scores.heads.value.data)
        new = attn.ScaleScoresOp(
            self.of(op.scores),
            self.of(op.q_points),
            self.of(op.k_points),
            self.of(op.packing),
            typed(nn.shape_of(op.result), SCORE_WIDTH, point),
        )
        self.place(op, new)
        return new.result

    def exclude(self, op: attn.ExcludeScoresOp) -> SSAValue:
        """The codes that are left."""
        new = attn.ExcludeScoresOp(self.of(op.scores), self.of(op.mask), self.of(op.packing))
        self.place(op, new)
        return new.result

    def mean_query(self, op: attn.MeanQueryOp) -> SSAValue:
        """Scores of the same type."""
        operands = [self.of(v) for v in op.operands]
        new = attn.MeanQueryOp(operands[0], operands[1], operands[2], operands[3])
        self.place(op, new)
        return new.result

    # -- the model's own masks -------------------------------------------------------------

    def bias_scores(self, op: attn.BiasScoresOp) -> SSAValue:
        """Scores of the same type, and a bias of 16 or 32 bits."""
        bias = self.of(op.bias)
        fixed_of(bias)
        new = attn.BiasScoresOp(self.of(op.scores), bias, self.of(op.packing))
        self.place(op, new)
        return new.result

    def _biases(self, op: attn.PrunedOp) -> list[SSAValue]:
        """What an attention is given that it adds to scores."""
        added = {step.bias for step in op.steps if isinstance(step, attn.BiasScoresOp)}
        pairs = zip(op.body.block.args, op.inputs)
        return [value for argument, value in pairs if argument in added]

    def _bias_weight(self, reader: Operation, op: WeightOp) -> None:
        """A bias that is a weight: 16 bits where these are fine enough, else 32."""
        values = weight_array(op, self.weights)
        check_finite(op, values, reader, *MUST_BE_FINITE)
        largest = float(np.abs(values).max(initial=0.0))
        width, what = ACTIVATION_WIDTH, f"bias {op.keys[0]!r}"
        if point_of(reader, largest, width, what) < FINE_BIAS:
            width = SCORE_WIDTH
        point = min(point_of(reader, largest, width, what), FINEST_BIAS)
        new = WeightOp(op.keys, typed(nn.shape_of(op.result), width, point))
        self.place(op, new)
        self.bind(op.result, new.result)
        self.known[new.result] = Bound(np.array([largest])).rounded(point)

    def hide_scores(self, op: attn.HideScoresOp) -> SSAValue:
        """The codes that are left."""
        operands = [self.of(v) for v in op.operands]
        new = attn.HideScoresOp(operands[0], operands[1], operands[2], op.keyless.data)
        self.place(op, new)
        return new.result

    def _added_behind(self, scores: SSAValue) -> float:
        """The greatest magnitude that biases add to scores before their softmax."""
        total = 0.0
        for use in scores.uses:
            reader = use.operation
            if isinstance(reader, attn.BiasScoresOp) and use.index == 0:
                total += self._largest(reader.bias) + self._added_behind(reader.result)
            elif isinstance(reader, attn.MeanQueryOp | attn.HideScoresOp) and use.index == 0:
                total += self._added_behind(reader.result)
        return total

    def _largest(self, bias: SSAValue) -> float:
        """The greatest magnitude of a bias."""
        return self.bound(self.of(bias)).largest

    def softmax(self, op: attn.SoftmaxOp) -> SSAValue:
        """Probabilities of 16 bits with 14 fraction bits."""
        type_ = typed(nn.shape_of(op.result), ACTIVATION_WIDTH, PROBABILITY_POINT)
        new = attn.SoftmaxOp(self.of(op.scores), self.of(op.packing), op.scale.value.data, type_)
        self.place(op, new)
        return new.result

    def values(self, op: attn.WeightedValuesOp) -> SSAValue:
        """Weighted values, 16 bits."""
        v, heads = self.of(op.v), op.heads.value.data
        bound = bounds.of_attention(self.row(v), heads, self.max_length)
        point, bound = self.rounded(op, bound)
        point = min(point, fixed_of(v).point.data + PROBABILITY_POINT)
        new = attn.WeightedValuesOp(
            self.of(op.probabilities),
            v,
            self.of(op.packing),
            None if op.gate is None else self.of(op.gate),
            heads,
            typed(nn.shape_of(op.result), ACTIVATION_WIDTH, point),
            "zero" if op.gated is None else op.gated.data,
        )
        self.place(op, new)
        self.known[new.result] = bound
        return new.result


def _low_bits_of(codes: SSAValue) -> SSAValue:
    """What low-bit codes are made from."""
    owner = codes.owner
    if not isinstance(owner, attn.LowBitsOp):
        raise PassFailedException(f"expected attn.low_bits as operand of scores of {codes.type}")
    return owner.x
