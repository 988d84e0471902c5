"""All kinds of hostile inputs: importing this module registers them."""

from __future__ import annotations

from bench.fuzz import kinds_hdp, kinds_heatc, kinds_opt, kinds_python, kinds_tune
from bench.fuzz.case import KINDS

__all__ = ["KINDS", "kinds_hdp", "kinds_heatc", "kinds_opt", "kinds_python", "kinds_tune"]
