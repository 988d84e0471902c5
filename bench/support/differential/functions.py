"""Functions that random models have between layers: activations, norms, reductions over tokens."""

from __future__ import annotations

from bench.support.differential.program import Choices, Value, Writer

ACTIVATIONS = (
    "F.gelu({x})",
    "torch.relu({x})",
    "torch.tanh({x})",
    "F.gelu({x}, approximate='tanh')",
    "F.silu({x})",
    "{x} * torch.sigmoid(1.702 * {x})",
    "0.5 * {x} * (1 + torch.tanh(math.sqrt(2 / math.pi) * ({x} + 0.044715 * torch.pow({x}, 3))))",
    "{x} * 0.5 * (1.0 + torch.erf({x} / math.sqrt(2.0)))",
    "F.leaky_relu({x}, 0.1)",
    "torch.sigmoid({x})",
)
ACTIVATION_WEIGHTS = (8, 6, 2, 4, 3, 2, 2, 2, 1, 1)


def activated(writer: Writer, choices: Choices, x: Value) -> str:
    """An activation, as PyTorch has it or spelled out."""
    return choices.pick("activation", ACTIVATIONS, ACTIVATION_WEIGHTS).format(x=x)


def normed(writer: Writer, choices: Choices, x: Value, plain: bool) -> str:
    """A norm over the last axis; `plain` ones have no weights."""
    width = x.shape[-1]
    kinds = ("layer norm", "no bias", "RMSNorm", "RMS by hand", "layer norm by hand")
    kind = choices.pick("kind of norm", kinds, (80, 4, 4, 8, 4))
    if plain or kind in ("layer norm", "no bias"):
        options = ", elementwise_affine=False" if plain else ", bias=False" * (kind == "no bias")
        return f"{writer.module('norm', f'nn.LayerNorm({width}{options})')}({x})"
    if kind == "RMSNorm":
        return f"{writer.module('norm', f'nn.RMSNorm({width}, eps=1e-6)')}({x})"
    scale = writer.parameter("scale", width)
    if kind == "RMS by hand":
        return f"{scale} * ({x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-6))"
    centred = writer.let(f"{x} - {x}.mean(-1, keepdim=True)", x.shape, x.axes)
    return f"{scale} * {centred} / torch.sqrt(({centred} ** 2).mean(-1, keepdim=True) + 1e-5)"


FUNCTIONS = (
    "torch.exp(-{a}.abs())",
    "torch.log({a}.abs() + 1)",
    "torch.sqrt({a}.abs() + 0.1)",
    "torch.rsqrt({a} * {a} + 0.5)",
    "torch.sigmoid({a})",
    "F.silu({a})",
    "torch.erf({a})",
    "{a}.abs()",
    "-{a}",
    "torch.cos({a})",
    "torch.sin({a})",
    "torch.reciprocal({a}.abs() + 1)",
    "{a}.clamp(-1, 0.5)",
    "{a}.clamp(min=-0.5)",
    "torch.pow({a}, 2)",
    "F.normalize({a}, dim=-1)",
    "F.log_softmax({a}, -1)",
)
"""Continuous ones: near a jump rounding alone would decide."""
PAIRS = (
    "torch.maximum({a}, {b})",
    "torch.minimum({a}, {b})",
    "torch.pow({a}.abs() + 0.5, 1.5)",
    "{a} * torch.sigmoid({b})",
    "{a}.addcmul({b}, {b}, value=0.5)",
)
REDUCTIONS = (
    "{a} + {b}.mean(1, keepdim=True)",
    "{a} - {b}.sum(-1, keepdim=True) * 0.2",
    "{a} * {b}.mean((1, 2), keepdim=True)",
    "{a} - {b}.amax(-1, keepdim=True)",
    "{a} + {b}.amin(1, keepdim=True)",
    "{a} - {b}.max(1, keepdim=True).values",
    "{a}.cumsum(1) * 0.3",
    "{a} * torch.linalg.vector_norm({b}, dim=-1, keepdim=True)",
    "({a} - {a}.mean(-1, keepdim=True)) / ({a}.var(-1, keepdim=True, unbiased=False) + 0.5)",
)
IN_PLACE = (
    "({a} + 0).add_({b})",
    "({a} * 1.5).mul_(0.5).sub_({b})",
    "torch.relu_({a} + {b})",
    "({a} + 0.5).div_(2.0).clamp_(min=-1.0)",
)
