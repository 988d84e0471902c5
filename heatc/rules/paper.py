"""Rule `paper`: the pruning of HDP as it was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from heatc.rules.blocks import BlockRule, over_threshold
from heatc.rules.definition import Attention, Head, Mask, Reals, Rule

if TYPE_CHECKING:
    from xdsl.ir import SSAValue


class Paper(BlockRule):
    """Blocks of integer scores are kept from a threshold on, by the mean and the extremes of a row."""

    name = "paper"
    summary = "blocks of integer scores, kept from a threshold of their row on, as published"
    defaults: ClassVar[Mapping[str, Any]] = {
        "rho_b": (0.0,),
        "tau_h": (0.0,),
        "pruned_score": "zero",
        "block": (2, 2),
    }

    def mask(self, attention: Attention, importance: SSAValue, rule: Rule) -> SSAValue:
        """Mean filtering."""
        return attention.mean_filter(importance, rule.rho_b, rule.block)

    def kept_blocks(self, importance: Reals, head: Head) -> Mask:
        """Mean filtering."""
        return over_threshold(importance, head.rho_b)


RULE = Paper()
