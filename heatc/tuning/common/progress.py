"""How long work says how far it is; the compiler says it in the same way."""

from __future__ import annotations

from heatc.progress import ProgressCallback

__all__ = ["ProgressCallback"]
