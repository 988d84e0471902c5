"""Uniform plans, one format and one share for all layers: what a search must not be worse than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from heatc.heat.formats import Spec
from heatc.tuning.search.candidate_costs import Way
from heatc.tuning.search.candidates import Extent, matrix_rank
from heatc.tuning.search.front import Plans
from heatc.tuning.search.space_reduction import Option

Reals = NDArray[np.float64]

SHARES = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Shares of a dense layer's multiply-accumulates."""


def uniform_plans(
    extents: Sequence[Extent],
    ways: Sequence[Mapping[Spec, Sequence[Way]]],
    options: Sequence[Sequence[Option]],
    errors: Sequence[Mapping[Spec, float]],
    spectra: Sequence[Reals],
) -> Plans:
    """
    Every format and number of modes with every share, as options that are no worse.

    A layer that has no candidate within the share stays dense. What a cut took away is stood for
    by what beats it.
    """
    kinds = dict.fromkeys(_kind(spec) for layer in ways for spec in layer)
    plans: dict[tuple[int, ...], None] = {}
    for kind in kinds:
        for share in SHARES:
            plan: list[int] = []
            for extent, own, choices, known, spectrum in zip(
                extents, ways, options, errors, spectra
            ):
                found = _largest(own, kind, share * extent.macs)
                plan.append(0 if found is None else _stands_for(found, choices, known, spectrum))
            plans[tuple(plan)] = None
    return np.array(list(plans), np.int64).reshape(len(plans), len(extents))


def _kind(spec: Spec) -> tuple[str, int]:
    return spec.format, len(spec.inputs)


def _largest(
    ways: Mapping[Spec, Sequence[Way]], kind: tuple[str, int], budget: float
) -> Way | None:
    fitting = [
        way
        for spec, several in ways.items()
        if _kind(spec) == kind
        for way in several
        if way.macs <= budget
    ]
    return max(fitting, key=lambda way: way.spec.parameters if way.spec else 0, default=None)


def _stands_for(
    way: Way, choices: Sequence[Option], errors: Mapping[Spec, float], spectrum: Reals
) -> int:
    """
    The cheapest option that is nowhere worse than a way.

    Of a way that was cut though nothing beats it in this layer, the cheapest of no greater error.
    """
    assert way.spec is not None
    error = errors.get(way.spec, float(spectrum[matrix_rank(way.spec)]))
    near = [k for k, option in enumerate(choices) if option.error <= error]
    good = [k for k in near if choices[k].way.joules <= way.joules]
    good = [k for k in good if choices[k].way.seconds <= way.seconds]
    return min(good or near, key=lambda k: choices[k].way.joules * choices[k].way.seconds)
