"""
Every op is told what the plan says of it.

Assumes the raised or packed level. The plan is the context's. An attention gets the plan's rule for
its module path as `rule`, the rule `none` where the plan does not name it; linears and embedding
tables get format, shape, ranks and path as `format`, with all uses of a weight that modules share.
A plan that names what the model has not, or whose ranks or values per head do not fit, is refused.
Exact: attributes alone. Leaves it to `heat-decompose` and `insert-hdp` to do as they are told, and
to `fuse-einsums` what the plan says of results between steps.

Example (test/passes/apply_plan.mlir): `attn.sdpa` of `encoder.0` gets `rule = #attn.rule<"topk",
{density = 2.500000e-01 : f64, ...}>`, and a linear gets `format = #einsum.format<"low-rank", "4|6",
[2]>`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

from heatc.context import plan_of
from heatc.dialects import attn
from heatc.dialects.attn_rule import RuleAttr
from heatc.dialects.einsum_format import FormatAttr, Planned
from heatc.errors import HeatcError
from heatc.heat.plan import LayerHeat
from heatc.passes.effect import Effect
from heatc.passes.factorising.targets import Target, find_targets
from heatc.passes.rewriting import at, module_path, remark
from heatc.plan import Plan
from heatc.rules import Rule, RuleError


@dataclass(frozen=True)
class ApplyPlanPass(ModulePass):
    """Attentions get the rules of the plan, layers its formats; exact."""

    name = "apply-plan"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """
        Set the attributes in place.

        Raises `HeatcError` without a plan and for one that does not fit the model,
        `PassFailedException` for values per head that do not fit the heads.
        """
        plan = plan_of(ctx)
        if plan is None:
            raise HeatcError("there is no plan to apply", notes=["give --plan plan.json"])
        _apply_rules(ctx, plan, [o for o in op.walk() if isinstance(o, attn.SdpaOp)])
        _apply_formats(plan, op)


# --- Attention --------------------------------------------------------------------------------


def _apply_rules(ctx: Context, plan: Plan, attentions: Sequence[attn.SdpaOp]) -> None:
    paths = [module_path(op) for op in attentions]
    for path in plan.rules:
        if path not in paths:
            raise _no_attention(plan, path, paths)
    for op, path in zip(attentions, paths):
        rule = plan.rules.get(path, Rule())
        try:
            rule.check_heads(op.heads.value.data)
        except RuleError as error:
            raise PassFailedException(f"{at(op)}{error}") from error
        by = "by" if path in plan.rules else "not named in"
        remark(ctx, op, f"attention rule {rule}: {by} {plan.path}")
        op.rule = RuleAttr.of(rule)


def _no_attention(plan: Plan, path: str, paths: Sequence[str]) -> HeatcError:
    near = difflib.get_close_matches(path, paths, n=1)
    notes = [f"did you mean {near[0]!r}?"] if near else []
    known = sorted({p for p in paths if p})
    more = f", ... ({len(known)} in all)" if len(known) > 4 else ""
    notes.append(f"attentions: {', '.join(known[:4]) or 'none with a module path'}{more}")
    return HeatcError(
        f"layers[{path!r}]: the model has no such attention", place=plan.path, notes=notes
    )


# --- Layers -----------------------------------------------------------------------------------


def _apply_formats(plan: Plan, module: ModuleOp) -> None:
    if not plan.heat:
        return
    targets = [t for kind in (False, True) for t in find_targets(module, "*", tables=kind)]
    first = {name: t.path for t in targets for name in t.owners}
    for name in sorted(plan.heat.keys() - {t.path for t in targets}):
        raise _no_layer(plan, name, first)
    for target in targets:
        if target.path in plan.heat:
            target.op.planned = _format(plan, target, plan.heat[target.path])


def _no_layer(plan: Plan, name: str, first: Mapping[str, str]) -> HeatcError:
    """The error about a layer that is not there; `first` has the path of each owner's weight."""
    if name in first:
        return HeatcError(
            f"layers[{name!r}]: this layer shares its weight with {first[name]!r}",
            place=plan.path,
            notes=[f"name {first[name]!r}, which stands for all its uses"],
        )
    near = difflib.get_close_matches(name, first, n=1)
    return HeatcError(
        f"layers[{name!r}]: the model has no such layer",
        place=plan.path,
        notes=[f"did you mean {first[near[0]]!r}?"] if near else [],
    )


def _format(plan: Plan, target: Target, heat: LayerHeat) -> FormatAttr:
    """What a plan says of a layer; ranks that no factor needs are refused."""
    try:
        spec = heat.spec(target.inputs, target.outputs, is_table=target.is_table)
    except HeatcError as error:
        message = f"layers[{target.path!r}].heat.{error.message}"
        raise HeatcError(message, place=plan.path) from None
    return FormatAttr(Planned(spec.format, spec.shape, spec.ranks, heat.path))
