"""
A module at the packed level, run by PyTorch, so that gradients reach some of its weights.

The arithmetic is that of the IR, in float32: what is trained here is what is compiled. An op
whose operands depend neither on float inputs nor on trained weights (masks, ids, positions) is run
by the interpreter; the others by PyTorch, on the device that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from xdsl.dialects.builtin import Float32Type, ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.errors import HeatcError, UsageError
from heatc.interpreter import input_names, main_function, make_interpreter, output_names
from heatc.interpreter.nn import slices
from heatc.interpreter.values import Packing, element_type, static_shape
from heatc.passes.rewriting import describe_location
from heatc.rules import Rule
from heatc.tuning.common.torch_attention import Decisions, attend
from heatc.weights import WeightStore

Array = NDArray[Any]

FEW_SCORES = 2**23
"""Scores of a batch that attention may hold at once, 32 MiB of them"""

TOKENS = 128
"""
What numbers of tokens are rounded up to: oneDNN compiles code for each shape of a product (2 ms,
0.7 MB), and batches have as many tokens as they have.
"""

# torch's types leave this one open.
_from_numpy = cast("Callable[[Array], Tensor]", torch.from_numpy)  # pyright: ignore[reportUnknownMemberType]


def best_device() -> str:
    """A GPU where PyTorch sees one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(name: str) -> str:
    """The name; raises `UsageError` for a device that is not there."""
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        message = str(error).splitlines()[0]
        raise UsageError(f"no device {name!r}: {message}", place="--device") from None
    return name


@dataclass(frozen=True)
class Run:
    """
    What a batch came to.

    `features` are what the layer norms leave, (tokens, width) each, in order; `outputs` are by
    name; `packing` says which tokens are real; `decisions` are those of attentions that have a
    rule, in order.
    """

    features: list[Tensor]
    outputs: dict[str, Tensor]
    packing: Packing | None
    decisions: list[Decisions] = field(default_factory=list[Decisions])


class TorchModel(torch.nn.Module):
    """
    `trained` names the weights that are parameters; `parameters_by_name` gives them back. `rules`
    are the pruning rules of attentions of the module, `ours` or `paper`; the others are dense.

    Raises `HeatcError` where an op between trained weights and outputs has no gradient here.
    """

    def __init__(
        self,
        module: ModuleOp,
        weights: WeightStore,
        trained: Sequence[str] = (),
        device: str = "cpu",
        rules: Mapping[Operation, Rule] | None = None,
    ):
        super().__init__()
        self._rules = dict(rules or {})
        self._function = main_function(module)
        self._interpreter = make_interpreter(module, weights)
        self.device = torch.device(device)
        self.inputs = input_names(self._function)
        self.outputs = output_names(self._function)
        self._parameters_by_name = {
            name: torch.nn.Parameter(self._tensor(np.array(weights[name], np.float32)))
            for name in trained
        }
        for number, parameter in enumerate(self._parameters_by_name.values()):
            self.register_parameter(f"trained_{number}", parameter)
        self._constants: dict[SSAValue, Any] = {}
        self._ops: list[Operation] = []
        self._sort()

    @property
    def parameters_by_name(self) -> Mapping[str, torch.nn.Parameter]:
        """The trained weights by their names in the store."""
        return self._parameters_by_name

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """The trained weights as they are."""
        found = self._parameters_by_name.items()
        return {name: value.detach().cpu().numpy().copy() for name, value in found}

    def forward(self, inputs: Mapping[str, Array]) -> Run:
        """Run a batch of arrays of the module's own shapes."""
        values: dict[SSAValue, Any] = dict(self._constants)
        arguments = self._function.body.block.args
        for name, argument in zip(self.inputs, arguments):
            array = np.asarray(inputs[name])
            is_real = array.dtype.kind == "f"
            values[argument] = self._tensor(array.astype(np.float32)) if is_real else array
        features: list[Tensor] = []
        packing: Packing | None = None
        decisions: list[Decisions] = []
        for op in self._ops:
            if isinstance(op, ReturnOp):
                found = [self._real(values[v]) for v in op.operands]
                return Run(features, dict(zip(self.outputs, found)), packing, decisions)
            results = self._run(op, [values[v] for v in op.operands], decisions)
            values.update(zip(op.results, results))
            if isinstance(op, nn.LayerNormOp):
                features.append(results[0])
            if isinstance(op, attn.PackingOp):
                packing = results[0]
        raise HeatcError("the module returns nothing")

    # --- Looking at the module ----------------------------------------------------------------

    def _sort(self) -> None:
        """Compute what depends on neither an input nor a trained weight."""
        for op in self._function.body.block.ops:
            if isinstance(op, attn.SdpaOp) and (op.packing is None or op.masks):
                raise HeatcError(
                    "distillation needs a mask that is provably key padding (or none)",
                    place=describe_location(op),
                )
            if self._is_trained(op) or not op.results:
                self._ops.append(op)
            elif all(v in self._constants for v in op.operands):
                arguments = tuple(self._plain(op, self._constants[v]) for v in op.operands)
                found = self._interpreter.run_op(op, arguments)
                self._constants.update((v, self._kept(v, x)) for v, x in zip(op.results, found))
            else:
                self._ops.append(op)

    def _is_trained(self, op: Operation) -> bool:
        return isinstance(op, WeightOp) and any(k in self._parameters_by_name for k in op.keys)

    def _kept(self, value: SSAValue, array: Any) -> Any:
        """Real weights as tensors, once; the rest as it is."""
        if isinstance(array, Packing) or not isinstance(element_type(value), Float32Type):
            return array
        return self._tensor(np.array(array, np.float32))

    # --- Running ------------------------------------------------------------------------------

    def _tensor(self, array: Array) -> Tensor:
        return _from_numpy(array).to(self.device)

    def _real(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else self._tensor(np.asarray(value))

    def _run(
        self, op: Operation, operands: Sequence[Any], decisions: list[Decisions]
    ) -> Sequence[Any]:
        """The results of an op; what a rule decided is added to `decisions`."""
        if isinstance(op, WeightOp):
            return [self._weight(op)]
        if op in self._rules:
            assert isinstance(op, attn.SdpaOp)
            result, decided = _pruned_sdpa(
                op, [self._operand(v) for v in operands], self._rules[op]
            )
            decisions.append(decided)
            return [result]
        if not any(isinstance(v, Tensor) for v in operands):
            return list(self._interpreter.run_op(op, tuple(operands)))
        function = _FUNCTIONS.get(type(op))
        if function is None:
            return list(self._interpreter.run_op(op, tuple(self._plain(op, v) for v in operands)))
        return [function(op, [self._operand(v) for v in operands])]

    def _operand(self, value: Any) -> Any:
        return self._tensor(cast(Array, value)) if isinstance(value, np.ndarray) else value

    def _plain(self, op: Operation, value: Any) -> Any:
        """An operand for the interpreter."""
        if not isinstance(value, Tensor):
            return value
        if value.requires_grad:
            raise HeatcError(
                f"{op.name} lies behind a trained weight and has no gradient here",
                place=describe_location(op),
            )
        return value.cpu().numpy()

    def _weight(self, op: WeightOp) -> Tensor:
        parts: list[Tensor] = [self._parameters_by_name[key] for key in op.keys]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        if op.permutation is not None:
            whole = whole.permute([int(p) for p in op.permutation.get_values()])
        return whole


# ---- ops --------------------------------------------------------------------------------------


def _contract(op: ContractOp, values: list[Tensor]) -> Tensor:
    """An einsum; on a CPU a packed axis is filled up with zeros on the way, see `TOKENS`."""
    if values[0].device.type != "cpu":
        return torch.einsum(op.equation.data, *values)
    axes = [_packed_axis(x) for x in op.operands]
    filled = [_filled(value, axis) for value, axis in zip(values, axes)]
    found = torch.einsum(op.equation.data, *filled)
    axis = _packed_axis(op.result)
    if axis is None:
        return found
    tokens = next(v.shape[a] for v, a in zip(values, axes) if a is not None)
    return found.narrow(axis, 0, tokens)


def _packed_axis(value: SSAValue) -> int | None:
    shape = static_shape(value)
    return shape.index(-1) if -1 in shape else None


def _filled(x: Tensor, axis: int | None) -> Tensor:
    """The tensor with zeros behind, up to a multiple of `TOKENS` on an axis."""
    if axis is None or x.shape[axis] % TOKENS == 0:
        return x
    missing = -x.shape[axis] % TOKENS
    return functional.pad(x, (0, 0) * (x.ndim - 1 - axis) + (0, missing))


def _gelu(op: nn.GeluOp, values: list[Tensor]) -> Tensor:
    if op.approximate.data == "quick":
        return values[0] * torch.sigmoid(1.702 * values[0])
    return functional.gelu(values[0], approximate=op.approximate.data)


def _map(op: nn.MapOp, values: list[Tensor]) -> Tensor:
    # The table's names are those of PyTorch.
    return getattr(torch.ops.aten, op.function.data)(values[0])


def _rms_norm(op: nn.RmsNormOp, values: list[Tensor]) -> Tensor:
    x, weight = values
    return functional.rms_norm(x, weight.shape, weight, op.eps.value.data)


def _reduce(op: nn.ReduceOp, values: list[Tensor]) -> Tensor:
    kind, axes = op.kind.data, op.reduced
    if kind == "prod":
        for axis in reversed(axes):
            values = [values[0].prod(axis)]
        return values[0]
    functions = {"max": torch.amax, "min": torch.amin, "mean": torch.mean, "sum": torch.sum}
    functions |= {"any": torch.any, "all": torch.all}
    return functions[kind](values[0], dim=axes)


def _layer_norm(op: nn.LayerNormOp, values: list[Tensor]) -> Tensor:
    x, weight, bias = values
    return functional.layer_norm(x, weight.shape, weight, bias, op.eps.value.data)


def _embedding(op: nn.EmbeddingOp, values: list[Tensor]) -> Tensor:
    table, ids = values
    return functional.embedding(ids, table)


def _linear(op: nn.LinearOp, values: list[Tensor]) -> Tensor:
    return functional.linear(*values)


def _reshape(op: nn.ReshapeOp, values: list[Tensor]) -> Tensor:
    return values[0].reshape(static_shape(op.result))


def _transpose(op: nn.TransposeOp, values: list[Tensor]) -> Tensor:
    return values[0].permute([int(p) for p in op.permutation.get_values()])


def _slice(op: nn.SliceOp, values: list[Tensor]) -> Tensor:
    return values[0][slices(op, tuple(values[0].shape))]


def _concat(op: nn.ConcatOp, values: list[Tensor]) -> Tensor:
    return torch.cat(values, dim=op.dim.value.data)


def _softmax(op: nn.SoftmaxOp, values: list[Tensor]) -> Tensor:
    return values[0].softmax(op.dim.value.data)


def _pack(op: attn.PackOp, values: list[Any]) -> Tensor:
    x, packing = values
    return x.reshape(-1, *x.shape[2:])[_from_numpy(packing.rows).to(x.device)]


def _unpack(op: attn.UnpackOp, values: list[Any]) -> Tensor:
    x, packing = values
    out = x.new_zeros((packing.mask.size, *x.shape[1:]))
    rows = np.arange(len(packing.rows)) if op.read is not None else _key_rows(packing)
    at = _from_numpy(packing.rows[rows]).to(x.device)
    return out.index_copy(0, at, x[_from_numpy(rows).to(x.device)]).reshape(static_shape(op.result))


def _key_rows(packing: Packing) -> NDArray[np.int64]:
    """The rows of real tokens."""
    return np.flatnonzero(packing.mask.reshape(-1)[packing.rows])


def _token(op: attn.TokenOp, values: list[Any]) -> Tensor:
    x, packing = values
    count, length = packing.mask.shape
    row = np.full(count * length, -1)
    row[packing.rows] = np.arange(len(packing.rows))
    row = row.reshape(count, length)[:, op.position.value.data]
    out = x.new_zeros(static_shape(op.result))
    where = np.flatnonzero(row >= 0)
    found = x[_from_numpy(row[where]).to(x.device)]
    return out.index_copy(0, _from_numpy(where).to(x.device), found)


@dataclass(frozen=True)
class _Layout:
    """
    Sequences side by side, padded to the longest: `rows` (tokens,) are the places in them.

    A sequence's keys come first, `lengths` (B,) of them.
    """

    rows: Tensor
    lengths: Tensor
    longest: int
    heads: int

    @classmethod
    def of(cls, packing: Packing, heads: int, device: torch.device) -> _Layout:
        counts = packing.lengths + packing.extras
        count, longest = len(counts), max(1, int(counts.max()))
        sequence = np.repeat(np.arange(count), counts)
        place = np.arange(len(packing.rows)) - packing.starts[sequence]
        rows = _from_numpy(sequence * longest + place).to(device)
        return cls(rows, _from_numpy(packing.lengths).to(device), longest, heads)

    def padded(self, x: Tensor) -> Tensor:
        """(tokens, heads * dim) -> (B, heads, longest, dim)."""
        count = len(self.lengths)
        out = x.new_zeros((count * self.longest, x.shape[1])).index_copy(0, self.rows, x)
        return out.reshape(count, self.longest, self.heads, -1).transpose(1, 2)

    def packed(self, x: Tensor) -> Tensor:
        """(B, heads, longest, dim) -> (tokens, heads * dim)."""
        return x.transpose(1, 2).reshape(len(self.lengths) * self.longest, -1)[self.rows]

    def is_key(self, device: torch.device) -> Tensor:
        """(B, longest): which places are keys."""
        return torch.arange(self.longest, device=device) < self.lengths[:, None]


def _sdpa(op: attn.SdpaOp, values: list[Any]) -> Tensor:
    q, k, v, packing = values
    layout = _Layout.of(packing, op.heads.value.data, q.device)
    q, k, v = (layout.padded(x) for x in (q, k, v))
    return layout.packed(_dense(q, k, v, layout, op.scale.value.data))


def _dense(q: Tensor, k: Tensor, v: Tensor, layout: _Layout, scale: float) -> Tensor:
    """All places of (B, heads, L, dim) attend to the keys of their sequence."""
    seen = layout.is_key(q.device)
    # A sequence without tokens sees its first, empty place: no row is without a key.
    seen[:, 0] = True
    if q.device.type == "cpu" and seen.shape[0] * q.shape[1] * layout.longest**2 <= FEW_SCORES:
        return _attend(q, k, v, seen, scale)
    return functional.scaled_dot_product_attention(
        q, k, v, attn_mask=seen[:, None, None], scale=scale
    )


def _attend(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """
    softmax(scale q k^T) v, (B, heads, L, dim), as two products; `seen` (B, L) are keys to look at.

    On a CPU that is faster than PyTorch's fused attention as long as the scores are few.
    """
    sizes = q.shape[:2]
    q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    bias = torch.zeros(seen.shape, device=q.device).masked_fill(~seen, -torch.inf)
    bias = bias.repeat_interleave(sizes[1], dim=0)[:, None]
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=scale)
    return torch.bmm(scores.softmax(-1), v).reshape(*sizes, q.shape[1], -1)


def _pruned_sdpa(op: attn.SdpaOp, values: list[Any], rule: Rule) -> tuple[Tensor, Decisions]:
    """
    Keys' own rows under the rule.

    Masked positions that are read see all keys here: the rule decides on them by themselves, and
    what it decides of the others does not depend on it.
    """
    q, k, v, packing = values
    layout = _Layout.of(packing, op.heads.value.data, q.device)
    q, k, v = (layout.padded(x) for x in (q, k, v))
    is_key = layout.is_key(q.device)[:, None, :, None]
    own = [x * is_key for x in (q, k, v)] if packing.extras.any() else [q, k, v]
    scale = op.scale.value.data
    mixed, decisions = attend(own[0], own[1], own[2], layout.lengths, scale, rule)
    if packing.extras.any():
        mixed = torch.where(is_key, mixed, _dense(q, k, v, layout, scale))
    return layout.packed(mixed), decisions


_FUNCTIONS: dict[type[Operation], Callable[[Any, list[Any]], Tensor]] = {
    ContractOp: _contract,
    nn.AddOp: lambda op, v: v[0] + v[1],
    nn.SubOp: lambda op, v: v[0] - v[1],
    nn.MulOp: lambda op, v: v[0] * v[1],
    nn.DivOp: lambda op, v: v[0] / v[1],
    nn.MaximumOp: lambda op, v: torch.maximum(v[0], v[1]),
    nn.MinimumOp: lambda op, v: torch.minimum(v[0], v[1]),
    nn.PowOp: lambda op, v: v[0] ** v[1],
    nn.FloorDivOp: lambda op, v: v[0] // v[1],
    nn.RemainderOp: lambda op, v: v[0] % v[1],
    nn.MapOp: _map,
    nn.ReduceOp: _reduce,
    nn.ArgmaxOp: lambda op, v: v[0].argmax(op.axis.value.data),
    nn.CumsumOp: lambda op, v: v[0].cumsum(op.axis.value.data),
    nn.RmsNormOp: _rms_norm,
    nn.TanhOp: lambda op, v: v[0].tanh(),
    nn.ReluOp: lambda op, v: v[0].relu(),
    nn.GeluOp: _gelu,
    nn.SoftmaxOp: _softmax,
    nn.LayerNormOp: _layer_norm,
    nn.EmbeddingOp: _embedding,
    nn.LinearOp: _linear,
    nn.MatmulOp: lambda op, v: v[0] @ v[1],
    nn.ReshapeOp: _reshape,
    nn.TransposeOp: _transpose,
    nn.SliceOp: _slice,
    nn.ConcatOp: _concat,
    attn.PackOp: _pack,
    attn.UnpackOp: _unpack,
    attn.TokenOp: _token,
    attn.SdpaOp: _sdpa,
}
