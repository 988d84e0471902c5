"""Rule `topk`: a fixed share of the blocks of each row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from heatc.rules.blocks import BlockRule
from heatc.rules.definition import Attention, Head, Mask, Reals, Rule

if TYPE_CHECKING:
    from xdsl.ir import SSAValue


class TopK(BlockRule):
    """Blocks of integer scores are kept by rank; of equal ones those further left."""

    name = "topk"
    summary = "blocks of integer scores, the same share of every row"
    defaults: ClassVar[Mapping[str, Any]] = {
        "finer": 0,
        "density": 0.25,
        "pruned_score": "neginf",
        "block": (2, 2),
    }

    def mask(self, attention: Attention, importance: SSAValue, rule: Rule) -> SSAValue:
        """The greatest blocks of each row."""
        return attention.greatest(importance, rule.density, rule.block)

    def kept_blocks(self, importance: Reals, head: Head) -> Mask:
        """The greatest blocks of each row, the first of equal ones."""
        kept = np.zeros(importance.shape, np.bool_)
        count = max(1, math.ceil(head.rule.density * importance.shape[1]))
        for row, values in enumerate(importance):
            ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
            kept[row, ranked[:count]] = True
        return kept


RULE = TopK()
