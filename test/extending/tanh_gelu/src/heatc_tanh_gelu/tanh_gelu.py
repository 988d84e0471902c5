"""The exact GELU becomes its approximation with tanh; changes values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)

from heatc.dialects import nn
from heatc.passes.effect import Effect
from heatc.passes.rewriting import remark


@dataclass(frozen=True)
class ApproximateGelu(RewritePattern):
    """`nn.gelu` with erf becomes `nn.gelu` with tanh."""

    ctx: Context

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: nn.GeluOp, rewriter: PatternRewriter) -> None:
        if op.approximate.data == "none":
            remark(self.ctx, op, "gelu is approximated with tanh")
            rewriter.replace(op, nn.GeluOp(op.x, "tanh", op.result.type))


@dataclass(frozen=True)
class TanhGeluPass(ModulePass):
    """The exact GELU becomes its approximation with tanh; changes values."""

    name = "tanh-gelu"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        PatternRewriteWalker(ApproximateGelu(ctx)).rewrite_module(op)
