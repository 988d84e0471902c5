"""All kinds of hostile inputs: importing this module registers them."""

from __future__ import annotations

from bench.support.fuzz import kinds_hdp, kinds_heatc, kinds_opt, kinds_python, kinds_tune
from bench.support.fuzz.case import KINDS

__all__ = ["KINDS", "kinds_hdp", "kinds_heatc", "kinds_opt", "kinds_python", "kinds_tune"]
