"""Products on the PE array: linears, weights from the left, and fused groups of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import SSAValue

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
from heatc.passes.tiling.packed_rows import PackedRows
from heatc.passes.tiling.shapes import (
    Step,
    group_of,
    integer_point,
    panels_of,
    plan_of,
    planes_of,
)
from heatc.passes.tiling.tensors import Frame, dtype_of
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


class Products(PackedRows):
    """Tiles products and fused groups of them."""

    def _product(self, op: RequantizeOp) -> None:
        if op in self.fused:
            return
        steps = group_of(op)
        self.fused |= {step.op for step in steps}
        tokens = _tiles(steps[0]).tokens
        if tokens:
            self._emit_group(steps, tokens)
            return
        for step in steps:
            self._emit_product(step)

    def _emit_product(self, step: Step) -> None:
        held = None if self.frame is None else self.frame.held.get(step.op)
        if step.product.post > 1:
            left = self._left(step)
            emit_left(self.e, left, _left_plan(step, left.shape), _tiles(step).cores, held)
        else:
            linear = self._linear(step)
            emit_linear(self.e, linear, _linear_plan(step, linear), held)

    def _linear(self, step: Step) -> Linear:
        op, product, bias = step.op, step.product, step.bias
        shape = self.shapes.linear(step, self._tokens)
        outputs, point, fraction = self._results(op)
        x = step.contract.inputs[0]
        panels = self.panels.get(x)
        activations = panels or (self._cut(self.tensor(x), x, product.pre, product.gone),)
        if panels:
            activations = tuple(self._cut(t, x, 1, shape.panel) for t in panels)
        if op.result not in self.panels:
            shape = replace(shape, planes=tuple(map(dtype_of, outputs)))
            outputs = tuple(self._cut(t, op.result, product.pre, product.new) for t in outputs)
        rows = self._row_count(op.result)
        return Linear(
            shape,
            None if rows is None else self.e.scaled(rows, product.pre),
            activations,
            self._weight_of(step),
            None if bias is None else self._as(self.tensor(bias), shape.pre, product.new, None),
            outputs,
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    def _weight_of(self, step: Step) -> Callable[[bool], SSAValue]:
        """The weight's tensor, or that of its transpose."""
        op = step.contract.inputs[1].owner
        assert isinstance(op, WeightOp)

        def tensor(transposed: bool) -> SSAValue:
            return self._transposed(op) if transposed else self.tensor(op.result)

        return tensor

    def _left(self, step: Step) -> Left:
        """A product with the weight on the left, one item a core."""
        op, product, bias = step.op, step.product, step.bias
        outputs, point, fraction = self._results(op)
        rows, _ = self.shapes.rows(op.result, self._tokens)
        count = self._row_count(op.result) or self.e.constant(rows)
        x = step.contract.inputs[0]
        return Left(
            self.shapes.left(step, tuple(map(dtype_of, outputs)), self._tokens),
            self.e.scaled(count, product.pre),
            self._cut(self.tensor(x), x, product.pre * product.gone, product.post),
            self.tensor(step.contract.inputs[1]),
            None if bias is None else self._as(self.tensor(bias), product.new, product.post, None),
            tuple(
                self._cut(t, op.result, product.pre * product.new, product.post) for t in outputs
            ),
            *self._shifts(step.contract, bias, point),
            fraction,
        )

    @property
    def _tokens(self) -> int:
        """Tokens of a tile of the group that is emitted, 0 outside of one."""
        return 0 if self.frame is None else self.frame.tile

    def _emit_group(self, steps: Sequence[Step], tokens: int) -> None:
        """A loop over tiles of tokens, its results but the last in the shared buffer."""
        frame, count = Frame(tokens), self._token_count()
        if tokens >= self.capacity:
            frame.count = count
            self.frame = frame
            self._emit_steps(steps)
        else:
            self._in_tiles(steps, frame, count)
        self.frame = None

    def _in_tiles(self, steps: Sequence[Step], frame: Frame, tokens: SSAValue) -> None:
        # What is seen outside of the loop is described there.
        self._results(steps[-1].op)
        self.tensor(steps[0].contract.inputs[0])
        for step in steps:
            self.tensor(step.contract.inputs[1])
            if step.bias is not None:
                self.tensor(step.bias)
        self.frame = frame
        for step in steps:
            if _tiles(step).held:
                self.e.source = step.op
                frame.held[step.op] = self._hold(step, last=step is steps[-1])
        with self.e.loop(tokens, frame.tile) as first:
            frame.first = first
            frame.count = self.e.span(tokens, first, frame.tile)
            self._emit_steps(steps)

    def _hold(self, step: Step, *, last: bool) -> Tiles:
        """Load the weights of a step, for all tiles of tokens."""
        planes = planes_of(step.op) if last else ("i16",)
        if step.product.post > 1:
            shape = self.shapes.left(step, planes, self._tokens)
            return hold_left(self.e, self.tensor(step.contract.inputs[1]), _left_plan(step, shape))
        shape = replace(self.shapes.linear(step, self._tokens), planes=planes)
        return hold_weights(self.e, self._weight_of(step), _plan_of_tiles(step, shape))

    def _emit_steps(self, steps: Sequence[Step]) -> None:
        frame = self.frame
        assert frame is not None
        for step in steps:
            self.e.source = step.op
            if step is not steps[-1]:
                self._intermediate(step.op, frame)
            self._emit_product(step)

    def _intermediate(self, op: RequantizeOp, frame: Frame) -> None:
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
        self.tensors[op.result] = tensor
        frame.inner.add(tensor)

    def _shifts(self, contract: ContractOp, bias: SSAValue | None, point: int) -> tuple[int, int]:
        """The shifts of the bias and of the sum."""
        accumulator = fixed_type(contract.result).point.data
        return 0 if bias is None else accumulator - fixed_type(bias).point.data, accumulator - point

    def _row_count(self, value: SSAValue) -> SSAValue | None:
        """The rows of a packed value, or of the tile of a group, at run time."""
        if self.frame is not None:
            return self.frame.count
        return self._rows(value)

    def _cut(self, tensor: SSAValue, value: SSAValue, factor: int, columns: int) -> SSAValue:
        """A tensor of the rows of `value`, or the tile's, each cut into `factor` rows."""
        frame = self.frame
        if frame is not None and self._whole(tensor) in frame.inner:
            assert frame.count is not None
            return self._as(
                tensor, frame.tile * factor, columns, self.e.scaled(frame.count, factor)
            )
        rows = self._rows(value)
        most = self.capacity if rows is not None else self.shapes.rows(value, self._tokens)[0]
        if rows is not None:
            rows = self.e.scaled(rows, factor)
        whole = self._as(tensor, most * factor, columns, rows)
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
        rows, columns = self.extents(op.result)
        for value, owner in ((op.result, op), (task.outputs[0], task)):
            symbol, element = self.e.symbol_of(owner, value), fixed_type(value)
            self.panels[value] = tuple(
                self.e.tensor(
                    f"{symbol}.panel{i}",
                    "activation",
                    isa_dtype(element),
                    (rows, columns // count),
                    rows_value=self._rows(value),
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
        if op not in self.results:
            self.results[op] = self._make_results(op)
        return self.results[op]

    def _make_results(self, op: RequantizeOp) -> tuple[tuple[SSAValue, ...], int, int]:
        point = fixed_type(op.result).point.data
        if panels := self._panels(op):
            return panels, point, 0
        splits = [use.operation for use in op.result.uses]
        if not splits or not all(isinstance(s, attn.SplitOp) for s in splits):
            return (self.tensor(op.result),), point, 0
        integer = integer_point(op, point)
        symbol = self.e.symbol_of(op, op.result)
        planes = [
            self.e.tensor(
                f"{symbol}.{name}",
                "activation",
                dtype,
                self.extents(op.result),
                rows_value=self._rows(op.result),
                point=plane_point,
                properties={"plane_of": StringAttr(symbol)},
            )
            for name, plane_point, dtype in zip(
                ("integer", "fraction"), (integer, point), split_dtypes(point - integer)
            )
        ]
        for split in splits:
            assert isinstance(split, attn.SplitOp)
            self.tensors[split.integer], self.tensors[split.fraction] = planes
        return tuple(planes), point, point - integer
