"""
How near candidates come to a layer: the relative error of its output on calibration text.

Of low-rank at every rank by one spectrum, of the others by the start of their decomposition
without refinement. Errors are rounded to six digits, which is what float32 leaves of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heatc.heat.decompose import decompose
from heatc.heat.formats import Format, Spec
from heatc.heat.norm import Norm, spectrum
from heatc.tuning.common.content_key import content_key
from heatc.tuning.common.progress import ProgressCallback
from heatc.tuning.common.workers import Json, Workers
from heatc.tuning.search.layers import Inputs, Layer
from heatc.tuning.search.result_cache import ResultCache
from heatc.weights import WeightStore

Reals = NDArray[np.float64]

_DIGITS = 6


def layer_spectra(
    layers: Sequence[Layer],
    weights: WeightStore,
    inputs: Mapping[str, Inputs],
    cache: ResultCache,
    workers: Workers,
    progress: ProgressCallback,
) -> dict[str, Reals]:
    """The error of the nearest matrix of every rank from 0 on, by layer."""
    tasks: dict[str, tuple[Any, ...]] = {}
    for number, layer in enumerate(layers):
        matrix, moment = layer.targets[0].matrix(weights), inputs[layer.path].covariance
        tasks[f"spectrum-{number}"] = (matrix, np.asarray(moment))
    found = cache.results(workers, spectrum_errors, tasks, "spectra", progress)
    return {layer.path: np.asarray(found[n]) for layer, n in zip(layers, tasks)}


def spectrum_errors(matrix: Reals, moment: NDArray[np.float32]) -> Json:
    """Errors of the nearest matrices of rank 0, 1, ..., as a list."""
    return [round(float(e), _DIGITS) for e in spectrum(matrix, Norm.of(moment)).errors()]


def candidate_errors(
    layers: Sequence[Layer],
    wanted: Mapping[str, Sequence[Spec]],
    weights: WeightStore,
    inputs: Mapping[str, Inputs],
    seed: int,
    cache: ResultCache,
    workers: Workers,
    what: str,
    progress: ProgressCallback,
) -> dict[str, dict[Spec, float]]:
    """
    The error of every wanted candidate of each layer, decomposed without refinement.

    `what` is what progress is called.
    """
    tasks: dict[str, tuple[Any, ...]] = {}
    places: dict[str, tuple[str, Sequence[Spec]]] = {}
    for layer in layers:
        matrix, moment = layer.targets[0].matrix(weights), inputs[layer.path].covariance
        for specs in _by_format(wanted[layer.path]):
            texts = [(s.format, s.inputs, s.outputs, s.ranks) for s in specs]
            name = f"errors-{content_key({'layer': layer.path, 'specs': repr(texts)}, {})}"
            tasks[name] = (matrix, np.asarray(moment), texts, seed)
            places[name] = layer.path, specs
    found = cache.results(workers, unrefined_errors, tasks, what, progress)
    errors: dict[str, dict[Spec, float]] = {layer.path: {} for layer in layers}
    for name, (path, specs) in places.items():
        errors[path].update(zip(specs, found[name]))
    return errors


def _by_format(specs: Sequence[Spec]) -> Iterator[list[Spec]]:
    for format_ in dict.fromkeys(spec.format for spec in specs):
        yield [spec for spec in specs if spec.format == format_]


def unrefined_errors(
    matrix: Reals,
    moment: NDArray[np.float32],
    texts: Sequence[tuple[Format, Any, Any, Any]],
    seed: int,
) -> Json:
    """The errors of some specs of one weight, as a list."""
    norm = Norm.of(moment)
    specs = (Spec(*text) for text in texts)
    found = (decompose(matrix, s, norm, refinements=0, seed=seed).error for s in specs)
    return [round(e, _DIGITS) for e in found]
