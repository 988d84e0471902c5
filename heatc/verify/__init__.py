"""Checked by default: a program is run against the model before it is written."""

from __future__ import annotations

from heatc.verify.levels import Levels
from heatc.verify.settings import Settings, Verification

__all__ = ["Levels", "Settings", "Verification"]
