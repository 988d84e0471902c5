"""
What a layer's error does to the model's outputs, measured one layer at a time.

A layer alone becomes the nearest matrix of some ranks, and the divergence of the outputs from the
model's own (`heatc.tuning.common.evaluation`) is measured on calibration text. Between the measured errors the
divergence is interpolated in logarithms; below the least of them it goes with the squared error,
above the greatest too. So a layer that saturates, or one that hardly matters, is priced as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heatc.tuning.common.evaluation import Evaluator, compared_output, reduce_output
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.samples import Batch
from heatc.tuning.search.layers import Layer
from heatc.tuning.search.patched_model import PatchedModel
from heatc.tuning.search.replacements import Replacements
from heatc.tuning.search.result_cache import ResultCache

Reals = NDArray[np.float64]

PROBES = (0.25, 0.5, 0.9)
"""Errors at which a layer is measured, as shares of its error at rank 1."""

_LEAST = 1e-12


@dataclass(frozen=True)
class Curve:
    """Measured divergences of one layer, by ascending error."""

    errors: tuple[float, ...]
    divergences: tuple[float, ...]

    def __call__(self, errors: Reals) -> Reals:
        """The divergence that errors are likely to cause; 0 of no error."""
        x = np.log(np.maximum(errors, _LEAST))
        known_x = np.log(self.errors)
        # What a larger error did to a sample of text may be less by chance, and is no gain.
        known_y = np.log(np.maximum.accumulate(np.maximum(self.divergences, _LEAST)))
        y = np.interp(x, known_x, known_y)
        y = y + 2 * (np.minimum(x - known_x[0], 0) + np.maximum(x - known_x[-1], 0))
        return np.where(np.asarray(errors) > 0, np.exp(y), 0.0)

    def squared(self, errors: Reals) -> Reals:
        """The same as one number times the squared error, fitted in logarithms."""
        gaps = np.log(np.maximum(self.divergences, _LEAST)) - 2 * np.log(self.errors)
        return np.exp(gaps.mean()) * np.asarray(errors) ** 2


def probe_ranks(errors: Reals) -> tuple[int, ...]:
    """The ranks whose errors come nearest to `PROBES`, each once, from near to far."""
    inner = errors[1:-1] if len(errors) > 2 else errors[:1]
    first = 1 if len(errors) > 2 else 0
    found = (first + int(np.abs(inner - share * inner[0]).argmin()) for share in PROBES)
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Reference:
    """Batches, and what the model itself computes for them."""

    batches: tuple[Batch, ...]
    outputs: tuple[dict[str, NDArray[np.float32]], ...]
    output: str
    classes: bool
    evaluator: Evaluator

    @classmethod
    def of(
        cls,
        model: PatchedModel,
        batches: Iterable[Batch],
        batch: int,
        labels: NDArray[np.int64] | None,
        progress: ProgressCallback,
    ) -> Reference:
        """Run the model as it is; `labels` are by sample number, as `Batch.samples` names them."""
        listed = tuple(batches)
        outputs: list[dict[str, NDArray[np.float32]]] = []
        for number, one in enumerate(listed):
            outputs.append(model.outputs_of(one.inputs, {}))
            progress("the model as it is", number + 1, len(listed))
        name, classes = compared_output(outputs[0], batch, labels is not None)
        dense = [
            reduce_output(found[name], found[name], len(one.samples), classes)
            for found, one in zip(outputs, listed)
        ]
        samples = np.concatenate([one.samples for one in listed])
        own = None if labels is None else labels[samples]
        evaluator = Evaluator.of(name, np.concatenate(dense), own)
        return cls(listed, tuple(outputs), name, classes, evaluator)

    def part(self, number: int, outputs: Mapping[str, NDArray[np.float32]]) -> Reals:
        """The outputs of batch `number`, as the evaluator takes them."""
        own, count = self.outputs[number][self.output], len(self.batches[number].samples)
        return reduce_output(outputs[self.output], own, count, self.classes)


def sensitivities(
    model: PatchedModel,
    reference: Reference,
    layers: Sequence[Layer],
    replacements: Replacements,
    spectra: Mapping[str, Reals],
    cache: ResultCache,
    progress: ProgressCallback,
) -> dict[str, Curve]:
    """The curve of every layer, by module path; what an earlier run measured is kept."""
    found = cache.read("sensitivity")
    if found is None:
        found = _measure(model, reference, layers, replacements, spectra, cache, progress)
        cache.write("sensitivity", found)
    progress("sensitivities", 1, 1)
    return {path: Curve(*(tuple(part) for part in curve)) for path, curve in found.items()}


def _measure(
    model: PatchedModel,
    reference: Reference,
    layers: Sequence[Layer],
    replacements: Replacements,
    spectra: Mapping[str, Reals],
    cache: ResultCache,
    progress: ProgressCallback,
) -> dict[str, list[list[float]]]:
    ranks = [probe_ranks(spectra[layer.path]) for layer in layers]
    replaced = [
        (layer.ops, [partial(replacements.truncated, layer.path, rank) for rank in own])
        for layer, own in zip(layers, ranks)
    ]
    shape = len(layers), max(map(len, ranks))
    sums, count, total = np.zeros(shape), 0, len(reference.batches)
    for number, batch in enumerate(reference.batches):
        part = np.asarray(cache.read(f"probed-{number}") or np.full(shape, np.nan))
        if np.isnan(part).all():
            part = np.zeros(shape)
            evaluator = reference.evaluator.of_samples(np.arange(count, count + len(batch.samples)))
            for layer, rank, outputs in model.one_by_one(batch.inputs, replaced):
                value = evaluator.divergence(reference.part(number, outputs)).sum()
                part[layer, rank] = float(value)
            cache.write(f"probed-{number}", part.tolist())
        sums += part
        count += len(batch.samples)
        progress("sensitivities", number + 1, total)
    curves: dict[str, list[list[float]]] = {}
    for layer, own, row in zip(layers, ranks, sums / count):
        errors = [float(max(spectra[layer.path][r], _LEAST)) for r in own]
        pairs = sorted(zip(errors, (float(d) for d in row[: len(own)])))
        curves[layer.path] = [[e for e, _ in pairs], [d for _, d in pairs]]
    return curves
