"""
How large the tiles are, and what stays on the chip.

Assumes the fixed level, as `tile-for-hdp` does. The machine is that of the context, hdp-edge where
none is named. Attaches a plan to every op that instructions are
emitted for: `#hdp.linear_plan` or `#hdp.left_plan` to a `fixed.requantize`, `#hdp.attention_plan`
to an `attn.pruned`. A plan is for the largest run, and for a multiple of `PLANNED_TOKENS`
tokens where that fits.

In a group of fused steps the plan of each step says how many tokens a tile of the group has. A
group whose steps find no room beside each other is taken apart, with a remark. Changes nothing
else, and leaves the instructions to `tile-for-hdp`.

Example: test/passes/plan_tiles.mlir.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from heatc.context import hardware_of
from heatc.dialects import attn, nn
from heatc.dialects.fixed import RequantizeOp
from heatc.dialects.hdp_plans import (
    AttentionPlanAttr,
    AttentionTiles,
    LeftPlanAttr,
    LeftTiles,
    LinearPlanAttr,
    LinearTiles,
)
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.isa.table import DTYPES
from heatc.passes.effect import Effect
from heatc.passes.rewriting import describe_location, remark
from heatc.passes.tiling.attention_parts import AttentionParts, read_attention
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.passes.tiling.attention_planner import plan_token_attention
from heatc.passes.tiling.claims import check_claimed
from heatc.passes.tiling.left import LeftPlan, plan_left
from heatc.passes.tiling.linear_plan import (
    LinearPlan,
    panel_count,
    plan_linear,
    plan_token_linear,
)
from heatc.passes.tiling.packing import PAGE, TILE_ALIGNMENT, Range, align, first_fit
from heatc.passes.tiling.shapes import Shapes, Step, group_of, planes_of

Plan = LinearPlan | LeftPlan


class _Planner:
    """Plans one function."""

    def __init__(self, ctx: Context, function: FuncOp, hardware: Hardware):
        self.ctx = ctx
        self.function = function
        self.hardware = hardware
        self.shapes = Shapes(function)
        self._grouped: set[RequantizeOp] = set()

    def run(self) -> None:
        """Attach all plans, in program order."""
        for op in self.function.body.block.ops:
            if isinstance(op, RequantizeOp) and op not in self._grouped:
                self._products(group_of(op))
            elif isinstance(op, attn.PrunedOp):
                self._attention(op)

    # -- products ----------------------------------------------------------------------------

    def _products(self, steps: Sequence[Step]) -> None:
        self._grouped |= {step.op for step in steps}
        if len(steps) > 1 and self._fits_together(steps):
            self._group(steps)
            return
        for step in steps:
            self._single(step)

    def _single(self, step: Step) -> None:
        if step.product.post > 1:
            shape = self.shapes.left(step, planes_of(step.op))
            _attach(step, plan_left(shape, self.hardware), self.hardware)
            return
        panels = self._panels(step)
        _attach(step, self._linear(step, panels, self.hardware), self.hardware, panels=panels)

    def _linear(self, step: Step, panels: int, hardware: Hardware, tokens: int = 0) -> LinearPlan:
        shape = self.shapes.written(step, panels, tokens)
        packed = tokens > 0 or nn.TOKENS in nn.shape_of(step.op.result)
        return (plan_token_linear if packed else plan_linear)(shape, hardware)

    def _panels(self, step: Step, tokens: int = 0) -> int:
        """In how many panels the result of a linear lies, for the task behind it to begin early."""
        behind = self.shapes.behind(step) if step.product.is_linear else None
        if behind is None:
            return 1
        first, second = self.shapes.linear(step, tokens), self.shapes.linear(behind, tokens)
        return panel_count(first, second, self.hardware)

    # -- groups ------------------------------------------------------------------------------

    def _tile(self, steps: Sequence[Step]) -> int:
        """Tokens of a tile of a group."""
        fuse = steps[0].contract.fuse
        assert fuse is not None
        return min(fuse.data, self.shapes.capacity)

    def _taken(self, steps: Sequence[Step]) -> list[int]:
        """Bytes of the shared buffer that a step's operand and result take, if they stay there."""
        tile = self._tile(steps)
        sizes = [
            align(tile * math.prod(nn.shape_of(step.op.result)[1:]) * DTYPES["i16"], PAGE)
            for step in steps[:-1]
        ]
        return [before + own for before, own in zip([0, *sizes], [*sizes, 0])]

    def _beside(self, taken: int) -> Hardware:
        """The machine without the room that results of a step's group take in the shared buffer."""
        room = self.hardware.shared_buffer_bytes - taken
        return replace(self.hardware, shared_buffer_bytes=max(room, 1))

    def _fits_together(self, steps: Sequence[Step]) -> bool:
        """Whether all steps of a group have tiles beside its results; says so where not."""
        tile = self._tile(steps)
        try:
            for step, taken in zip(steps, self._taken(steps)):
                # Planes of a split result take no more than one of 16 bits.
                if step.product.post > 1:
                    plan_left(self.shapes.left(step, ("i16",), tile), self._beside(taken))
                else:
                    plan_token_linear(self.shapes.linear(step, tile), self._beside(taken))
        except InfeasibleError as error:
            text = f"results between steps go through DRAM: {error.message}"
            remark(self.ctx, steps[-1].op, text)
            return False
        return True

    def _group(self, steps: Sequence[Step]) -> None:
        """Plans of a group: a loop over tiles of tokens, unless one tile is enough."""
        tile, taken = self._tile(steps), self._taken(steps)
        looped = tile < self.shapes.capacity
        panels = 1 if looped else self._panels(steps[-1], tile)
        plans: list[Plan] = []
        for step, room in zip(steps, taken):
            last = step is steps[-1]
            if step.product.post > 1:
                planes = planes_of(step.op) if last else ("i16",)
                plans.append(plan_left(self.shapes.left(step, planes, tile), self._beside(room)))
            else:
                count = panels if last else 1
                plans.append(self._linear(step, count, self._beside(room), tile))
        held = _held_steps(plans, taken, self.hardware) if looped else []
        for i, (step, plan) in enumerate(zip(steps, plans)):
            count = panels if step is steps[-1] else 1
            _attach(step, plan, self.hardware, panels=count, tokens=tile, held=i in held)

    # -- attention ---------------------------------------------------------------------------

    def _attention(self, op: attn.PrunedOp) -> None:
        parts = read_attention(op)
        self._expect_blocks(parts)
        attach_attention(op, plan_token_attention(parts.shape(), self.hardware), self.hardware)

    def _expect_blocks(self, parts: AttentionParts) -> None:
        """The sparsity engine must have the blocks that are decided on."""
        known, block = self.hardware.blocks, parts.block
        decides = parts.pruning is not None or parts.prediction is not None
        if not decides or block in known:
            return
        sizes, (rows, columns) = ", ".join(f"{r}x{c}" for r, c in known), block
        raise InfeasibleError(
            f"the sparsity engine of {self.hardware.name} has no blocks of {rows}x{columns}",
            place=describe_location(parts.op),
            notes=[f"it has {sizes}: sparsity_engine.blocks in the hardware file says so"],
        )


def attach_attention(op: attn.PrunedOp, plan: AttentionPlan, hardware: Hardware) -> None:
    """Say an attention's plan."""
    op.plan = AttentionPlanAttr(
        AttentionTiles(
            plan.shape.length,
            hardware.cores,
            plan.parts,
            plan.rows,
            plan.keys,
            plan.slots,
            plan.shared,
            plan.summed,
        )
    )


def _attach(
    step: Step,
    plan: Plan,
    hardware: Hardware,
    *,
    panels: int = 1,
    tokens: int = 0,
    held: bool = False,
) -> None:
    if isinstance(plan, LeftPlan):
        tiles = LeftTiles(plan.rows, plan.slots, hardware.cores, tokens, held)
        step.op.plan = LeftPlanAttr(tiles)
        return
    sizes = plan.rows, plan.columns, plan.slab, plan.slots, plan.cores, plan.parts
    step.op.plan = LinearPlanAttr(LinearTiles(*sizes, panels, tokens, held))


def _held_steps(plans: Sequence[Plan], taken: Sequence[int], hardware: Hardware) -> list[int]:
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
    plans: Sequence[Plan],
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


@dataclass(frozen=True)
class PlanTilesPass(ModulePass):
    """Tiles of products and attention for the machine of the context; exact."""

    name = "plan-tiles"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Attach plans; `InfeasibleError` where tiles do not fit the hardware.

        Raises `PassFailedException` for what is not of the fixed level.
        """
        hardware = hardware_of(ctx)
        for function in op.ops:
            if isinstance(function, FuncOp) and function.body.blocks:
                check_claimed(function)
                _Planner(ctx, function, hardware).run()
