"""How many tokens a module may see at once."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from heatc.dialects import attn

UNKNOWN = 128
"""What `?` counts as in a module without a packing."""


def most_tokens(module: ModuleOp) -> int:
    """The largest number of tokens that a packing of the module has room for."""
    rooms = [
        batch * length
        for op in module.walk()
        if isinstance(op, attn.PackingOp)
        for batch, length in [attn.packing_of(op.result).shape]
    ]
    return max(rooms, default=UNKNOWN)
