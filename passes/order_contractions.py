"""
Contractions of three operands or more get the path of least cost.

Assumes the raised or packed level. Sets `path` on every `einsum.contract` of three operands or more
that has none: the exact optimum up to nine operands, with opt_einsum's proposals above. Rebuilding
a weight from its factors first is a path like any other, and wins where tokens are many. Options:
`objective` (macs, traffic, peak: the largest tensor that a step writes; latency, energy and edp
with the costs of a machine), `tokens` (what `?` counts as, by
default what the largest packing has room for). Exact: the same sums in another order.
Leaves the contractions as they are; `lower-contractions` follows the paths.

Example (test/passes/order_contractions.mlir): low-rank factors of one token meet it one after the
other, `path = #einsum.path<(0, 1), (3, 2)>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from heatc.dialects.einsum import ContractOp, PathAttr, WeightOp, parse_equation
from heatc.dialects.nn import TOKENS, shape_of
from heatc.passes.analysis.paths import Candidate, Network, Objective, StepCost, plan_paths
from heatc.passes.analysis.tokens import most_tokens
from heatc.passes.effect import Effect


def network_of(op: ContractOp, tokens: int) -> Network:
    """The network of a contraction, with a number for the extent of packed tokens."""
    terms, result = parse_equation(op.equation.data)
    extents = {
        letter: tokens if extent == TOKENS else extent
        for term, value in zip(terms, op.inputs)
        for letter, extent in zip(term, shape_of(value))
    }
    weights = [i for i, value in enumerate(op.inputs) if isinstance(value.owner, WeightOp)]
    return Network.of(terms, result, extents, weights)


def order(
    ops: Sequence[ContractOp], objective: Objective, tokens: int, cost: StepCost | None = None
) -> list[Candidate]:
    """
    Set the best path of every contraction and return them with their costs, in order.

    With `edp` the energy x latency of all of them together is least.
    """
    chosen = plan_paths([network_of(op, tokens) for op in ops], objective, cost)
    for op, candidate in zip(ops, chosen):
        op.path = PathAttr(candidate.path)
    return chosen


@dataclass(frozen=True)
class OrderContractionsPass(ModulePass):
    """Every n-ary contraction gets its cheapest path; exact."""

    name = "order-contractions"
    effect: ClassVar[Effect] = Effect.EXACT

    objective: Objective = "macs"
    tokens: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Set the `path` of the contractions that have none."""
        found = [
            inner
            for inner in op.walk()
            if isinstance(inner, ContractOp) and len(inner.inputs) > 2 and inner.path is None
        ]
        order(found, self.objective, self.tokens or most_tokens(op))
