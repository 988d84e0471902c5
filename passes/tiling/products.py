"""Products on the PE array: linears, weights from the left, and fused groups of both."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from xdsl.dialects.builtin import StringAttr
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn, hdp, nn
from heatc.dialects.einsum import ContractOp, WeightOp, only_reader
from heatc.dialects.fixed import DequantizeOp, QuantizeOp, RequantizeOp
from heatc.dialects.host import TaskOp, YieldOp
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import DTYPES, split_dtypes
from heatc.passes.analysis.normal_form import Product, product_of
from heatc.passes.rewriting import at, remark
from heatc.passes.tiling.emitter import Tiles
from heatc.passes.tiling.left import Left, LeftPlan, LeftShape, emit_left, hold_left, plan_left
from heatc.passes.tiling.linear import Linear, emit_linear, hold_weights
from heatc.passes.tiling.linear_plan import LinearPlan, LinearShape, panel_count, plan_token_linear
from heatc.passes.tiling.packed_rows import PackedRows
from heatc.passes.tiling.packing import PAGE, TILE_ALIGNMENT, Range, align, first_fit
from heatc.passes.tiling.tensors import (
    Frame,
    dtype_of,
    fixed_type,
    isa_dtype,
    only_user,
    owner_of,
)

_ELEMENTWISE = (DequantizeOp, nn.GeluOp, nn.ReluOp, nn.TanhOp, QuantizeOp, YieldOp)
"""What a task may consist of whose operand is cut into columns."""


def _is_linear(op: Operation) -> bool:
    product = product_of(op)
    return product is not None and product.is_linear


@dataclass(frozen=True)
class _Step:
    """A product and what rounds it."""

    op: RequantizeOp
    contract: ContractOp
    bias: SSAValue | None
    product: Product


def _held_steps(
    plans: Sequence[LinearPlan | LeftPlan], taken: Sequence[int], hardware: Hardware
) -> list[int]:
    """
    The steps of a group whose weights stay on the chip, so that they are loaded once.

    All that have room for their weights, but for the largest that do not fit beside the rest.
    """
    found = [i for i, p in enumerate(plans) if isinstance(p, LeftPlan) or p.resident]
    found.sort(key=lambda i: sum(t.nbytes for t in plans[i].weight_tiles()))
    while found and not _holds(plans, taken, found, hardware):
        found.pop()
    return sorted(found)


def _holds(
    plans: Sequence[LinearPlan | LeftPlan],
    taken: Sequence[int],
    held: Sequence[int],
    hardware: Hardware,
) -> bool:
    """Whether held weights fit beside what each step takes."""
    limits = {"local": hardware.local_buffer_bytes, "shared": hardware.shared_buffer_bytes}
    for space, limit in limits.items():
        ranges: list[Range] = []
        for i, plan in enumerate(plans):
            own = plan.local_bytes if space == "local" else plan.shared_bytes + taken[i]
            shared = isinstance(plan, LeftPlan) or plan.weights_shared
            kept = i in held and shared == (space == "shared")
            weights = sum(align(t.nbytes, TILE_ALIGNMENT) for t in plan.weight_tiles())
            if kept:
                ranges.append(Range(weights, 0, len(plans)))
            ranges.append(Range(own - weights * kept, i, i))
        if first_fit(ranges, TILE_ALIGNMENT).peak > limit:
            return False
    return True


class Products(PackedRows):
    """Tiles products and fused groups of them."""

    def _product(self, op: RequantizeOp) -> None:
        if op in self.fused:
            return
        steps = self._group(op)
        if len(steps) > 1 and self._fits_together(steps):
            self._emit_group(steps)
        else:
            for step in steps:
                self._emit_product(step)

    def _step(self, op: RequantizeOp) -> _Step:
        contract, bias = self._contraction(op)
        product = product_of(contract)
        if product is None:
            raise PassFailedException(
                f"{at(op)}the machine has no product for the contraction "
                f"{contract.equation.data!r}; choose a path for the machine (order-contractions hw=...)"
            )
        return _Step(op, contract, bias, product)

    def _group(self, op: RequantizeOp) -> list[_Step]:
        """The steps from this one to the first whose result leaves the chip."""
        steps = [self._step(op)]
        while steps[-1].contract.fuse is not None:
            reader = only_reader(steps[-1].op.result)
            if reader is None:
                break
            user: Any = reader.result.get_user_of_unique_use()
            while not isinstance(user, RequantizeOp):
                user = user.results[0].get_user_of_unique_use()
            steps.append(self._step(user))
        self.fused |= {step.op for step in steps}
        return steps

    def _emit_product(self, step: _Step) -> None:
        held = None if self.frame is None else self.frame.held.get(step.op)
        if step.product.post > 1:
            emit_left(self.e, self._left(step), self._hardware(step), held)
        else:
            emit_linear(self.e, self._linear(step), self._hardware(step), held)

    def _linear(self, step: _Step) -> Linear:
        op, product, bias = step.op, step.product, step.bias
        shape = self._linear_shape(op)
        in_tiles = self.frame is not None and self.frame.first is not None
        outputs, point, fraction = self._results(op, None if in_tiles else shape)
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

    def _weight_of(self, step: _Step) -> Callable[[bool], SSAValue]:
        """The weight's tensor, or that of its transpose."""
        op = step.contract.inputs[1].owner
        assert isinstance(op, WeightOp)

        def tensor(transposed: bool) -> SSAValue:
            return self._transposed(op) if transposed else self.tensor(op.result)

        return tensor

    def _left(self, step: _Step) -> Left:
        """A product with the weight on the left, one item a core."""
        op, product, bias = step.op, step.product, step.bias
        outputs, point, fraction = self._results(op, None)
        rows, _ = self._token_rows(op.result)
        count = self._row_count(op.result) or self.e.constant(rows)
        x = step.contract.inputs[0]
        return Left(
            self._left_shape(step, tuple(map(dtype_of, outputs))),
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

    def _left_shape(self, step: _Step, planes: tuple[str, ...]) -> LeftShape:
        rows, _ = self._token_rows(step.op.result)
        product = step.product
        axes = product.gone, product.new, product.post
        return LeftShape(rows * product.pre, *axes, planes, step.bias is not None)

    def _tile_of(self, steps: Sequence[_Step]) -> int:
        """Tokens of a tile of a group."""
        fuse = steps[0].contract.fuse
        assert fuse is not None
        return min(fuse.data, self.capacity)

    def _hardware(self, step: _Step) -> Hardware:
        """The machine without the room that results of the step's group take in the shared buffer."""
        if self.frame is None:
            return self.hardware
        room = self.hardware.shared_buffer_bytes - self.frame.taken(step.op)
        return replace(self.hardware, shared_buffer_bytes=max(room, 1))

    def _fits_together(self, steps: Sequence[_Step]) -> bool:
        """Whether all steps of a group have tiles beside its results; says so where not."""
        self.frame = self._frame(steps)
        try:
            for step in steps:
                # Planes of a split result take no more than one of 16 bits.
                if step.product.post > 1:
                    plan_left(self._left_shape(step, ("i16",)), self._hardware(step))
                else:
                    plan_token_linear(self._linear_shape(step.op), self._hardware(step))
        except InfeasibleError as error:
            remark(steps[-1].op, f"results between steps go through DRAM: {error.message}")
            return False
        finally:
            self.frame = None
        return True

    def _frame(self, steps: Sequence[_Step]) -> Frame:
        tile = self._tile_of(steps)
        sizes: dict[Operation, int] = {}
        for before, step in zip([None, *steps], steps):
            ends = [s for s in (before, step) if s is not None and s is not steps[-1]]
            sizes[step.op] = sum(
                align(tile * math.prod(nn.shape_of(s.op.result)[1:]) * DTYPES["i16"], PAGE)
                for s in ends
            )
        return Frame(tile, sizes)

    def _emit_group(self, steps: Sequence[_Step]) -> None:
        """A loop over tiles of tokens, its results but the last in the shared buffer."""
        frame = self._frame(steps)
        tokens = self._token_count()
        if frame.tile >= self.capacity:
            frame.count = tokens
            self.frame = frame
            self._emit_steps(steps)
        else:
            self._in_tiles(steps, frame, tokens)
        self.frame = None

    def _in_tiles(self, steps: Sequence[_Step], frame: Frame, tokens: SSAValue) -> None:
        # What is seen outside of the loop is described there.
        self._results(steps[-1].op, None)
        self.tensor(steps[0].contract.inputs[0])
        for step in steps:
            self.tensor(step.contract.inputs[1])
            if step.bias is not None:
                self.tensor(step.bias)
        self.frame = frame
        plans = [self._plan(step) for step in steps]
        for i in _held_steps(plans, [frame.taken(s.op) for s in steps], self.hardware):
            self.e.source = steps[i].op
            frame.held[steps[i].op] = self._hold(steps[i], plans[i])
        with self.e.loop(tokens, frame.tile) as first:
            frame.first = first
            frame.count = self.e.span(tokens, first, frame.tile)
            self._emit_steps(steps)

    def _plan(self, step: _Step) -> LinearPlan | LeftPlan:
        """The tiles of a step of a group that goes tile by tile."""
        last = step.contract.fuse is None
        planes = tuple(map(dtype_of, self._results(step.op, None)[0])) if last else ("i16",)
        if step.product.post > 1:
            return plan_left(self._left_shape(step, planes), self._hardware(step))
        shape = replace(self._linear_shape(step.op), planes=planes)
        return plan_token_linear(shape, self._hardware(step))

    def _hold(self, step: _Step, plan: LinearPlan | LeftPlan) -> Tiles:
        if isinstance(plan, LeftPlan):
            return hold_left(self.e, self.tensor(step.contract.inputs[1]), plan)
        return hold_weights(self.e, self._weight_of(step), plan)

    def _emit_steps(self, steps: Sequence[_Step]) -> None:
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

    def _contraction(self, op: RequantizeOp) -> tuple[ContractOp, SSAValue | None]:
        """The contraction that is rounded, and its bias."""
        total, bias = op.x.owner, None
        if isinstance(total, nn.AddOp):
            bias = total.rhs
            owner_of(bias, WeightOp)
            total = total.lhs.owner
        if isinstance(total, nn.ReshapeOp):
            total = total.x.owner
        if not isinstance(total, ContractOp):
            raise PassFailedException(f"{at(op)}expected {ContractOp.name} before {op.name}")
        return total, bias

    def _shifts(self, contract: ContractOp, bias: SSAValue | None, point: int) -> tuple[int, int]:
        """The shifts of the bias and of the sum."""
        accumulator = fixed_type(contract.result).point.data
        return 0 if bias is None else accumulator - fixed_type(bias).point.data, accumulator - point

    def _token_rows(self, value: SSAValue) -> tuple[int, int]:
        """Rows of a value at most (of a tile, in a group), a token or a sequence one; their width."""
        most = self.capacity if self.frame is None else self.frame.tile
        rows, *rest = (most if n == nn.TOKENS else n for n in nn.shape_of(value))
        return rows, math.prod(rest)

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
        most = self.capacity if rows is not None else self._token_rows(value)[0]
        if rows is not None:
            rows = self.e.scaled(rows, factor)
        whole = self._as(tensor, most * factor, columns, rows)
        if frame is None or frame.first is None or frame.count is None:
            return whole
        start, count = (self.e.scaled(v, factor) for v in (frame.first, frame.count))
        return self.e.emit(hdp.WindowOp(whole, start, count))

    def _linear_shape(self, op: RequantizeOp) -> LinearShape:
        """The shape of a linear with one plane."""
        contract, bias = self._contraction(op)
        product = product_of(contract)
        assert product is not None
        rows, _ = self._token_rows(op.result)
        panels = self.panels.get(contract.inputs[0])
        return LinearShape(
            rows * product.pre,
            product.gone,
            product.new,
            bias=bias is not None,
            panel=product.gone // len(panels) if panels else 0,
            pre=product.pre if bias is None else product.bias_rows(nn.shape_of(bias)[0]),
        )

    def _task_between(self, op: RequantizeOp) -> tuple[TaskOp, RequantizeOp] | None:
        """The element-wise task and the linear behind it, if a linear's result has no other use."""
        task = only_user(op.result, TaskOp)
        if task is None or len(task.inputs) != 1 or len(task.outputs) != 1:
            return None
        if not all(isinstance(inner, _ELEMENTWISE) for inner in task.body.block.ops):
            return None
        contract = only_user(task.outputs[0], ContractOp)
        if contract is None or not _is_linear(contract) or task.outputs[0] in self.outputs:
            return None
        user: Any = only_user(contract.result, nn.AddOp) or contract
        second = only_user(user.results[0], RequantizeOp)
        return None if second is None or self._rows(op.result) is None else (task, second)

    def _panels(self, op: RequantizeOp, shape: LinearShape) -> tuple[SSAValue, ...]:
        """The tensors of a linear's result and of the task behind it, if cut into panels."""
        behind = self._task_between(op) if _is_linear(self._contraction(op)[0]) else None
        if behind is None:
            return ()
        task, second = behind
        count = panel_count(shape, self._linear_shape(second), self.hardware)
        if count == 1:
            return ()
        for value, owner in ((op.result, op), (task.outputs[0], task)):
            symbol, element = self.e.symbol_of(owner, value), fixed_type(value)
            self.panels[value] = tuple(
                self.e.tensor(
                    f"{symbol}.panel{i}",
                    "activation",
                    isa_dtype(element),
                    (shape.rows, shape.columns // count),
                    rows_value=self._rows(value),
                    point=element.point.data,
                    properties={"plane_of": StringAttr(symbol)},
                )
                for i in range(count)
            )
        return self.panels[op.result]

    def _results(
        self, op: RequantizeOp, shape: LinearShape | None
    ) -> tuple[tuple[SSAValue, ...], int, int]:
        """
        The tensors that a product writes, its point, and the bits of a fraction plane.

        They are one, or two planes if it is only split, or panels of a linear (with a `shape`).
        """
        if op in self.results:
            return self.results[op]
        self.results[op] = self._make_results(op, shape)
        return self.results[op]

    def _make_results(
        self, op: RequantizeOp, shape: LinearShape | None
    ) -> tuple[tuple[SSAValue, ...], int, int]:
        point = fixed_type(op.result).point.data
        if shape is not None and (panels := self._panels(op, shape)):
            return panels, point, 0
        splits = [use.operation for use in op.result.uses]
        if not splits or not all(isinstance(s, attn.SplitOp) for s in splits):
            return (self.tensor(op.result),), point, 0
        integers = {fixed_type(cast("attn.SplitOp", split).integer).point.data for split in splits}
        if len(integers) != 1:
            raise PassFailedException(
                f"{at(op)}integer parts at points {sorted(integers)} of one value"
            )
        (integer,) = integers
        if point < 0:
            raise PassFailedException(
                f"{at(op)}a binary point of {point} leaves no room for the "
                "integer part that hdp decides on"
            )
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
