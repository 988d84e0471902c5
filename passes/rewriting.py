"""What every pass of the house needs: rewriting that keeps locations and names, and remarks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import FileLineColLoc, NameLoc, UnknownLoc
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from heatc.context import remarks_of
from heatc.dialects.nn import ReshapeOp
from heatc.remarks import Remark


def remark(
    ctx: Context,
    op: Operation,
    text: str,
    *,
    layer: str = "",
    chosen: Mapping[str, Any] | None = None,
    weighed: Sequence[Mapping[str, Any]] = (),
    shown: bool = True,
) -> None:
    """Tell of a decision at `op`: `<module path> (<file>:<line>): remark: <text>`; see `Remark`."""
    place = describe_location(op)
    found = Remark(layer or module_path(op), place, text, chosen or {}, tuple(weighed), shown)
    remarks_of(ctx)(found)


def module_path(op: Operation) -> str:
    """The module path an op was captured from, or the empty string."""
    location = op.location
    return location.desc.data if isinstance(location, NameLoc) else ""


def describe_location(op: Operation) -> str:
    """`encoder.layer.0.attention.self (modeling_bert.py:201)`, as far as it is known."""
    location = op.location
    if isinstance(location, NameLoc):
        name, location = location.desc.data, location.location
    else:
        name = ""
    if isinstance(location, FileLineColLoc) and location.line.data > 0:
        line = f"{location.filename.data}:{location.line.data}"
        return f"{name} ({line})" if name else line
    return name


def at(op: Operation) -> str:
    """What a message about an op begins with: `place: `, or nothing where no place is known."""
    place = describe_location(op)
    return f"{place}: " if place else ""


_NUMBERS = re.compile(r"(?:_\d+)+$")


def name_hint(text: str) -> str | None:
    """
    The name that a value shows in the IR for a symbol; none if no valid name is left.

    A printer numbers values of one name, `x`, `x_1`: a number at the end would meet those.
    """
    hint = "".join(c if c.isascii() and c.isalnum() else "_" for c in text)
    hint = _NUMBERS.sub("", hint)
    return hint if SSAValue.is_valid_name(hint) else None


def is_unknown(op: Operation) -> bool:
    """Whether nothing is known about where an op comes from."""
    return isinstance(op.location, UnknownLoc)


def insert_before(anchor: Operation, *ops: Operation) -> None:
    """Insert ops before `anchor`, at its location where they have none of their own."""
    for op in ops:
        if is_unknown(op):
            op.location = anchor.location
    Rewriter.insert_op(ops, InsertPoint.before(anchor))


def replace_value(old: SSAValue, new: SSAValue) -> None:
    """Use `new` wherever `old` was used; the name hint moves along."""
    if new.name_hint is None:
        new.name_hint = old.name_hint
    old.replace_all_uses_with(new)


def erase_dead(root: Operation) -> None:
    """Erase pure ops inside `root` whose results are not used, last first."""
    from xdsl.traits import is_side_effect_free

    for op in reversed(list(root.walk())):
        if op is root or op.parent is None or not op.results:
            continue
        if all(r.first_use is None for r in op.results) and is_side_effect_free(op):
            op.detach()
            op.erase()


def fold_reshapes(root: Operation) -> None:
    """A reshape of a reshape is one, or none; what is not used any more is left to `erase_dead`."""
    for op in list(root.walk()):
        if not isinstance(op, ReshapeOp):
            continue
        inner = op.x.owner
        if isinstance(inner, ReshapeOp):
            op.operands[0] = inner.x
            op.dropped = None
        if op.x.type == op.result.type:
            op.result.replace_all_uses_with(op.x)
