"""
The front of a whole plan's accuracy proxy and energy x latency.

A plan is one option for each layer. Proxy, joules and seconds are sums over layers and the rest of
the model. NSGA-II (pymoo, by ask and tell) goes in epochs. Each epoch has a random state of its
own, made of seed and epoch, so that a search that goes on from a kept epoch takes the same way.

The search starts from plans that sums alone can find: for every price of the proxy the plan of each
layer's best option, and uniform settings. The archive has every plan seen that no other plan beats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.errors import HeatcError
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.search.result_cache import ResultCache

Reals = NDArray[np.float64]
Plans = NDArray[np.int64]
"""(plans, layers): the number of each layer's option."""

POPULATION = 200
EPOCHS = 12
GENERATIONS = 25
"""Of each epoch."""

EXHAUSTIVE = 20_000
"""Plans of a space that is looked at as a whole instead."""

PRICES = 400
"""Prices of the proxy that are swept for a start."""

_LEAST = 1e-12


@dataclass(frozen=True)
class PlanSpace:
    """
    Options of each layer by ascending error, and what they add to the whole.

    Attributes:
        proxies, joules, seconds: (options,) for each layer; the first option is the dense layer.
        rest_joules, rest_seconds: of the rest of the model.
    """

    proxies: tuple[Reals, ...]
    joules: tuple[Reals, ...]
    seconds: tuple[Reals, ...]
    rest_joules: float
    rest_seconds: float

    @property
    def sizes(self) -> Plans:
        """(layers,): the number of options."""
        return np.array([len(p) for p in self.proxies], np.int64)

    def proxy(self, plans: Plans) -> Reals:
        """(plans,) sums over layers."""
        return _sum(self.proxies, plans)

    def costs(self, plans: Plans) -> tuple[Reals, Reals]:
        """Joules and seconds of the whole model, (plans,) each."""
        joules = self.rest_joules + _sum(self.joules, plans)
        return joules, self.rest_seconds + _sum(self.seconds, plans)

    def objectives(self, plans: Plans) -> Reals:
        """(plans, 2): proxy, and energy x latency in J s."""
        joules, seconds = self.costs(plans)
        return np.stack([self.proxy(plans), joules * seconds], axis=1)


def _sum(parts: Sequence[Reals], plans: Plans) -> Reals:
    total = np.zeros(len(plans))
    for layer, part in enumerate(parts):
        total += part[plans[:, layer]]
    return total


def every_plan(space: PlanSpace) -> Plans:
    """All plans of a small space, (plans, layers), the dense one first."""
    shape = option_numbers(space.sizes)
    return np.indices(shape).reshape(len(shape), -1).T.astype(np.int64)


# ---- initial plans ----------------------------------------------------------------------------


def sweep_prices(space: PlanSpace) -> Plans:
    """
    Each layer's best option at every price of the proxy against energy x latency.

    The logarithm of the product changes by dE / E + dT / T, E and T being those of the plan that
    the price leads to: found by going on from the plan of the price before.
    """
    plans: list[list[int]] = []
    plan = np.zeros((1, len(space.proxies)), np.int64)
    highest = max(float(p.max()) for p in space.proxies)
    for price in np.geomspace(_LEAST, 1.0, PRICES)[::-1] ** 0.5 / max(highest, _LEAST):
        for _ in range(3):
            joules, seconds = (float(c[0]) for c in space.costs(plan))
            plan = np.array([[
                int(np.argmin(price * p + e / joules + t / seconds))
                for p, e, t in zip(space.proxies, space.joules, space.seconds)
            ]])  # fmt: skip
        plans.append([int(k) for k in plan[0]])
    return np.unique(np.array(plans, np.int64), axis=0)


# ---- the front --------------------------------------------------------------------------------


def nondominated(objectives: Reals) -> NDArray[np.int64]:
    """The rows of (n, 2) that no other row beats, by ascending second column; of equals the first."""
    if not len(objectives):
        return np.zeros(0, np.int64)
    order = np.lexsort((objectives[:, 0], objectives[:, 1]))
    best = np.minimum.accumulate(objectives[order, 0])
    is_new = np.r_[True, objectives[order, 0][1:] < best[:-1]]
    return order[is_new]


def improved(space: PlanSpace, plans: Plans) -> Plans:
    """Plans with single layers exchanged where that costs less and the proxy gets no worse."""
    return np.array([_improved(space, plan) for plan in plans], np.int64).reshape(plans.shape)


def _improved(space: PlanSpace, plan: Plans) -> Plans:
    plan = plan.copy()
    joules, seconds = (float(c[0]) for c in space.costs(plan[None]))
    for layer, (p, e, t) in enumerate(zip(space.proxies, space.joules, space.seconds)):
        own = plan[layer]
        products = (joules + e - e[own]) * (seconds + t - t[own])
        products = np.where(p <= p[own], products, np.inf)
        best = int(np.argmin(products))
        if products[best] < products[own]:
            joules, seconds = joules + e[best] - e[own], seconds + t[best] - t[own]
            plan[layer] = best
    return plan


def search_front(
    space: PlanSpace,
    start: Plans,
    seed: int,
    cache: ResultCache,
    name: str,
    progress: ProgressCallback,
) -> Plans:
    """
    The plans of the front, by ascending energy x latency, the dense one among them.

    `start` are plans that the front is to be no worse than. State after every epoch is kept under
    `name` and gone on with.

    Raises:
        HeatcError: without pymoo.
    """
    if math.prod(int(n) for n in space.sizes) <= EXHAUSTIVE:
        progress(f"generations, {name}", 1, 1)
        return _best(space, every_plan(space))
    dense = np.zeros((1, len(space.proxies)), np.int64)
    first = _best(space, np.concatenate([dense, sweep_prices(space), start]))
    state = cache.read(name) or {
        "epoch": 0,
        "population": _population(space, first, seed).tolist(),
        "archive": first.tolist(),
    }
    while state["epoch"] < EPOCHS:
        progress(f"generations, {name}", state["epoch"] * GENERATIONS, EPOCHS * GENERATIONS)
        state = _epoch(space, state, seed)
        cache.write(name, state)
    progress(f"generations, {name}", EPOCHS * GENERATIONS, EPOCHS * GENERATIONS)
    archive = np.array(state["archive"], np.int64)
    return _best(space, np.concatenate([archive, improved(space, archive)]))


def _best(space: PlanSpace, plans: Plans) -> Plans:
    return plans[nondominated(space.objectives(plans))]


def _population(space: PlanSpace, first: Plans, seed: int) -> Plans:
    """The first population: plans of the start, spread over it, and random ones."""
    chosen = np.unique(np.linspace(0, len(first) - 1, POPULATION * 3 // 4).round().astype(int))
    rng = np.random.default_rng([seed, 0])
    others = rng.integers(0, space.sizes, (POPULATION - len(chosen), len(space.sizes)))
    return np.concatenate([first[chosen], others])


def _epoch(space: PlanSpace, state: dict[str, Any], seed: int) -> dict[str, Any]:
    epoch = int(state["epoch"])
    own_seed = int(np.random.SeedSequence([seed, epoch + 1]).generate_state(1)[0] >> 1)
    evolution = _Evolution(space, np.array(state["population"], np.int64), own_seed)
    archive = np.array(state["archive"], np.int64)
    for _ in range(GENERATIONS):
        archive = _best(space, np.concatenate([archive, evolution.next()]))
    population = evolution.population
    return {"epoch": epoch + 1, "population": population.tolist(), "archive": archive.tolist()}


class _Evolution:
    """NSGA-II of pymoo, on logarithms of both objectives."""

    def __init__(self, space: PlanSpace, population: Plans, seed: int):
        # pymoo has no types.
        load: Any = _pymoo
        self._space = space
        self._problem = load("core.problem").Problem(
            n_var=len(space.sizes), n_obj=2, xl=0, xu=space.sizes - 1, vtype=int
        )
        repair = load("operators.repair.rounding").RoundingRepair()
        self._algorithm = load("algorithms.moo.nsga2").NSGA2(
            pop_size=POPULATION,
            sampling=population,
            crossover=load("operators.crossover.ux").UniformCrossover(prob=0.9),
            mutation=load("operators.mutation.pm").PM(eta=5, vtype=float, repair=repair),
        )
        self._algorithm.setup(self._problem, termination=("n_gen", GENERATIONS + 1), seed=seed)

    def next(self) -> Plans:
        """One generation: the plans that were tried in it."""
        asked = self._algorithm.ask()
        plans = np.asarray(asked.get("X"), np.int64)
        logs = np.log(self._space.objectives(plans) + _LEAST**2)
        static = _pymoo("problems.static").StaticProblem(self._problem, F=logs)
        _pymoo("core.evaluator").Evaluator().eval(static, asked)
        self._algorithm.tell(infills=asked)
        return plans

    @property
    def population(self) -> Plans:
        """(plans, layers) as it stands."""
        return np.asarray(self._algorithm.pop.get("X"), np.int64)


def _pymoo(name: str) -> Any:
    try:
        return import_module(f"pymoo.{name}")
    except ImportError:
        raise HeatcError("a search needs pymoo", notes=["pip install 'heatc[search]'"]) from None


def option_numbers(plan: Plans) -> list[int]:
    """The options of one plan (layers,) as integers."""
    return [int(k) for k in plan]


def spread_points(products: Reals, count: int) -> list[int]:
    """Numbers of so many points, spread evenly over the logarithm of ascending products."""
    logs = np.log(products)
    left = list(range(len(logs)))
    chosen: list[int] = []
    for k in range(min(count, len(logs))):
        target = logs[0] + (logs[-1] - logs[0]) * k / max(count - 1, 1)
        chosen.append(min(left, key=lambda number: abs(float(logs[number] - target))))
        left.remove(chosen[-1])
    return sorted(chosen)
