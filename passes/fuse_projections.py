"""
Linear layers that read the same activation become one.

Assumes the raised or packed level. Contractions of one activation with weights of their own
(`"ti,oi->to"` for queries, keys and values), each with or without a bias, become one contraction
with the concatenated weight, one `nn.add` of the concatenated bias, and an `nn.slice` of the
result for each. Exact: every element of the result is the same sum. Leaves contractions whose
weight is permuted or computed, fused steps, and groups in which only some have a bias.

Example (test/passes/fuse_projections.mlir):
`einsum.contract "ti,oi->to" %x, %wq` and the same with `%wk` become one of `["q", "k"]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.dialects.nn import AddOp, SliceOp, element_of, shape_of
from heatc.passes.rewriting import erase_dead, insert_before, replace_value


@dataclass(frozen=True)
class _Projection:
    """A contraction with a weight of its own, and the sum with its bias if there is one."""

    contract: ContractOp
    weight: WeightOp
    add: AddOp | None
    bias: WeightOp | None

    @property
    def result(self) -> SSAValue:
        """What the projection computes."""
        return self.contract.result if self.add is None else self.add.result

    @property
    def width(self) -> int:
        """The number of columns of the result."""
        return shape_of(self.weight.result)[0]

    @property
    def group(self) -> tuple[object, ...]:
        """What projections must share to become one."""
        elements = (element_of(self.weight.result), element_of(self.result))
        inputs = shape_of(self.weight.result)[1]
        return self.contract.inputs[0], inputs, self.bias is None, *elements


def _plain_weight(value: SSAValue, rank: int) -> WeightOp | None:
    owner = value.owner
    if not isinstance(owner, WeightOp) or owner.permutation is not None:
        return None
    return owner if len(shape_of(value)) == rank else None


def _is_linear(op: ContractOp) -> bool:
    """Whether the equation is a product over the last axis of x and of a weight (out, in)."""
    terms, result = parse_equation(op.equation.data)
    if len(terms) != 2 or len(terms[1]) != 2 or len(terms[0]) < 2:
        return False
    x, (out, inner) = terms
    return x[-1] == inner and out not in x and result == x[:-1] + out


def _find_bias(op: ContractOp, width: int) -> tuple[AddOp, WeightOp] | None:
    use = op.result.get_user_of_unique_use()
    if not isinstance(use, AddOp) or shape_of(use.result) != shape_of(op.result):
        return None
    other = use.rhs if use.lhs is op.result else use.lhs
    bias = _plain_weight(other, 1)
    return None if bias is None or shape_of(bias.result) != (width,) else (use, bias)


def _match(op: Operation) -> _Projection | None:
    if not isinstance(op, ContractOp) or not _is_linear(op) or op.fuse is not None:
        return None
    weight = _plain_weight(op.inputs[1], 2)
    if weight is None:
        return None
    found = _find_bias(op, shape_of(weight.result)[0])
    add, bias = found or (None, None)
    return _Projection(op, weight, add, bias)


def _concatenate(weights: Sequence[WeightOp]) -> WeightOp:
    shapes = [shape_of(w.result) for w in weights]
    type_ = TensorType(element_of(weights[0].result), (sum(s[0] for s in shapes), *shapes[0][1:]))
    return WeightOp([key for w in weights for key in w.keys], type_)


def _with_width(value: SSAValue, width: int) -> TensorType[Attribute]:
    return TensorType(element_of(value), (*shape_of(value)[:-1], width))


def _fuse(projections: Sequence[_Projection]) -> None:
    """Put one projection in the place of the first; the slices replace the results."""
    first = projections[0]
    anchor = first.contract
    width = sum(p.width for p in projections)
    weight = _concatenate([p.weight for p in projections])
    type_ = _with_width(anchor.result, width)
    contract = ContractOp(anchor.equation.data, [anchor.inputs[0], weight], type_)
    insert_before(anchor, weight, contract)
    fused = contract.result
    biases = [p.bias for p in projections if p.bias is not None]
    if biases:
        bias = _concatenate(biases)
        add = AddOp(fused, bias, _with_width(first.result, width))
        insert_before(anchor, bias, add)
        fused = add.result
    start = 0
    for projection in projections:
        lead = shape_of(projection.result)[:-1]
        part = SliceOp(fused, (*(0 for _ in lead), start), (*lead, projection.width))
        part.location = projection.contract.location
        insert_before(anchor, part)
        replace_value(projection.result, part.result)
        start += projection.width


def _fuse_block(block: Block) -> None:
    groups: dict[tuple[object, ...], list[_Projection]] = {}
    for op in block.ops:
        projection = _match(op)
        if projection is not None:
            groups.setdefault(projection.group, []).append(projection)
    for projections in groups.values():
        if len(projections) > 1:
            _fuse(projections)


@dataclass(frozen=True)
class FuseProjectionsPass(ModulePass):
    """Linear layers of the same activation become one contraction and slices; exact."""

    name = "fuse-projections"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        """Rewrite every block of the module in place."""
        blocks = [b for inner in op.walk() for region in inner.regions for b in region.blocks]
        for block in blocks:
            _fuse_block(block)
        erase_dead(op)
