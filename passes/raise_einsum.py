"""
Linear layers and matrix products become contractions.

Assumes the captured level. Changes `nn.linear` into `einsum.contract` plus an `nn.add` of the
bias, and `nn.matmul` (mm, bmm, matmul) into `einsum.contract`. A matrix that is repeated along the
leading axes is taken once, and an axis of extent 1 that the other operand has more of is dropped.
Leaves everything else.

Example (test/passes/raise_einsum.mlir):
`nn.linear %x, %w, %b` on (1, 16, 4) becomes `einsum.contract "abi,oi->abo" %x, %w`, `nn.add`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.pattern_rewriter import (
    GreedyRewritePatternApplier,
    PatternRewriter,
    PatternRewriteWalker,
    RewritePattern,
    op_type_rewrite_pattern,
)

from heatc.dialects.einsum import ContractOp
from heatc.dialects.nn import AddOp, LinearOp, MatmulOp, ReshapeOp, shape_of
from heatc.passes.analysis.layout import grouped, layout_of
from heatc.passes.effect import Effect
from heatc.passes.rewriting import insert_before

_LEAD = "abcdefgh"


class RaiseLinear(RewritePattern):
    """`x @ w.T + b` is a contraction over the last axis of both, then a sum."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: LinearOp, rewriter: PatternRewriter) -> None:
        lead = _LEAD[: len(shape_of(op.x)) - 1]
        contract = ContractOp(f"{lead}i,oi->{lead}o", [op.x, op.weight], op.result.type)
        contract.location = op.location
        if op.bias is None:
            rewriter.replace(op, contract)
            return
        add = AddOp(contract.result, op.bias, op.result.type)
        add.location = op.location
        rewriter.replace(op, [contract, add])


class RaiseMatmul(RewritePattern):
    """
    A product is a contraction; an operand has the leading axes along which it is not repeated.

    A matrix that is spread along leading axes is taken once, as PyTorch takes linears apart.
    """

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: MatmulOp, rewriter: PatternRewriter) -> None:
        left, right = shape_of(op.lhs), shape_of(op.rhs)
        lead = _LEAD[: len(left) - 2]
        shared = _shared(op.rhs)
        if shared is not None and len(left) >= len(right):
            matrix, term = shared
            contract = ContractOp(f"{lead}mk,{term}->{lead}mn", [op.lhs, matrix], op.result.type)
            contract.location = op.location
            rewriter.replace(op, contract)
            return
        whole = shape_of(op.result)[:-2]
        lead, operands, terms = _LEAD[: len(whole)], list[SSAValue](), list[str]()
        for value, term in ((op.lhs, "mk"), (op.rhs, "kn")):
            own = shape_of(value)
            axes = range(len(own) - 2)
            kept = [a for a in axes if own[a] == whole[a - len(axes)]]
            if len(kept) < len(axes):
                matrix = ReshapeOp(value, [own[a] for a in (*kept, -2, -1)])
                matrix.location = op.location
                insert_before(op, matrix)
                value = matrix.result
            operands.append(value)
            terms.append("".join(lead[a - len(axes)] for a in kept) + term)
        contract = ContractOp(f"{','.join(terms)}->{lead}mn", operands, op.result.type)
        contract.location = op.location
        rewriter.replace(op, contract)


def _shared(value: SSAValue) -> tuple[SSAValue, str] | None:
    """The matrix that a right operand repeats along its leading axes, and its term; else None."""
    layout = layout_of(value, scaled=False)
    groups = grouped(layout.digits, layout.shape)
    root = shape_of(layout.root)
    if len(layout.shape) < 3 or len(root) != 2 or groups is None:
        return None
    *lead, inner, outer = groups
    if any(stride for group in lead for _, stride in group):
        return None
    for term, own in (("kn", (inner, outer)), ("nk", (outer, inner))):
        wanted = [
            [(root[0], root[1])] if root[0] > 1 else [],
            [(root[1], 1)] if root[1] > 1 else [],
        ]
        if list(own) == wanted:
            return layout.root, term
    return None


@dataclass(frozen=True)
class RaiseEinsumPass(ModulePass):
    """Linear layers and matrix products become `einsum.contract`; exact."""

    name = "raise-einsum"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        patterns = GreedyRewritePatternApplier([RaiseLinear(), RaiseMatmul()], dce_enabled=False)
        PatternRewriteWalker(patterns).rewrite_module(op)
