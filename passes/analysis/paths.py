"""
Contraction paths: what a path costs, and the cheapest one.

A path is written in single-assignment form: the operands of a contraction of n tensors are
numbers 0 to n-1, step k contracts two numbers and its result is number n+k. Up to `EXACT`
operands the search is dynamic programming over subsets and exact (outer products included);
above, opt_einsum's `dp` proposes paths, and heatc's own count decides between them.

Equations: a pairwise step costs the product of the extents of all indices of its two operands,
in multiply-accumulates; it moves each operand and its result once, in words. An index survives
a step where the result or any tensor that is still to come has it, so that an index shared by
more than two tensors (a hyper-edge: the rank of CP, a batch index) is summed exactly once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from itertools import pairwise
from typing import Any, Literal, Protocol, TypeAlias

from heatc.errors import HeatcError

Path: TypeAlias = tuple[tuple[int, int], ...]
Objective: TypeAlias = Literal["macs", "traffic", "peak", "latency", "energy", "edp"]

OBJECTIVES: tuple[Objective, ...] = ("macs", "traffic", "peak", "latency", "energy", "edp")
COUNTED = ("macs", "traffic", "peak")
"""The objectives that need no machine."""

EXACT = 9
"""The largest number of operands for which the search is exact."""


@dataclass(frozen=True)
class Network:
    """
    The tensors of one contraction: a term for each operand, the result, the extent of each index.

    `weights` says which operands are read from the weights; the others are activations.
    """

    terms: tuple[str, ...]
    result: str
    extents: tuple[tuple[str, int], ...]
    weights: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls,
        terms: Sequence[str],
        result: str,
        extents: Mapping[str, int],
        weights: Iterable[int] = (),
    ) -> Network:
        """A network; raises `ValueError` where an index has no extent."""
        letters = set("".join(terms)) | set(result)
        missing = sorted(letters - set(extents))
        if missing:
            raise ValueError(f"index {missing[0]!r} has no extent")
        sizes = tuple((c, extents[c]) for c in sorted(letters))
        return cls(tuple(terms), result, sizes, frozenset(weights))

    @property
    def equation(self) -> str:
        """The equation of the whole contraction."""
        return f"{','.join(self.terms)}->{self.result}"

    @property
    def sizes(self) -> dict[str, int]:
        """The extent of each index."""
        return dict(self.extents)

    @property
    def is_layer(self) -> bool:
        """Whether it is one activation, tokens first in it and in the result, and weights."""
        inputs = [i for i in range(len(self.terms)) if i not in self.weights]
        return len(inputs) == 1 and self.result[:1] == self.terms[inputs[0]][:1] != ""

    @property
    def activation(self) -> int:
        """The operand of a layer that is no weight; raises `HeatcError` for what is no layer."""
        if not self.is_layer:
            raise HeatcError(f"{self.equation!r} is no layer of one input, tokens first")
        return next(i for i in range(len(self.terms)) if i not in self.weights)


@dataclass(frozen=True)
class Term:
    """An operand of a step: its indices, whether it is a weight, whether a step computed it."""

    letters: str
    weight: bool = False
    computed: bool = False


@dataclass(frozen=True)
class Step:
    """
    One pairwise contraction.

    `result` holds the indices that survive; `fixed` says that it depends on weights only.
    """

    left: Term
    right: Term
    result: str
    extents: Mapping[str, int] = field(hash=False)
    fixed: bool = False

    def words(self, letters: str) -> int:
        """The number of elements of a tensor with these indices."""
        return math.prod(self.extents[c] for c in dict.fromkeys(letters))

    @property
    def macs(self) -> int:
        """Multiply-accumulates: the product of the extents of all indices."""
        return self.words(self.left.letters + self.right.letters)

    @property
    def traffic(self) -> int:
        """Words moved if each operand is read and the result written once."""
        return sum(map(self.words, (self.left.letters, self.right.letters, self.result)))


class StepCost(Protocol):
    """What a pairwise step costs on a machine."""

    def __call__(self, step: Step) -> tuple[float, float]:
        """Energy in J and latency in s."""
        ...


@dataclass(frozen=True)
class PathCost:
    """
    What a path costs: `macs`, `traffic` and `peak` (the largest tensor that a step writes) in
    words; `energy` in J and `latency` in s are 0 where no machine was given.
    """

    macs: int
    traffic: int
    peak: int
    energy: float = 0.0
    latency: float = 0.0

    def value(self, objective: Objective) -> float:
        """The figure that an objective minimises."""
        return self.energy * self.latency if objective == "edp" else getattr(self, objective)


# ---- counting ---------------------------------------------------------------------------------


def check_path(path: Sequence[Sequence[int]], operands: int) -> None:
    """Raise `ValueError` where a path is none of `operands` tensors."""
    live = set(range(operands))
    if len(path) != max(operands - 1, 0):
        raise ValueError(f"expected {max(operands - 1, 0)} steps, got {len(path)}")
    for number, pair in enumerate(path, operands):
        if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= live:
            raise ValueError(f"step {number - operands} contracts {tuple(pair)} of {sorted(live)}")
        live = live - set(pair) | {number}


def steps(network: Network, path: Path) -> Iterator[Step]:
    """The pairwise steps of a path, in order; raises `ValueError` for a path that is none."""
    check_path(path, len(network.terms))
    sizes = network.sizes
    live = {
        i: (Term(term, i in network.weights), i in network.weights)
        for i, term in enumerate(network.terms)
    }
    for number, (a, b) in enumerate(path, len(network.terms)):
        (left, left_fixed), (right, right_fixed) = live.pop(a), live.pop(b)
        wanted = {c for term, _ in live.values() for c in term.letters} | set(network.result)
        letters = dict.fromkeys(left.letters + right.letters)
        result = "".join(c for c in letters if c in wanted)
        fixed = left_fixed and right_fixed
        yield Step(left, right, result if live else network.result, sizes, fixed)
        live[number] = (Term(result, computed=True), fixed)


def count(network: Network, path: Path, cost: StepCost | None = None) -> PathCost:
    """What a path costs, counted step by step."""
    macs = traffic = peak = 0
    energy = latency = 0.0
    for step in steps(network, path):
        macs += step.macs
        traffic += step.traffic
        peak = max(peak, step.words(step.result))
        if cost is not None:
            joules, seconds = cost(step)
            energy, latency = energy + joules, latency + seconds
    return PathCost(macs, traffic, peak, energy, latency)


def left_to_right(operands: int) -> Path:
    """The naive path: each operand in turn joins what was contracted before."""
    if operands < 2:
        return ()
    return ((0, 1), *((operands + k, k + 2) for k in range(operands - 2)))


def from_linear(path: Sequence[Sequence[int]], operands: int) -> Path:
    """
    A path as opt_einsum writes it (positions in the list of what is left), in our form.

    Raises `ValueError` for a step of more than two tensors.
    """
    live = list(range(operands))
    result: list[tuple[int, int]] = []
    for number, pair in enumerate((p for p in path if len(p) > 1), operands):
        if len(pair) > 2:
            raise ValueError(f"step {tuple(pair)} contracts {len(pair)} tensors at once")
        first, second = (live[i] for i in pair)
        live = [n for n in live if n not in (first, second)] + [number]
        result.append((first, second))
    return tuple(result)


def to_linear(path: Path, operands: int) -> list[tuple[int, int]]:
    """A path as opt_einsum and `numpy.einsum` take it."""
    live = list(range(operands))
    result: list[tuple[int, int]] = []
    for number, (a, b) in enumerate(path, operands):
        result.append((live.index(a), live.index(b)))
        live = [n for n in live if n not in (a, b)] + [number]
    return result


# ---- the search -------------------------------------------------------------------------------

_Tree: TypeAlias = "int | tuple[_Tree, _Tree]"
_Value: TypeAlias = tuple[float, float]
_Front: TypeAlias = list[tuple[_Value, _Tree]]


@dataclass(frozen=True)
class Candidate:
    """A path and what it costs."""

    path: Path
    cost: PathCost


def best_path(network: Network, objective: Objective, cost: StepCost | None = None) -> Candidate:
    """
    The cheapest path of one contraction; `edp` minimises this contraction's own energy x latency.

    Raises `HeatcError` where the objective needs a machine and none is given, or where a
    contraction of more than `EXACT` operands finds no opt_einsum.
    """
    front = path_front(network, objective, cost)
    return min(front, key=lambda c: (c.cost.value(objective), c.cost.macs, c.cost.traffic))


def path_front(
    network: Network, objective: Objective, cost: StepCost | None = None
) -> tuple[Candidate, ...]:
    """The paths worth keeping: one, or for `edp` the Pareto set of energy and latency."""
    if objective not in COUNTED and cost is None:
        raise HeatcError(
            f"objective {objective!r} needs the costs of a machine",
            notes=[f"counted without one: {', '.join(COUNTED)}"],
        )
    operands = len(network.terms)
    if operands < 2:
        return (Candidate((), PathCost(0, 0, 0)),)
    if operands <= EXACT:
        trees = [tree for _, tree in _Search(network, objective, cost).run()]
        paths = [_path_of(tree, operands) for tree in trees]
    else:
        paths = _proposals(network)
    candidates = (Candidate(path, count(network, path, cost)) for path in paths)
    return prune(candidates, objective)


def prune(candidates: Iterable[Candidate], objective: Objective) -> tuple[Candidate, ...]:
    """The best of at least one candidate, or for `edp` those that none beats in both."""
    found = list(candidates)
    if objective != "edp":
        best = min(found, key=lambda c: (c.cost.value(objective), c.cost.macs, c.cost.traffic))
        return (best,)
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda c: (c.cost.energy, c.cost.latency)):
        if not kept or one.cost.latency < kept[-1].cost.latency:
            kept.append(one)
    return tuple(kept)


def _path_of(tree: _Tree, operands: int) -> Path:
    path: list[tuple[int, int]] = []

    def visit(node: _Tree) -> int:
        if isinstance(node, int):
            return node
        pair = visit(node[0]), visit(node[1])
        path.append(pair)
        return operands + len(path) - 1

    visit(tree)
    return tuple(path)


class _Search:
    """Dynamic programming over the subsets of a network's operands, each a bit mask."""

    def __init__(self, network: Network, objective: Objective, cost: StepCost | None):
        self.network = network
        self.objective = objective
        self.cost = cost
        self.sizes = network.sizes
        letters = [frozenset(term) for term in network.terms]
        self.operands = len(letters)
        self.everything = (1 << self.operands) - 1
        self.own = [
            frozenset[str]().union(*(s for i, s in enumerate(letters) if mask >> i & 1))
            for mask in range(self.everything + 1)
        ]
        self.words = cache(self._words)

    def _words(self, letters: frozenset[str]) -> int:
        return math.prod(self.sizes[c] for c in letters)

    def _outside(self, mask: int) -> frozenset[str]:
        """The indices of the tensor that the subset `mask` contracts to."""
        if mask & (mask - 1) == 0:
            return self.own[mask]
        wanted = self.own[self.everything & ~mask] | set(self.network.result)
        return self.own[mask] & wanted

    def run(self) -> _Front:
        """The front of the whole network."""
        self.outside = [self._outside(mask) for mask in range(self.everything + 1)]
        fronts: dict[int, _Front] = {1 << i: [((0.0, 0.0), i)] for i in range(self.operands)}
        for mask in sorted(range(1, self.everything + 1), key=int.bit_count):
            if mask not in fronts:
                fronts[mask] = self._reduce(self._joined(mask, fronts))
        return fronts[self.everything]

    def _joined(self, mask: int, fronts: Mapping[int, _Front]) -> Iterator[tuple[_Value, _Tree]]:
        """Every way to contract a subset: split in two, the lowest operand on the left."""
        lowest = mask & -mask
        rest = mask ^ lowest
        part = rest
        while part:
            part = (part - 1) & rest
            left, right = part | lowest, mask ^ (part | lowest)
            added = self._step(left, right, mask)
            for a, tree_a in fronts[left]:
                for b, tree_b in fronts[right]:
                    yield self._sum(a, b, added), (tree_a, tree_b)

    def _step(self, left: int, right: int, mask: int) -> _Value:
        a, b, out = self.outside[left], self.outside[right], self.outside[mask]
        if self.objective in COUNTED:
            macs = self.words(a | b)
            traffic = self.words(a) + self.words(b) + self.words(out)
            peak = self.words(out)
            first = {"macs": macs, "traffic": traffic, "peak": peak}[self.objective]
            return first, traffic if self.objective == "macs" else macs
        assert self.cost is not None
        fixed = all(i in self.network.weights for i in range(self.operands) if mask >> i & 1)
        step = Step(self._term(left), self._term(right), self._text(out, mask), self.sizes, fixed)
        joules, seconds = self.cost(step)
        return (seconds, joules) if self.objective == "latency" else (joules, seconds)

    def _term(self, mask: int) -> Term:
        if mask & (mask - 1):
            return Term(self._text(self.outside[mask], mask), computed=True)
        number = mask.bit_length() - 1
        return Term(self.network.terms[number], number in self.network.weights)

    def _text(self, letters: frozenset[str], mask: int) -> str:
        return self.network.result if mask == self.everything else "".join(sorted(letters))

    def _sum(self, a: _Value, b: _Value, added: _Value) -> _Value:
        first = max if self.objective == "peak" else _add
        return first(first(a[0], b[0]), added[0]), a[1] + b[1] + added[1]

    def _reduce(self, candidates: Iterable[tuple[_Value, _Tree]]) -> _Front:
        """The best candidate, or for `edp` those that no other beats in energy and latency."""
        if self.objective != "edp":
            return [min(candidates, key=lambda c: c[0])]
        front: _Front = []
        for one in sorted(candidates, key=lambda c: c[0]):
            if not front or one[0][1] < front[-1][0][1]:
                front.append(one)
        return front


def _add(a: float, b: float) -> float:
    return a + b


def _proposals(network: Network) -> list[Path]:
    """Paths of a large contraction by opt_einsum's dynamic programming, by what it can minimise."""
    try:
        opt_einsum: Any = import_module("opt_einsum")
    except ImportError:
        raise HeatcError(
            f"a contraction of {len(network.terms)} operands needs opt_einsum for its path",
            notes=["pip install 'heatc[heat]'"],
        ) from None
    inputs = [set(term) for term in network.terms]
    found: list[Path] = [left_to_right(len(inputs))]
    for wish in ("flops", "size", "write"):
        search = opt_einsum.DynamicProgramming(minimize=wish)
        found.append(from_linear(search(inputs, set(network.result), network.sizes), len(inputs)))
    return found


# ---- the whole model --------------------------------------------------------------------------


def plan_paths(
    networks: Sequence[Network], objective: Objective, cost: StepCost | None = None
) -> list[Candidate]:
    """
    A path for every contraction of a model, in order.

    `edp` minimises energy x latency of the sum over all contractions. The optimum lies on the
    convex hull of the sums, so one weight between energy and latency serves all contractions:
    every weight at which some choice changes is tried.
    """
    known: dict[Network, tuple[Candidate, ...]] = {}
    for network in networks:
        if network not in known:
            known[network] = path_front(network, objective, cost)
    fronts = [known[network] for network in networks]
    if objective != "edp":
        return [front[0] for front in fronts]
    return least_product(fronts)


def least_product(
    fronts: Sequence[tuple[Candidate, ...]], energy: float = 0.0, latency: float = 0.0
) -> list[Candidate]:
    """
    One candidate of each front, so that energy x latency of their sums is least.

    `energy` in J and `latency` in s are what the rest of the model takes.
    """
    distinct = set(fronts)
    angles = sorted({angle for front in distinct for angle in _turns(front)})
    between = [(a + b) / 2 for a, b in pairwise(angles)]
    best: tuple[float, list[Candidate]] | None = None
    for angle in (0.0, *angles, *between, math.pi / 2):
        choice = {front: min(front, key=_weighted(angle)) for front in distinct}
        picked = [choice[front] for front in fronts]
        joules = energy + sum(c.cost.energy for c in picked)
        product = joules * (latency + sum(c.cost.latency for c in picked))
        if best is None or product < best[0]:
            best = product, picked
    assert best is not None
    return best[1]


def _turns(front: Sequence[Candidate]) -> Iterator[float]:
    """The weights, as angles, at which the choice between two candidates of a front changes."""
    for i, a in enumerate(front):
        for b in front[i + 1 :]:
            yield math.atan2(b.cost.energy - a.cost.energy, a.cost.latency - b.cost.latency)


def _weighted(angle: float) -> Callable[[Candidate], tuple[float, float]]:
    """Energy and latency in one figure; at an angle of 0 energy alone, at a right angle latency."""
    energy, latency = math.cos(angle), math.sin(angle)
    return lambda c: (energy * c.cost.energy + latency * c.cost.latency, c.cost.energy)
