"""
The families of converters: to import one is to register its converters.

Encoders of text need the usual families alone. The other ones are imported for a graph with an op
that the usual ones lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import ModuleType

from heatc.capture import aten_create, aten_index, aten_linear, aten_math, aten_norms, aten_shape
from heatc.capture.aten import CONVERTERS, ConvertFn

USUAL = (aten_create, aten_index, aten_linear, aten_math, aten_norms, aten_shape)


def converters(targets: Iterable[str]) -> Mapping[str, ConvertFn]:
    """Converters by target; whichever of `targets` is not among them has none."""
    return CONVERTERS if CONVERTERS.keys() >= set(targets) else all_converters()


def all_converters() -> Mapping[str, ConvertFn]:
    """The converters of all families, by target."""
    _others()
    return CONVERTERS


def _others() -> tuple[ModuleType, ...]:
    from heatc.capture import aten_conv, aten_functions, aten_reduce, aten_weight_norm

    return aten_conv, aten_functions, aten_reduce, aten_weight_norm
