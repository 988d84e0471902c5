"""
How well the proxy orders plans: some plans, measured without training.

Half are of the front, half are random neighbours of it. Each runs as a whole on samples that took
no part in the sensitivities; Spearman's rank correlation compares what is measured with the proxy
and with plainer sums of errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.ir import Operation

from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.search.front import Plans, PlanSpace, option_numbers
from heatc.tuning.search.layers import Layer
from heatc.tuning.search.patched_model import PatchedModel
from heatc.tuning.search.replacements import Replacement, Replacements
from heatc.tuning.search.result_cache import ResultCache
from heatc.tuning.search.sensitivity import Curve, Reference
from heatc.tuning.search.space_reduction import Option

Reals = NDArray[np.float64]

_CHANGED = 0.3
"""Share of the layers in which a random plan differs from one of the front."""

# scipy has no types.
_stats: Any = import_module("scipy.stats")


def sample_plans(space: PlanSpace, front: Plans, count: int, seed: int) -> Plans:
    """(count, layers): half of the front, spread over it, half random neighbours of all of it."""
    rng = np.random.default_rng([seed, 1])
    own = front[np.linspace(0, len(front) - 1, count - count // 2).round().astype(int)]
    near = front[rng.integers(0, len(front), count // 2)]
    other = rng.integers(0, space.sizes, near.shape)
    changed = rng.random(near.shape) < _CHANGED
    return np.concatenate([own, np.where(changed, other, near)])


@dataclass(frozen=True)
class PlanTrial:
    """Measures whole plans: `options` of each layer by number."""

    model: PatchedModel
    reference: Reference
    layers: Sequence[Layer]
    replacements: Replacements
    options: Sequence[Sequence[Option]]
    curves: Mapping[str, Curve]
    cache: ResultCache

    def measure(self, plan: Plans) -> dict[str, float]:
        """
        Mean divergence, share of the predictions that stay, accuracy where there are labels.

        Beside them the sums that are to predict it.
        """
        chosen = [own[k] for own, k in zip(self.options, option_numbers(plan))]
        named = [(layer.path, option.variant.spec) for layer, option in zip(self.layers, chosen)]
        name = f"measured-{content_key({'plan': repr(named)}, {})}"
        found = self.cache.read(name)
        if found is None:
            found = self._run(chosen) | self._sums(chosen)
            self.cache.write(name, found)
        return found

    def _run(self, chosen: Sequence[Option]) -> dict[str, float]:
        replaced: dict[Operation, Replacement] = {
            op: other
            for layer, option in zip(self.layers, chosen)
            if option.variant.spec is not None
            for other in [self.replacements.of(layer.path, option.variant.spec)]
            for op in layer.ops
        }
        evaluator = self.reference.evaluator
        parts = [
            self.reference.part(k, self.model.outputs_of(batch.inputs, replaced))
            for k, batch in enumerate(self.reference.batches)
        ]
        outputs = np.concatenate(parts)
        found = {"divergence": float(evaluator.divergence(outputs).mean())}
        changed = evaluator.changed(outputs)
        if changed is not None:
            found["agreement"] = float(1 - changed.mean())
        if evaluator.labels is not None:
            found["accuracy"] = float((outputs.argmax(axis=1) == evaluator.labels).mean())
        return found

    def _sums(self, chosen: Sequence[Option]) -> dict[str, float]:
        found: dict[str, float] = dict.fromkeys(PREDICTORS, 0.0)
        for layer, option in zip(self.layers, chosen):
            spec, curve = option.variant.spec, self.curves[layer.path]
            if spec is None:
                continue
            error = np.array([option.error])
            found["proxy"] += float(curve(error)[0])
            found["sensitivity x squared error"] += float(curve.squared(error)[0])
            found["squared error"] += option.error**2
            found["squared weight error"] += self.replacements.weight_error(layer.path, spec) ** 2
        return found


PREDICTORS: tuple[str, ...] = (
    "proxy",
    "sensitivity x squared error",
    "squared error",
    "squared weight error",
)
"""Sums over layers that are compared; the first is what is searched by."""


def validate_plans(trial: PlanTrial, plans: Plans, progress: ProgressCallback) -> dict[str, Any]:
    """Measures every plan; rank correlations of each predictor with each figure."""
    rows: list[dict[str, float]] = []
    for number, plan in enumerate(plans):
        rows.append(trial.measure(plan))
        progress("validation", number + 1, len(plans))
    figures = [name for name in ("divergence", "agreement", "accuracy") if name in rows[0]]
    spearman = {
        figure: {p: _spearman([r[p] for r in rows], [r[figure] for r in rows]) for p in PREDICTORS}
        for figure in figures
    }
    evaluator = trial.reference.evaluator
    return {
        "samples": len(evaluator.dense),
        "dense_accuracy": None
        if evaluator.labels is None
        else float((evaluator.dense.argmax(axis=1) == evaluator.labels).mean()),
        "spearman": spearman,
        "plans": rows,
    }


def _spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where one of both is constant."""
    if len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return round(float(_stats.spearmanr(a, b).statistic), 6)
