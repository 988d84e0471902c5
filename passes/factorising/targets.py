"""The layers whose weights may be factorised: linears and embedding tables."""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import Float32Type, ModuleOp
from xdsl.ir import SSAValue

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.interpreter.einsum import weight_array
from heatc.passes.rewriting import module_path
from heatc.weights import WeightStore, joined_name


@dataclass(frozen=True)
class Target:
    """
    A layer y = W x (+ b): `op` is its contraction or its embedding.

    Attributes:
        path: module path of the layer; of layers in one, `...self.query+key+value`. Layers that
            share a weight have the path that its name begins with.
        owners: that path, then those of the other modules that use the weight alike.
        weight: the op that reads W (outputs, inputs), or an embedding's table (rows, columns).
        bias: the sum with the bias and the op that reads it, where there is one.
        swapped: whether the contraction reads W as (inputs, outputs).
        inputs, outputs: the extents of W; of an embedding, its rows and columns.
    """

    path: str
    owners: tuple[str, ...]
    op: ContractOp | nn.EmbeddingOp
    weight: WeightOp
    bias: tuple[nn.AddOp, WeightOp] | None
    swapped: bool
    inputs: int
    outputs: int

    @property
    def x(self) -> SSAValue:
        """The layer's input as it is now; of an embedding, the ids."""
        return self.op.ids if isinstance(self.op, nn.EmbeddingOp) else self.op.inputs[0]

    @property
    def is_table(self) -> bool:
        """Whether it is an embedding."""
        return isinstance(self.op, nn.EmbeddingOp)

    @property
    def name(self) -> str:
        """The path as messages have it, with the other modules that share the weight."""
        others = ", ".join(self.owners[1:])
        return f"{self.path} (also {others})" if others else self.path

    def matrix(self, weights: WeightStore) -> NDArray[np.float64]:
        """W as (outputs, inputs) in float64; a table is transposed."""
        stored = weight_array(self.weight, weights)
        flip = self.is_table or self.swapped
        return np.asarray(stored.T if flip else stored, np.float64)


def find_targets(module: ModuleOp, layers: str, *, tables: bool) -> list[Target]:
    """
    The linears, or the embedding tables, whose module path matches a glob, in order.

    A weight that several modules share is found by the path of each of them, with all its uses.
    """
    looked_up = {t.weight.keys for t in _tables(module)}
    found = list(_tables(module) if tables else _linears(module, looked_up))
    owners: dict[str, dict[str, None]] = {}
    for target in found:
        owners.setdefault(target.path, {target.path: None})[_owner(target)] = None
    named = [replace(t, owners=tuple(owners[t.path])) for t in found]
    patterns = layers.split("|")
    return [t for t in named if any(fnmatchcase(o, p) for o in t.owners for p in patterns)]


def _owner(target: Target) -> str:
    """The path of the module that a target is a use of, as the target's own path is written."""
    own, used = target.weight.keys[0].rpartition(".")[0], module_path(target.op)
    head, _, last = own.rpartition(".")
    if len(target.weight.keys) == 1:
        return used or target.path
    # Of layers in one the op has the path of the first.
    if used.rpartition(".")[2] != last or not target.path.startswith(f"{head}."):
        return target.path
    return f"{used.rpartition('.')[0]}.{target.path.removeprefix(f'{head}.')}"


def layer_path(op: WeightOp) -> str:
    """The module path of the layer that a weight belongs to."""
    return joined_name(op.keys).rpartition(".")[0] or joined_name(op.keys)


def _linears(module: ModuleOp, looked_up: Container[tuple[str, ...]]) -> Iterator[Target]:
    for op in module.walk():
        if not isinstance(op, ContractOp) or len(op.inputs) != 2:
            continue
        weight = op.inputs[1].owner
        (x, w), result = parse_equation(op.equation.data)
        if not isinstance(weight, WeightOp) or len(w) != 2 or len(x) < 2:
            continue
        orders = {w[::-1]: False, w: True}  # inner index last, or first
        wanted = x[-1] + result[-1:]
        if wanted not in orders or result[:-1] != x[:-1] or result[-1] in x or x[-1] in x[:-1]:
            continue
        if not isinstance(nn.element_of(op.result), Float32Type):
            continue
        swapped = w[0] == x[-1]
        outputs, inputs = nn.shape_of(op.inputs[1])[:: -1 if swapped else 1]
        bias = _bias(op, outputs)
        # The head that shares an embedding's table has a name of its own.
        path = module_path(op) if weight.keys in looked_up else ""
        path = path or layer_path(weight)
        yield Target(path, (), op, weight, bias, swapped, inputs, outputs)


def _bias(op: ContractOp, width: int) -> tuple[nn.AddOp, WeightOp] | None:
    use = op.result.get_user_of_unique_use()
    if not isinstance(use, nn.AddOp) or use.result.type != op.result.type:
        return None
    other = (use.rhs if use.lhs is op.result else use.lhs).owner
    if not isinstance(other, WeightOp) or nn.shape_of(other.result) != (width,):
        return None
    return use, other


def _tables(module: ModuleOp) -> Iterator[Target]:
    for op in module.walk():
        if not isinstance(op, nn.EmbeddingOp):
            continue
        weight = op.table.owner
        if not isinstance(weight, WeightOp) or weight.permutation is not None:
            continue
        if not isinstance(nn.element_of(op.result), Float32Type):
            continue
        rows, columns = nn.shape_of(op.table)
        yield Target(layer_path(weight), (), op, weight, None, False, rows, columns)
