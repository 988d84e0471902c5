"""One search from start to end: candidates, costs, errors, sensitivities, front, validation, plans."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from heatc.api import Compilation
from heatc.errors import InfeasibleError
from heatc.hardware import Hardware, load_hardware
from heatc.heat.formats import Format, Spec
from heatc.heat.statistics import cache_root
from heatc.passes.analysis.costs import Cost
from heatc.passes.analysis.tokens import most_tokens
from heatc.passes.order_contractions import rest_of
from heatc.plan import model_sha256
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.goal import Goal
from heatc.tuning.common.packed_model import PackedModel
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.samples import Samples, check_samples
from heatc.tuning.common.workers import Workers
from heatc.tuning.search.approximation import candidate_errors, layer_spectra
from heatc.tuning.search.candidate_costs import Machine, Variant, cost_candidates
from heatc.tuning.search.candidates import Extent, candidates
from heatc.tuning.search.front import (
    EPOCHS,
    GENERATIONS,
    POPULATION,
    Plans,
    PlanSpace,
    nondominated,
    search_front,
)
from heatc.tuning.search.hardware_space import HardwareSpace
from heatc.tuning.search.layers import Inputs, Layer, inputs_of, layers_of
from heatc.tuning.search.patched_model import PatchedModel
from heatc.tuning.search.replacements import Replacements
from heatc.tuning.search.result_cache import ResultCache, code_digest
from heatc.tuning.search.sensitivity import PROBES, Curve, Reference, sensitivities
from heatc.tuning.search.space_reduction import Option, cheaper, options, probed, promising
from heatc.tuning.search.uniform_plans import uniform_plans
from heatc.tuning.search.validate import PlanTrial, sample_plans, validate_plans

Array = NDArray[Any]
Reals = NDArray[np.float64]


VALIDATED = 512
"""Samples that the validation takes at most."""


@dataclass(frozen=True)
class Request:
    """
    What the user asked for.

    Attributes:
        model: path of the model, `weights` the weights file of an .mlir model.
        compilation: a compilation (`Options(Numpy(), level=0)`) that captured the model; runs on the data.
        timed: the same of the batch that costs are counted for.
        data: inputs by file and name; `dev` what validates, None for a quarter of `data`.
        hardware: the machine, or the space of machines.
        layers: globs of module paths, `|` between them; formats: those to choose from.
        samples: for sensitivities.
        validate: plans that are measured; 0 for none.
        points: plans to write; programs: whether they are compiled and timed as a whole too.
        goal: what one more plan is chosen for.
        folder: where an interrupted search goes on, None for the user's cache.
    """

    model: str
    weights: str | None
    compilation: Compilation
    timed: Compilation
    data: tuple[str, Mapping[str, Array]]
    dev: tuple[str, Mapping[str, Array]] | None
    hardware: Hardware | HardwareSpace
    layers: str
    formats: tuple[Format, ...]
    samples: int
    validate: int
    points: int
    programs: bool
    goal: Goal | None
    seed: int
    workers: Workers
    folder: Path | None


@dataclass(frozen=True)
class MachineFront:
    """
    The front on one machine.

    Attributes:
        dense: the whole model as it is, `rest` what is searched by no layer of it.
        options: of each layer; `plans` are numbers of them, by ascending energy x latency.
        uniform: the same of one format and share for all layers, those that no other one beats.
    """

    machine: Machine
    dense: Cost
    rest: Cost
    options: tuple[tuple[Option, ...], ...]
    space: PlanSpace
    plans: Plans
    uniform: Plans


@dataclass(frozen=True)
class SearchResult:
    """
    What a search came to.

    Attributes:
        points: (machine, plan) numbers of the joined front, by ascending energy x latency.
        sizes: of the space, before and after each cut.
        seconds: of each phase.
    """

    digest: str
    tokens: int
    layers: tuple[Layer, ...]
    base: Machine
    base_dense: Cost
    fronts: tuple[MachineFront, ...]
    points: tuple[tuple[int, int], ...]
    sizes: Mapping[str, Mapping[str, float]]
    curves: Mapping[str, Curve]
    validation: Mapping[str, Any] | None
    seconds: Mapping[str, float]


@dataclass
class _Clock:
    """Wall seconds of each phase."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @contextmanager
    def __call__(self, phase: str) -> Generator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - start


_Variants: TypeAlias = Mapping[Extent, Mapping[Spec, Sequence[Variant]]]
_Costs: TypeAlias = Mapping[Extent, Mapping[Spec | None, Sequence[Variant]]]


@dataclass(frozen=True)
class _Reduction:
    """Candidates other than low-rank after the second and the third cut, and errors."""

    promising: Mapping[str, Sequence[Spec]]
    wanted: Mapping[str, Sequence[Spec]]
    errors: Mapping[str, Mapping[Spec, float]]


def search(request: Request, progress: ProgressCallback) -> SearchResult:
    """
    Search the front.

    Raises `HeatcError` for data that does not fit the model, layers that are not there, or missing
    libraries; `InfeasibleError` where no plan is within the budget.
    """
    return _Search(request, progress).run()


class _Search:
    def __init__(self, request: Request, progress: ProgressCallback):
        self.request, self.progress, self.clock = request, progress, _Clock()
        with self.clock("passes"):
            self.digest = model_sha256(request.model)
            request.compilation.run()
            request.timed.run()
        self.module, self.weights = request.compilation.module, request.compilation.weights
        self.tokens = most_tokens(request.timed.module)
        self.layers = layers_of(self.module, request.layers, most_tokens(self.module))
        timed = layers_of(request.timed.module, request.layers, self.tokens)
        self.timed = {layer.path: layer for layer in timed}
        self.root = request.folder or cache_root() / "search"

    def run(self) -> SearchResult:
        """Phase after phase."""
        request, clock, progress = self.request, self.clock, self.progress
        samples, validating = self._samples()
        cache = ResultCache(self.root / self._key())
        machines = self._machines()
        specs = {e: candidates(e.inputs, e.outputs, request.formats) for e in self._extents()}
        with clock("costs"):
            costs = [
                cost_candidates(m, specs, self.root / "costs", request.workers, progress)
                for m in machines
            ]
            variants = [{e: cheaper(found) for e, found in own.items()} for own in costs]
        with clock("moments"):
            arrays = samples.inputs
            inputs = inputs_of(self.module, self.weights, self.layers, arrays, self.root, progress)
        with clock("spectra"):
            spectra = layer_spectra(
                self.layers, self.weights, inputs, cache, request.workers, progress
            )
        with clock("decompositions"):
            reduction = self._reduce(costs, variants, spectra, inputs, cache)
            errors = reduction.errors
        replacements = self._replacements(inputs)
        with clock("sensitivities"):
            model = PatchedModel(self.module, self.weights)
            reference = self._reference(model, samples, ~samples.held, request.samples, 0)
            curves = sensitivities(
                model, reference, self.layers, replacements, spectra, cache, progress
            )
        with clock("front"):
            fronts = tuple(
                self._front(machine, own, cheap, spectra, errors, curves, cache)
                for machine, own, cheap in zip(machines, costs, variants)
            )
            points = self._joined(fronts)
        with clock("validation"):
            checked = self._validated(
                fronts, points, model, replacements, validating, curves, cache
            )
        base, dense = self._base(fronts)
        sizes = self._sizes(specs, variants, reduction, fronts)
        return SearchResult(
            self.digest, self.tokens, self.layers, base, dense, fronts, points, sizes, curves,
            checked, dict(clock.seconds),
        )  # fmt: skip

    # --- Data ---------------------------------------------------------------------------------

    def _samples(self) -> tuple[Samples, Samples]:
        """What is fitted on and what validates; one set with a part held back, or two."""
        model, request = PackedModel(self.module, self.weights), self.request
        self.batch = model.batch

        def checked(name: str, arrays: Mapping[str, Array]) -> Samples:
            return check_samples(arrays, model.shapes, model.limits, request.seed, name)

        own = checked(*request.data)
        return own, own if request.dev is None else checked(*request.dev)

    def _chosen(
        self, samples: Samples, allowed: NDArray[np.bool_], count: int, salt: int
    ) -> NDArray[np.bool_]:
        """So many samples at random of those allowed, as whole batches where there are enough."""
        possible = np.flatnonzero(allowed & (samples.lengths > 0))
        whole = max(self.batch, count // self.batch * self.batch)
        rng = np.random.default_rng([self.request.seed, 2, salt])
        chosen = np.zeros(len(samples), np.bool_)
        chosen[rng.permutation(possible)[:whole]] = True
        return chosen

    def _reference(
        self,
        model: PatchedModel,
        samples: Samples,
        allowed: NDArray[np.bool_],
        count: int,
        salt: int,
    ) -> Reference:
        chosen = self._chosen(samples, allowed, count, salt)
        batches = samples.batches(self.batch, chosen)
        return Reference.of(model, batches, self.batch, samples.labels, self.progress)

    def _key(self) -> str:
        """What results depend on, as the name of the folder that they are kept in."""
        request = self.request
        texts = {
            "code": code_digest(),
            "model": self.digest,
            "weights": "" if request.weights is None else model_sha256(request.weights),
            "layers": repr([layer.path for layer in self.layers]),
            "formats": repr(request.formats),
            "shapes": repr((self.batch, self.tokens)),
            "settings": repr((request.samples, PROBES, POPULATION, EPOCHS, GENERATIONS)),
            "seed": str(request.seed),
        }
        arrays = {f"data {name}": array for name, array in request.data[1].items()}
        if request.dev is not None:
            arrays |= {f"dev {name}": array for name, array in request.dev[1].items()}
        return content_key(texts, arrays)

    # --- Candidates ---------------------------------------------------------------------------

    def _machines(self) -> tuple[Machine, ...]:
        hardware = self.request.hardware
        if isinstance(hardware, Hardware):
            return (Machine.of(hardware),)
        return tuple(Machine.of(h) for h in hardware.machines)

    def _extents(self) -> tuple[Extent, ...]:
        return tuple(sorted({self._extent(layer) for layer in self.layers}))

    def _extent(self, layer: Layer) -> Extent:
        """Of the layer as it is timed."""
        return self.timed[layer.path].extent

    def _reduce(
        self,
        costs: Sequence[_Costs],
        variants: Sequence[_Variants],
        spectra: Mapping[str, Reals],
        inputs: Mapping[str, Inputs],
        cache: ResultCache,
    ) -> _Reduction:
        """Errors of what is promising in some layers, then of what is good there in the others."""
        promised = {la.path: self._promising(la, variants, spectra[la.path]) for la in self.layers}

        def decomposed(
            layers: Sequence[Layer], wanted: Mapping[str, Sequence[Spec]], what: str
        ) -> dict[str, dict[Spec, float]]:
            request = self.request
            return candidate_errors(
                layers, wanted, self.weights, inputs, request.seed, cache, request.workers,
                what, self.progress,
            )  # fmt: skip

        first = [la for group in self._by_extent().values() for la in _probed(group)]
        errors = decomposed(first, promised, "decompositions, probed layers")
        good: dict[Extent, set[Spec | None]] = {}
        for layer in first:
            extent, path = self._extent(layer), layer.path
            for own, cheap in zip(costs, variants):
                dense = own[extent][None][0]
                found = options(dense, cheap[extent], spectra[path], errors[path])
                good.setdefault(extent, set()).update(option.variant.spec for option in found)
        wanted = {
            la.path: promised[la.path]
            if la in first
            else tuple(s for s in promised[la.path] if s in good[self._extent(la)])
            for la in self.layers
        }
        others = [layer for layer in self.layers if layer not in first]
        errors |= decomposed(others, wanted, "decompositions")
        return _Reduction(promised, wanted, errors)

    def _by_extent(self) -> dict[Extent, list[Layer]]:
        found: dict[Extent, list[Layer]] = {}
        for layer in self.layers:
            found.setdefault(self._extent(layer), []).append(layer)
        return found

    def _promising(
        self, layer: Layer, variants: Sequence[_Variants], spectrum: Reals
    ) -> tuple[Spec, ...]:
        """What has to be decomposed for some machine."""
        extent = self._extent(layer)
        found = [spec for own in variants for spec in promising(own[extent], spectrum)]
        return tuple(dict.fromkeys(found))

    def _replacements(self, inputs: Mapping[str, Inputs]) -> Replacements:
        by_path = {layer.path: layer for layer in self.layers}
        return Replacements(by_path, self.weights, inputs, self.request.seed)

    # --- Fronts -------------------------------------------------------------------------------

    def _front(
        self,
        machine: Machine,
        costs: _Costs,
        variants: _Variants,
        spectra: Mapping[str, Reals],
        errors: Mapping[str, Mapping[Spec, float]],
        curves: Mapping[str, Curve],
        cache: ResultCache,
    ) -> MachineFront:
        extents = [self._extent(layer) for layer in self.layers]
        dense = [costs[extent][None][0] for extent in extents]
        own_variants = [variants[extent] for extent in extents]
        own_spectra = [spectra[layer.path] for layer in self.layers]
        own_errors = [errors[layer.path] for layer in self.layers]
        found = tuple(map(options, dense, own_variants, own_spectra, own_errors))
        rest = self._rest(machine)
        space = self._space(found, curves, rest)
        start = uniform_plans(extents, own_variants, found, own_errors, own_spectra)
        name = f"front-{machine.sha256[:16]}"
        plans = search_front(space, start, self.request.seed, cache, name, self.progress)
        whole = rest
        for layer, variant in zip(self.layers, dense):
            for _ in range(layer.count):
                whole = whole + Cost(variant.cycles, variant.seconds, variant.joules, 0, 0)
        best = start[nondominated(space.objectives(start))]
        return MachineFront(machine, whole, rest, found, space, plans, best)

    def _rest(self, machine: Machine) -> Cost:
        """The rest of the model: attention, the host's part, linears that are not searched."""
        ops = [op for layer in self.timed.values() for op in layer.ops]
        return rest_of(self.request.timed.module, ops, self.tokens, load_hardware(machine.file))

    def _space(
        self, found: Sequence[Sequence[Option]], curves: Mapping[str, Curve], rest: Cost
    ) -> PlanSpace:
        proxies = [
            curves[layer.path](np.array([o.error for o in own]))
            for layer, own in zip(self.layers, found)
        ]
        counts = [self.timed[layer.path].count for layer in self.layers]
        joules, seconds = (
            tuple(
                count * np.array([getattr(o.variant, name) for o in own])
                for count, own in zip(counts, found)
            )
            for name in ("joules", "seconds")
        )
        return PlanSpace(tuple(proxies), joules, seconds, rest.joules, rest.seconds)

    def _joined(self, fronts: Sequence[MachineFront]) -> tuple[tuple[int, int], ...]:
        """Points that no other beats on any machine, within the budget of energy."""
        hardware = self.request.hardware
        most = hardware.most_joules if isinstance(hardware, HardwareSpace) else None
        found: list[tuple[int, int]] = []
        for number, front in enumerate(fronts):
            joules, _ = front.space.costs(front.plans)
            inside = np.flatnonzero(joules <= (math.inf if most is None else most))
            found += [(number, int(k)) for k in inside]
        if not found:
            raise InfeasibleError(
                f"no plan is within the budget of {most:g} J",
                notes=["allow more energy, or machines that take less"],
            )
        objectives = np.array(
            [fronts[m].space.objectives(fronts[m].plans[k : k + 1])[0] for m, k in found]
        )
        return tuple(found[int(k)] for k in nondominated(objectives))

    def _base(self, fronts: Sequence[MachineFront]) -> tuple[Machine, Cost]:
        """The machine that is compared with, and the dense model on it."""
        hardware = self.request.hardware
        if isinstance(hardware, Hardware):
            return fronts[0].machine, fronts[0].dense
        base = Machine.of(hardware.base)
        return base, rest_of(self.request.timed.module, [], self.tokens, load_hardware(base.file))

    # --- Figures ------------------------------------------------------------------------------

    def _validated(
        self,
        fronts: Sequence[MachineFront],
        points: Sequence[tuple[int, int]],
        model: PatchedModel,
        replacements: Replacements,
        validating: Samples,
        curves: Mapping[str, Curve],
        cache: ResultCache,
    ) -> Mapping[str, Any] | None:
        """Measures plans of the machine that has most of the front."""
        request = self.request
        if not request.validate:
            return None
        numbers = [m for m, _ in points]
        front = fronts[max(range(len(fronts)), key=numbers.count)]
        allowed = validating.held if request.dev is None else np.ones(len(validating), np.bool_)
        reference = self._reference(model, validating, allowed, VALIDATED, 1)
        trial = PlanTrial(model, reference, self.layers, replacements, front.options, curves, cache)
        plans = sample_plans(front.space, front.plans, request.validate, request.seed)
        return validate_plans(trial, plans, self.progress)

    def _sizes(
        self,
        specs: Mapping[Extent, Sequence[Spec]],
        variants: Sequence[_Variants],
        reduction: _Reduction,
        fronts: Sequence[MachineFront],
    ) -> dict[str, dict[str, float]]:
        """Options of all layers and the logarithm of the number of plans, after every cut."""
        extents = [self._extent(layer) for layer in self.layers]
        cheap = [[len(own[e]) for e in extents] for own in variants]
        low = [[_low_ranks(own[e]) for e in extents] for own in variants]

        def left(wanted: Mapping[str, Sequence[Spec]]) -> list[list[int]]:
            more = [len(wanted[layer.path]) for layer in self.layers]
            return [[a + b for a, b in zip(row, more)] for row in low]

        return {
            "formats x shapes x ranks": _size([[len(specs[e]) for e in extents]] * len(variants)),
            "cheaper than dense": _size(cheap),
            "not beaten at the least error of their rank": _size(left(reduction.promising)),
            "not beaten in all of the probed layers": _size(left(reduction.wanted)),
            "ways that none beats in error, energy and latency": _size(
                [[len(own) - 1 for own in front.options] for front in fronts]
            ),
        }


def _probed(layers: Sequence[Layer]) -> list[Layer]:
    return [layers[k] for k in probed(len(layers))]


def _low_ranks(variants: Mapping[Spec, Sequence[Variant]]) -> int:
    return sum(spec.format == "low-rank" for spec in variants)


def _size(counts: Sequence[Sequence[int]]) -> dict[str, float]:
    """Of options beside dense by machine and layer."""
    logs = [sum(math.log10(1 + n) for n in row) for row in counts]
    highest = max(logs)
    total = highest + math.log10(sum(10 ** (x - highest) for x in logs))
    return {"options": sum(1 + n for row in counts for n in row), "log10_plans": round(total, 2)}
