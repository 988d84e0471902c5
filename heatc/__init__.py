"""heatc: a compiler that makes trained transformers smaller and sparser without breaking them."""

from __future__ import annotations

# Not from `typing`: what a command imports before it handles signals is little.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from heatc.api import compile as compile
    from heatc.errors import HeatcError as HeatcError

__all__ = ["HeatcError", "compile"]


def __getattr__(name: str) -> Any:
    # Lazy: `heatc-opt` and the readers of programs start without the compiler.
    if name == "compile":
        from heatc.api import compile

        return compile
    if name == "HeatcError":
        from heatc.errors import HeatcError

        return HeatcError
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
