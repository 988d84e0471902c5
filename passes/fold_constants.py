"""
What a model computes of its weights and of numbers alone is computed once, when it is compiled.

Needs the weights. Assumes the captured level. A linear's weight that is a product with a mask, a
sum with a low-rank update, a normed or a reshaped kernel becomes a plain weight under the path of
its layer, so that the passes behind see a layer like any other. So do tables that only constants
index, such as relative position biases, sinusoids, and the integers that tokens are gathered by.
Values are those that the program would have computed. A weight that is only transposed keeps its
name, and the weight op says the permutation. A mask that is added and holds minus infinity becomes
truth values that choose it (`passes/infinite_masks.py`).

Leaves what only moves elements of a weight and is no operand of a product, what repeats a small
value, results above 2^22 elements that are far larger than what they are made of, masks, which
later passes look into, and tables that are looked up by the positions of tokens: the rows of the
tokens that there are cost less than all.

Example (test/passes/fold_constants.mlir): `nn.mul` of the weights `f.weight_orig` and
`f.weight_mask`, which a linear of module `f` reads, becomes `einsum.weight ["f.weight"]`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import Float32Type, IntegerType, ModuleOp, TensorType, i1
from xdsl.ir import Operation, SSAValue, Use
from xdsl.passes import ModulePass

from heatc.context import weights_of
from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.interpreter import make_interpreter
from heatc.passes.effect import Effect
from heatc.passes.infinite_masks import added_masks, choose_infinities
from heatc.passes.rewriting import erase_dead, insert_before, module_path, replace_value
from heatc.weights import WeightStore

_LEAVES = (WeightOp, nn.FullOp, nn.IotaOp)
_MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.ExpandOp)
_PLAIN_IDS = (*_LEAVES, *_MOVES, nn.CastOp, nn.AddOp, nn.SubOp, nn.IndexOp)
"""What ids of positions are made of."""

_PARAMETRISED = re.compile(r"\.parametrizations\.([^.]+)\.original\d*$")
"""What torch.nn.utils.parametrize makes of the name of a weight."""

_FUNCTIONS = (nn.MapOp, nn.PowOp)
_MOST = 1 << 22
"""Elements that a result may always have."""

_LARGER = 4
"""How many times as many elements as what it is made of a result may have beyond that."""


class _Constants:
    """The ops that depend on no input, in order, with what stands behind each."""

    def __init__(self, module: ModuleOp):
        self.ops: dict[Operation, None] = {}
        for op in module.walk():
            if self._is_constant(op):
                self.ops[op] = None

    def _is_constant(self, op: Operation) -> bool:
        if isinstance(op, _LEAVES):
            return True
        if not isinstance(op, nn.NnOp | ContractOp) or len(op.results) != 1:
            return False
        return all(v.owner in self.ops for v in op.operands)

    def behind(self, op: Operation) -> Iterator[Operation]:
        """The op and all that lead to it, each once."""
        seen = {op}
        pending = [op]
        while pending:
            inner = pending.pop()
            yield inner
            for owner in makers(inner):
                if owner not in seen:
                    seen.add(owner)
                    pending.append(owner)

    def roots(self) -> list[Operation]:
        """What is worth a weight of its own, in order."""
        pending = [op for op in self.ops if self._is_read_outside(op)]
        found: dict[Operation, None] = {}
        seen = set(pending)
        while pending:
            op = pending.pop()
            if isinstance(op, _LEAVES):
                continue
            if self._is_worth(op):
                found[op] = None
                continue
            for owner in makers(op):
                if owner not in seen:
                    seen.add(owner)
                    pending.append(owner)
        return [op for op in self.ops if op in found]

    def _is_read_outside(self, op: Operation) -> bool:
        return any(use.operation not in self.ops for use in op.results[0].uses)

    def _is_worth(self, op: Operation) -> bool:
        element = nn.element_of(op.results[0])
        if isinstance(op, nn.ExpandOp) or element == i1 or self._is_too_large(op):
            return False
        if isinstance(element, IntegerType):
            return _is_index(op) and not all(isinstance(o, _PLAIN_IDS) for o in self.behind(op))
        if not isinstance(element, Float32Type) or self._looks_up_positions(op):
            return False
        made_of = list(self.behind(op))
        if all(isinstance(o, (*_MOVES, WeightOp)) for o in made_of):
            return _is_multiplied(op) and not any(isinstance(o, nn.SliceOp) for o in made_of)
        return any(isinstance(o, _FUNCTIONS) or _is_real_weight(o) for o in made_of)

    def _is_too_large(self, op: Operation) -> bool:
        size = math.prod(nn.shape_of(op.results[0]))
        if size <= _MOST:
            return False
        leaves = (o for o in self.behind(op) if isinstance(o, WeightOp))
        return size > _LARGER * sum(math.prod(nn.shape_of(o.result)) for o in leaves)

    def _looks_up_positions(self, op: Operation) -> bool:
        if not isinstance(op, nn.EmbeddingOp) or not isinstance(op.ids.owner, Operation):
            return False
        return all(isinstance(o, _PLAIN_IDS) for o in self.behind(op.ids.owner))


def makers(op: Operation) -> list[Operation]:
    """What makes the operands of an op."""
    return [v.owner for v in op.operands if isinstance(v.owner, Operation)]


def _is_real_weight(op: Operation) -> bool:
    return isinstance(op, WeightOp) and isinstance(nn.element_of(op.result), Float32Type)


def _is_index(op: Operation) -> bool:
    """Whether elements are taken at the places that a value, or what repeats it, says."""
    pending, seen = list(op.results[0].uses), {op}
    while pending:
        use = pending.pop()
        if isinstance(use.operation, nn.IndexOp | nn.EmbeddingOp) and use.index > 0:
            return True
        if isinstance(use.operation, _MOVES) and use.operation not in seen:
            seen.add(use.operation)
            pending += use.operation.results[0].uses
    return False


def _is_multiplied(op: Operation) -> bool:
    """Whether a value is the second operand of a product, or looked up."""
    return any(_multiplies(use) for use in op.results[0].uses)


def _multiplies(use: Use) -> bool:
    if isinstance(use.operation, nn.LinearOp | nn.MatmulOp | ContractOp):
        return use.index > 0
    return isinstance(use.operation, nn.EmbeddingOp | nn.IndexOp) and use.index == 0


class _Folder:
    """Computes the roots in one walk; a value is dropped when it was read for the last time."""

    def __init__(self, weights: WeightStore, roots: Iterable[Operation]):
        self.weights = weights
        self.interpreter = make_interpreter(ModuleOp([]), weights)
        self.roots = set(roots)
        self.values: dict[SSAValue, Any] = {}

    def run(self, constants: _Constants) -> None:
        """Put a weight in the place of every root."""
        needed = {o for root in self.roots for o in constants.behind(root)}
        reads: dict[SSAValue, int] = {}
        for op in needed:
            for value in op.operands:
                reads[value] = reads.get(value, 0) + 1
        for op in [o for o in constants.ops if o in needed]:
            arguments = tuple(self.values[v] for v in op.operands)
            # What is not used of a table of buckets may be infinite.
            with np.errstate(all="ignore"):
                self.values[op.results[0]] = self.interpreter.run_op(op, arguments)[0]
            if op in self.roots:
                self.put(op, made_of=constants.behind(op))
            for value in set(op.operands):
                reads[value] -= list(op.operands).count(value)
                if not reads[value]:
                    del self.values[value]

    def put(self, op: Operation, made_of: Iterable[Operation]) -> None:
        """Put a new weight in the place of an op; a number, where it has one element."""
        value = op.results[0]
        if math.prod(nn.shape_of(value)) == 1:
            insert_before(op, number := nn.FullOp(float(self.values[value].item()), value.type))
            replace_value(value, number.result)
            return
        weights = [o for o in made_of if isinstance(o, WeightOp)]
        name = self.free(_name(op, weights), nn.shape_of(value))
        array = np.array(self.values[value], _dtype(value), order="C", copy=None)
        # What only moves elements of a weight may be a view of its file.
        self.weights.add(name, array.view())
        weight = WeightOp([name], TensorType(nn.element_of(value), nn.shape_of(value)))
        insert_before(op, weight)
        replace_value(value, weight.result)

    def free(self, name: str, shape: Iterable[int]) -> str:
        """A name that no weight has; the shape is added where it is taken."""
        if name not in self.weights:
            return name
        name = f"{name}:{'x'.join(map(str, shape))}"
        while name in self.weights:
            name += "'"
        return name


def _dtype(value: SSAValue) -> np.dtype[Any]:
    element = nn.element_of(value)
    sign = "u" if nn.is_unsigned(element) else "i"
    if not isinstance(element, IntegerType):
        return np.dtype(np.float32)
    return np.dtype(f"{sign}{element.bitwidth // 8}")


def _name(op: Operation, weights: list[WeightOp]) -> str:
    """The layer's weight, where a layer multiplies by the value; else the largest weight's name."""
    readers = (use.operation for use in op.results[0].uses if use.index > 0)
    layers = (module_path(r) for r in readers if isinstance(r, nn.LinearOp | ContractOp))
    layer = next((path for path in layers if path), "")
    largest = max(weights, key=lambda w: math.prod(nn.shape_of(w.result)), default=None)
    if layer and largest is not None:
        return f"{layer}.weight"
    if largest is not None:
        return _PARAMETRISED.sub(r".\1", f".{largest.keys[0]}")[1:]
    return f"{module_path(op)}.constant".removeprefix(".")


def _turned(module: ModuleOp) -> None:
    """The weight op says how a weight lies that a product reads transposed."""
    for op in list(module.walk()):
        if not isinstance(op, nn.TransposeOp) or not isinstance(op.x.owner, WeightOp):
            continue
        weight = op.x.owner
        if weight.permutation is not None or not _is_multiplied(op):
            continue
        order = [int(axis) for axis in op.permutation.get_values()]
        turned = WeightOp(weight.keys, op.result.type, order)
        turned.checksum = weight.checksum
        turned.location = weight.location
        insert_before(op, turned)
        replace_value(op.result, turned.result)


@dataclass(frozen=True)
class FoldConstantsPass(ModulePass):
    """What depends on no input becomes a weight; exact."""

    name = "fold-constants"
    effect: ClassVar[Effect] = Effect.EXACT

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite the module in place; `HeatcError` without weights where there is work."""
        _turned(op)
        constants = _Constants(op)
        roots = constants.roots()
        if roots:
            _Folder(weights_of(ctx), roots).run(constants)
        for mask in added_masks(op):
            choose_infinities(mask, weights_of(ctx))
        erase_dead(op)
