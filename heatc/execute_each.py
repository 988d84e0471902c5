"""
`--execute-each`: the module runs before and after every pass, on the same inputs.

A pass that is declared exact must leave every output the same (float32 results within
reassociation, results of the machine bit for bit). One that changes values is compared with the
reference of its own semantics: `insert-hdp` with HDP attention written in one piece,
`assign-fixed-point` with the real-number program, rounding being what it adds. The first pass that
differs is named, with the layer and the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.passes import ModulePass

from heatc.context import HeatcContext
from heatc.dialects import attn
from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError, VerificationError
from heatc.interpreter import input_names, main_function, make_interpreter, output_names
from heatc.interpreter.reference import RuleAttention
from heatc.interpreter.values import load
from heatc.passes.effect import Effect, effect_of
from heatc.passes.factorising.reference import reference_weights
from heatc.passes.fuse_projections import FuseProjectionsPass
from heatc.passes.heat_decompose import HeatDecomposePass
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.passes.rewriting import module_path
from heatc.pipeline import Instrument, run_passes
from heatc.remarks import drop_remark
from heatc.samples import mask_inputs
from heatc.universe import PASSES
from heatc.verify.levels import MACHINE_LEVEL
from heatc.verify.rows import Rows, Tokens, output_rows, tokens_of
from heatc.weights import WeightStore

Arrays = Mapping[str, NDArray[Any]]
RunMachine = Callable[[ModuleOp, Arrays], dict[str, NDArray[Any]]]

PACKING = "pack-tokens"
"""The pass with which padding disappears."""

PRUNING = (attn.BlockMaskOp, attn.TopkMaskOp, attn.ProbabilityMaskOp, attn.HeadRankingOp)
"""Ops that decide on scores or heads, so that a rounding can change much."""

EXACT_BOUND = 2e-5
"""Largest difference of an exact pass, relative to the largest magnitude of the value."""

FACTORS_BOUND = 1e-3
"""The same for factors, whose products may be much larger than the weight they make."""

ROUNDING_BOUND = 0.1
"""Largest relative difference (Euclidean) that 16-bit rounding may add to an unpruned model."""


@dataclass
class Snapshot:
    """What a run computed: outputs, and the last value of every layer (real tokens only)."""

    outputs: dict[str, NDArray[Any]]
    layers: dict[str, NDArray[np.float64]]
    prunes: bool = False


class ExecuteEach(Instrument):
    """Compares every pass with what came before it; `report` gets one line a pass."""

    def __init__(
        self,
        inputs: Arrays,
        weights: WeightStore,
        run_machine: RunMachine,
        report: Callable[[str], None],
        packed: ModuleOp | None = None,
    ):
        self.inputs = inputs
        self.weights = weights
        self.run_machine = run_machine
        self.report = report
        self._previous: Snapshot | None = None
        self._expected: Snapshot | None = None
        self._dense: ModuleOp | None = None
        self._is_on_machine = False
        tokens = None if packed is None else tokens_of(packed, inputs, mask_inputs(packed))
        self._tokens = tokens
        self._rows = output_rows(packed, tokens)

    def before(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Run what the pass starts from, under the pass's own semantics if it has one."""
        if self._previous is None:
            self._previous = self._run(module)
        self._expected = self._previous
        if isinstance(pass_, InsertHdpPass):
            rules = pass_.rules(module)
            if any(rule.name != "none" for rule in rules.values()):
                self._expected = self._run(module, RuleAttention(rules))
        if isinstance(pass_, HeatDecomposePass):
            self._dense = module.clone()
            if pass_.joint:
                FuseProjectionsPass().apply(Context(), self._dense)

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Run the result and compare; `VerificationError` at the first difference."""
        expected = self._expected
        assert expected is not None
        self._is_on_machine |= pass_.name in MACHINE_LEVEL
        if self._is_on_machine:
            actual = Snapshot(self.run_machine(module, self.inputs), {})
            self._compare_exactly(pass_, expected, actual)
        elif pass_.name == "assign-fixed-point":
            actual = self._run(module)
            self._report_rounding(pass_, expected, actual)
        elif isinstance(pass_, HeatDecomposePass):
            # The same layers with dense weights, those that the factors stand for.
            assert self._dense is not None
            dense = reference_weights(self._dense, module, self.weights)
            actual = self._run(module)
            self._compare(pass_, self._run(self._dense, weights=dense), actual, FACTORS_BOUND)
        elif pass_.name not in PASSES and effect_of(pass_) is not Effect.EXACT:
            # A pass of another package has no reference here.
            actual = self._run(module)
            self.report(f"{pass_.name}: {effect_of(pass_)}, not compared")
        else:
            actual = self._run(module)
            self._compare(pass_, expected, actual)
        self._previous = actual

    def _run(
        self,
        module: ModuleOp,
        override: RuleAttention | None = None,
        weights: WeightStore | None = None,
    ) -> Snapshot:
        recorder = _Recorder(self._tokens)
        store = self.weights if weights is None else weights
        interpreter = make_interpreter(module, store, recorder.observe)
        if override is not None:
            interpreter.register_implementations(override, override=True)
        function = main_function(module)
        names = input_names(function)
        missing = [n for n in names if n not in self.inputs]
        if missing:
            raise HeatcError(f"--execute-each has no input named {missing[0]!r}")
        arguments = tuple(np.asarray(self.inputs[n]) for n in names)
        results = interpreter.call_op("main", arguments)
        return Snapshot(
            dict(zip(output_names(function), results)), recorder.layers, recorder.prunes
        )

    def _compare(
        self,
        pass_: ModulePass,
        expected: Snapshot,
        actual: Snapshot,
        bound: float = EXACT_BOUND,
    ) -> None:
        for layer, value in expected.layers.items():
            other = actual.layers.get(layer)
            if other is None or other.shape != value.shape:
                continue
            self._check(pass_, f"layer {layer}", value, other, bound)
        error = 0.0
        for name, value in expected.outputs.items():
            value, other = (self._compared(name, x) for x in (value, actual.outputs[name]))
            error = max(error, self._check(pass_, f"output {name}", value, other, bound))
        self.report(f"{pass_.name}: {effect_of(pass_)}, max difference {error:.3g}")

    def _compared(self, name: str, output: NDArray[Any]) -> NDArray[Any]:
        """The part of an output that has to be the model's."""
        return self._rows.get(name, Rows()).of(output)

    def _check(
        self,
        pass_: ModulePass,
        what: str,
        expected: NDArray[Any],
        actual: NDArray[Any],
        bound: float,
    ) -> float:
        scale = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
        error = float(np.abs(expected - actual).max(initial=0.0))
        if not error <= bound * scale:
            raise VerificationError(
                f"pass '{pass_.name}' changed {what}: max difference {error:.3g} "
                f"at magnitude {scale:.3g}",
                place="--execute-each",
                notes=[f"allowed is {bound:g} of the magnitude ({effect_of(pass_)} pass)"],
            )
        return error

    def _compare_exactly(self, pass_: ModulePass, expected: Snapshot, actual: Snapshot) -> None:
        for name, value in expected.outputs.items():
            other = actual.outputs[name]
            differing = int(np.count_nonzero(value != other))
            if differing:
                raise VerificationError(
                    f"pass '{pass_.name}' changed output {name}: "
                    f"{differing} of {value.size} values differ",
                    place="--execute-each",
                )
        self.report(f"{pass_.name}: exact, bit-identical")

    def _report_rounding(self, pass_: ModulePass, expected: Snapshot, actual: Snapshot) -> None:
        worst = 0.0
        for name, value in expected.outputs.items():
            value, other = (self._compared(name, x) for x in (value, actual.outputs[name]))
            if not np.isfinite(other).all():
                raise VerificationError(
                    f"pass '{pass_.name}' made output {name} not finite", place="--execute-each"
                )
            size = max(float(np.linalg.norm(value)), 1e-6)
            worst = max(worst, float(np.linalg.norm(value - other)) / size)
        # Pruned attention decides on integers: a rounded score can move a block across its
        # threshold, so there the difference is reported, not bounded.
        bound = np.inf if actual.prunes else ROUNDING_BOUND
        if worst > bound:
            raise VerificationError(
                f"pass '{pass_.name}': rounding changed the outputs by {worst:.3g}, "
                f"more than {bound:g} of their size",
                place="--execute-each",
            )
        self.report(f"{pass_.name}: {Effect.CHANGES_VALUES}, relative difference {worst:.3g}")


class _Recorder:
    """Keeps the last value of every module path, rows of real tokens only."""

    def __init__(self, tokens: Tokens | None) -> None:
        self.layers: dict[str, NDArray[np.float64]] = {}
        self._tokens = tokens
        self.prunes = False

    def observe(self, op: Operation, results: Sequence[Any]) -> None:
        """Called after every op with its results."""
        if len(results) != 1:
            return
        if not isinstance(results[0], np.ndarray) or isinstance(op, WeightOp):
            return
        result = cast("NDArray[Any]", results[0])
        path = module_path(op)
        self.prunes |= isinstance(op, PRUNING)
        if path and op.name in ("nn.layer_norm", "nn.gelu", "nn.tanh"):
            value: NDArray[np.float64] = load(result, op.results[0]).astype(np.float64)
            self.layers[path] = value if self._tokens is None else _real(value, self._tokens)


def _real(value: NDArray[np.float64], tokens: Tokens) -> NDArray[np.float64]:
    """The real tokens of a layer's value, whether masked ones are still there or packed away."""
    samples, length = tokens.real.shape
    if value.shape[:2] == tokens.real.shape and samples != length:
        return value[tokens.real]
    if value.ndim == 2 and len(value) == len(tokens.rows):
        return value[tokens.real.reshape(-1)[tokens.rows]]
    return value


def packed_level(
    module: ModuleOp, passes: Sequence[ModulePass], weights: WeightStore
) -> ModuleOp | None:
    """
    What a captured module becomes where padding disappears, None where it does not.

    It has proven which values of a mask stand for real tokens.
    """
    names = [pass_.name for pass_ in passes]
    if PACKING not in names:
        return None
    context = HeatcContext(weights=weights, remarks=drop_remark)
    found = module.clone()
    run_passes(context, found, passes[: names.index(PACKING) + 1])
    return found
