"""Host tasks in fixed point: float64 inside, codes, integers or float32 outside."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat, IntegerType, TensorType, f32, f64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import nn
from heatc.dialects.fixed import DequantizeOp, QType, QuantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.intervals import Interval
from heatc.passes.analysis.bounds import Bound
from heatc.passes.analysis.constants import evaluate
from heatc.passes.analysis.host_bounds import HostBounds
from heatc.passes.analysis.ranges import Range
from heatc.passes.fixing.common import Assigner, nn_element, point_of, typed
from heatc.passes.fixing.inputs import Inputs
from heatc.passes.fixing.widths import (
    FINE_BIAS,
    FINEST_BIAS,
    NARROW,
    WIDE,
    is_bias,
    is_wide_result,
)
from heatc.passes.rewriting import at, insert_before
from heatc.weights import WeightStore

COARSE = 2.0**24
"""A bound beyond this is taken to come from an integer whose range nobody says."""


class HostAssigner(Assigner):
    """
    Tasks of the host, and the outputs of the model.

    `ranges` are those of integers that tasks leave.
    """

    def __init__(
        self,
        ctx: Context,
        function: FuncOp,
        weights: WeightStore,
        max_length: int,
        declared: Mapping[str, Interval],
    ):
        super().__init__(weights, max_length)
        self.inputs = Inputs(ctx, function, declared)
        self.ranges: dict[SSAValue, Range] = {}

    def task(self, op: TaskOp) -> None:
        """Float64 inside, codes (or float32, for model outputs) outside."""
        inputs = [self.of(v) for v in op.inputs]
        types: list[Attribute] = [v.type for v in inputs]
        body = Block(arg_types=types)
        outside: dict[SSAValue, SSAValue] = dict(zip(body.args, inputs))
        limits = HostBounds(self.weights, outside)
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
        found: list[tuple[SSAValue, Bound | None]] = []
        for index, value in enumerate(last):
            found.append(self._leave(body, inner[value], limits, op, index))
        results = [value for value, _ in found]
        body.add_op(YieldOp(*results))
        task = TaskOp(inputs, [r.type for r in results], Region(body))
        self.place(op, task)
        for old, new, (value, bound) in zip(op.outputs, task.outputs, found):
            self.bind(old, new)
            if bound is not None:
                self.known[new] = bound
            elif isinstance(nn.element_of(new), IntegerType):
                self.ranges[new] = self._range(limits, value)

    def _copy_body(
        self, op: TaskOp, body: Block, inner: dict[SSAValue, SSAValue]
    ) -> tuple[SSAValue, ...]:
        for old in op.body.block.ops:
            if isinstance(old, YieldOp):
                return tuple(old.arguments)
            operands = [inner[v] for v in old.operands]
            result = old.results[0]
            element = nn.element_of(result)
            new = old.create(
                operands=operands,
                result_types=[
                    TensorType(
                        f64 if isinstance(element, AnyFloat) else element, nn.shape_of(result)
                    )
                ],
                properties=dict(old.properties),
            )
            new.location = old.location
            new.results[0].name_hint = result.name_hint
            body.add_op(new)
            inner[result] = new.results[0]
        raise PassFailedException("host.task without a yield")

    def _leave(
        self, body: Block, value: SSAValue, limits: HostBounds, task: TaskOp, index: int
    ) -> tuple[SSAValue, Bound | None]:
        """
        A result rounded into codes, with their bound; cast to float32 where only the caller reads it.
        """
        result, shape = task.outputs[index], nn.shape_of(value)
        if isinstance(nn.element_of(value), IntegerType):
            return value, None
        if all(isinstance(use.operation, ReturnOp) for use in result.uses):
            cast = nn.CastOp(value, TensorType(f32, shape))
            body.add_op(cast)
            return cast.result, None
        bound = self._bound(limits, value)
        op = value.owner if isinstance(value.owner, Operation) else task
        if bound is None:
            raise PassFailedException(
                f"{at(op)}nothing says how large the result of {op.name} can be, so "
                "that it has no fixed-point type; use --target numpy for this model"
            )
        width = WIDE if is_wide_result(task, index) else NARROW
        point = point_of(op, bound.largest, width, "its result")
        if width == NARROW and point < FINE_BIAS and is_bias(result):
            width = WIDE
            point = min(point_of(op, bound.largest, width, "its result"), FINEST_BIAS)
        quantize = QuantizeOp(value, typed(shape, width, point))
        body.add_op(quantize)
        return quantize.result, bound.rounded(point)

    # -- what bounds a task's values ---------------------------------------------------------

    def _bound(self, limits: HostBounds, value: SSAValue) -> Bound | None:
        """The bound of a task's value; integer inputs are taken to be 0 or 1 where that decides."""
        self._know_arguments(limits)
        bound = limits.of(value)
        if bound is not None and bound.largest < COARSE:
            return bound
        again = HostBounds(limits.weights, limits.inputs)
        again.known = {v: b for v, b in limits.known.items() if isinstance(v.owner, DequantizeOp)}
        relied = [v for v in limits.inputs if self._is_open_integer(limits.inputs[v])]
        if not relied:
            return bound
        self._know_arguments(again)
        for argument in relied:
            source = _source(limits.inputs[argument])
            assert isinstance(source, BlockArgument)
            again.ranges[argument] = Range.of(0.0, 1.0)
        better = again.of(value)
        if better is None or (bound is not None and better.largest >= bound.largest):
            return bound
        for argument in relied:
            source = _source(limits.inputs[argument])
            assert isinstance(source, BlockArgument)
            self.inputs.rely(source)
        return better

    def _is_open_integer(self, value: SSAValue) -> bool:
        source = _source(value)
        if not isinstance(source, BlockArgument) or not isinstance(source.type, TensorType):
            return False
        is_integer = isinstance(nn.element_of(source), IntegerType)
        return is_integer and self.inputs.name(source) not in self.inputs.declared

    def _range(self, limits: HostBounds, value: SSAValue) -> Range:
        self._know_arguments(limits)
        return limits.range(value)

    def _know_arguments(self, limits: HostBounds) -> None:
        """The ranges of inputs, of integers that others computed, and of constants."""
        for argument, value in limits.inputs.items():
            if argument in limits.ranges or not isinstance(value.type, TensorType):
                continue
            found = self._argument_range(value)
            if found is not None:
                limits.ranges[argument] = found

    def _argument_range(self, value: SSAValue) -> Range | None:
        source = _source(value)
        if isinstance(source, BlockArgument):
            return self.inputs.range(source)
        if source in self.ranges:
            return self.ranges[source]
        if not isinstance(nn.element_of(value), IntegerType):
            return None
        try:
            array = np.asarray(evaluate(value, self.weights))
        except KeyError:
            return None
        return Range.of(float(array.min()), float(array.max())) if array.size else None

    # -- outputs -----------------------------------------------------------------------------

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


def _source(value: SSAValue) -> SSAValue:
    """What a view shows."""
    while isinstance(value.owner, nn.ReshapeOp | nn.CastOp):
        value = value.owner.operands[0]
    return value
