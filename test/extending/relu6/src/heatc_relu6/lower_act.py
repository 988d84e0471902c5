"""The ops of `act` become ops of `nn`; exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)

from heatc.dialects import nn
from heatc.passes.effect import Effect
from heatc_relu6.dialect import Relu6Op


class LowerRelu6(RewritePattern):
    """`act.relu6 %x` becomes relu(x) - relu(x - 6)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: Relu6Op, rewriter: PatternRewriter) -> None:
        six = nn.FullOp(6.0, TensorType(nn.element_of(op.x), ()))
        above = nn.SubOp(op.x, six.result, op.x.type)
        low, high = nn.ReluOp(op.x), nn.ReluOp(above.result)
        rewriter.replace(op, [six, above, low, high, nn.SubOp(low.result, high.result)])


@dataclass(frozen=True)
class LowerActPass(ModulePass):
    """The ops of `act` become ops of `nn`; exact."""

    name = "lower-act"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        PatternRewriteWalker(LowerRelu6()).rewrite_module(op)
