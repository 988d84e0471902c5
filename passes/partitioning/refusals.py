"""The message for what neither the co-processor nor its host has an instruction for."""

from __future__ import annotations

from xdsl.ir import Operation

from heatc.dialects import nn
from heatc.passes.analysis.host_work import HostWork
from heatc.passes.rewriting import describe_location
from heatc.passes.tiling.host_table import why_not

_SHOWN = 20
"""Lines of a message."""


def refusals(work: HostWork) -> str:
    """One message about all ops of a function that are refused, empty where none is."""
    found: dict[tuple[str, str, str], int] = {}
    for op in work.ops:
        reason = why_not(op)
        if reason is not None:
            key = (_called(op), describe_location(op) or "an unknown place", reason)
            found[key] = found.get(key, 0) + 1
    if not found:
        return ""
    lines = [
        f"  {name}{'' if count == 1 else f' ({count} times)'} at {place}: {reason}"
        for (name, place, reason), count in found.items()
    ]
    if len(lines) > _SHOWN:
        lines = [*lines[:_SHOWN], f"  and {len(lines) - _SHOWN} more places"]
    return "\n".join(
        (
            f"{sum(found.values())} op(s) that neither the co-processor nor its host has a unit for:",
            *lines,
            "compile with --target numpy, which has all of them; or, where they stand in code of "
            "your own, write them with other ops (docs/design/host.md has the host's list)",
        )
    )


def _called(op: Operation) -> str:
    """The name of an op, with its function where it has one."""
    return f"{op.name} {op.function.data!r}" if isinstance(op, nn.MapOp) else op.name
