"""
Every value between tasks gets a fixed-point type.

Assumes the partitioned level and needs the weights. Without calibration data the binary point of
a value is the finest at which a sound bound of the value (`passes/analysis/bounds.py`) fits 16
bits: nothing can saturate. Products become an exact 48-bit contraction, bias and one rounding;
scores are 32 bits, probabilities have 14 fraction bits; inside `host.task` everything is float64
and is rounded where it leaves. Model outputs are float32. Leaves the choice of other points to
calibration.

Example: test/passes/assign_fixed_point.mlir.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType, f32, f64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import PassFailedException

from heatc.context import weights_of
from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp, RequantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.fixed_point import limits, point_for
from heatc.interpreter import input_names
from heatc.isa.table import ACC_BITS
from heatc.isa.units import PROBABILITY_POINT
from heatc.passes.analysis import bounds
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.finite import check_finite
from heatc.passes.analysis.host_bounds import MUST_BE_FINITE, HostBounds
from heatc.passes.analysis.normal_form import bias_of, product_of
from heatc.passes.effect import Effect
from heatc.passes.rewriting import at, erase_dead, insert_before
from heatc.weights import WeightStore

ACTIVATION_WIDTH = 16
WEIGHT_WIDTH = 16
BIAS_WIDTH = 32
SCORE_WIDTH = 32
ACCUMULATOR_WIDTH = ACC_BITS
MAX_POINT = 64
"""The finest point of a fixed-point type; the coarsest is minus this."""

Vector = NDArray[np.float64]


def _typed(shape: tuple[int, ...], width: int, point: int) -> TensorType[Attribute]:
    return TensorType(QType(width, point), shape)


def _point(op: Operation, largest: float, width: int, what: str) -> int:
    """The finest binary point at which a magnitude fits; refuses those that no type holds."""
    if largest <= limits(width)[1] * 2.0**MAX_POINT:
        return point_for(largest, width)
    raise PassFailedException(
        f"{at(op)}{what} can be as large as {largest:.3g}, which no fixed-point type "
        f"of {width} bits holds: use --target numpy, or scale the weights that lead there"
    )


def _fixed(value: SSAValue) -> QType:
    element = nn.element_of(value)
    if not isinstance(element, QType):
        raise PassFailedException(
            f"{_reader(value)}nothing says how large {_called(value)} can be, so that it has no "
            "fixed-point type; use --target numpy for this model, or norm it before"
        )
    return element


def _reader(value: SSAValue) -> str:
    """The place of the first op that reads a value."""
    return next((at(use.operation) for use in value.uses if at(use.operation)), "")


def _called(value: SSAValue) -> str:
    """How a message calls a value that has no binary point: by the input that it comes from."""
    value = attn.outside(value)
    while isinstance(value.owner, nn.ReshapeOp):
        value = value.owner.x
    if not isinstance(value, BlockArgument):
        return "the operand"
    function = value.owner.parent_op()
    known = input_names(function) if isinstance(function, FuncOp) else ()
    return f"input {known[value.index]!r}" if value.index < len(known) else "an input"


class _Assigner:
    """Rewrites one function; `new` maps old values to fixed ones, `known` bounds the new ones."""

    def __init__(self, weights: WeightStore, max_length: int):
        self.weights = weights
        self.max_length = max_length
        self.new: dict[SSAValue, SSAValue] = {}
        self.known: dict[SSAValue, Bound] = {}
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
            attn.HeadImportanceOp: self.carry,
            attn.HeadRankingOp: self.carry,
            attn.MergeScoresOp: self.merge,
            attn.SoftmaxOp: self.softmax,
            attn.WeightedValuesOp: self.values,
        }

    def run(self, block: Block) -> None:
        """Rewrite every op of the block, in order."""
        for op in list(block.ops):
            if isinstance(op, TaskOp):
                self.task(op)
            elif isinstance(op, attn.PrunedOp):
                self.attention(op)
            elif isinstance(op, attn.SplitOp):
                self.split(op)
            elif isinstance(op, attn.LowBitsOp):
                self.carry(op)
            elif isinstance(op, ContractOp) and product_of(op) is not None:
                self.product(op)
            elif isinstance(op, nn.ReshapeOp) and isinstance(nn_element(self.of(op.x)), QType):
                self.reshape(op)
            elif type(op) in self.rewriters:
                result = self.rewriters[type(op)](op)
                if result is not None:
                    self.bind(op.results[0], result)
            elif isinstance(op, attn.YieldOp):
                op.operands = [self.of(value) for value in op.operands]
            elif isinstance(op, ReturnOp):
                self.outputs(op)

    def of(self, value: SSAValue) -> SSAValue:
        """The fixed form of a value."""
        return self.new.get(value, value)

    def bind(self, old: SSAValue, new: SSAValue) -> None:
        """Use `new` for `old` from here on."""
        new.name_hint = old.name_hint
        self.new[old] = new

    def place(self, anchor: Operation, op: Operation) -> None:
        """Insert an op at the place of the one it stands for."""
        insert_before(anchor, op)
        op.location = anchor.location

    def rounded(self, op: Operation, bound: Bound) -> tuple[int, Bound]:
        """The binary point of a 16-bit value that `op` makes, and the bound of its codes."""
        point = _point(op, bound.largest, ACTIVATION_WIDTH, "its result")
        return point, bound.rounded(point)

    def row(self, value: SSAValue) -> Bound:
        """What is known of the last axis of a value."""
        return self.bound(value).over(nn.shape_of(value)[-1])

    def bound(self, value: SSAValue) -> Bound:
        """What is known of a value; `PassFailedException` where it came with codes of its own."""
        if value not in self.known:
            raise PassFailedException(f"nothing is known of the values of {value.type}")
        return self.known[value]

    # -- products --------------------------------------------------------------------------

    def reshape(self, op: nn.ReshapeOp) -> None:
        """The same codes in another shape."""
        new = nn.ReshapeOp(self.of(op.x), nn.shape_of(op.result))
        self.place(op, new)
        self.bind(op.result, new.result)
        self.known[new.result] = self.bound(new.x)

    def product(self, op: ContractOp) -> None:
        """Contraction, bias and rounding: `q<48>`, `q<48>`, `q<16>`."""
        product = product_of(op)
        assert product is not None
        x = self.of(op.inputs[0])
        weight_op = op.inputs[1].owner
        assert isinstance(weight_op, WeightOp)
        reshape, add, bias_value = _bias_behind(op)
        finest = self._finest_sum(add or op, bias_value) - _fixed(x).point.data
        weight, weight_type = self.weight(op, weight_op, WEIGHT_WIDTH, min(finest, 40))
        point = _fixed(x).point.data + weight_type.point.data
        wide = _typed(nn.shape_of(op.result), ACCUMULATOR_WIDTH, point)
        self._check_depth(op)

        quantised = WeightOp(
            weight_op.keys,
            TensorType(weight_type, nn.shape_of(op.inputs[1])),
            None
            if weight_op.permutation is None
            else [int(p) for p in weight_op.permutation.get_values()],
            None if weight_op.checksum is None else weight_op.checksum.data,
        )
        quantised.result.name_hint = op.inputs[1].name_hint
        self.place(op, quantised)
        contract = ContractOp(op.equation.data, [x, quantised.result], wide, fuse=op.fuse)
        self.place(op, contract)
        total, last, bias = contract.result, op.result, None
        if add is not None and bias_value is not None:
            if reshape is not None:
                flat = nn.ReshapeOp(total, nn.shape_of(reshape.result))
                self.place(op, flat)
                total = flat.result
            total, bias = self.bias(op, add, bias_value, total)
            last = add.result
        half = 2.0 ** -(weight_type.point.data + 1)
        bound = bounds.of_product(self.bound(x), product, weight, bias, half)
        out_point, bound = self.rounded(op, bound)
        requantize = RequantizeOp(
            total, _typed(nn.shape_of(total), ACTIVATION_WIDTH, min(out_point, point))
        )
        self.place(op, requantize)
        self.bind(last, requantize.result)
        self.known[requantize.result] = bound
        for name in weight_op.keys:
            self.weights.release(name)

    def bias(
        self,
        op: ContractOp,
        reader: nn.AddOp,
        value: SSAValue,
        total: SSAValue,
    ) -> tuple[SSAValue, Vector]:
        """The sum with the bias, its codes aligned to the accumulator."""
        bias_op = value.owner
        assert isinstance(bias_op, WeightOp)
        point = _fixed(total).point.data
        bias, type_ = self.weight(reader, bias_op, BIAS_WIDTH, point)
        quantised = WeightOp(bias_op.keys, TensorType(type_, nn.shape_of(value)))
        quantised.result.name_hint = value.name_hint
        add = nn.AddOp(total, quantised.result, total.type)
        self.place(op, quantised)
        self.place(op, add)
        add.location = reader.location
        return add.result, bias.astype(np.float64)

    def weight(
        self, reader: Operation, op: WeightOp, width: int, finest: int
    ) -> tuple[NDArray[np.float32], QType]:
        """The values of a weight that `reader` reads, and the finest type its largest one fits."""
        from heatc.interpreter.einsum import weight_array

        values = weight_array(op, self.weights)
        check_finite(op, values, reader, *MUST_BE_FINITE)
        largest = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
        point = _point(reader, largest, width, f"weight {op.keys[0]!r}")
        return values, QType(width, min(point, finest))

    def _finest_sum(self, reader: Operation, bias: SSAValue | None) -> int:
        """The finest point at which a bias fills at most half of the accumulator."""
        if bias is None:
            return MAX_POINT
        assert isinstance(bias.owner, WeightOp)
        values, _ = self.weight(reader, bias.owner, BIAS_WIDTH, MAX_POINT)
        largest = float(np.abs(values).max(initial=0.0))
        if largest == 0.0:
            return MAX_POINT
        return min(MAX_POINT, math.floor(ACCUMULATOR_WIDTH - 2 - math.log2(largest)))

    def _check_depth(self, op: ContractOp) -> None:
        """Products fill at most half of the accumulator, so that a bias has room beside them."""
        depth = nn.shape_of(op.inputs[1])[-1]
        if depth > 1 << (ACCUMULATOR_WIDTH - ACTIVATION_WIDTH - WEIGHT_WIDTH):
            raise PassFailedException(
                f"{at(op)}a sum of depth {depth} can overflow the "
                f"{ACCUMULATOR_WIDTH}-bit accumulator"
            )

    # -- attention -------------------------------------------------------------------------

    def attention(self, op: attn.PrunedOp) -> None:
        """The steps in their region, on the fixed forms of what they are given."""
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
        point, shape = _fixed(x).point.data, nn.shape_of(op.x)
        integer = _typed(shape, ACTIVATION_WIDTH, min(op.bits, point))
        split = attn.SplitOp(x, op.bits, integer, _typed(shape, ACTIVATION_WIDTH, point))
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
        return min(finest, _point(op, reach, SCORE_WIDTH, "its scores"))

    def _dense_point(self, op: Operation, q: SSAValue, k: SSAValue, heads: int) -> int:
        """The point of scores with all bits."""
        finest = _fixed(q).point.data + _fixed(k).point.data
        return self._score_point(op, self._reach(q, k, heads), finest)

    def scores(self, op: attn.ScoresOp) -> SSAValue:
        """All bits of Q K^T, rounded to 32."""
        q, k, heads = self.of(op.q), self.of(op.k), op.heads.value.data
        type_ = _typed(nn.shape_of(op.result), SCORE_WIDTH, self._dense_point(op, q, k, heads))
        new = attn.ScoresOp(q, k, self.of(op.packing), heads, type_)
        self.place(op, new)
        return new.result

    def integer_scores(self, op: attn.IntegerScoresOp) -> SSAValue:
        """Exact, 32 bits."""
        q, k, heads = self.of(op.q), self.of(op.k), op.heads.value.data
        if not isinstance(nn.element_of(q), QType):
            return self.carry(op)
        point = _fixed(q).point.data + _fixed(k).point.data
        reach = self._reach(q, k, heads, dropped=True)
        if self._score_point(op, reach, point) < point:
            raise PassFailedException(
                f"{at(op)}integer scores of magnitude {reach:.3g} with {point} "
                "fraction bits do not fit 32 bits: make the integer part less fine"
            )
        type_ = _typed(nn.shape_of(op.result), SCORE_WIDTH, point)
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
        type_ = _typed(nn.shape_of(op.result), ACCUMULATOR_WIDTH, _fixed(scores).point.data)
        new = attn.BlockImportanceOp(
            scores, self.of(op.packing), (rows, columns), type_, op.importance.data
        )
        self.place(op, new)
        return new.result

    def merge(self, op: attn.MergeScoresOp) -> SSAValue:
        """Integer and fraction products, rounded to 32 bits."""
        qi, qf, ki, kf = (
            self.of(v) for v in (op.q_integer, op.q_fraction, op.k_integer, op.k_fraction)
        )
        heads = op.heads.value.data
        rest = [_fixed(f).point.data - _fixed(i).point.data for f, i in ((qf, qi), (kf, ki))]
        finest = max(rest) + _fixed(qi).point.data + _fixed(ki).point.data
        point = self._score_point(op, self._reach(qi, ki, heads, dropped=True), finest)
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
            _typed(nn.shape_of(op.result), SCORE_WIDTH, point),
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
            _typed(nn.shape_of(op.result), SCORE_WIDTH, point),
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

    def softmax(self, op: attn.SoftmaxOp) -> SSAValue:
        """Probabilities of 16 bits with 14 fraction bits."""
        type_ = _typed(nn.shape_of(op.result), ACTIVATION_WIDTH, PROBABILITY_POINT)
        new = attn.SoftmaxOp(self.of(op.scores), self.of(op.packing), op.scale.value.data, type_)
        self.place(op, new)
        return new.result

    def values(self, op: attn.WeightedValuesOp) -> SSAValue:
        """Weighted values, 16 bits."""
        v, heads = self.of(op.v), op.heads.value.data
        bound = bounds.of_attention(self.row(v), heads, self.max_length)
        point, bound = self.rounded(op, bound)
        point = min(point, _fixed(v).point.data + PROBABILITY_POINT)
        new = attn.WeightedValuesOp(
            self.of(op.probabilities),
            v,
            self.of(op.packing),
            None if op.gate is None else self.of(op.gate),
            heads,
            _typed(nn.shape_of(op.result), ACTIVATION_WIDTH, point),
            "zero" if op.gated is None else op.gated.data,
        )
        self.place(op, new)
        self.known[new.result] = bound
        return new.result

    # -- host ------------------------------------------------------------------------------

    def task(self, op: TaskOp) -> None:
        """Float64 inside, codes (or float32, for model outputs) outside."""
        inputs = [self.of(v) for v in op.inputs]
        types: list[Attribute] = [v.type for v in inputs]
        body = Block(arg_types=types)
        limits = HostBounds(self.weights, dict(zip(body.args, inputs)))
        inner: dict[SSAValue, SSAValue] = {}
        for old, value, argument in zip(op.body.block.args, inputs, body.args):
            argument.name_hint = old.name_hint
            inner[old] = argument
            if isinstance(nn_element(value), QType):
                real = DequantizeOp(argument, TensorType(f64, nn.shape_of(value)))
                body.add_op(real)
                inner[old] = real.result
                limits.known[real.result] = self.bound(value)
        last = self._copy_body(op, body, inner)
        found = [self._leave(body, inner[v], limits, r) for v, r in zip(last, op.outputs)]
        results = [value for value, _ in found]
        body.add_op(YieldOp(*results))
        task = TaskOp(inputs, [r.type for r in results], Region(body))
        self.place(op, task)
        for old, new, (_, bound) in zip(op.outputs, task.outputs, found):
            self.bind(old, new)
            if bound is not None:
                self.known[new] = bound

    def _copy_body(
        self, op: TaskOp, body: Block, inner: dict[SSAValue, SSAValue]
    ) -> tuple[SSAValue, ...]:
        for old in op.body.block.ops:
            if isinstance(old, YieldOp):
                return tuple(old.arguments)
            operands = [inner[v] for v in old.operands]
            result = old.results[0]
            new = old.create(
                operands=operands,
                result_types=[TensorType(f64, nn.shape_of(result))],
                properties=dict(old.properties),
            )
            new.location = old.location
            new.results[0].name_hint = result.name_hint
            body.add_op(new)
            inner[result] = new.results[0]
        raise PassFailedException("host.task without a yield")

    def _leave(
        self, body: Block, value: SSAValue, limits: HostBounds, result: SSAValue
    ) -> tuple[SSAValue, Bound | None]:
        """
        A result rounded into codes, with their bound; cast to float32 where only the caller reads it.
        """
        shape = nn.shape_of(value)
        if all(isinstance(use.operation, ReturnOp) for use in result.uses):
            cast = nn.CastOp(value, TensorType(f32, shape))
            body.add_op(cast)
            return cast.result, None
        bound = limits.of(value)
        op = value.owner if isinstance(value.owner, Operation) else result.owner
        assert isinstance(op, Operation)
        if bound is None:
            raise PassFailedException(
                f"{at(op)}nothing says how large the result of {op.name} can be, so "
                "that it has no fixed-point type; use --target numpy for this model"
            )
        point, bound = self.rounded(op, bound)
        quantize = QuantizeOp(value, _typed(shape, ACTIVATION_WIDTH, point))
        body.add_op(quantize)
        return quantize.result, bound

    def outputs(self, op: ReturnOp) -> None:
        """The model's outputs leave as float32."""
        for i, value in enumerate(op.operands):
            new = self.of(value)
            if isinstance(nn_element(new), QType):
                new = self._output_task(op, new)
            op.operands[i] = new

    def _output_task(self, op: ReturnOp, value: SSAValue) -> SSAValue:
        shape = nn.shape_of(value)
        types: list[Attribute] = [value.type]
        body = Block(arg_types=types)
        real = DequantizeOp(body.args[0], TensorType(f64, shape))
        cast = nn.CastOp(real.result, TensorType(f32, shape))
        body.add_ops([real, cast, YieldOp(cast.result)])
        task = TaskOp([value], [cast.result.type], Region(body))
        insert_before(op, task)
        if isinstance(value.owner, Operation):
            task.location = value.owner.location
        return task.outputs[0]


def _bias_behind(
    op: ContractOp,
) -> tuple[nn.ReshapeOp | None, nn.AddOp | None, SSAValue | None]:
    """The reshape and the sum behind a product, and the bias, where there is one."""
    reader = op.result.get_user_of_unique_use()
    reshape = reader if isinstance(reader, nn.ReshapeOp) else None
    add = reader if reshape is None else reshape.result.get_user_of_unique_use()
    bias = None if add is None else bias_of(add)
    return (reshape, add, bias) if isinstance(add, nn.AddOp) else (None, None, None)


def _low_bits_of(codes: SSAValue) -> SSAValue:
    """What low-bit codes are made from."""
    owner = codes.owner
    if not isinstance(owner, attn.LowBitsOp):
        raise PassFailedException(f"expected attn.low_bits as operand of scores of {codes.type}")
    return owner.x


def nn_element(value: SSAValue) -> Attribute | None:
    """The element type of a value that is a tensor, else None (packings)."""
    return nn.element_of(value) if isinstance(value.type, TensorType) else None


def _max_length(function: FuncOp) -> int:
    lengths = [
        attn.packing_of(op.result).length.data
        for op in function.body.block.ops
        if isinstance(op, attn.PackingOp)
    ]
    return max(lengths, default=1)


@dataclass(frozen=True)
class AssignFixedPointPass(ModulePass):
    """Fixed-point types from sound bounds; changes values by the rounding they state."""

    name = "assign-fixed-point"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Rewrite every function in place.

        Raises `HeatcError` without weights, `PassFailedException` where no type fits.
        """
        store = weights_of(ctx)
        for function in list(op.ops):
            if not isinstance(function, FuncOp) or not function.body.blocks:
                continue
            # Bounds that float32 does not hold are refused where a type is to hold them.
            with np.errstate(over="ignore", invalid="ignore"):
                _Assigner(store, _max_length(function)).run(function.body.block)
        erase_dead(op)
