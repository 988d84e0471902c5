"""
From values to instructions on tiles.

Assumes the fixed level: products as `einsum.contract`, bias and `fixed.requantize`, HDP attention,
`host.task`, packed tokens.

- `main` becomes a function without arguments, of `hdp` instructions in `scf.for` loops.
- Tensors and tiles are symbolic values. Inputs, weights and outputs are `hdp.tensor` ops that say
  what they are.
- Tile sizes are those of the plans that `plan-tiles` attached.
- Loops run to registers, so that shorter inputs take fewer iterations.
- Integer constants (position ids) are evaluated here.
- The pass fails where an op is part of nothing that instructions are emitted for, and where a
  tensor is read that nothing writes (`heatc.passes.tiling.claims`).

Leaves registers to lower-to-hdp, addresses to allocate-buffers.

Example: test/passes/tile_for_hdp.mlir.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, IntegerType, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.context import weights_of
from heatc.dialects import attn, hdp, nn
from heatc.dialects.einsum import WeightOp
from heatc.dialects.fixed import RequantizeOp
from heatc.dialects.hdp_plans import AttentionPlanAttr
from heatc.dialects.host import TaskOp
from heatc.passes.analysis.ports import output_paddings
from heatc.passes.effect import Effect
from heatc.passes.rewriting import at
from heatc.passes.tiling.attention import emit_attention
from heatc.passes.tiling.attention_parts import AttentionParts, read_attention
from heatc.passes.tiling.attention_plan import AttentionPlan
from heatc.passes.tiling.attention_stages import Attention
from heatc.passes.tiling.cascade import sum_point, sum_shift
from heatc.passes.tiling.claims import PARTS, check_claimed, check_written
from heatc.passes.tiling.head_sums import Cascade
from heatc.passes.tiling.host import HostTask
from heatc.passes.tiling.packed_rows import PackedRows
from heatc.passes.tiling.products import Products
from heatc.passes.tiling.score_masks import ScoreMaskTensors
from heatc.passes.tiling.shapes import plan_of
from heatc.passes.tiling.tensors import Tensors
from heatc.passes.tiling.values import is_integer
from heatc.weights import WeightStore


class _Tiler:
    """Tiles one function."""

    def __init__(self, function: FuncOp, store: Callable[[], WeightStore]):
        self.function = function
        self.tensors = Tensors(function, store)
        self.e = self.tensors.e
        self.rows = PackedRows(self.tensors)
        self.products = Products(self.tensors)
        self.masks = ScoreMaskTensors(self.tensors)

    def run(self) -> FuncOp:
        """The tiled function."""
        check_claimed(self.function)
        for op in self.tensors.ops(ReturnOp):
            for value, name in zip(op.operands, self.tensors.output_names):
                if isinstance(nn.element_of(value), IntegerType) and not _is_written(value):
                    raise _no_output(name, value)
                self.tensors.outputs.setdefault(value, []).append(name)
        for op in self.function.body.block.ops:
            self.e.source = op
            self._tile(op)
        return self._finish()

    def _tile(self, op: Operation) -> None:
        if isinstance(op, RequantizeOp):
            self.products.emit(op)
        elif isinstance(op, attn.PrunedOp):
            self._attention(op)
        elif isinstance(op, TaskOp):
            self._task(op)
        elif isinstance(op, attn.PackingOp):
            self.rows.tile_packing(op)
        elif isinstance(op, attn.PackOp):
            self.rows.tile_pack(op)
        elif not isinstance(op, (WeightOp, nn.FullOp, *PARTS, ReturnOp)) and not is_integer(op):
            raise PassFailedException(
                f"{at(op)}{op.name} is not part of the fixed level; run "
                "partition-host and assign-fixed-point first"
            )

    def _finish(self) -> FuncOp:
        for argument in self.function.body.block.args:
            self.tensors.tensor(argument)
        for value, names in self.tensors.outputs.items():
            if value not in self.tensors.known:
                raise _no_output(names[0], value)
        self.e.do("halt")
        self.e.emit(ReturnOp())
        new = FuncOp(self.function.sym_name.data, ((), ()), Region(self.tensors.body))
        new.location = self.function.location
        words = {
            "inputs": self.tensors.input_names,
            "outputs": self.tensors.output_names,
            "paddings": output_paddings(self.function),
        }
        for key, names in words.items():
            new.attributes[f"heatc.{key}"] = ArrayAttr(StringAttr(n) for n in names)
        return new

    def _task(self, task: TaskOp) -> None:
        """A task of the host, once a panel where what it works on lies in panels."""
        tensors = self.tensors
        count = max((len(self.products.panels.get(v, ())) for v in task.inputs), default=0)
        if not count:
            HostTask(tensors, tensors.tensor, self.rows.index_of).emit(task)
        for i in range(count):

            def panel(value: SSAValue, i: int = i) -> SSAValue:
                return self.products.panels[value][i]

            HostTask(tensors, panel, self.rows.index_of).emit(task)

    def _attention(self, op: attn.PrunedOp) -> None:
        parts = read_attention(op)
        planes: dict[str, SSAValue] = {}
        for name, value in parts.planes.items():
            if value not in self.tensors.known and isinstance(value.owner, attn.SplitOp):
                raise PassFailedException(f"{at(op)}attn.split of a value that no linear computes")
            planes[name] = self.tensors.tensor(value)
        output = self.tensors.tensor(op.output)
        cascade = self._cascade(parts) if parts.cascades else None
        owner = output.owner
        assert isinstance(owner, hdp.TensorOp)
        tiles = plan_of(op, AttentionPlanAttr)
        shape = parts.shape()
        planned = replace(shape, length=tiles.length)
        plan = AttentionPlan(
            planned, tiles.parts, tiles.rows, tiles.keys, tiles.shared, tiles.slots, tiles.summed
        )
        attention = Attention(
            shape,
            parts.scale,
            parts.points,
            parts.pruning,
            parts.prediction,
            bool(attn.packing_of(parts.values.packing).reads),
            parts.masks.shifts,
            parts.masks.keyless,
            parts.masks.least_keyless,
        )
        tensors = {**planes, "o": output, **self._masks(parts)}
        emit_attention(self.e, owner.symbol.data, attention, tensors, plan, tiles.cores, cascade)

    def _masks(self, parts: AttentionParts) -> dict[str, SSAValue]:
        """The tensors of an attention's masks, and the positions of rows."""
        if not parts.masks.any:
            return {}
        positions = self.rows.positions_of(attn.outside(parts.values.packing))
        found = {"dq": positions, "dk": positions}
        least = () if parts.masks.least is None else (parts.masks.least,)
        kinds = {"visible": parts.masks.visible, "bias": parts.masks.biases, "least": least}
        for kind, values in kinds.items():
            for i, value in enumerate(values):
                found[f"{kind}.{i}"] = self.masks.tensor_of(value)
        return found

    def _cascade(self, parts: AttentionParts) -> Cascade:
        """What dense attention has to do with the importance of heads."""
        ranking, importance, before = parts.ranking, parts.importance, parts.sums
        if before is not None and before not in self.tensors.known:
            raise PassFailedException(
                f"{at(parts.op)}importance of heads of what no dense attention puts out"
            )
        after, shift = None, 0
        if importance is not None:
            after, shift = self._sums(parts, importance), sum_shift(importance)
        return Cascade(
            parts.heads,
            parts.heads if ranking is None else ranking.keep.value.data,
            None if before is None else self.tensors.known[before],
            after,
            shift,
            ranking,
        )

    def _sums(self, parts: AttentionParts, op: attn.HeadImportanceOp) -> SSAValue:
        """The tensor of sums of heads that an attention leaves, a row a sequence."""
        owner = self.tensors.tensor(parts.op.output).owner
        assert isinstance(owner, hdp.TensorOp)
        self.tensors.known[op.result] = self.e.tensor(
            self.e.symbol(f"{owner.symbol.data}.importance"),
            "activation",
            "i64",
            (attn.packing_of(op.packing).shape[0], op.heads.value.data),
            point=sum_point(op),
        )
        return self.tensors.known[op.result]


@dataclass(frozen=True)
class TileForHdpPass(ModulePass):
    """Instructions on tiles; exact."""

    name = "tile-for-hdp"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Replace every function.

        Raises `PassFailedException` for what is not of the fixed level, or has no plan.
        """

        def store() -> WeightStore:
            return weights_of(ctx)

        for function in list(op.ops):
            if isinstance(function, FuncOp) and function.body.blocks:
                new = _Tiler(function, store).run()
                check_written(new)
                op.body.block.insert_op_before(new, function)
                function.detach()
                function.erase()


def _is_written(value: SSAValue) -> bool:
    """Whether a task of the host writes integers as the caller reads them, with a sign."""
    return isinstance(value.owner, TaskOp) and not nn.is_unsigned(nn.element_of(value))


def _no_output(name: str, value: SSAValue) -> PassFailedException:
    """What no instruction computes: integers that no input decides, or without a sign; a weight as it is."""
    place = "" if isinstance(value.owner, Block) else at(value.owner)
    element = nn.element_of(value)
    return PassFailedException(
        f"{place}output {name!r} of {element} is not computed by any instruction of the "
        "co-processor or its host; use --target numpy for this model"
    )
