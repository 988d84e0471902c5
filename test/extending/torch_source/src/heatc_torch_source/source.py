"""The text of a function of PyTorch, a line for each op of the IR."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.attn_packing import PackingOp, PackOp, TokenOp, UnpackOp
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.errors import HeatcError
from heatc.interpreter import input_names, main_function, output_names

HEAD = '''\
import torch
from torch.nn import functional as F


def padded(x, real):
    """Rows of real tokens as (batch, tokens, ...), zeros elsewhere."""
    out = x.new_zeros(*real.shape, *x.shape[1:])
    out[real] = x
    return out


def attention(q, k, v, real, heads, scale):
    """Attention of real tokens to real tokens."""
    q, k, v = (padded(x, real).unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mask = real[:, None, None, :]
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    return out.transpose(1, 2).flatten(2)[real]


'''


def source(module: ModuleOp) -> str:
    """The whole text; `HeatcError` for an op that has no line here."""
    function = main_function(module)
    block, inputs = function.body.block, input_names(function)
    names: dict[SSAValue, str] = dict(zip(block.args, inputs))
    lines = [f"def main(weights, {', '.join(inputs)}):"]
    for op in block.ops:
        operands = [names[v] for v in op.operands]
        if isinstance(op, ReturnOp):
            pairs = zip(output_names(function), operands)
            lines.append(f"    return {{{', '.join(f'{n!r}: {v}' for n, v in pairs)}}}")
            break
        names[op.results[0]] = name = f"v{len(names)}"
        lines.append(f"    {name} = {_expression(op, operands)}")
    return HEAD + "\n".join([*lines, ""])


def _expression(op: Operation, x: list[str]) -> str:
    match op:
        case WeightOp():
            return _weight(op)
        case ContractOp():
            return f"torch.einsum({op.equation.data!r}, {', '.join(x)})"
        case nn.AddOp():
            return f"{x[0]} + {x[1]}"
        case nn.EmbeddingOp():
            return f"F.embedding({x[1]}, {x[0]})"
        case nn.LayerNormOp():
            return f"F.layer_norm({x[0]}, {x[1]}.shape, {x[1]}, {x[2]}, {op.eps.value.data!r})"
        case nn.GeluOp():
            return f"F.gelu({x[0]}, approximate={op.approximate.data!r})"
        case nn.TanhOp():
            return f"torch.tanh({x[0]})"
        case nn.ReluOp():
            return f"torch.relu({x[0]})"
        case nn.ReshapeOp():
            return f"{x[0]}.reshape({_extents(op.result)})"
        case nn.ExpandOp():
            return f"{x[0]}.expand({_extents(op.result)})"
        case nn.TransposeOp():
            return f"{x[0]}.permute({', '.join(map(str, op.permutation.get_values()))})"
        case nn.IotaOp():
            count = nn.shape_of(op.result)[0]
            return f"{op.start.value.data} + {op.step.value.data} * torch.arange({count})"
        case _:
            return _tokens(op, x)


def _weight(op: WeightOp) -> str:
    parts = ", ".join(f"weights[{key!r}]" for key in op.keys)
    text = parts if len(op.keys) == 1 else f"torch.cat([{parts}])"
    if op.permutation is None:
        return text
    return f"{text}.permute({', '.join(map(str, op.permutation.get_values()))})"


def _extents(value: SSAValue) -> str:
    """A shape; the packed axis takes what is left."""
    return ", ".join("-1" if n == nn.TOKENS else str(n) for n in nn.shape_of(value))


def _tokens(op: Operation, x: list[str]) -> str:
    match op:
        case PackingOp() if not attn.packing_of(op.result).reads:
            if op.mask is None:
                return f"torch.ones({attn.packing_of(op.result).shape}, dtype=torch.bool)"
            if op.masked is None or str(op.masked) == "#attn.values<0 : 0>":
                return f"{x[0]} != 0"
        case PackOp():
            return f"{x[0]}[{x[1]}]"
        case UnpackOp():
            return f"padded({x[0]}, {x[1]})"
        case TokenOp():
            return f"padded({x[0]}, {x[1]})[:, {op.position.value.data}]"
        case attn.SdpaOp() if op.packing is not None and not op.masks:
            q, k, v, real = x
            heads, scale = op.heads.value.data, op.scale.value.data
            return f"attention({q}, {k}, {v}, {real}, {heads}, {scale!r})"
        case _:
            pass
    raise HeatcError(f"torch-source has no line for {op}", notes=["use --target numpy"])
