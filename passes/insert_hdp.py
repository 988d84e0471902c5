"""
Attention becomes the chain of HDP ops of the chosen rule.

Assumes the packed level. Replaces each `attn.sdpa` by the ops of its rule (docs/design/rules.md):
`none` by `scores -> softmax -> weighted_values`, `paper`, `ours` and `topk` by integer scores,
block importance, block mask, head gate (where a threshold is above 0), merged scores, softmax and
weighted values; `energon` and `sanger` exclude scores by low-bit codes, `spatten` ranks heads over
the layers that have this rule, in program order. Options that are left out have the rule's
defaults (`heatc.rules`). With a plan each attention has its own rule, by module path, those that
the plan does not name are not pruned. Leaves the element types to `assign-fixed-point`. Attention
with masks of its own is refused: the machine has no unit for them.

Example: test/passes/insert_hdp.mlir, the worked example of the HDP paper (Q 8x4, K 4x8).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from math import floor
from typing import Any, ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import IntegerType, ModuleOp, TensorType, f64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.dialects import attn
from heatc.errors import HeatcError
from heatc.passes.effect import Effect
from heatc.passes.rewriting import (
    at,
    describe_location,
    insert_before,
    module_path,
    remark,
    replace_value,
)
from heatc.plan import Plan, read_plan
from heatc.rules import Gated, Importance, PrunedScore, Rule, RuleError, RuleName, make_rule

SINGLE = (1, 1)
"""The block of rules that decide on single scores."""

ENERGON_BITS = (2, 4)
SANGER_BITS = 4
"""Bits of the codes that `energon` (a round each) and `sanger` predict with."""


@dataclass
class _Ranking:
    """What `spatten` hands from layer to layer: importance and gate so far, and which layer it is."""

    layers: int
    layer: int = 0
    importance: SSAValue | None = None
    gate: SSAValue | None = None


def heads_kept(heads: int, ratio: float, layer: int, layers: int) -> int:
    """How many heads `spatten` keeps in a layer (from 0): a linear schedule of mean `ratio`."""
    if layers == 1:
        return heads
    share = min(2 * ratio * layer / (layers - 1), (heads - 1) / heads)
    return heads - floor(heads * share)


class _Chain:
    """Emits the ops of one attention in place of it."""

    def __init__(self, op: attn.SdpaOp, rule: Rule):
        self.op = op
        self.rule = rule
        packing = op.packing
        assert packing is not None
        self.packing = packing
        self.heads = op.heads.value.data
        self.element: Attribute = attn.tensor_of(op.q).get_element_type()
        self.shape = attn.scores_shape(attn.packing_of(packing), self.heads)

    def emit(self, op: Operation) -> SSAValue:
        """Insert an op; its (first) result."""
        insert_before(self.op, op)
        return op.results[0]

    def typed(self, element: Attribute) -> TensorType[Attribute]:
        """Scores of an element type."""
        return TensorType(element, self.shape)

    def finish(self, scores: SSAValue, gate: SSAValue | None, gated: str = "zero") -> SSAValue:
        """Softmax and weighted values; the attention is gone."""
        op = self.op
        p = self.emit(attn.SoftmaxOp(scores, self.packing, op.scale.value.data))
        values = attn.WeightedValuesOp(p, op.v, self.packing, gate, self.heads, gated=gated)
        result = self.emit(values)
        replace_value(op.result, result)
        op.detach()
        op.erase()
        return result

    def scores(self) -> SSAValue:
        """All bits of all scores."""
        op = self.op
        return self.emit(
            attn.ScoresOp(op.q, op.k, self.packing, self.heads, self.typed(self.element))
        )

    # -- blocks that integer parts decide on ------------------------------------------------

    def blocks(self) -> None:
        """Rules `paper`, `ours` and `topk`."""
        rule, packing, heads = self.rule, self.packing, self.heads
        block = (rule.block[0], rule.block[1])
        q, k = attn.SplitOp(self.op.q, rule.finer), attn.SplitOp(self.op.k, rule.finer)
        self.emit(q)
        self.emit(k)
        type_ = self.typed(self.element)
        integer = self.emit(attn.IntegerScoresOp(q.integer, k.integer, packing, heads, type_))
        sums = TensorType(f64, attn.blocks_shape(self.shape, block, attn.packing_of(packing)))
        theta = self.emit(attn.BlockImportanceOp(integer, packing, block, sums, rule.importance))
        if rule.name == "topk":
            mask = self.emit(attn.TopkMaskOp(theta, packing, rule.density, block))
        else:
            mask = self.emit(attn.BlockMaskOp(theta, packing, rule.rho_b, block))
        gate = None
        if max(rule.tau_h) > 0:
            gate = self.emit(attn.HeadGateOp(theta, packing, rule.tau_h, block, rule.importance))
        parts = (q.integer, q.fraction), (k.integer, k.fraction)
        merged = self.emit(
            attn.MergeScoresOp(integer, *parts, mask, packing, heads, block, rule.pruned_score)
        )
        if gate is not None and rule.gated == "col":
            merged = self.emit(attn.MeanQueryOp(merged, integer, gate, packing))
            gate = None
        self.finish(merged, gate, rule.gated)

    # -- single scores that low-bit codes decide on -----------------------------------------

    def low_scores(self, bits: int) -> tuple[SSAValue, SSAValue, SSAValue]:
        """Scores of few bits, and the points of the codes of q and k."""
        q = attn.LowBitsOp(self.op.q, self.packing, self.heads, bits)
        k = attn.LowBitsOp(self.op.k, self.packing, self.heads, bits)
        self.emit(q)
        self.emit(k)
        type_ = self.typed(IntegerType(32))
        op = attn.IntegerScoresOp(q.codes, k.codes, self.packing, self.heads, type_)
        return self.emit(op), q.points, k.points

    def energon(self) -> None:
        """Two rounds of mean filtering."""
        scores, mask = self.scores(), None
        for bits, alpha in zip(ENERGON_BITS, self.rule.alpha):
            low, _, _ = self.low_scores(bits)
            mask = self.emit(attn.BlockMaskOp(low, self.packing, (alpha,), SINGLE, mask))
        assert mask is not None
        self.finish(self.emit(attn.ExcludeScoresOp(scores, mask, self.packing)), None)

    def sanger(self) -> None:
        """Scores whose predicted probability is high enough."""
        packing, scores = self.packing, self.scores()
        low, q_points, k_points = self.low_scores(SANGER_BITS)
        scaled = self.emit(attn.ScaleScoresOp(low, q_points, k_points, packing, self.typed(f64)))
        p = self.emit(attn.SoftmaxOp(scaled, packing, self.op.scale.value.data))
        mask = self.emit(attn.ProbabilityMaskOp(p, packing, self.rule.threshold))
        self.finish(self.emit(attn.ExcludeScoresOp(scores, mask, packing)), None)

    # -- heads that the layers before decide on ---------------------------------------------

    def spatten(self, ranking: _Ranking) -> None:
        """Heads by what they put out in the layers before."""
        keep = heads_kept(self.heads, self.rule.ratio, ranking.layer, ranking.layers)
        if keep < self.heads:
            assert ranking.importance is not None
            op = attn.HeadRankingOp(ranking.importance, keep, ranking.gate)
            ranking.gate = self.emit(op)
        packing, heads = self.packing, self.heads
        result = self.finish(self.scores(), ranking.gate)
        ranking.layer += 1
        if ranking.layer == ranking.layers:
            return
        owner = result.owner
        assert isinstance(owner, Operation)
        op = attn.HeadImportanceOp(result, packing, heads, ranking.importance)
        parent = owner.parent
        assert parent is not None
        op.location = owner.location
        parent.insert_op_after(op, owner)
        ranking.importance = op.result


@dataclass(frozen=True)
class InsertHdpPass(ModulePass):
    """
    `attn.sdpa` becomes HDP attention; rule `none` is exact, the others change values.

    Options are those of `heatc.rules`, None where the rule's default is meant; `plan` is the path
    of a plan.json that says the rule of every attention instead.
    """

    name = "insert-hdp"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    rule: RuleName = "none"
    plan: str | None = None
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

    def __post_init__(self) -> None:
        """Raise `RuleError` for options that do not make a rule."""
        if self.plan is not None and (self.rule != "none" or self._options()):
            raise RuleError("plan", "a plan says every rule: give it alone")
        self.one_rule()

    def _options(self) -> dict[str, Any]:
        names = {f.name for f in fields(self)} - {"rule", "plan", "name"}
        given = {name: getattr(self, name) for name in sorted(names)}
        return {name: value for name, value in given.items() if value is not None}

    def one_rule(self) -> Rule:
        """The rule of every attention where there is no plan."""
        return make_rule(self.rule, self._options())

    def rules(self, module: ModuleOp) -> dict[Operation, Rule]:
        """
        The rule of every attention of a module that is not pruned yet.

        Raises `HeatcError` for a plan that cannot be read or names what the module does not have,
        `PassFailedException` for values per head that do not fit the heads.
        """
        found = [op for op in module.walk() if isinstance(op, attn.SdpaOp)]
        if self.plan is None:
            rule = self.one_rule()
            chosen: dict[Operation, Rule] = dict.fromkeys(found, rule)
        else:
            chosen = _planned(read_plan(self.plan), found)
        for op in found:
            try:
                chosen[op].check_heads(op.heads.value.data)
            except RuleError as error:
                raise PassFailedException(f"{at(op)}{error}") from error
        _check_ranking([op for op in found if chosen[op].name == "spatten"])
        return chosen

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place; raises what `rules` raises, and for biased attention."""
        rules = self.rules(op)
        if self.plan is None and self.rule != "none" and rules:
            remark(op, f"attention rule {self.one_rule()} by option, for all {len(rules)}")
        _check_masks(rules)
        named = () if self.plan is None else read_plan(self.plan).rules
        ranking = _Ranking(sum(rule.name == "spatten" for rule in rules.values()))
        if ranking.layers and not _cascade_prunes(rules):
            remark(op, "rule spatten ranks heads by layers before: here it leaves out none")
        for attention, rule in rules.items():
            assert isinstance(attention, attn.SdpaOp)
            if self.plan is not None:
                by = "by" if module_path(attention) in named else "not named in"
                remark(attention, f"attention rule {rule}: {by} {self.plan}")
            self._rewrite(attention, rule, ranking)

    def pruning(self, module: ModuleOp) -> tuple[str, ...]:
        """The names of the rules that leave out something; raises what `rules` raises."""
        rules = self.rules(module)
        names = {rule.name for rule in rules.values()} - {"none"}
        return tuple(sorted(names if _cascade_prunes(rules) else names - {"spatten"}))

    def _rewrite(self, op: attn.SdpaOp, rule: Rule, ranking: _Ranking) -> None:
        if op.packing is None or op.masks:
            raise PassFailedException(
                f"{at(op)}hdp attention needs a mask that is provably key "
                "padding (or none), the same for all attentions; use --target numpy for this model"
            )
        chain = _Chain(op, rule)
        if rule.name == "none":
            chain.finish(chain.scores(), None)
        elif rule.name == "spatten":
            chain.spatten(ranking)
        elif rule.name in ("energon", "sanger"):
            {"energon": chain.energon, "sanger": chain.sanger}[rule.name]()
        else:
            chain.blocks()


def _cascade_prunes(rules: Mapping[Operation, Rule]) -> bool:
    """Whether `spatten` leaves out a head anywhere: never in the first of its layers."""
    ranked = [(op, rule) for op, rule in rules.items() if rule.name == "spatten"]
    return any(
        heads_kept(op.heads.value.data, rule.ratio, layer, len(ranked)) < op.heads.value.data
        for layer, (op, rule) in enumerate(ranked)
        if isinstance(op, attn.SdpaOp)
    )


def _planned(plan: Plan, attentions: list[attn.SdpaOp]) -> dict[Operation, Rule]:
    """The rules of a plan by attention; `HeatcError` where it names a layer that is not there."""
    paths = [module_path(op) for op in attentions]
    for path in plan.rules:
        if path not in paths:
            raise _unknown_layer(plan, path, paths)
    rules: Mapping[str, Rule] = plan.rules
    return {op: rules.get(path, Rule()) for op, path in zip(attentions, paths)}


def _unknown_layer(plan: Plan, path: str, paths: list[str]) -> HeatcError:
    near = get_close_matches(path, paths, n=1)
    notes = [f"did you mean {near[0]!r}?"] if near else []
    known = sorted({p for p in paths if p})
    more = f", ... ({len(known)} in all)" if len(known) > 4 else ""
    notes.append(f"attentions: {', '.join(known[:4]) or 'none with a module path'}{more}")
    return HeatcError(
        f"layers[{path!r}]: the model has no such attention", place=plan.path, notes=notes
    )


def _check_masks(ops: Iterable[Operation]) -> None:
    """Either all attentions have the mask that became a packing, or none has one."""
    packed = [op for op in ops if isinstance(op, attn.SdpaOp) and op.packing is not None]
    masked, bare = ([op for op in packed if bool(op.masks) == has] for has in (True, False))
    if masked and bare:
        other = describe_location(masked[0])
        raise PassFailedException(
            f"{at(bare[0])}this attention has no mask, {f'that of {other}' if other else 'another'} "
            "has one: hdp attention needs the same mask for all; use --target numpy for this model"
        )


def _check_ranking(ops: list[attn.SdpaOp]) -> None:
    """Heads are ranked over layers: they must be the same heads of the same tokens."""
    for op in ops[1:]:
        if op.heads != ops[0].heads or op.packing is not ops[0].packing:
            raise PassFailedException(
                f"{at(op)}spatten ranks heads over layers of as many heads and "
                f"the same tokens, got {op.heads.value.data} heads after {ops[0].heads.value.data}"
            )
