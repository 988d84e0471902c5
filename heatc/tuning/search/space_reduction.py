"""
Cuts of the search space: a candidate goes that another one beats in everything.

1. Candidates that do not run, or are no cheaper than the dense layer in energy nor in latency.
2. Candidates that low-rank beats even if they were as near as any matrix of their rank. They need
   no decomposition.
3. Candidates that others beat in each of a few probed layers of the same extent. They are
   decomposed for no further layer.
4. Candidates that another one of the layer beats in error, energy and latency, once errors are
   known.

The third alone may lose something: a candidate that is good in a layer that was not probed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heatc.heat.formats import Spec
from heatc.tuning.search.candidate_costs import Variant
from heatc.tuning.search.candidates import matrix_rank

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Option:
    """A variant of a layer, and the relative error of the layer's output with it (0 if dense)."""

    variant: Variant
    error: float


def cheaper(variants: Mapping[Spec | None, Sequence[Variant]]) -> dict[Spec, tuple[Variant, ...]]:
    """The candidates' variants that cost less energy or less time than the dense layer."""
    (dense,) = variants[None]
    found: dict[Spec, tuple[Variant, ...]] = {}
    for spec, several in variants.items():
        kept = tuple(w for w in several if w.joules < dense.joules or w.seconds < dense.seconds)
        if spec is not None and kept:
            found[spec] = kept
    return found


def promising(variants: Mapping[Spec, Sequence[Variant]], spectrum: Reals) -> tuple[Spec, ...]:
    """
    The candidates other than low-rank whose errors have to be known, in order.

    Left out are those whose every variant a low-rank candidate beats, given the least error that
    their matrix can have.
    """
    nearest = [
        Option(variant, float(spectrum[spec.ranks[0]]))
        for spec, several in variants.items()
        if spec.format == "low-rank"
        for variant in several
    ]
    others = {s: several for s, several in variants.items() if s.format != "low-rank"}
    least = {s: float(spectrum[matrix_rank(s)]) for s in others}
    return tuple(
        spec
        for spec, several in others.items()
        if not all(any(_beats(n, Option(w, least[spec])) for n in nearest) for w in several)
    )


def options(
    dense: Variant,
    variants: Mapping[Spec, Sequence[Variant]],
    spectrum: Reals,
    errors: Mapping[Spec, float],
) -> tuple[Option, ...]:
    """The dense layer, and the variants that no other one beats, by ascending error."""
    found = [Option(dense, 0.0)]
    for spec, several in variants.items():
        if spec.format == "low-rank":
            found += [Option(variant, float(spectrum[spec.ranks[0]])) for variant in several]
        elif spec in errors:
            found += [Option(variant, errors[spec]) for variant in several]
    return undominated(found)


def probed(count: int) -> tuple[int, ...]:
    """Numbers of the layers that are probed, of so many of one extent: first, middle and last."""
    return tuple(sorted({0, count // 2, count - 1}))


def undominated(found: Iterable[Option]) -> tuple[Option, ...]:
    """Options that no other beats in error, energy and latency; of equal ones the first."""
    order = sorted(found, key=lambda o: (o.error, o.variant.joules, o.variant.seconds))
    kept: list[Option] = []
    for option in order:
        if not any(_beats(other, option) for other in kept):
            kept.append(option)
    return tuple(kept)


def _beats(a: Option, b: Option) -> bool:
    """Whether `a` is nowhere worse than `b`."""
    costs = a.variant.joules <= b.variant.joules and a.variant.seconds <= b.variant.seconds
    return costs and a.error <= b.error
