"""
What layers cost on an HDP machine: cycles, joules and bytes of steps, linears and fused chains.

`layer_cost` says what a layer costs. It lowers a whole layer along a path as the pipeline does, and
times the instructions on the machine (`heatc.passes.tiling.scratch`). Its figures are kept. A layer
is counted at a number of tokens, from a standing start: weights that a program fetches for one
layer while another one computes are not taken into account.

`StepEstimate` only proposes paths. It prices a step of a path by formulas, quickly enough for the
dynamic programming over paths. The formulas, for m rows of k summed elements and n columns in codes
of 2 bytes:

- The PE arrays take up(m, rows) up(n, columns) folds of k cycles, and the cycles of the columns
  that drain, spread over the cores.
- The DMA engine takes the bytes over DRAM's bandwidth.
- A step takes the longer of the two.
- Joules are the machine's own costs of these multiply-accumulates, drains and bytes, and leakage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, reduce
from hashlib import sha256
from typing import TYPE_CHECKING

from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

from heatc.errors import InfeasibleError
from heatc.hardware import Hardware
from heatc.hardware.costs import leakage_watts
from heatc.isa.table import DTYPES
from heatc.passes.analysis.paths import (
    Candidate,
    Network,
    Objective,
    Path,
    Step,
    Term,
    best_path,
    count,
    left_to_right,
    path_front,
    prune,
)
from heatc.passes.tiling.packing import up

if TYPE_CHECKING:
    from heatc.passes.tiling.timing import Timed

_CODE, _ACC = DTYPES["i16"], DTYPES["acc"]
_ATTO = 1e-18


@dataclass(frozen=True)
class Cost:
    """
    Cycles, seconds, joules (leakage included), bytes of DRAM traffic, and bytes that the shared
    buffer gives and takes. All of it is modelled. Infinite cycles say that the machine cannot do
    it, for the reason in `refused`.
    """

    cycles: float
    seconds: float
    joules: float
    dram_bytes: float
    shared_bytes: float
    refused: str = ""

    @classmethod
    def of(cls, timed: Timed) -> Cost:
        """What was timed."""
        bytes_ = timed.dram_bytes, timed.shared_bytes
        return cls(timed.cycles, timed.seconds, timed.joules, *bytes_)

    def __add__(self, other: Cost) -> Cost:
        return self._with(other, 1)

    def __sub__(self, other: Cost) -> Cost:
        return self._with(other, -1)

    def _with(self, other: Cost, sign: int) -> Cost:
        return Cost(
            self.cycles + sign * other.cycles,
            self.seconds + sign * other.seconds,
            self.joules + sign * other.joules,
            self.dram_bytes + sign * other.dram_bytes,
            self.shared_bytes + sign * other.shared_bytes,
            self.refused or other.refused,
        )

    @property
    def text(self) -> str:
        """The cost in words."""
        return f"{self.cycles:.0f} cycles and {self.joules:.3g} J"

    def entry(self) -> dict[str, float | str]:
        """The cost as a remark has it; what is refused has no figures."""
        if not self.is_possible:
            return {"refused": self.refused}
        names = ("cycles", "seconds", "joules", "dram_bytes", "shared_bytes")
        return {name: getattr(self, name) for name in names}

    @property
    def is_possible(self) -> bool:
        """Whether the machine can do it."""
        return math.isfinite(self.cycles)


NOTHING = Cost(0, 0.0, 0.0, 0, 0)


def impossible(why: str) -> Cost:
    """What no machine of this kind does."""
    return Cost(math.inf, math.inf, math.inf, math.inf, math.inf, why)


# --- Estimates --------------------------------------------------------------------------------


@dataclass(frozen=True)
class StepEstimate:
    """
    Joules and seconds of a step by formulas; a `StepCost` of `heatc.passes.analysis.paths`.

    `fused`: what one step computes for another never leaves the chip. Where the summed axes of an
    activation lie is not known to a search over subsets; the cheaper place counts, and `LayerCosts`
    has the last word.
    """

    hardware: Hardware
    network: Network
    fused: bool

    def __call__(self, step: Step) -> tuple[float, float]:
        """Joules and seconds; weights alone cost nothing here, their result is what is fetched."""
        if step.fixed:
            return 0.0, 0.0
        x, w = self._sides(step)
        gone = set(x.letters) & set(w.letters)
        if self._holds_tokens(w.letters) or not gone or gone & set(step.result):
            return math.inf, math.inf
        extents = step.extents
        k = math.prod(extents[c] for c in gone)
        n = math.prod(extents[c] for c in w.letters if c not in gone)
        others = step.words(x.letters) // k
        tokens = extents[self.network.result[0]]
        read = 0 if self.fused and x.computed else step.words(x.letters)
        written = 0 if self.fused and step.result != self.network.result else others * n
        # The activation's rows times the weight, or the weight times each token's columns.
        ways = [self._product(others, k, n, 1), self._product(n, k, others // tokens, tokens)]
        cycles = ways[0] if others == tokens else min(ways)
        moved = _CODE * (read + written + step.words(w.letters))
        return self._priced(step, (others, k, n), cycles, moved)

    def _sides(self, step: Step) -> tuple[Term, Term]:
        """The activation and the weight."""
        if self._holds_tokens(step.left.letters):
            return step.left, step.right
        return step.right, step.left

    def _holds_tokens(self, letters: str) -> bool:
        return self.network.result[0] in letters

    def _product(self, rows: int, depth: int, columns: int, times: int) -> float:
        """Cycles of the PE arrays for some products of (rows, depth) by (depth, columns)."""
        hw = self.hardware
        folds = up(rows, hw.pe_rows) * up(columns, hw.pe_columns) * times
        return up(folds, hw.cores) * (depth + min(columns, hw.pe_columns))

    def _priced(
        self, step: Step, sizes: tuple[int, int, int], compute: float, moved: int
    ) -> tuple[float, float]:
        hw, (m, k, n) = self.hardware, sizes
        seconds = max(compute, moved / hw.dram_bytes_per_cycle) / hw.clock_hz
        streamed = m * k * up(n, hw.pe_columns) * _CODE
        local = n * k * up(m, hw.pe_rows) * _CODE + m * n * _ACC
        joules = (
            step.macs * hw.energy_mac_16x16_aj
            + m * n * hw.energy_requantise_aj
            + streamed * hw.energy_shared_read_aj
            + local * hw.energy_local_read_aj
            + m * n * (_ACC + _CODE) * hw.energy_local_write_aj
            + moved * (hw.energy_dram_read_aj + hw.energy_dma_aj)
        )
        return joules * _ATTO + seconds * sum(leakage_watts(hw).values()), seconds


# --- Layers -----------------------------------------------------------------------------------

_TIMED: dict[tuple[bytes, Hardware], Cost] = {}
"""Costs by the digest of a layer at the fixed level, and hardware: paths come to the same steps."""


@lru_cache(maxsize=4096)
def layer_cost(network: Network, path: Path, hw: Hardware, *, fused: bool) -> Cost:
    """
    What a layer costs along a path, `fused` as `fuse-einsums` fuses it.

    A path with a step that the machine has no product for, or whose tiles do not fit, is
    impossible. Raises `HeatcError` for a network that is no layer.
    """
    # Whoever only counts needs no tiler.
    from heatc.passes.tiling.scratch import scratch_layer

    module = scratch_layer(network, path, hw, fused=fused)
    key = sha256(str(module).encode()).digest(), hw
    if key not in _TIMED:
        _TIMED[key] = _timed(module, network.sizes[network.result[0]], hw)
    return _TIMED[key]


def _timed(module: ModuleOp, tokens: int, hw: Hardware) -> Cost:
    from heatc.passes.tiling.scratch import time_packing, time_scratch

    try:
        timed = time_scratch(module, hw)
    except PassFailedException as error:
        return impossible(str(error))
    except InfeasibleError as error:
        return impossible(error.message)
    return Cost.of(timed) - Cost.of(time_packing(tokens, hw))


@dataclass(frozen=True)
class Weighed:
    """A path of a layer, what it is called, and what it costs."""

    name: str
    path: Path
    cost: Cost


REBUILT, NAIVE, FEWEST = "weight rebuilt", "left to right", "fewest MACs"
"""Names of paths that are always weighed."""

QUICK = 7
"""Paths of a layer that a quick search times, some 80 ms each."""

HOPELESS = 1.5
"""A path whose estimated energy x latency is so many times the best run's is not timed."""

Run = tuple[frozenset[int], ...]
"""The weights that meet an activation one after the other, as the operands they are made of."""


def run_of(network: Network, path: Path) -> Run:
    """
    What a path does when the program runs: weights meet each other when it is compiled.

    Paths of one run are one program.
    """
    live = {i: frozenset([i]) for i in range(len(network.terms))}
    found: list[frozenset[int]] = []
    for number, pair in enumerate(path, len(network.terms)):
        a, b = (live.pop(i) for i in pair)
        live[number] = a | b
        if not network.weights.issuperset(a | b):
            found.append(b if network.weights.issuperset(b) else a)
    return tuple(found)


def path_of(network: Network, run: Run) -> Path:
    """A path that does a run: the weights of each group meet in order, then the activation."""
    operands = len(network.terms)
    path: list[tuple[int, int]] = []

    def join(a: int, b: int) -> int:
        path.append((a, b))
        return operands + len(path) - 1

    x = network.activation
    for group in run:
        x = join(x, reduce(join, sorted(group)))
    return tuple(path)


def neighbours(run: Run) -> Iterator[Run]:
    """Runs that differ in two steps side by side: both as one weight, or the other way round."""
    for i in range(len(run) - 1):
        yield (*run[:i], run[i] | run[i + 1], *run[i + 2 :])
        yield (*run[:i], run[i + 1], run[i], *run[i + 2 :])


class _Weighing:
    """Times paths of one layer, one of each run."""

    def __init__(self, network: Network, hw: Hardware, fused: bool, most: int | None):
        self.network, self.hw, self.fused, self.most = network, hw, fused, most
        self.estimate = StepEstimate(hw, network, fused)
        self.ways: dict[Run, Weighed] = {}

    @property
    def is_full(self) -> bool:
        """Whether no more paths are to be timed."""
        return self.most is not None and len(self.ways) >= self.most

    def estimated(self, path: Path) -> float:
        """Energy x latency of a path by formulas."""
        return count(self.network, path, self.estimate).value("edp")

    def add(self, path: Path, name: str) -> None:
        """Time a path, unless its run is known."""
        run = run_of(self.network, path)
        if run not in self.ways and not self.is_full:
            cost = layer_cost(self.network, path, self.hw, fused=self.fused)
            self.ways[run] = Weighed(name, path, cost)

    def descend(self) -> None:
        """
        Go on to the best neighbour of the best run, until there is no better one.

        Also from the best run of several steps: a weight rebuilt has no neighbours. Where few paths
        are to be timed, the first neighbour that is better is gone on to.
        """
        for shortest in (2, 1):
            known = [run for run in self.ways if len(run) >= shortest]
            while known:
                best = min(known, key=self._product)
                new = self._time_neighbours(best)
                known = [run for run in new if self._product(run) < self._product(best)]

    def _time_neighbours(self, best: Run) -> list[Run]:
        """Time the neighbours that are new and that the estimate does not rule out; returns them."""
        most = HOPELESS * self.estimated(path_of(self.network, best))
        new = [run for run in dict.fromkeys(neighbours(best)) if run not in self.ways]
        paths = {run: path_of(self.network, run) for run in new}
        estimates = {run: self.estimated(path) for run, path in paths.items()}
        timed: list[Run] = []
        for run in sorted((run for run in new if estimates[run] < most), key=estimates.__getitem__):
            self.add(paths[run], "neighbour")
            if run not in self.ways:
                return timed
            timed.append(run)
            if self.most is not None and self._product(run) < self._product(best):
                return timed
        return timed

    def _product(self, run: Run) -> float:
        cost = self.ways[run].cost
        return cost.joules * cost.seconds


@lru_cache(maxsize=512)
def weigh(
    network: Network, hw: Hardware, *, fused: bool = True, most: int | None = None
) -> tuple[Weighed, ...]:
    """
    The paths of a layer that are worth timing, with what they cost; one of those that come to the same.

    Naive, of fewest multiply-accumulates, of least traffic, rebuilding the weight; those that the
    estimate has on the front of energy and latency; and neighbours of the best of them, until none
    is better. With `most`, so many of them, and of the front the best. Raises `HeatcError` for a
    network that is no layer of one input.
    """
    weighing = _Weighing(network, hw, fused, most)
    weighing.add(path_of(network, (frozenset(network.weights),)), REBUILT)
    weighing.add(left_to_right(len(network.terms)), NAIVE)
    weighing.add(best_path(network, "macs").path, FEWEST)
    weighing.add(best_path(network, "traffic").path, "least traffic")
    front = path_front(network, "edp", weighing.estimate)
    likely = [candidate for candidate in front if math.isfinite(candidate.cost.energy)]
    likely.sort(key=lambda candidate: candidate.cost.value("edp"))
    for candidate in likely if most is None else likely[:1]:
        weighing.add(candidate.path, "estimate")
    weighing.descend()
    return tuple(weighing.ways.values())


def machine_front(
    network: Network,
    objective: Objective,
    hw: Hardware,
    *,
    fused: bool = True,
    most: int | None = None,
) -> tuple[Candidate, ...]:
    """
    The paths of a layer that a machine can follow and no other beats, with fused results or without.

    One, or for `edp` the front of energy and latency; `most` as for `weigh`. Raises
    `InfeasibleError` where there is none.
    """
    ways = weigh(network, hw, fused=fused, most=most)
    if not any(way.cost.is_possible for way in ways):
        ways = weigh(network, hw, fused=fused)
    found: list[Candidate] = []
    for way in ways:
        if way.cost.is_possible:
            cost = count(network, way.path)
            cost = replace(cost, energy=way.cost.joules, latency=way.cost.seconds)
            found.append(Candidate(way.path, cost))
    if not found:
        reasons = dict.fromkeys(way.cost.refused for way in ways)
        raise InfeasibleError(
            f"no path of {network.equation!r} runs on {hw.name}", notes=[*reasons]
        )
    return prune(found, objective)
