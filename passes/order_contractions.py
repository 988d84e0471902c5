"""
Contractions of three operands or more get the path of least cost.

Assumes the raised or packed level. Sets `path` on every `einsum.contract` of three operands or more
that has none: the exact optimum up to nine operands, with opt_einsum's proposals above. Rebuilding
a weight from its factors first is a path like any other, and wins where tokens are many. Options:

- objective: macs, traffic or peak (the largest tensor that a step writes); or latency, energy or
  edp on the machine of the context. Paths are then timed as they would be compiled for the machine, with
  results on the chip where `fuse-einsums` keeps them. Paths that the machine has no products for
  are passed over. With edp the energy x latency of the whole module is least: linears, attention as
  if it were dense, and the host's part. A remark says which path a layer got and what else was
  weighed.
- search: `quick` (the default) times the seven likeliest paths of a layer, `long` goes on until no
  neighbour of the best is better.
- tokens: what `?` counts as, by default what the largest packing has room for.

Exact: the same sums in another order. Leaves the contractions as they are; `lower-contractions`
follows the paths.

Example (test/passes/order_contractions.mlir): low-rank factors of one token meet it one after the
other, `path = #einsum.path<(0, 1), (3, 2)>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from heatc.context import machine_of
from heatc.dialects.einsum import ContractOp, PathAttr, WeightOp, parse_equation
from heatc.dialects.nn import TOKENS, shape_of
from heatc.errors import HeatcError, InfeasibleError
from heatc.hardware import Hardware
from heatc.passes.analysis.costs import (
    NAIVE,
    NOTHING,
    QUICK,
    REBUILT,
    Cost,
    Weighed,
    layer_cost,
    machine_front,
    path_of,
    weigh,
)
from heatc.passes.analysis.paths import (
    COUNTED,
    Candidate,
    Network,
    Objective,
    Path,
    PathCost,
    best_path,
    count,
    least_product,
    left_to_right,
    plan_paths,
)
from heatc.passes.analysis.rest import rest_of_model
from heatc.passes.analysis.tokens import most_tokens
from heatc.passes.effect import Effect
from heatc.passes.factorising.targets import layer_path
from heatc.passes.rewriting import describe_location, module_path, remark


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
    ctx: Context,
    ops: Sequence[ContractOp],
    objective: Objective,
    tokens: int,
    hw: Hardware | None = None,
    rest: Cost = NOTHING,
    most: int | None = None,
) -> list[Candidate]:
    """
    Set the best path of every contraction and return them with their costs, in order.

    With `edp` energy x latency of all of them and the `rest` of the model together is least; `most`
    is how many paths of each are timed on the machine, None for all that are worth it. Raises
    `HeatcError` where the objective needs a machine and there is none, `InfeasibleError` for a
    layer that has no path on it.
    """
    networks = [network_of(op, tokens) for op in ops]
    if hw is None or objective in COUNTED:
        chosen = plan_paths(networks, objective)
    else:
        fronts = [_front(op, n, objective, hw, most) for op, n in zip(ops, networks)]
        firsts = [front[0] for front in fronts]
        product = objective == "edp"
        chosen = least_product(fronts, rest.joules, rest.seconds) if product else firsts
    for op, network, candidate in zip(ops, networks, chosen):
        op.path = PathAttr(candidate.path)
        if not network.is_layer:
            continue
        if hw is not None and objective not in COUNTED:
            _remark(ctx, op, network, hw, candidate, objective, most)
        else:
            _remark_counted(ctx, op, network, candidate, objective)
    return chosen


def rest_of(module: ModuleOp, ops: Sequence[ContractOp], tokens: int, hw: Hardware) -> Cost:
    """What a module takes beside some contractions: other linears, attention, and the host's part."""
    cost = rest_of_model(module, tokens, hw)
    for op in module.walk():
        if isinstance(op, ContractOp) and op not in ops and len(op.inputs) == 2:
            network = network_of(op, tokens)
            linear = (
                layer_cost(network, ((0, 1),), hw, fused=False) if network.is_layer else NOTHING
            )
            cost = cost + linear if linear.is_possible else cost
    return cost


def _front(
    op: ContractOp, network: Network, objective: Objective, hw: Hardware, most: int | None
) -> tuple[Candidate, ...]:
    """The paths worth choosing from; of what is no layer the one of fewest multiply-accumulates."""
    if not network.is_layer:
        return (best_path(network, "macs"),)
    try:
        return machine_front(network, objective, hw, most=most)
    except InfeasibleError as error:
        place = describe_location(op)
        raise InfeasibleError(error.message, place=place, notes=error.notes) from None


def _remark(
    ctx: Context,
    op: ContractOp,
    network: Network,
    hw: Hardware,
    candidate: Candidate,
    objective: Objective,
    most: int | None,
) -> None:
    """Say what a layer's path is, what it costs, and what the others cost."""
    ways = weigh(network, hw, fused=True, most=most)
    if all(way.path != candidate.path for way in ways):
        ways = weigh(network, hw, fused=True)
    (mine,) = (way for way in ways if way.path == candidate.path)
    name = _layer_of(op)
    others = [w for w in ways if w.path != mine.path and w.cost.is_possible]
    told = f"{mine.cost.text} ({mine.name})"
    if mine.name == REBUILT:
        text = f"{name} stays dense because its weight rebuilt takes {told}"
    else:
        text = f"{name}: the path of least {objective} takes {told}"
    if others:
        best = min(others, key=lambda way: way.cost.joules * way.cost.seconds)
        text += f", the next one {best.cost.text} ({best.name})"
    unfused = layer_cost(network, mine.path, hw, fused=False).entry()
    chosen = {**_entry(mine), "unfused": unfused}
    weighed = [_entry(way) for way in ways]
    remark(ctx, op, text, layer=name, chosen=chosen, weighed=weighed, shown=False)


def _remark_counted(
    ctx: Context, op: ContractOp, network: Network, candidate: Candidate, objective: Objective
) -> None:
    """As `_remark`, where multiply-accumulates and words are counted."""
    others = {
        NAIVE: left_to_right(len(network.terms)),
        REBUILT: path_of(network, (frozenset(network.weights),)),
    }
    costs = {name: count(network, path) for name, path in others.items()}
    name, mine = _layer_of(op), candidate.cost
    told = f"{mine.value(objective):.0f}"
    beside = ", ".join(f"{how} {cost.value(objective):.0f}" for how, cost in costs.items())
    text = f"{name}: the path of least {objective} takes {told}; {beside}"
    if mine == costs[REBUILT]:
        text = f"{name} stays dense because its weight rebuilt takes least {objective}, {told}"
    weighed = [_counted(how, others[how], cost) for how, cost in costs.items()]
    chosen = _counted(f"least {objective}", candidate.path, mine)
    remark(ctx, op, text, layer=name, chosen=chosen, weighed=weighed, shown=False)


def _counted(name: str, path: Path, cost: PathCost) -> Mapping[str, Any]:
    found: dict[str, Any] = {"name": name, "path": [list(pair) for pair in path]}
    return found | {"macs": cost.macs, "words": cost.traffic, "largest_words": cost.peak}


def _layer_of(op: ContractOp) -> str:
    """The module path of the layer that a contraction's weights belong to."""
    layer = next((layer_path(v.owner) for v in op.inputs if isinstance(v.owner, WeightOp)), "")
    return layer or module_path(op)


def _entry(way: Weighed) -> Mapping[str, Any]:
    path = [list(pair) for pair in way.path]
    return {"name": way.name, "path": path, **way.cost.entry()}


@dataclass(frozen=True)
class OrderContractionsPass(ModulePass):
    """Every n-ary contraction gets its cheapest path; exact."""

    name = "order-contractions"
    effect: ClassVar[Effect] = Effect.EXACT

    objective: Objective = "macs"
    tokens: int = 0
    search: Literal["quick", "long"] = "quick"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Set the `path` of the contractions that have none."""
        hardware = machine_of(ctx)
        if self.objective not in COUNTED and hardware is None:
            raise HeatcError(
                f"objective {self.objective!r} needs a machine: give --hw",
                notes=[f"without one: {', '.join(COUNTED)}"],
            )
        found = [
            inner
            for inner in op.walk()
            if isinstance(inner, ContractOp) and len(inner.inputs) > 2 and inner.path is None
        ]
        tokens, rest = self.tokens or most_tokens(op), NOTHING
        if found and hardware is not None and self.objective == "edp":
            rest = rest_of(op, found, tokens, hardware)
        most = QUICK if self.search == "quick" else None
        order(ctx, found, self.objective, tokens, hardware, rest, most)
