"""Products on the PE array: linears, weights from the left, and fused groups of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, hdp, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.dialects.fixed import RequantizeOp
from heatc.dialects.hdp_plans import LeftPlanAttr, LeftTiles, LinearPlanAttr, LinearTiles
from heatc.dialects.host import TaskOp
from heatc.isa.table import split_dtypes
from heatc.passes.tiling.emitter import Tiles
from heatc.passes.tiling.left import Left, LeftPlan, LeftShape, emit_left, hold_left
from heatc.passes.tiling.linear import Linear, emit_linear, hold_weights
from heatc.passes.tiling.linear_plan import LinearPlan, LinearShape
from heatc.passes.tiling.shapes import (
    Step,
    group_of,
    integer_point,
    panels_of,
    plan_of,
    planes_of,
)
from heatc.passes.tiling.tensors import Tensors, dtype_of
from heatc.passes.tiling.values import fixed_type, isa_dtype, only_user


def _tiles(step: Step) -> LinearTiles | LeftTiles:
    """What the plan of a step says."""
    return plan_of(step.op, LeftPlanAttr if step.product.post > 1 else LinearPlanAttr)


def _left_plan(step: Step, shape: LeftShape) -> LeftPlan:
    tiles: LeftTiles = plan_of(step.op, LeftPlanAttr)
    return LeftPlan(shape, tiles.rows, tiles.slots)


def _linear_plan(step: Step, linear: Linear) -> LinearPlan:
    """The tiles of a linear, or of one panel of its result."""
    return _plan_of_tiles(step, replace(linear.shape, columns=linear.panel_columns))


def _plan_of_tiles(step: Step, shape: LinearShape) -> LinearPlan:
    tiles: LinearTiles = plan_of(step.op, LinearPlanAttr)
    grid = tiles.parts, tiles.cores
    return LinearPlan(shape, tiles.rows, tiles.columns, tiles.slab, tiles.slots, *grid)


def _tokens(frame: _Frame | None) -> int:
    """Tokens of a tile of the group that is emitted, 0 outside of one."""
    return 0 if frame is None else frame.tile


@dataclass(eq=False)
class _Frame:
    """
    A fused group being emitted: `tile` tokens at most, `count` of them from `first` on.

    `held` are the weights of steps that stay on the chip for all tiles.
    """

    tile: int
    first: SSAValue | None = None
    count: SSAValue | None = None
    held: dict[Operation, Tiles] = field(default_factory=dict[Operation, Tiles])


class Products:
    """
    Emits products and fused groups of them.

    `panels` are the tensors of values that lie in several of them, side by side.
    """

    def __init__(self, tensors: Tensors):
        self.tensors = tensors
        self.e = tensors.e
        self.shapes = tensors.shapes
        self.panels: dict[SSAValue, tuple[SSAValue, ...]] = {}
        self._emitted: set[Operation] = set()
        self._written: dict[Operation, tuple[tuple[SSAValue, ...], int, int]] = {}

    def emit(self, op: RequantizeOp) -> None:
        """A product, or the group that begins with it."""
        if op in self._emitted:
            return
        steps = group_of(op)
        self._emitted |= {step.op for step in steps}
        tokens = _tiles(steps[0]).tokens
        if tokens:
            self._emit_group(steps, tokens)
            return
        for step in steps:
            self._emit_product(step, None)

    def _emit_product(self, step: Step, frame: _Frame | None) -> None:
        held = None if frame is None else frame.held.get(step.op)
        if step.product.post > 1:
            left = self._left(step, frame)
            emit_left(self.e, left, _left_plan(step, left.shape), _tiles(step).cores, held)
        else:
            linear = self._linear(step, frame)
            emit_linear(self.e, linear, _linear_plan(step, linear), held)

    def _linear(self, step: Step, frame: _Frame | None) -> Linear:
        op, product, bias = step.op, step.product, step.bias
        shape = self.shapes.linear(step, _tokens(frame))
        outputs, point, fraction = self._results(op)
        x = step.contract.inputs[0]
        panels = self.panels.get(x)
        activations = panels or (
            self._cut(self.tensors.tensor(x), x, product.pre, product.gone, frame),
        )
        if panels:
            activations = tuple(self._cut(t, x, 1, shape.panel, frame) for t in panels)
        if op.result not in self.panels:
            shape = replace(shape, planes=tuple(map(dtype_of, outputs)))
            outputs = tuple(
                self._cut(t, step.contract.result, product.pre, product.new, frame) for t in outputs
            )
        rows = self._row_count(step.contract.result, frame)
        return Linear(
            shape,
            None if rows is None else self.e.scaled(rows, product.pre),
            activations,
            self._weight_of(step),
            None
            if bias is None
            else self.tensors.view(self.tensors.tensor(bias), shape.pre, product.new, None),
            outputs,
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    def _weight_of(self, step: Step) -> Callable[[bool], SSAValue]:
        """The weight's tensor, or that of its transpose."""
        op = step.contract.inputs[1].owner
        assert isinstance(op, WeightOp)

        def tensor(transposed: bool) -> SSAValue:
            return self.tensors.transposed(op) if transposed else self.tensors.tensor(op.result)

        return tensor

    def _left(self, step: Step, frame: _Frame | None) -> Left:
        """A product with the weight on the left, one item a core."""
        op, product, bias = step.op, step.product, step.bias
        outputs, point, fraction = self._results(op)
        rows, _ = self.shapes.rows(step.contract.result, _tokens(frame))
        count = self._row_count(step.contract.result, frame) or self.e.constant(rows)
        x = step.contract.inputs[0]
        return Left(
            self.shapes.left(step, tuple(map(dtype_of, outputs)), _tokens(frame)),
            self.e.scaled(count, product.pre),
            self._cut(self.tensors.tensor(x), x, product.pre * product.gone, product.post, frame),
            self.tensors.tensor(step.contract.inputs[1]),
            None
            if bias is None
            else self.tensors.view(self.tensors.tensor(bias), product.new, product.post, None),
            tuple(
                self._cut(t, step.contract.result, product.pre * product.new, product.post, frame)
                for t in outputs
            ),
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    def _emit_group(self, steps: Sequence[Step], tokens: int) -> None:
        """A loop over tiles of tokens, its results but the last in the shared buffer."""
        frame, count = _Frame(tokens), self.tensors.token_count()
        if tokens >= self.tensors.capacity:
            frame.count = count
            self._emit_steps(steps, frame)
        else:
            self._in_tiles(steps, frame, count)

    def _in_tiles(self, steps: Sequence[Step], frame: _Frame, tokens: SSAValue) -> None:
        # What is seen outside of the loop is described there.
        self._results(steps[-1].op)
        self.tensors.tensor(steps[0].contract.inputs[0])
        for step in steps:
            self.tensors.tensor(step.contract.inputs[1])
            if step.bias is not None:
                self.tensors.tensor(step.bias)
        for step in steps:
            if _tiles(step).held:
                self.e.source = step.op
                frame.held[step.op] = self._hold(step, frame.tile, last=step is steps[-1])
        with self.e.loop(tokens, frame.tile) as first:
            frame.first = first
            frame.count = self.e.span(tokens, first, frame.tile)
            self._emit_steps(steps, frame)

    def _hold(self, step: Step, tokens: int, *, last: bool) -> Tiles:
        """Load the weights of a step, for all tiles of tokens."""
        planes = planes_of(step.op) if last else ("i16",)
        if step.product.post > 1:
            shape = self.shapes.left(step, planes, tokens)
            return hold_left(
                self.e, self.tensors.tensor(step.contract.inputs[1]), _left_plan(step, shape)
            )
        shape = replace(self.shapes.linear(step, tokens), planes=planes)
        return hold_weights(self.e, self._weight_of(step), _plan_of_tiles(step, shape))

    def _emit_steps(self, steps: Sequence[Step], frame: _Frame) -> None:
        for step in steps:
            self.e.source = step.op
            if step is not steps[-1]:
                self._intermediate(step.op, frame)
            self._emit_product(step, frame)

    def _intermediate(self, op: RequantizeOp, frame: _Frame) -> None:
        """The tensor of a result that stays on the chip."""
        element = fixed_type(op.result)
        tensor = self.e.tensor(
            self.e.symbol_of(op, op.result),
            "activation",
            isa_dtype(element),
            (frame.tile, math.prod(nn.shape_of(op.result)[1:])),
            rows_value=frame.count,
            point=element.point.data,
            properties={"space": StringAttr("shared")},
        )
        self.tensors.known[op.result] = tensor
        self.tensors.on_chip.add(tensor)

    def _shifts(self, contract: ContractOp, bias: SSAValue | None, point: int) -> tuple[int, int]:
        """The shifts of the bias and of the sum."""
        accumulator = fixed_type(contract.result).point.data
        return 0 if bias is None else accumulator - fixed_type(bias).point.data, accumulator - point

    def _row_count(self, value: SSAValue, frame: _Frame | None) -> SSAValue | None:
        """The rows of a packed value, or of the tile of a group, at run time."""
        if frame is not None:
            return frame.count
        return self.tensors.rows(value)

    def _cut(
        self,
        tensor: SSAValue,
        value: SSAValue,
        factor: int,
        columns: int,
        frame: _Frame | None,
    ) -> SSAValue:
        """A tensor of the rows of `value`, or the tile's, each cut into `factor` rows."""
        tensors = self.tensors
        if frame is not None and tensors.whole(tensor) in tensors.on_chip:
            assert frame.count is not None
            count = self.e.scaled(frame.count, factor)
            return tensors.view(tensor, frame.tile * factor, columns, count)
        rows = tensors.rows(value)
        most = tensors.capacity
        if rows is None:
            most, _ = self.shapes.rows(value, _tokens(frame))
        else:
            rows = self.e.scaled(rows, factor)
        whole = tensors.view(tensor, most * factor, columns, rows)
        if frame is None or frame.first is None or frame.count is None:
            return whole
        start, count = (self.e.scaled(v, factor) for v in (frame.first, frame.count))
        return self.e.emit(hdp.WindowOp(whole, start, count))

    def _panels(self, op: RequantizeOp) -> tuple[SSAValue, ...]:
        """The tensors of a linear's result and of the task behind it, if they lie in panels."""
        count = panels_of(op.result)
        if count == 1:
            return ()
        task = only_user(op.result, TaskOp)
        assert task is not None
        rows, columns = self.tensors.extents(op.result)
        for value, owner in ((op.result, op), (task.outputs[0], task)):
            symbol, element = self.e.symbol_of(owner, value), fixed_type(value)
            self.panels[value] = tuple(
                self.e.tensor(
                    f"{symbol}.panel{i}",
                    "activation",
                    isa_dtype(element),
                    (rows, columns // count),
                    rows_value=self.tensors.rows(value),
                    point=element.point.data,
                    properties={"plane_of": StringAttr(symbol)},
                )
                for i in range(count)
            )
        return self.panels[op.result]

    def _results(self, op: RequantizeOp) -> tuple[tuple[SSAValue, ...], int, int]:
        """
        The tensors that a product writes, its point, and the bits of a fraction plane.

        They are one, or two planes if it is only split, or the panels of its plan.
        """
        if op not in self._written:
            self._written[op] = self._make_results(op)
        return self._written[op]

    def _make_results(self, op: RequantizeOp) -> tuple[tuple[SSAValue, ...], int, int]:
        point = fixed_type(op.result).point.data
        if panels := self._panels(op):
            return panels, point, 0
        splits = [use.operation for use in attn.readers(op.result)]
        if not splits or not all(isinstance(s, attn.SplitOp) for s in splits):
            return (self.tensors.tensor(op.result),), point, 0
        integer = integer_point(op, point)
        symbol = self.e.symbol_of(op, op.result)
        planes = [
            self.e.tensor(
                f"{symbol}.{name}",
                "activation",
                dtype,
                self.tensors.extents(op.result),
                rows_value=self.tensors.rows(op.result),
                point=plane_point,
                properties={"plane_of": StringAttr(symbol)},
            )
            for name, plane_point, dtype in zip(
                ("integer", "fraction"), (integer, point), split_dtypes(point - integer)
            )
        ]
        for split in splits:
            assert isinstance(split, attn.SplitOp)
            self.tensors.known[split.integer], self.tensors.known[split.fraction] = planes
        return tuple(planes), point, point - integer
