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
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.context import weights_of
from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.fixed import QType, RequantizeOp
from heatc.dialects.host import TaskOp
from heatc.passes.analysis import bounds
from heatc.passes.analysis.finite import check_finite
from heatc.passes.analysis.host_bounds import MUST_BE_FINITE
from heatc.passes.analysis.normal_form import bias_of, product_of
from heatc.passes.effect import Effect
from heatc.passes.fixing.attention import AttentionAssigner
from heatc.passes.fixing.common import (
    ACCUMULATOR_WIDTH,
    ACTIVATION_WIDTH,
    BIAS_WIDTH,
    MAX_POINT,
    WEIGHT_WIDTH,
    Vector,
    fixed_of,
    nn_element,
    point_of,
    typed,
)
from heatc.passes.fixing.host_tasks import HostAssigner
from heatc.passes.fixing.inputs import read_ranges
from heatc.passes.fixing.widths import WIDE, is_wide_product
from heatc.passes.rewriting import at, erase_dead


class _Assigner(HostAssigner, AttentionAssigner):
    """Rewrites one function."""

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
        finest = self._finest_sum(add or op, bias_value) - fixed_of(x).point.data
        weight, weight_type = self.weight(op, weight_op, WEIGHT_WIDTH, min(finest, 40))
        point = fixed_of(x).point.data + weight_type.point.data
        wide = typed(nn.shape_of(op.result), ACCUMULATOR_WIDTH, point)
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
        width = WIDE if is_wide_product(last) else ACTIVATION_WIDTH
        out_point = min(point_of(op, bound.largest, width, "its result"), point)
        bound = bound.rounded(out_point)
        requantize = RequantizeOp(total, typed(nn.shape_of(total), width, out_point))
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
        point = fixed_of(total).point.data
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
        point = point_of(reader, largest, width, f"weight {op.keys[0]!r}")
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


def _bias_behind(
    op: ContractOp,
) -> tuple[nn.ReshapeOp | None, nn.AddOp | None, SSAValue | None]:
    """The reshape and the sum behind a product, and the bias, where there is one."""
    reader = op.result.get_user_of_unique_use()
    reshape = reader if isinstance(reader, nn.ReshapeOp) else None
    add = reader if reshape is None else reshape.result.get_user_of_unique_use()
    bias = None if add is None else bias_of(add)
    return (reshape, add, bias) if isinstance(add, nn.AddOp) else (None, None, None)


def _max_length(function: FuncOp) -> int:
    lengths = [
        attn.packing_of(op.result).length.data
        for op in function.body.block.ops
        if isinstance(op, attn.PackingOp)
    ]
    return max(lengths, default=1)


@dataclass(frozen=True)
class AssignFixedPointPass(ModulePass):
    """
    Fixed-point types from sound bounds; changes values by the rounding they state.

    `input_range` declares how large inputs are: `pixel_values=4`, `mask=0:1`.
    """

    name = "assign-fixed-point"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    input_range: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raise `ValueError` for a text that is no range."""
        read_ranges(self.input_range)

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Rewrite every function in place.

        Raises `HeatcError` without weights, `PassFailedException` where no type fits.
        """
        store = weights_of(ctx)
        declared = read_ranges(self.input_range)
        for function in list(op.ops):
            if not isinstance(function, FuncOp) or not function.body.blocks:
                continue
            assigner = _Assigner(ctx, function, store, _max_length(function), declared)
            # Bounds that float32 does not hold are refused where a type is to hold them.
            with np.errstate(over="ignore", invalid="ignore"):
                assigner.run(function.body.block)
            assigner.inputs.write()
        erase_dead(op)
