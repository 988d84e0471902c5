"""
Weights of linears and embedding tables become factors.

Assumes the raised or packed level. The contraction of each chosen layer with its weight becomes one
contraction with all factors (`einsum.contract` with `decomposition`, of any number of operands);
`order-contractions` says in which order they meet. Factors go into the weight store under
`<module path>.<i>`; a bias that makes up for the means is the last of them. Options:

- format, shape (`8x8x12|12x8x8`, inputs before outputs), modes (of a side, where no shape is
  given), rank (one number or one for each place), or ratio: the largest ranks whose best path
  costs at most that share of the layer's multiply-accumulates at `tokens` tokens (by default
  what the largest packing has room for);
- spread: ranks differ from layer to layer so that the ratio holds for all together, and the next
  multiply-accumulate lowers the relative error of each layer's output alike;
- init: `activation` (the default) minimises the error of the layer's output on the calibration
  inputs, `plain` that of the weight;
- statistics: `sequential` (the default) takes a layer's input as the layers before, decomposed
  already, leave it, and aims at what the layer computed before, so that later layers make up for
  earlier ones (`aim`: by how much, from 0 to 1); `original` takes the model's own inputs, whose
  moments are cached;
- correct-bias: the bias makes up for the mean of the error, and only the rest is minimised;
- joint: layers of one input (queries, keys, values) are decomposed as one;
- layers: globs of module paths, `|` between them; tables: embedding tables instead of linears.

Where layers have a `format`, which `apply-plan` writes, those are decomposed as it says, and no
others; the context's plan may bring the factors themselves. Calibration inputs are the context's.

Leaves a layer whose least rank is over the ratio, with a remark. Changes values: the reference is
the model with each weight replaced by the matrix its factors stand for.

Example (test/passes/heat_decompose.mlir): `einsum.contract "ti,oi->to" %x, %w` becomes
`einsum.contract "ta,Aa,mA->tm" %x, %0, %1`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.context import calibration_of, plan_of, weights_of
from heatc.dialects.einsum import ContractOp, PathAttr
from heatc.dialects.einsum_format import Planned
from heatc.errors import HeatcError
from heatc.heat.calibrate import MOST_TOKENS, Calibration, Moments
from heatc.heat.decompose import (
    AIM,
    REFINEMENTS,
    Factors,
    aimed,
    decompose,
)
from heatc.heat.formats import (
    Format,
    Modes,
    Spec,
    balanced,
    covering,
    default_modes,
    find_format,
    parse_format,
    parse_shape,
    rebuild,
    uniform,
)
from heatc.heat.norm import Matrix, Norm, relative_error, spectrum
from heatc.heat.options import Init, StatisticsOf
from heatc.heat.plan import LayerHeat
from heatc.heat.statistics import Statistics, statistics_key
from heatc.interpreter.einsum import weight_array
from heatc.passes.analysis.finite import check_finite
from heatc.passes.analysis.ranks import (
    Curve,
    Point,
    dense_macs,
    largest_within,
    layer_macs,
    sample_levels,
    spread,
)
from heatc.passes.analysis.tokens import most_tokens
from heatc.passes.effect import Effect
from heatc.passes.factorising.emit import emit
from heatc.passes.factorising.targets import Target, find_targets
from heatc.passes.fuse_projections import FuseProjectionsPass
from heatc.passes.rewriting import describe_location, erase_dead, remark
from heatc.plan import FactorFile
from heatc.weights import WeightStore

Array = NDArray[Any]

_COUNTED = {"macs": "multiply-accumulates", "parameters": "parameters"}


@dataclass(frozen=True)
class HeatDecomposePass(ModulePass):
    """Weights become factors; another function, near the old one on the calibration inputs."""

    name = "heat-decompose"
    effect: ClassVar[Effect] = Effect.CHANGES_VALUES

    format: Format = "low-rank"
    shape: str | None = None
    modes: int = 0
    rank: tuple[int, ...] | None = None
    ratio: float | None = None
    spread: bool = False
    init: Init = "activation"
    statistics: StatisticsOf = "sequential"
    aim: float = AIM
    correct_bias: bool = True
    joint: bool = False
    tables: bool = False
    layers: str = "*"
    tokens: int = 0
    refinements: int = REFINEMENTS
    calibration_tokens: int = MOST_TOKENS

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place."""
        planned = _planned(op)
        self._check(ctx, is_planned=bool(planned))
        weights = weights_of(ctx)
        if self.joint:
            FuseProjectionsPass().apply(ctx, op)
        _Decomposition(ctx, self, op, weights, bool(planned)).run()
        erase_dead(op)

    def _check(self, ctx: Context, *, is_planned: bool) -> None:
        needs = self.init == "activation" and calibration_of(ctx) is None
        if is_planned:
            if needs and _factors(ctx) is None:
                raise HeatcError("init=activation needs calibration inputs")
            if self.joint:
                raise HeatcError("layers that have a format are not decomposed as one")
            return
        if (self.rank is None) == (self.ratio is None):
            raise HeatcError(
                "heat-decompose takes a rank or a ratio, one of both",
                notes=["e.g. ratio=0.5: half of each layer's multiply-accumulates"],
            )
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise HeatcError(f"ratio {self.ratio:g} is outside (0, 1]")
        if not 0 <= self.aim <= 1:
            raise HeatcError(f"aim {self.aim:g} is outside [0, 1]")
        if self.spread and self.ratio is None:
            raise HeatcError("ranks are spread within a ratio, give one")
        if needs:
            raise HeatcError(
                "init=activation needs calibration inputs",
                notes=["give --calibrate data.npz, or init=plain"],
            )


def _check_names(targets: Sequence[Target]) -> None:
    """Factors are named by their layer: no two weights may come by one path."""
    keys: dict[str, tuple[str, ...]] = {}
    for target in targets:
        if keys.setdefault(target.path, target.weight.keys) != target.weight.keys:
            raise HeatcError(
                f"weights {keys[target.path][0]!r} and {target.weight.keys[0]!r} both belong to "
                f"the layer {target.path!r}",
                place=describe_location(target.op),
                notes=["a layer's weight is named <module path>.weight"],
            )


def _checked(target: Target, moments: Moments) -> Moments:
    """Moments that a norm can be made of; `HeatcError` for what calibration inputs have none of."""
    if moments.count and np.isfinite(moments.covariance).all() and np.isfinite(moments.mean).all():
        return moments
    what = "no real token" if moments.count == 0 else "values that are not finite"
    raise HeatcError(
        f"the calibration inputs give the layer {target.path!r} {what}",
        place=describe_location(target.op),
        notes=["give other inputs by --calibrate, or take init=plain, which needs none"],
    )


def _without_formats(module: ModuleOp) -> ModuleOp:
    """The module as it was before a plan said how layers are factorised: moments do not depend on it."""
    found = module.clone()
    for target in _planned(found):
        target.op.planned = None
    return found


def _planned(module: ModuleOp) -> list[Target]:
    """The layers that have a format."""
    found = [t for kind in (False, True) for t in find_targets(module, "*", tables=kind)]
    return [target for target in found if target.op.planned is not None]


def _told(target: Target) -> Planned:
    assert target.op.planned is not None
    return target.op.planned.data


def _spec(target: Target) -> Spec:
    """What a layer's format says; ranks that no factor needs are refused."""
    told = _told(target)
    shape = parse_shape(told.shape)
    try:
        heat = LayerHeat(parse_format(told.format), shape, told.ranks, told.path)
        return heat.spec(target.inputs, target.outputs, is_table=target.is_table)
    except HeatcError as error:
        place = describe_location(target.op)
        raise HeatcError(f"{target.path}: {error.message}", place=place) from None


def _factors(ctx: Context) -> FactorFile | None:
    """The file of the factors that the plan brings."""
    plan = plan_of(ctx)
    return None if plan is None else plan.factors


_Pair: TypeAlias = tuple[Operation, Operation]


def _segments(pairs: Iterable[_Pair], starts: Container[Operation]) -> list[list[_Pair]]:
    """Runs of ops that each begin with one of `starts`, after what comes before all of them."""
    segments: list[list[_Pair]] = [[]]
    for pair in pairs:
        if pair[0] in starts:
            segments.append([])
        segments[-1].append(pair)
    return segments


@dataclass(frozen=True)
class _Input:
    """The input of one or more layers: its moments, and the norm made of them."""

    moments: Moments
    norm: Norm


@dataclass
class _Decomposition:
    """One run of the pass over a module."""

    ctx: Context
    options: HeatDecomposePass
    module: ModuleOp
    weights: WeightStore
    is_planned: bool
    specs: dict[str, Spec] = field(default_factory=dict[str, Spec])
    paths: dict[str, PathAttr] = field(default_factory=dict[str, PathAttr])
    inputs: dict[str, str] = field(default_factory=dict[str, str])
    done: dict[str, Factors] = field(default_factory=dict[str, Factors])

    @property
    def tokens(self) -> int:
        """The number of tokens for which paths are counted."""
        return self.options.tokens or most_tokens(self.module)

    def run(self) -> None:
        """Choose specs, then decompose layer by layer."""
        targets = self._targets()
        if not targets:
            raise self._nothing()
        _check_names(targets)
        self._name_inputs(targets)
        self._tell_others(targets)
        factors = _factors(self.ctx) if self.is_planned else None
        if factors is not None:
            self._choose(targets, None)
            self._take(targets, factors)
            return
        data = None if self.options.init == "plain" else calibration_of(self.ctx)
        if data is None:
            self._choose(targets, None)
            for target in targets:
                self._decompose(target, None)
            return
        statistics: Statistics | None = None
        if self.options.statistics == "original" or (self.options.spread and not self.is_planned):
            statistics = self._statistics(targets, data)
        self._choose(targets, statistics)
        if self.options.statistics == "original":
            assert statistics is not None
            self._on_statistics(targets, statistics)
            return
        self._in_sequence(targets, data)

    def _targets(self) -> list[Target]:
        """The layers at hand: those that have a format, or those the options choose."""
        if self.is_planned:
            return _planned(self.module)
        return find_targets(self.module, self.options.layers, tables=self.options.tables)

    def _nothing(self) -> HeatcError:
        kind = "embedding table" if self.options.tables else "linear layer"
        all_ = find_targets(self.module, "*", tables=self.options.tables)
        names = ", ".join(t.path for t in all_[:3])
        return HeatcError(
            f"no {kind} is named by layers={self.options.layers!r}",
            notes=[f"there are {len(all_)}: {names}, ..." if all_ else f"there is no {kind}"],
        )

    def _name_inputs(self, targets: Sequence[Target]) -> None:
        """
        Layers of one input share its moments, under the name of the first of them.

        That is the same one for all plans of a model, which find each other's moments.
        """
        first: dict[SSAValue, str] = {}
        for target in find_targets(self.module, "*", tables=False):
            first.setdefault(target.x, target.path)
        for target in targets:
            self.inputs[target.path] = first.setdefault(target.x, target.path)

    # --- Which ranks --------------------------------------------------------------------------

    def _choose(
        self,
        targets: Sequence[Target],
        statistics: Statistics | None,
    ) -> None:
        """The spec of every layer that gets one."""
        if self.is_planned:
            self.specs = {t.path: _spec(t) for t in targets}
            paths = ((t.path, _told(t).path) for t in targets)
            self.paths = {name: PathAttr(path) for name, path in paths if path is not None}
            return
        if self.options.spread:
            self.specs = self._spread(targets, statistics)
            return
        for target in targets:
            spec = self._spec(target)
            if spec is None:
                self._stays_dense(target)
            else:
                self.specs[target.path] = spec

    def _modes(self, target: Target) -> tuple[Modes, Modes]:
        options = self.options
        if options.shape is not None:
            ins, outs = parse_shape(options.shape)
            fits = math.prod(outs) == target.outputs and (
                math.prod(ins) >= target.inputs
                if target.is_table
                else math.prod(ins) == target.inputs
            )
            if not fits:
                raise HeatcError(
                    f"shape {options.shape!r} does not fit {target.path}: "
                    f"{target.inputs} to {target.outputs}",
                    notes=["choose layers of one size by layers=..., or give modes=..."],
                )
            return ins, outs
        if target.is_table and not find_format(options.format).is_matrix:
            count = options.modes or 3
            return covering(target.inputs, count), balanced(target.outputs, count)
        return default_modes(options.format, target.inputs, target.outputs, options.modes)

    def _spec(self, target: Target) -> Spec | None:
        options = self.options
        ins, outs = self._modes(target)
        if options.rank is not None:
            if len(options.rank) == 1:
                return uniform(options.format, ins, outs, options.rank[0])
            return Spec(options.format, ins, outs, options.rank).bounded()
        assert options.ratio is not None
        if target.is_table:
            return self._smallest_table(target, ins, outs)
        return largest_within(options.format, ins, outs, options.ratio, self.tokens)

    def _smallest_table(self, target: Target, ins: Modes, outs: Modes) -> Spec | None:
        """Of a table the ratio is one of its elements: looking up costs no arithmetic."""
        assert self.options.ratio is not None
        budget = self.options.ratio * target.inputs * target.outputs
        fitting = [
            spec
            for spec in sample_levels(self.options.format, ins, outs, 256)
            if spec.parameters <= budget
        ]
        return fitting[-1] if fitting else None

    def _stays_dense(self, target: Target) -> None:
        ins, outs = self._modes(target)
        least = uniform(self.options.format, ins, outs, 1)
        sizes, dense = self._sizes(target, least), self._sizes(target, None)
        what = "parameters" if target.is_table else "macs"
        remark(
            self.ctx,
            target.op,
            f"{target.name} stays dense: {least.format} {least.shape} of rank 1 costs "
            f"{sizes[what] / dense[what]:.3g} of its {_COUNTED[what]}, the ratio is "
            f"{self.options.ratio:g}",
            layer=target.path,
            chosen=dense,
            weighed=[sizes],
        )

    def _tell_others(self, targets: Sequence[Target]) -> None:
        """Say of the layers that nothing chose that they stay as they are."""
        chosen = {t.op for t in targets}
        who = "the plan" if self.is_planned else f"layers={self.options.layers}"
        for target in find_targets(self.module, "*", tables=self.options.tables):
            if target.op not in chosen:
                remark(
                    self.ctx,
                    target.op,
                    f"{target.name} stays dense: {who} does not name it",
                    layer=target.path,
                    chosen=self._sizes(target, None),
                    shown=False,
                )

    def _tell(self, target: Target, factors: Factors) -> None:
        """Say what a layer became."""
        found, dense = self._sizes(target, factors.spec), self._sizes(target, None)
        what = "parameters" if target.is_table else "macs"
        ranks = ", ".join(map(str, factors.spec.ranks))
        remark(
            self.ctx,
            target.op,
            f"{target.name}: {factors.spec.format} {factors.spec.shape} of ranks [{ranks}], "
            f"{found[what] / dense[what]:.3g} of its {_COUNTED[what]}, relative error of its "
            f"output {factors.error:.3g}",
            layer=target.path,
            chosen=found | {"error": round(factors.error, 6)},
            weighed=[dense | {"error": 0.0}],
            shown=False,
        )

    def _sizes(self, target: Target, spec: Spec | None) -> dict[str, Any]:
        """Format and cost of a layer, of the dense one without a spec; a table has no products."""
        parameters = target.inputs * target.outputs if spec is None else spec.parameters
        found: dict[str, Any] = {"format": "dense", "parameters": parameters}
        if spec is not None:
            found |= {"format": spec.format, "shape": spec.shape, "ranks": list(spec.ranks)}
        if target.is_table:
            return found
        macs = (
            dense_macs(target.inputs, target.outputs, self.tokens)
            if spec is None
            else layer_macs(spec, self.tokens)
        )
        return found | {"macs": macs, "tokens": self.tokens}

    def _spread(self, targets: Sequence[Target], statistics: Statistics | None) -> dict[str, Spec]:
        """Ranks within one budget; a weight that is used again costs and errs each time."""
        assert self.options.ratio is not None
        uses = Counter(t.path for t in targets)
        curves: dict[str, Curve] = {}
        budget = 0.0
        for target in targets:
            dense = dense_macs(target.inputs, target.outputs, self.tokens)
            budget += self.options.ratio * dense
            if target.path not in curves:
                curves[target.path] = self._curve(target, statistics).times(uses[target.path])
        return spread(curves, int(budget))

    def _curve(self, target: Target, statistics: Statistics | None) -> Curve:
        """Error over cost: of low-rank at every rank, of the others at some, unrefined."""
        ins, outs = self._modes(target)
        norm = None
        if statistics is not None:
            norm = self._input(statistics.load(self.inputs[target.path])).norm
        matrix = self._matrix(target)
        tokens, format_ = self.tokens, self.options.format
        points: list[Point] = []
        if format_ == "low-rank":
            errors = spectrum(matrix, norm).errors()
            for rank in range(1, len(errors)):
                spec = Spec(format_, ins, outs, (rank,))
                points.append((layer_macs(spec, tokens), float(errors[rank]) ** 2, spec))
            return Curve.of(points)
        for spec in sample_levels(format_, ins, outs):
            error = self._nearest(target, matrix, spec, norm, 0).error
            points.append((layer_macs(spec, tokens), error**2, spec))
        return Curve.of(points)

    # --- Statistics ---------------------------------------------------------------------------

    def _input(self, moments: Moments) -> _Input:
        """What the error of a layer is measured in, shared by the layers of one input."""
        moves_bias = self.options.correct_bias or moments.covariance.ndim == 1
        return _Input(moments, Norm.of(moments.covariance if moves_bias else moments.second))

    def _aimed(self, matrix: Matrix, x: _Input) -> Matrix:
        """A weight that makes up for what the layers before it lost."""
        moments = x.moments
        if moments.loss is None:
            return matrix
        missing = moments.loss.through(matrix.astype(np.float32)).astype(np.float64)
        if not self.options.correct_bias:
            assert moments.target_mean is not None
            lost = matrix @ (moments.target_mean - moments.mean)
            missing += np.outer(lost, moments.mean)
        return aimed(matrix, x.norm, missing, self.options.aim)

    def _measure(self, run: Calibration, target: Target) -> Moments:
        if target.is_table:
            return Moments.of_ids(run.ids(target.x), target.inputs)
        return _checked(target, run.moments(target.x))

    def _statistics(self, targets: Sequence[Target], data: Mapping[str, Array]) -> Statistics:
        """The moments of every target's input in the model as it is, from the cache if there."""
        most = self.options.calibration_tokens
        key = statistics_key(_without_formats(self.module), self.weights, data, most)
        statistics = Statistics(key)
        if statistics.complete and all(name in statistics for name in self.inputs.values()):
            return statistics
        run = Calibration(self.module, data, self.weights, most)
        wanted: dict[Operation, Target] = {t.op: t for t in targets}
        known: set[str] = set()
        for op in list(run.block.ops):
            target = wanted.pop(op, None)
            name = "" if target is None else self.inputs[target.path]
            if target is not None and name not in known:
                statistics.save(name, self._measure(run, target))
                known.add(name)
            if not wanted:
                break
            run.evaluate(op)
        statistics.finish()
        return statistics

    def _on_statistics(self, targets: Sequence[Target], statistics: Statistics) -> None:
        """Decompose each layer on what the model as it was leaves it."""
        known: tuple[str, _Input] | None = None
        for target in targets:
            name = self.inputs[target.path]
            if known is None or known[0] != name:
                known = name, self._input(statistics.load(name))
            self._decompose(target, known[1])

    def _in_sequence(self, targets: Sequence[Target], data: Mapping[str, Array]) -> None:
        """
        Decompose each layer on what the decomposed layers before it compute.

        The model as it was runs up to the next layer, in a thread, while this one is decomposed.
        """
        most = self.options.calibration_tokens
        twin = self.module.clone()
        run = Calibration(self.module, data, self.weights, most)
        as_it_was = Calibration(twin, data, self.weights, most)
        pairs = zip(list(run.block.ops), list(as_it_was.block.ops))
        wanted: dict[Operation, Target] = {t.op: t for t in targets}
        known: tuple[SSAValue, _Input] | None = None
        before, *segments = _segments(pairs, wanted)
        for op, old in before:
            run.evaluate(op)
            as_it_was.evaluate(old)
        with ThreadPoolExecutor(max_workers=1) as thread:
            for (op, first), *others in segments:
                target = wanted[op]
                if known is None or known[0] is not target.x:
                    known = target.x, self._input(self._pair(run, as_it_was, target, first))
                is_last = op is segments[-1][0][0]
                old = [] if is_last else [first, *(old for _, old in others)]
                ahead = thread.submit(as_it_was.run, old)
                new = self._decompose(target, known[1]) or [op]
                if not is_last:
                    run.run([*new, *(own for own, _ in others)])
                ahead.result()

    def _pair(
        self, run: Calibration, as_it_was: Calibration, target: Target, old: Operation
    ) -> Moments:
        if target.is_table:
            return self._measure(run, target)
        assert isinstance(old, ContractOp)
        pair = Moments.of_pair(run.rows(target.x), as_it_was.rows(old.inputs[0]))
        return _checked(target, pair)

    # --- Factors that a plan brings -----------------------------------------------------------

    def _take(self, targets: Sequence[Target], file: FactorFile) -> None:
        """The factors and biases of a plan's file."""
        given = file.open()
        for target in targets:
            spec = self.specs[target.path]
            names = [f"{target.path}.{k}" for k in range(len(spec.terms) + 1)]
            # A store raises an error of its own for a name that it has not.
            *arrays, bias = (given[n] if n in given else None for n in names)  # noqa: SIM401
            for name, array, shape in zip(names, arrays, spec.factor_shapes):
                if array is None or array.shape != tuple(shape):
                    found = "is not there" if array is None else f"has shape {array.shape}"
                    raise HeatcError(f"{name} {found}, {shape} is asked for", place=str(file.path))
            if bias is not None and bias.shape != (target.outputs,):
                raise HeatcError(
                    f"{names[-1]} has shape {bias.shape}, the layer has {target.outputs} outputs",
                    place=str(file.path),
                )
            found = [np.asarray(array, np.float64) for array in arrays]
            error = relative_error(target.matrix(self.weights), rebuild(spec, found), None)
            factors = Factors(spec, tuple(found), error)
            self._put(target, factors, None if bias is None else np.asarray(bias, np.float64))

    # --- One layer ----------------------------------------------------------------------------

    def _decompose(self, target: Target, x: _Input | None) -> list[Operation]:
        """Put factors in the place of a weight; nothing where it stays dense."""
        spec = self.specs.get(target.path)
        if spec is None:
            return []
        factors = self.done.get(target.path)
        if factors is None:
            factors = self._factors(target, spec, x)
            self.done[target.path] = factors
        bias = None
        if x is not None and self.options.correct_bias and not target.is_table:
            bias = self._bias(target, factors, x.moments)
        return self._put(target, factors, bias)

    def _put(
        self, target: Target, factors: Factors, bias: NDArray[np.float64] | None
    ) -> list[Operation]:
        for key in target.weight.keys:
            self.weights.release(key)
        self._tell(target, factors)
        return emit(target, factors, bias, self.weights, self.paths.get(target.path))

    def _factors(self, target: Target, spec: Spec, x: _Input | None) -> Factors:
        matrix = self._matrix(target)
        if x is not None:
            matrix = self._aimed(matrix, x)
        norm = None if x is None else x.norm
        return self._nearest(target, matrix, spec, norm, self.options.refinements)

    def _matrix(self, target: Target) -> Matrix:
        """A layer's weight (O, I), all of it finite."""
        matrix = target.matrix(self.weights)
        as_read = matrix.T if target.is_table or target.swapped else matrix
        check_finite(target.weight, as_read, target.op, "it has no factors")
        return matrix

    def _nearest(
        self, target: Target, matrix: Matrix, spec: Spec, norm: Norm | None, refinements: int
    ) -> Factors:
        try:
            return decompose(matrix, spec, norm, refinements=refinements)
        except HeatcError as error:
            place = describe_location(target.op)
            what = f"{target.name}: {error.message}"
            raise HeatcError(what, place=place, notes=error.notes) from None

    def _bias(self, target: Target, factors: Factors, moments: Moments) -> NDArray[np.float64]:
        """b + W E x - W' E x', x' being the input that the layer has now, x what is aimed at."""
        before = moments.mean
        if moments.target_mean is not None:
            before = before + self.options.aim * (moments.target_mean - before)
        missing = target.matrix(self.weights) @ before - factors.apply(moments.mean)
        if target.bias is None:
            return missing
        return weight_array(target.bias[1], self.weights).astype(np.float64) + missing
