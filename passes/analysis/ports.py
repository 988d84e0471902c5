"""What a function says of its inputs and outputs."""

from __future__ import annotations

from xdsl.dialects.builtin import StringAttr
from xdsl.dialects.func import FuncOp


def output_paddings(function: FuncOp) -> list[str]:
    """What each output has at masked positions of a token axis: `zero`, or `computed` values."""
    attributes = function.res_attrs.data if function.res_attrs is not None else ()
    found = [a.data.get("heatc.padding") for a in attributes]
    words = [f.data if isinstance(f, StringAttr) else "computed" for f in found]
    return words or ["computed"] * len(function.function_type.outputs)
