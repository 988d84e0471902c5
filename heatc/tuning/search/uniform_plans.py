"""Uniform plans, one format and one share for all layers: what a search must not be worse than."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from heatc.heat.formats import Spec
from heatc.tuning.search.candidate_costs import Variant
from heatc.tuning.search.candidates import Extent, matrix_rank
from heatc.tuning.search.front import Plans
from heatc.tuning.search.space_reduction import Option

Reals = NDArray[np.float64]

SHARES = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Shares of a dense layer's multiply-accumulates."""


def uniform_plans(
    extents: Sequence[Extent],
    variants: Sequence[Mapping[Spec, Sequence[Variant]]],
    options: Sequence[Sequence[Option]],
    errors: Sequence[Mapping[Spec, float]],
    spectra: Sequence[Reals],
) -> Plans:
    """
    Every format and number of modes with every share, as options that are no worse.

    A layer that has no candidate within the share stays dense. What a cut took away is stood for
    by what beats it.
    """
    kinds = dict.fromkeys(_kind(spec) for layer in variants for spec in layer)
    plans: dict[tuple[int, ...], None] = {}
    for kind in kinds:
        for share in SHARES:
            plan: list[int] = []
            for extent, own, choices, known, spectrum in zip(
                extents, variants, options, errors, spectra
            ):
                found = _largest(own, kind, share * extent.macs)
                plan.append(0 if found is None else _stands_for(found, choices, known, spectrum))
            plans[tuple(plan)] = None
    return np.array(list(plans), np.int64).reshape(len(plans), len(extents))


def _kind(spec: Spec) -> tuple[str, int]:
    return spec.format, len(spec.inputs)


def _largest(
    variants: Mapping[Spec, Sequence[Variant]], kind: tuple[str, int], budget: float
) -> Variant | None:
    fitting = [
        variant
        for spec, several in variants.items()
        if _kind(spec) == kind
        for variant in several
        if variant.macs <= budget
    ]
    return max(
        fitting, key=lambda variant: variant.spec.parameters if variant.spec else 0, default=None
    )


def _stands_for(
    variant: Variant, choices: Sequence[Option], errors: Mapping[Spec, float], spectrum: Reals
) -> int:
    """
    The cheapest option that is nowhere worse than a variant.

    Of a variant that was cut though nothing beats it in this layer, the cheapest of no greater
    error.
    """
    assert variant.spec is not None
    error = errors.get(variant.spec, float(spectrum[matrix_rank(variant.spec)]))
    near = [k for k, option in enumerate(choices) if option.error <= error]
    good = [k for k in near if choices[k].variant.joules <= variant.joules]
    good = [k for k in good if choices[k].variant.seconds <= variant.seconds]
    return min(good or near, key=lambda k: choices[k].variant.joules * choices[k].variant.seconds)
