"""
From values to instructions on tiles.

Assumes the fixed level: products as `einsum.contract`, bias and `fixed.requantize`, HDP attention,
`host.task`, packed tokens. `main` becomes a function without arguments whose body is `hdp`
instructions in `scf.for` loops: tensors and tiles are symbolic values, inputs, weights and
outputs are `hdp.tensor` ops that say what they are. Tile sizes come from
`heatc.passes.tiling.plan`, for the largest run; loops run to registers, so that shorter inputs
take fewer iterations. Integer constants (position ids) are evaluated here. Every op is part of something
that instructions are emitted for, and every tensor that is read is written, or the pass fails
(`heatc.passes.tiling.claims`). Leaves registers to lower-to-hdp, addresses to allocate-buffers.

Example: test/passes/tile_for_hdp.mlir.
"""

from __future__ import annotations

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
from heatc.dialects.host import TaskOp
from heatc.errors import InfeasibleError
from heatc.hardware import load_hardware
from heatc.isa.table import BLOCK
from heatc.isa.units import probability_code
from heatc.passes.analysis.ports import output_paddings
from heatc.passes.effect import Effect
from heatc.passes.rewriting import at, describe_location
from heatc.passes.tiling.attention import Attention, Prediction, Pruning, emit_attention
from heatc.passes.tiling.cascade import Cascade, importance_of, ranking_of, sum_point, sum_shift
from heatc.passes.tiling.claims import PARTS, check_claimed, check_written
from heatc.passes.tiling.host import HostTask
from heatc.passes.tiling.plan import AttentionShape
from heatc.passes.tiling.products import Products
from heatc.passes.tiling.tensors import dtype_of, fixed_type, is_integer, owner_of
from heatc.weights import WeightStore

SINGLE = (1, 1)
"""The block of rules that decide on single scores."""


class _Tiler(Products):
    """Tiles one function."""

    def run(self) -> FuncOp:
        """The tiled function."""
        check_claimed(self.function)
        for op in self._ops(ReturnOp):
            for value, name in zip(op.operands, self.output_names):
                if isinstance(nn.element_of(value), IntegerType):
                    raise _no_output(name, value)
                self.outputs.setdefault(value, []).append(name)
        for op in self.function.body.block.ops:
            self.e.source = op
            self._tile(op)
        return self._finish()

    def _tile(self, op: Operation) -> None:
        if isinstance(op, RequantizeOp):
            self._product(op)
        elif isinstance(op, attn.WeightedValuesOp):
            self._attention(op)
        elif isinstance(op, TaskOp):
            self._task(op)
        elif isinstance(op, attn.PackingOp):
            self.tile_packing(op)
        elif isinstance(op, attn.PackOp):
            self.tile_pack(op)
        elif not isinstance(op, (WeightOp, *PARTS, ReturnOp)) and not is_integer(op):
            raise PassFailedException(
                f"{at(op)}{op.name} is not part of the fixed level; run "
                "partition-host and assign-fixed-point first"
            )

    def _finish(self) -> FuncOp:
        for argument in self.function.body.block.args:
            self.tensor(argument)
        for value, names in self.outputs.items():
            if value not in self.tensors:
                raise _no_output(names[0], value)
        self.e.do("halt")
        self.e.emit(ReturnOp())
        new = FuncOp(self.function.sym_name.data, ((), ()), Region(self.body))
        new.location = self.function.location
        words = {
            "inputs": self.input_names,
            "outputs": self.output_names,
            "paddings": output_paddings(self.function),
        }
        for key, names in words.items():
            new.attributes[f"heatc.{key}"] = ArrayAttr(StringAttr(n) for n in names)
        return new

    def _task(self, task: TaskOp) -> None:
        """A task of the host, once a panel where what it works on lies in panels."""
        count = max((len(self.panels.get(v, ())) for v in task.inputs), default=0)
        if not count:
            HostTask(self.e, self.tensor, self.index_of, self.extents).emit(task)
        for i in range(count):

            def panel(value: SSAValue, i: int = i) -> SSAValue:
                return self.panels[value][i]

            HostTask(self.e, panel, self.index_of, self.extents).emit(task)

    def _attention(self, op: attn.WeightedValuesOp) -> None:
        softmax: attn.SoftmaxOp = owner_of(op.probabilities, attn.SoftmaxOp)
        kinds = (attn.ScoresOp, attn.MergeScoresOp, attn.MeanQueryOp, attn.ExcludeScoresOp)
        scores, prediction = owner_of(softmax.scores, *kinds), None
        gate, gated = op.gate, "zero" if op.gated is None else op.gated.data
        if isinstance(scores, attn.MeanQueryOp):
            gate, gated = scores.gate, "col"
            scores = owner_of(scores.scores, attn.MergeScoresOp)
        if isinstance(scores, attn.ExcludeScoresOp):
            prediction = self._prediction(op, scores, softmax)
            scores = owner_of(scores.scores, attn.ScoresOp)
        pruning, planes, points = None, dict[str, SSAValue](), dict[str, int]()
        cascade = None
        if isinstance(scores, attn.MergeScoresOp):
            pruning = self._pruning(op, scores, gate)
            values = {
                "q": scores.q_integer,
                "q.fraction": scores.q_fraction,
                "k": scores.k_integer,
                "k.fraction": scores.k_fraction,
            }
            integer = {k: fixed_type(values[k]).point.data for k in ("q", "k")}
            points = {
                k: fixed_type(values[f"{k}.fraction"]).point.data - integer[k] for k in integer
            }
        else:
            values = {"q": scores.q, "k": scores.k}
            points = {k: fixed_type(v).point.data for k, v in values.items()}
            cascade = self._cascade(op)
        values["v"] = op.v
        points |= {"v": fixed_type(op.v).point.data, "s": fixed_type(softmax.scores).point.data}
        points["o"] = fixed_type(op.result).point.data
        for name, value in values.items():
            if value not in self.tensors and isinstance(value.owner, attn.SplitOp):
                raise PassFailedException(f"{at(op)}attn.split of a value that no linear computes")
            planes[name] = self.tensor(value)
        heads = op.heads.value.data
        _, length = attn.packing_of(op.packing).shape
        dim = nn.shape_of(op.v)[1] // heads
        output = self.tensor(op.result)
        owner = output.owner
        assert isinstance(owner, hdp.TensorOp)
        shape = AttentionShape(
            length,
            heads if cascade is None else cascade.keep,
            dim,
            pruning is not None,
            pruning is not None and pruning.gate is not None,
            tuple((name, dtype) for name, t in planes.items() if (dtype := dtype_of(t)) != "i16"),
            "zero" if pruning is None else pruning.pruned,
            pruning is not None and pruning.positive,
            gated,
            0 if cascade is None or cascade.before is None else cascade.heads,
            cascade is not None and cascade.after is not None,
            BLOCK if pruning is None else pruning.block,
            0.0 if pruning is None else pruning.density,
        )
        if prediction is not None:
            likely = not prediction.ratios
            shape = replace(shape, block=SINGLE, bits=prediction.bits, likely=likely)
        scale = softmax.scale.value.data
        emit_attention(
            self.e,
            Attention(
                owner.symbol.data,
                shape,
                planes,
                output,
                scale,
                points,
                pruning,
                cascade,
                prediction,
                bool(attn.packing_of(op.packing).reads),
            ),
            self.hardware,
        )

    def _cascade(self, op: attn.WeightedValuesOp) -> Cascade | None:
        """What dense attention has to do with the importance of heads, None if nothing."""
        ranking, importance = ranking_of(op), importance_of(op)
        if ranking is None and importance is None:
            return None
        heads = op.heads.value.data
        sums = [op.before for op in (importance,) if op is not None]
        sums += [op.importance for op in (ranking,) if op is not None]
        before = sums[-1]
        if before is not sums[0]:
            raise PassFailedException(
                f"{at(op)}heads are ranked by other sums than these they add to"
            )
        if before is not None and before not in self.tensors:
            raise PassFailedException(
                f"{at(op)}importance of heads of what no dense attention puts out"
            )
        after, shift = None, 0
        if importance is not None:
            after, shift = self._sums(importance), sum_shift(importance)
        return Cascade(
            heads,
            heads if ranking is None else ranking.keep.value.data,
            None if before is None else self.tensors[before],
            after,
            shift,
            ranking,
        )

    def _sums(self, op: attn.HeadImportanceOp) -> SSAValue:
        """The tensor of sums of heads that an attention leaves, a row a sequence."""
        owner = self.tensor(op.x).owner
        assert isinstance(owner, hdp.TensorOp)
        self.tensors[op.result] = self.e.tensor(
            self.e.symbol(f"{owner.symbol.data}.importance"),
            "activation",
            "i64",
            (attn.packing_of(op.packing).shape[0], op.heads.value.data),
            point=sum_point(op),
        )
        return self.tensors[op.result]

    def _pruning(
        self, op: attn.WeightedValuesOp, scores: attn.MergeScoresOp, gated: SSAValue | None
    ) -> Pruning:
        mask = owner_of(scores.mask, attn.BlockMaskOp, attn.TopkMaskOp)
        topk = isinstance(mask, attn.TopkMaskOp)
        gate: attn.HeadGateOp | None = None
        if gated is not None:
            gate = owner_of(gated, attn.HeadGateOp)
        block = self._block(op, _block_of(scores))
        theta: attn.BlockImportanceOp = owner_of(mask.theta, attn.BlockImportanceOp)
        return Pruning(
            () if topk else mask.ratios,
            () if gate is None else gate.thresholds,
            scores.pruned.data,
            mask,
            gate,
            theta.importance.data,
            fixed_type(scores.integer).point.data,
            block,
            mask.density.value.data if topk else 0.0,
        )

    def _prediction(
        self, op: attn.WeightedValuesOp, excluded: attn.ExcludeScoresOp, softmax: attn.SoftmaxOp
    ) -> Prediction:
        """What low-bit scores decide on, of the operands of the scores that are left."""
        scores: attn.ScoresOp = owner_of(excluded.scores, attn.ScoresOp)
        mask = owner_of(excluded.mask, attn.BlockMaskOp, attn.ProbabilityMaskOp)
        self._block(op, SINGLE)
        if isinstance(mask, attn.ProbabilityMaskOp):
            predicted: attn.SoftmaxOp = owner_of(mask.probabilities, attn.SoftmaxOp)
            scaled: attn.ScaleScoresOp = owner_of(predicted.scores, attn.ScaleScoresOp)
            _expect(op, predicted.scale == softmax.scale, "a prediction at another scale")
            bits = _low_bits(op, scaled.scores, scores)
            code = probability_code(mask.threshold.value.data)
            return Prediction((bits,), (), (mask,), fixed_type(scaled.result).point.data, code)
        first = mask if mask.among is None else owner_of(mask.among, attn.BlockMaskOp)
        _expect(op, first.among is None, "more than two rounds of low-bit scores")
        rounds = (mask,) if mask is first else (first, mask)
        for one in rounds:
            _expect(op, _block_of(one) == SINGLE, "low-bit scores in blocks")
            _expect(op, len(one.ratios) == 1, "ratios of low-bit scores that differ by head")
        bits = tuple(_low_bits(op, one.theta, scores) for one in rounds)
        return Prediction(bits, tuple(one.ratios[0] for one in rounds), rounds)

    def _block(self, op: attn.WeightedValuesOp, block: tuple[int, int]) -> tuple[int, int]:
        """The size of a block, which the sparsity engine must have."""
        rows, columns = block
        known = self.hardware.blocks
        if (rows, columns) not in known:
            sizes = ", ".join(f"{r}x{c}" for r, c in known)
            raise InfeasibleError(
                f"the sparsity engine of {self.hardware.name} has no blocks of {rows}x{columns}",
                place=describe_location(op),
                notes=[f"it has {sizes}: sparsity_engine.blocks in the hardware file says so"],
            )
        return rows, columns


def _block_of(op: attn.MergeScoresOp | attn.BlockMaskOp) -> tuple[int, int]:
    rows, columns = (int(b) for b in op.block.get_values())
    return rows, columns


def _expect(op: Operation, holds: bool, what: str) -> None:
    """Refuse what the machine has no unit for."""
    if not holds:
        raise PassFailedException(f"{at(op)}the machine has no unit for {what}")


def _low_bits(op: Operation, scores: SSAValue, full: attn.ScoresOp) -> int:
    """The bits of low-bit scores, whose codes must be those of the operands of all scores."""
    low: attn.IntegerScoresOp = owner_of(scores, attn.IntegerScoresOp)
    q, k = (owner_of(value, attn.LowBitsOp) for value in (low.q, low.k))
    alike = (q.x, k.x, q.bits) == (full.q, full.k, k.bits)
    _expect(op, alike, "low-bit scores of other operands than the scores")
    return q.bits.value.data


@dataclass(frozen=True)
class TileForHdpPass(ModulePass):
    """
    Instructions on tiles; exact.

    `hw` is a preset or a YAML file, `weights` a safetensors file for integer constants.
    """

    name = "tile-for-hdp"
    effect: ClassVar[Effect] = Effect.EXACT

    hw: str = "hdp-edge"
    weights: str | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Replace every function; `InfeasibleError` where tiles do not fit the hardware.

        Raises `PassFailedException` for what is not of the fixed level.
        """
        hardware = load_hardware(self.hw)

        def store() -> WeightStore:
            return weights_of(ctx, self.weights)

        for function in list(op.ops):
            if isinstance(function, FuncOp) and function.body.blocks:
                new = _Tiler(function, hardware, store).run()
                check_written(new)
                op.body.block.insert_op_before(new, function)
                function.detach()
                function.erase()


def _no_output(name: str, value: SSAValue) -> PassFailedException:
    """What no instruction computes: integers, booleans, a weight as it is."""
    place = "" if isinstance(value.owner, Block) else at(value.owner)
    element = nn.element_of(value)
    return PassFailedException(
        f"{place}output {name!r} of {element} is not computed by any instruction of the "
        "co-processor, which gives float32; use --target numpy for this model"
    )
