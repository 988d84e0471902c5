"""Plain NumPy expressions of ops, on arrays as the IR has them (tokens first)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from xdsl.dialects.builtin import Float32Type, Float64Type, IntegerType
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue

from heatc.backends.numpy.weight_file import dtype_of
from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.errors import HeatcError
from heatc.functions import FUNCTIONS

Read = Callable[[SSAValue], str]
_OPERATORS = {
    nn.AddOp: "+",
    nn.SubOp: "-",
    nn.MulOp: "*",
    nn.DivOp: "/",
    nn.AndOp: "&",
    nn.OrOp: "|",
    nn.PowOp: "**",
    nn.FloorDivOp: "//",
    nn.RemainderOp: "%",
}
_CALLS = {nn.MaximumOp: "np.maximum", nn.MinimumOp: "np.minimum"}
_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_SOME_TOKENS = 128
_NARROW = ("np.int16", "np.int8", "np.uint8")


def dtype(type_: Attribute) -> str:
    """The expression of the dtype of a tensor type."""
    name = dtype_of(type_)
    if name is None:
        raise HeatcError(f"the NumPy backend cannot emit a value of type {type_}")
    return "np.bool_" if name == "bool" else f"np.{name}"


def shape_text(value: SSAValue) -> str:
    """The shape of a value as an expression."""
    extents = ["tokens" if e == nn.TOKENS else str(e) for e in nn.shape_of(value)]
    return f"({', '.join(extents)}{',' if len(extents) == 1 else ''})"


def expression(op: Operation, read: Read, used: set[str]) -> str | None:
    """The expression of an op's result; None for an op without one. Adds helpers to `used`."""
    for make in (_arithmetic, _along_axes, _shapes, _layers, _attention):
        text = make(op, read, used)
        if text is not None:
            return text
    return None


def _cast(text: str, op: Operation, operands: Sequence[SSAValue]) -> str:
    """`text`, as the result's type where the operands have another."""
    want = nn.element_of(op.results[0])
    if all(nn.element_of(v) == want for v in operands):
        return text
    return f"({text}).astype({dtype(op.results[0].type)})"


def _arithmetic(op: Operation, read: Read, used: set[str]) -> str | None:
    for kind, sign in _OPERATORS.items():
        if isinstance(op, kind):
            return _cast(f"{read(op.lhs)} {sign} {read(op.rhs)}", op, op.operands)
    for kind, function in _CALLS.items():
        if isinstance(op, kind):
            return _cast(f"{function}({read(op.lhs)}, {read(op.rhs)})", op, op.operands)
    match op:
        case nn.MapOp():
            function = FUNCTIONS[op.function.data]
            used.update(function.helpers)
            return _cast(function.text.format(x=read(op.x)), op, [op.x])
        case nn.CompareOp():
            return f"{read(op.lhs)} {_COMPARE[op.predicate.data]} {read(op.rhs)}"
        case nn.NotOp():
            return f"~{read(op.x)}"
        case nn.TanhOp():
            return f"np.tanh({read(op.x)})"
        case nn.ReluOp():
            return f"np.maximum({read(op.x)}, 0)"
        case nn.CastOp():
            return _converted(op, read)
        case nn.GeluOp():
            if dtype(op.result.type) != "np.float32":
                return None
            form = op.approximate.data
            helper = "gelu" if form == "none" else f"gelu_{form}"
            used.update({helper, "elementwise"})
            return f"elementwise({helper}, {read(op.x)})"
        case nn.SoftmaxOp():
            used.add("softmax")
            safe = "" if op.safe is None else ", safe=True"
            return f"softmax({read(op.x)}, {op.dim.value.data}{safe})"
        case nn.WhereOp():
            text = f"np.where({read(op.condition)}, {read(op.lhs)}, {read(op.rhs)})"
            return _cast(text, op, [op.lhs, op.rhs])
        case _:
            return None


def _along_axes(op: Operation, read: Read, used: set[str]) -> str | None:
    match op:
        case nn.ReduceOp():
            return _reduction(op, read)
        case nn.ArgmaxOp():
            return f"{read(op.x)}.argmax(axis={op.axis.value.data})"
        case nn.CumsumOp():
            text = f"np.cumsum({read(op.x)}, axis={op.axis.value.data}, dtype={_wide(op.x)})"
            return f"{text}.astype({dtype(op.result.type)})"
        case nn.RmsNormOp():
            used.add("rms_norm")
            return f"rms_norm({read(op.x)}, {read(op.weight)}, {op.eps.value.data!r})"
        case _:
            return None


def _wide(value: SSAValue) -> str:
    """The dtype in which elements are added up."""
    return "np.float64" if dtype(value.type).startswith("np.float") else "np.int64"


def _reduction(op: nn.ReduceOp, read: Read) -> str:
    """A reduction; floats are added up in float64."""
    kind, target = op.kind.data, dtype(op.result.type)
    axes = f"axis=({', '.join(map(str, op.reduced))},)"
    if kind in ("any", "all"):
        return f"({read(op.x)} != 0).{kind}({axes}).astype({target})"
    if kind in ("sum", "mean", "prod"):
        axes += f", dtype={_wide(op.x)}"
    return f"np.asarray({read(op.x)}.{kind}({axes})).astype({target})"


def _converted(op: nn.CastOp, read: Read) -> str:
    """A cast; floats become narrow integers as PyTorch's do, cut off and modulo 2^width."""
    target = dtype(op.result.type)
    if target == "np.bool_":
        return f"{read(op.x)} != 0"
    cut = isinstance(nn.element_of(op.x), Float32Type | Float64Type) and target in _NARROW
    return f"{read(op.x)}{'.astype(np.int64)' if cut else ''}.astype({target})"


def _filled(op: nn.FullOp) -> str:
    """An array of one number."""
    value, target = op.value.value.data, dtype(op.result.type)
    text = repr(value) if np.isfinite(value) else f'float("{value}")'
    if isinstance(nn.element_of(op.result), IntegerType) and np.isfinite(value):
        text = str(int(value))
    return f"np.full({shape_text(op.result)}, {text}).astype({target})"


def _shapes(op: Operation, read: Read, used: set[str]) -> str | None:
    match op:
        case nn.ReshapeOp():
            return f"{read(op.x)}.reshape({shape_text(op.result)})"
        case nn.TransposeOp():
            order = ", ".join(str(int(p)) for p in op.permutation.get_values())
            return f"{read(op.x)}.transpose({order})"
        case nn.ExpandOp():
            return f"np.broadcast_to({read(op.x)}, {shape_text(op.result)})"
        case nn.SliceOp():
            return f"{read(op.x)}[{_slices(op)}]" if _slices(op) else read(op.x)
        case nn.IndexOp():
            return f"{read(op.x)}[{', '.join(read(i) for i in op.indices)}]"
        case nn.ConcatOp():
            parts = ", ".join(read(v) for v in op.inputs)
            return f"np.concatenate([{parts}], axis={op.dim.value.data})"
        case nn.IotaOp():
            start, step = op.start.value.data, op.step.value.data
            values = f"({start} + {step} * np.arange({nn.shape_of(op.result)[0]}))"
            return f"{values}.astype({dtype(op.result.type)})"
        case nn.FullOp():
            return _filled(op)
        case _:
            return None


def _slices(op: nn.SliceOp) -> str:
    parts: list[str] = []
    starts = [int(s) for s in op.starts.get_values()]
    steps = [int(s) for s in op.steps.get_values()]
    shapes = zip(nn.shape_of(op.x), nn.shape_of(op.result))
    for start, step, (extent, size) in zip(starts, steps, shapes):
        stop = start + (size - 1) * step + 1
        if size == nn.TOKENS or (start, step, stop) == (0, 1, extent):
            parts.append(":")
        else:
            parts.append(f"{start}:{stop}" + (f":{step}" if step > 1 else ""))
    return ", ".join(parts)


def _id_names(ids: SSAValue, read: Read) -> str:
    """What an error about ids needs: the input they are, and the packing whose rows they are."""
    packing = ids.owner.packing if isinstance(ids.owner, attn.PackOp) else None
    source = ids.owner.x if isinstance(ids.owner, attn.PackOp) else ids
    if not isinstance(source, BlockArgument):
        return ""
    name = f', "{read(source)}"'
    return name if packing is None else f"{name}, {read(packing)}"


def _layers(op: Operation, read: Read, used: set[str]) -> str | None:
    match op:
        case nn.EmbeddingOp():
            used.add("embedding")
            return f"embedding({read(op.table)}, {read(op.ids)}{_id_names(op.ids, read)})"
        case nn.LinearOp():
            bias = f" + {read(op.bias)}" if op.bias is not None else ""
            return f"{read(op.x)} @ {read(op.weight)}.T{bias}"
        case nn.MatmulOp():
            return f"{read(op.lhs)} @ {read(op.rhs)}"
        case nn.LayerNormOp():
            used.add("plain_layer_norm")
            operands = ", ".join(read(v) for v in (op.x, op.weight, op.bias))
            return f"plain_layer_norm({operands}, {op.eps.value.data!r})"
        case ContractOp():
            return _contraction(op, read)
        case _:
            return None


def _contraction(op: ContractOp, read: Read) -> str:
    """A product of matrices where it is one, else np.einsum along the best pairwise path."""
    equation = op.equation.data
    terms, result = parse_equation(equation)
    operands = [read(v) for v in op.inputs]
    if len(terms) == 2 and len(terms[1]) == 2 and len(terms[0]) >= 2:
        x, (first, second) = terms[0], terms[1]
        if x[-1] == second and result == x[:-1] + first and first not in x:
            return f"{operands[0]} @ {operands[1]}.T"
        if x[-1] == first and result == x[:-1] + second and second not in x:
            return f"{operands[0]} @ {operands[1]}"
    if len(terms) == 1:
        return f'np.einsum("{equation}", {operands[0]})'
    if len(terms) == 2 and (turned := _batched(terms[0], terms[1], result)) is not None:
        return f"{operands[0]} @ {operands[1]}{'.swapaxes(-1, -2)' if turned else ''}"
    shapes = [
        tuple(_SOME_TOKENS if e == nn.TOKENS else e for e in nn.shape_of(v)) for v in op.inputs
    ]
    zeros = [np.broadcast_to(np.float32(0), shape) for shape in shapes]
    path = np.einsum_path(equation, *zeros, optimize="optimal" if len(shapes) <= 6 else "greedy")
    return f'np.einsum("{equation}", {", ".join(operands)}, optimize={path[0]!r})'


def _batched(lhs: str, rhs: str, result: str) -> bool | None:
    """Whether the second matrices of a stack of products lie turned; None where it is none."""
    if not len(lhs) == len(rhs) == len(result) >= 3 or len(set(lhs + rhs)) != len(lhs) + 1:
        return None
    stack, inner = lhs[:-2], lhs[-1]
    if rhs[:-2] != stack or result[:-1] != lhs[:-1] or result[-1] in lhs:
        return None
    return {inner + result[-1]: False, result[-1] + inner: True}.get(rhs[-2:])


def _attention(op: Operation, read: Read, used: set[str]) -> str | None:
    match op:
        case attn.PackingOp():
            return _packing(op, read, used)
        case attn.PackOp():
            return f"pack({read(op.x)}, {read(op.packing)})"
        case attn.UnpackOp():
            kept = "" if op.read is None else ", read=True"
            return f"unpack({read(op.x)}, {read(op.packing)}{kept})"
        case attn.RealOp():
            return f"{read(op.packing)}.mask"
        case attn.TokenOp():
            used.add("token")
            return f"token({read(op.x)}, {read(op.packing)}, {op.position.value.data})"
        case attn.SdpaOp():
            return _padded_attention(op, read, used) if op.packing is None else None
        case nn.SdpaOp():
            used.add("scaled_dot_product")
            text = ", ".join(read(v) for v in (op.q, op.k, op.v))
            text += f", {op.scale.value.data!r}"
            text += f", mask={read(op.mask)}" if op.mask is not None else ""
            text += ", causal=True" if op.is_causal.value.data else ""
            return f"scaled_dot_product({text})"
        case _:
            return None


def _packing(op: attn.PackingOp, read: Read, used: set[str]) -> str:
    used.add("packing")
    type_ = attn.packing_of(op.result)
    if op.mask is None:
        return f"Packing(np.ones({type_.shape}, np.bool_))"
    real = f"{read(op.mask)} != 0"
    if op.real is not None and op.masked is not None:
        used.add("real")
        name = repr(op.mask.name_hint or "the mask")
        sets = (_intervals(op.real), _intervals(op.masked))
        real = f"real_tokens({name}, {read(op.mask)}, {', '.join(sets)})"
    reads = ""
    if type_.reads:
        whole = len(type_.reads) == type_.shape[1]
        reads = f", range({type_.shape[1]})" if whole else f", {list(type_.reads)}"
    return f"Packing({real}{reads})"


def _intervals(values: attn.ValuesAttr) -> str:
    """The intervals of a set of numbers as a list of pairs."""

    def end(number: float) -> str:
        if np.isinf(number):
            return "np.inf" if number > 0 else "-np.inf"
        return str(int(number)) if number == int(number) else repr(number)

    return f"[{', '.join(f'({end(low)}, {end(high)})' for low, high in values.intervals)}]"


def mask_arguments(op: attn.SdpaOp, read: Read) -> list[str]:
    """The arguments that say how scores are masked; none where all keys are seen."""
    if not op.masks:
        return []
    pairs = [f"({read(mask)}, {_fill(fill)})" for mask, fill in zip(op.masks, op.fills)]
    safe = [] if op.keyless == "zero" else ["safe=False"]
    return [f"masks=[{', '.join(pairs)}]", *safe]


def _fill(fill: float) -> str:
    return repr(fill) if np.isfinite(fill) else f'float("{fill}")'


def _padded_attention(op: attn.SdpaOp, read: Read, used: set[str]) -> str:
    used.add("padded_attention")
    text = ", ".join(read(v) for v in (op.q, op.k, op.v))
    text += f", {op.heads.value.data}, {op.scale.value.data!r}"
    return f"padded_attention({', '.join([text, *mask_arguments(op, read)])})"
