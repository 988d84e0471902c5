"""What a pass does to values; every pass of the house declares one `effect`."""

from __future__ import annotations

from xdsl.passes import ModulePass
from xdsl.utils.str_enum import StrEnum


class Effect(StrEnum):
    """How far the module after a pass may differ from the module before it."""

    EXACT = "exact"
    """The same real function; float32 results may differ by reassociation, integers may not."""

    TOLERANCE = "tolerance"
    """An approximation of the same function, within a stated bound."""

    CHANGES_VALUES = "changes-values"
    """Another function, which is compared with the reference of its own semantics."""


def effect_of(pass_: ModulePass) -> Effect:
    """The declared effect; upstream passes are exact."""
    return getattr(pass_, "effect", Effect.EXACT)
