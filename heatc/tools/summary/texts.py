"""Values with their units as text, and tables of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "u"), (1e-9, "n"), (1e-12, "p"))
_SCALED = {"s", "J", "J s"}
"""Units that take a prefix: 34.2 mJ."""

_BYTES = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def value_text(value: float | None, unit: str) -> str:
    """A value as a table shows it, `-` where there is none; prefixes are decimal."""
    if value is None:
        return "-"
    if unit in _SCALED:
        return _scaled(float(value), unit)
    if unit == "bytes":
        return next(
            (f"{value / scale:.4g} {name}" for scale, name in _BYTES if value >= scale),
            f"{value:,} bytes",
        )
    if unit == "%":
        return f"{value:.1f} %"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def _scaled(value: float, unit: str) -> str:
    for scale, prefix in _PREFIXES:
        if abs(value) >= scale:
            return f"{value / scale:.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def ratio_text(dense: float | None, compiled: float | None) -> str:
    """How one figure is beside another, in words that say which is better to have less of."""
    if not dense or compiled is None or not math.isfinite(dense):
        return ""
    if compiled == dense:
        return "the same"
    if not compiled:
        return "none left"
    share = dense / compiled
    return f"{share:.2f}x less" if share > 1 else f"{1 / share:.2f}x more"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells in columns as wide as their widest cell."""
    columns = max(map(len, rows), default=0)
    padded = [[*row, *[""] * (columns - len(row))] for row in rows]
    widths = [max(len(row[i]) for row in padded) for i in range(columns)]
    return "\n".join(
        "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths)).rstrip() for row in padded
    )
