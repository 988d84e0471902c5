"""Rule `ours`: that of the paper with a finer integer part, importance with signs and means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from heatc.rules.paper import Paper


class Ours(Paper):
    """As `paper`; what a compiler can choose on data differs: see docs/design/rules.md."""

    name = "ours"
    summary = "as paper, with a finer integer part, importance above the mean, and mean scores"
    defaults: ClassVar[Mapping[str, Any]] = {
        "finer": 2,
        "importance": "positive",
        "rho_b": (0.0,),
        "tau_h": (0.0,),
        "pruned_score": "mean",
        "gated": "col",
        "block": (2, 2),
    }


RULE = Ours()
