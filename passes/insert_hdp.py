"""
Attention becomes one op with the steps of the chosen rule.

Assumes the packed level. Replaces each `attn.sdpa` by an `attn.pruned`, which says the rule and has its
steps (docs/design/rules.md) in a region. The rule writes the steps itself, see
`heatc.rules.PruningRule`: `none` is `scores -> softmax -> weighted_values`. A rule that ranks heads
does so over the layers that have it, in program order.

An attention that has a `rule`, which `apply-plan` writes, keeps to it. The others have that of the
options; options that are left out have the rule's defaults. Masks that the attention kept become
what it sees and a bias (`heatc.passes.attention_masks`), which all steps take. Leaves the element
types to `assign-fixed-point`.

Example: test/passes/insert_hdp.mlir, the worked example of the HDP paper (Q 8x4, K 4x8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerType, ModuleOp, TensorType, f64
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.context import HeatcContext, weights_of
from heatc.dialects import attn
from heatc.dialects.attn import RuleAttr
from heatc.passes.attention_masks import MaskReader, ScoreMasks
from heatc.passes.divided import Divided
from heatc.passes.effect import Effect
from heatc.passes.rewriting import (
    at,
    erase_dead,
    insert_before,
    remark,
    replace_value,
)
from heatc.rules import (
    RULES,
    Gated,
    Importance,
    Layer,
    PrunedScore,
    Rule,
    RuleError,
    find_rule,
    make_rule,
    read_own,
)
from heatc.rules.definition import LowBits, Parts


class _Chain:
    """
    Writes the steps of a rule (`heatc.rules.Attention`) for one attention.

    The steps stand in a block of their own, and read the values of the function as they are, and those of
    the attentions before. `close` makes an op of them.
    """

    def __init__(
        self,
        op: attn.SdpaOp,
        layer: int,
        layers: int,
        memory: dict[str, SSAValue],
        masks: ScoreMasks,
        divisible: Callable[[SSAValue], SSAValue],
    ):
        self.op = op
        self.divisible = divisible
        self.masks = masks
        self._visible: SSAValue | None = None
        self._visible_blocks: dict[tuple[int, int], SSAValue] = {}
        self.block = Block()
        self.output: SSAValue | None = None
        self.layer, self.layers, self.memory = layer, layers, memory
        packing = op.packing
        assert packing is not None
        self.packing = packing
        self.heads = op.heads.value.data
        self.element: Attribute = attn.tensor_of(op.q).get_element_type()
        self.shape = attn.scores_shape(attn.packing_of(packing), self.heads)

    def emit(self, op: Operation) -> SSAValue:
        """Add an op; its (first) result."""
        op.location = self.op.location
        self.block.add_op(op)
        return op.results[0]

    def close(self, rule: Rule) -> None:
        """Put `attn.pruned` in the place of the attention, once every attention has its steps."""
        output = self.output
        assert output is not None
        made = [output, *(v for v in self._read_later() if v is not output)]
        new = attn.PrunedOp.around(self.block, made)
        new.rule = RuleAttr.of(rule)
        insert_before(self.op, new)
        replace_value(self.op.result, new.output)
        self.op.detach()
        self.op.erase()

    def _read_later(self) -> list[SSAValue]:
        """What attentions behind this one read of its steps."""
        return [
            value
            for op in self.block.ops
            for value in op.results
            if any(use.operation.parent is not self.block for use in value.uses)
        ]

    def _typed(self, element: Attribute) -> TensorType[Attribute]:
        """Scores of an element type."""
        return TensorType(element, self.shape)

    # -- the model's own masks -------------------------------------------------------------

    @property
    def visible(self) -> SSAValue | None:
        """What each row sees, None where it sees all keys."""
        if self._visible is None and self.masks.visible:
            step = attn.VisibleOp(self.packing, self.masks.visible, self.heads)
            self._visible = self.emit(step)
        return self._visible

    def _among(self, block: Sequence[int]) -> SSAValue | None:
        """The blocks that have a visible score, None where all have."""
        visible, extents = self.visible, _extents(block)
        if visible is None:
            return None
        if extents not in self._visible_blocks:
            step = attn.VisibleBlocksOp(visible, self.packing, extents)
            self._visible_blocks[extents] = self.emit(step)
        return self._visible_blocks[extents]

    def _masked(self, scores: SSAValue) -> SSAValue:
        """Scores with what the model adds, and without what it hides."""
        for bias in self.masks.biases:
            scores = self.emit(attn.BiasScoresOp(scores, bias, self.packing))
        if self.visible is None:
            return scores
        keyless, rest = self.masks.keyless, self.masks.rest
        scores = self.emit(attn.HideScoresOp(scores, self.visible, self.packing, keyless))
        if rest is None:
            return scores
        for bias in rest.biases:
            scores = self.emit(attn.BiasScoresOp(scores, bias, self.packing))
        visible = self.emit(attn.VisibleOp(self.packing, [rest.visible], self.heads))
        return self.emit(attn.HideScoresOp(scores, visible, self.packing, rest.keyless))

    def _expect_no_masks(self, what: str) -> None:
        if self.masks.visible or self.masks.biases:
            raise PassFailedException(
                f"{at(self.op)}the machine has no unit for {what} where the model has a mask of its "
                "own: choose another rule (none, paper, ours, topk), or --target numpy"
            )

    # -- steps -----------------------------------------------------------------------------

    def scores(self) -> SSAValue:
        op, type_ = self.op, self._typed(self.element)
        return self.emit(attn.ScoresOp(op.q, op.k, self.packing, self.heads, type_))

    def split(self, finer: int) -> Parts:
        q, k = (attn.SplitOp(self.divisible(v), finer) for v in (self.op.q, self.op.k))
        self.emit(q)
        self.emit(k)
        return Parts(q.integer, q.fraction, k.integer, k.fraction)

    def integer_scores(self, parts: Parts) -> SSAValue:
        type_ = self._typed(self.element)
        q, k = parts.q_integer, parts.k_integer
        return self.emit(attn.IntegerScoresOp(q, k, self.packing, self.heads, type_))

    def block_importance(
        self, integer: SSAValue, block: Sequence[int], importance: str
    ) -> SSAValue:
        extents = _extents(block)
        shape = attn.blocks_shape(self.shape, extents, attn.packing_of(self.packing))
        sums = TensorType(f64, shape)
        return self.emit(
            attn.BlockImportanceOp(integer, self.packing, extents, sums, importance, self.visible)
        )

    def mean_filter(
        self,
        values: SSAValue,
        ratios: Sequence[float],
        block: Sequence[int],
        among: SSAValue | None = None,
    ) -> SSAValue:
        among = self._among(block) if among is None else among
        return self.emit(
            attn.BlockMaskOp(values, self.packing, tuple(ratios), _extents(block), among)
        )

    def greatest(self, importance: SSAValue, density: float, block: Sequence[int]) -> SSAValue:
        among, extents = self._among(block), _extents(block)
        return self.emit(attn.TopkMaskOp(importance, self.packing, density, extents, among))

    def head_gate(
        self, importance: SSAValue, thresholds: Sequence[float], block: Sequence[int], kind: str
    ) -> SSAValue:
        return self.emit(
            attn.HeadGateOp(
                importance, self.packing, tuple(thresholds), _extents(block), kind, self.visible
            )
        )

    def merged(
        self,
        integer: SSAValue,
        parts: Parts,
        mask: SSAValue,
        block: Sequence[int],
        pruned_score: str,
    ) -> SSAValue:
        q, k = parts[:2], parts[2:]
        packing, heads, extents = self.packing, self.heads, _extents(block)
        return self.emit(
            attn.MergeScoresOp(
                *(integer, q, k, mask, packing, heads, extents, pruned_score),
                visible=self.visible if pruned_score == "mean" else None,
            )
        )

    def mean_query(self, scores: SSAValue, integer: SSAValue, gate: SSAValue) -> SSAValue:
        self._expect_no_masks("the mean query of a pruned head (--gated col)")
        return self.emit(attn.MeanQueryOp(scores, integer, gate, self.packing))

    def low_bits(self, bits: int) -> LowBits:
        self._expect_no_masks("predictions by low-bit codes")
        q = attn.LowBitsOp(self.op.q, self.packing, self.heads, bits)
        k = attn.LowBitsOp(self.op.k, self.packing, self.heads, bits)
        self.emit(q)
        self.emit(k)
        return LowBits(q.codes, q.points, k.codes, k.points)

    def low_scores(self, low: LowBits) -> SSAValue:
        type_ = self._typed(IntegerType(32))
        return self.emit(attn.IntegerScoresOp(low.q, low.k, self.packing, self.heads, type_))

    def scaled(self, scores: SSAValue, low: LowBits) -> SSAValue:
        type_ = self._typed(f64)
        return self.emit(
            attn.ScaleScoresOp(scores, low.q_points, low.k_points, self.packing, type_)
        )

    def probabilities(self, scores: SSAValue) -> SSAValue:
        return self.emit(attn.SoftmaxOp(scores, self.packing, self.op.scale.value.data))

    def likely(self, probabilities: SSAValue, threshold: float) -> SSAValue:
        return self.emit(attn.ProbabilityMaskOp(probabilities, self.packing, threshold))

    def excluded(self, scores: SSAValue, mask: SSAValue) -> SSAValue:
        return self.emit(attn.ExcludeScoresOp(scores, mask, self.packing))

    def head_ranking(
        self, importance: SSAValue, keep: int, gate: SSAValue | None = None
    ) -> SSAValue:
        return self.emit(attn.HeadRankingOp(importance, keep, gate))

    def finish(
        self, scores: SSAValue, gate: SSAValue | None = None, gated: str = "zero"
    ) -> SSAValue:
        if gate is not None and gated != "zero":
            self._expect_no_masks(f"pruned heads that put out their {gated} (--gated {gated})")
        p = self.probabilities(self._masked(scores))
        values = attn.WeightedValuesOp(p, self.op.v, self.packing, gate, self.heads, gated=gated)
        self.output = self.emit(values)
        return self.output

    def head_importance(self, output: SSAValue, before: SSAValue | None = None) -> SSAValue:
        return self.emit(attn.HeadImportanceOp(output, self.packing, self.heads, before))


def _extents(block: Sequence[int]) -> tuple[int, int]:
    rows, columns = block
    return rows, columns


@dataclass(frozen=True)
class InsertHdpPass(ModulePass):
    """
    `attn.sdpa` becomes HDP attention; rule `none` is exact, the others change values.

    Options are those of `heatc.rules`, None where the rule's default is meant; `own` are those that
    no other rule has, as texts `option=value`. An attention that has a `rule` keeps to that.
    """

    name = "insert-hdp"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    rule: str = "none"
    finer: int | None = None
    importance: Importance | None = None
    rho_b: float | tuple[float, ...] | None = None
    density: float | None = None
    alpha: tuple[float, ...] | None = None
    threshold: float | None = None
    pruned_score: PrunedScore | None = None
    tau_h: float | tuple[float, ...] | None = None
    gated: Gated | None = None
    ratio: float | None = None
    block: tuple[int, ...] | None = None
    own: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raise `RuleError` for options that do not make a rule."""
        self.one_rule()

    def _options(self) -> dict[str, Any]:
        names = {f.name for f in fields(self)} - {"rule", "name", "own"}
        given = {name: getattr(self, name) for name in sorted(names)}
        own = dict(read_own(self.rule, text) for text in self.own or ())
        return {**{name: value for name, value in given.items() if value is not None}, **own}

    def one_rule(self) -> Rule:
        """The rule of every attention that has none of its own."""
        return make_rule(self.rule, self._options())

    def rules(self, module: ModuleOp) -> dict[Operation, Rule]:
        """
        The rule of every attention of a module that is not pruned yet.

        Raises `PassFailedException` for values per head that do not fit the heads.
        """
        found = [op for op in module.walk() if isinstance(op, attn.SdpaOp)]
        usual = self.one_rule()
        chosen: dict[Operation, Rule] = {
            op: usual if op.rule is None else op.rule.rule for op in found
        }
        for op in found:
            try:
                chosen[op].check_heads(op.heads.value.data)
            except RuleError as error:
                raise PassFailedException(f"{at(op)}{error}") from error
        for name, layers in _by_rule(chosen).items():
            if find_rule(name).ranks_heads:
                _check_ranking(name, list(layers))
        return chosen

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place; raises what `rules` raises, and for biased attention."""
        rules = self.rules(op)
        told = [o for o in rules if isinstance(o, attn.SdpaOp) and o.rule is None]
        if self.rule != "none" and told:
            remark(ctx, op, f"attention rule {self.one_rule()} by option, for all {len(told)}")
        if self.rule != "none" and len(told) < len(rules):
            kept = len(rules) - len(told)
            remark(
                ctx, op, f"{kept} attention(s) keep the rule that the model says, not the option's"
            )
        for name, layers in _by_rule(rules).items():
            if find_rule(name).ranks_heads and not _prunes(name, layers.values()):
                text = f"rule {name} ranks heads by layers before: here it leaves out none"
                remark(ctx, op, text)
        numbered = {name: list(layers) for name, layers in _by_rule(rules).items()}
        memories: dict[str, dict[str, SSAValue]] = {name: {} for name in numbered}
        written: list[tuple[_Chain, Rule]] = []
        reader = MaskReader(lambda: weights_of(ctx))
        divided = Divided(ctx.weights if isinstance(ctx, HeatcContext) else None)
        for attention, rule in rules.items():
            assert isinstance(attention, attn.SdpaOp)
            _check_machine(attention)
            layers = numbered[rule.name]
            place = layers.index(attention), len(layers)
            masks = reader.read(attention)
            chain = _Chain(attention, *place, memories[rule.name], masks, divided.of)
            with RULES.blamed(rule.name):
                find_rule(rule.name).insert(chain, rule)
            if chain.output is None:
                raise PassFailedException(f"{at(attention)}rule {rule.name} wrote no attention")
            written.append((chain, rule))
        masked = any(chain.op.masks for chain, _ in written)
        for chain, rule in written:
            chain.close(rule)
        if masked:
            # What masks were computed with, where they are known now.
            erase_dead(op)

    def pruning(self, module: ModuleOp) -> tuple[str, ...]:
        """The names of the rules that leave out something; raises what `rules` raises."""
        by_rule = _by_rule(self.rules(module))
        return tuple(sorted(n for n, layers in by_rule.items() if _prunes(n, layers.values())))


def _check_machine(op: attn.SdpaOp) -> None:
    if op.packing is None:
        raise PassFailedException(
            f"{at(op)}hdp attention needs one stream of tokens that attends to itself; use "
            "--target numpy for this model"
        )


def _by_rule(rules: Mapping[Operation, Rule]) -> dict[str, dict[Operation, Layer]]:
    """The attentions of each rule, in program order."""
    found: dict[str, dict[Operation, Layer]] = {}
    for op, rule in rules.items():
        assert isinstance(op, attn.SdpaOp)
        found.setdefault(rule.name, {})[op] = Layer(rule, op.heads.value.data)
    return found


def _prunes(name: str, layers: Iterable[Layer]) -> bool:
    return find_rule(name).prunes(tuple(layers))


def _check_ranking(rule: str, ops: Sequence[Operation]) -> None:
    """Heads are ranked over layers: they must be the same heads of the same tokens."""
    attentions = [op for op in ops if isinstance(op, attn.SdpaOp)]
    for op in attentions[1:]:
        if op.heads != attentions[0].heads or op.packing is not attentions[0].packing:
            raise PassFailedException(
                f"{at(op)}{rule} ranks heads over layers of as many heads and the same tokens, "
                f"got {op.heads.value.data} heads after {attentions[0].heads.value.data}"
            )
