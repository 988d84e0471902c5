"""
What the emitter emits: one node a statement.

- `linear`: a linear layer with its bias, activation and residual sum.
- `contract`: a step of a factorised layer whose axes lie so that it is a product of matrices.
- `group`: the steps whose results are held tile by tile.

Every other op is a node of its own. A node is placed where its last op stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.backends.numpy.weight_file import WeightTable, dtype_of, tensor_type
from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, WeightOp, only_reader, parse_equation
from heatc.errors import HeatcError
from heatc.passes.analysis.products import ProductForm, product_form
from heatc.passes.rewriting import describe_location, module_path

LINEAR = "linear"
CONTRACT = "contract"
GROUP = "group"
_ACTIVATIONS = {"nn.relu": "relu", "nn.tanh": "np.tanh"}


def refuse(op: Operation, what: str) -> HeatcError:
    """The error about something that has no form in this backend."""
    return HeatcError(
        f"the NumPy backend cannot emit {what}",
        place=describe_location(op),
        notes=["it takes the packed level: nn, einsum and attn ops on f32, f64, i64 and i1"],
    )


@dataclass
class Node:
    """
    One statement of the program.

    `args` are values and weights; of a product they are x, weight and, where `attributes` says so,
    bias and residual. A group's are x, then what its `steps` read besides each other's results; its
    `attributes` are those of the last. `op` is the op whose location and properties count.
    """

    kind: str
    args: list[SSAValue]
    result: SSAValue
    op: Operation
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    steps: list[Node] = field(default_factory=list["Node"])

    def signature(self) -> tuple[object, ...]:
        """What nodes of different iterations of a loop have in common, weights aside."""
        known = self.op.properties.items()
        # Where weights come from says their error, which no two layers share.
        properties = tuple(sorted((k, str(v)) for k, v in known if k != "decomposition"))
        kinds = tuple(isinstance(a.owner, WeightOp) for a in self.args)
        types = tuple(str(a.type) for a in self.args)
        attributes = tuple(sorted(self.attributes.items()))
        steps = tuple(step.signature() for step in self.steps)
        return self.kind, properties, attributes, kinds, types, str(self.result.type), steps

    def path(self, table: WeightTable) -> str:
        """The module path of the node: its location's, else that of its first weight."""
        for arg in self.args:
            if isinstance(arg.owner, WeightOp):
                return table.name(arg.owner).rpartition(".")[0]
        return module_path(self.op)


def is_matrix(value: SSAValue) -> bool:
    """Whether a value is a packed activation, which the program holds as (width, tokens)."""
    type_ = tensor_type(value.type)
    if type_ is None or dtype_of(type_) != "float32":
        return False
    shape = type_.get_shape()
    return len(shape) == 2 and shape[0] == nn.TOKENS and shape[1] > 0


def is_activation(value: SSAValue) -> bool:
    """Whether a value is packed, with any number of axes: held as (all but tokens, tokens)."""
    type_ = tensor_type(value.type)
    if type_ is None or dtype_of(type_) != "float32":
        return False
    shape = type_.get_shape()
    return len(shape) >= 2 and shape[0] == nn.TOKENS and 0 not in shape


def height(value: SSAValue) -> int:
    """The rows of the matrix that a packed value is held as."""
    return math.prod(nn.shape_of(value)[1:])


def is_constant_matrix(value: SSAValue) -> bool:
    """Whether a value is a matrix that no token is in: a weight, or what factors make."""
    shape = nn.shape_of(value)
    return dtype_of(value.type) == "float32" and len(shape) == 2 and nn.TOKENS not in shape


def activation_product(op: ContractOp) -> ProductForm | None:
    """The product of matrices that a step of an activation with a constant is, if it is one."""
    if not is_activation(op.inputs[0]) or not is_activation(op.result):
        return None
    return product_form(op)


def constants(nodes: Iterable[Node]) -> set[SSAValue]:
    """What is computed from weights alone, so that it is the same in every call."""
    found: set[SSAValue] = set()
    for node in nodes:
        if not isinstance(node.op, ContractOp | nn.ReshapeOp | nn.TransposeOp):
            continue
        if all(is_weight(arg) or arg in found for arg in node.args):
            found.add(node.result)
    return found


def is_weight(value: SSAValue) -> bool:
    """Whether a value is read from the weights file."""
    return isinstance(value.owner, WeightOp)


def linear_weight_order(op: ContractOp) -> str | None:
    """`"oi"` or `"io"`: how the second operand lies if the contraction is a linear layer."""
    terms, result = parse_equation(op.equation.data)
    if len(terms) != 2 or len(terms[0]) != 2 or len(terms[1]) != 2 or len(result) != 2:
        return None
    token, inner = terms[0]
    if result[0] != token or result[1] in (token, inner):
        return None
    orders = {result[1] + inner: "oi", inner + result[1]: "io"}
    return orders.get(terms[1])


def collect_nodes(function: FuncOp) -> list[Node]:
    """The nodes of a function, in an order in which they can run."""
    nodes: list[Node] = []
    inside: set[Operation] = set()
    for op in function.body.block.ops:
        if op in inside or isinstance(op, (WeightOp, ReturnOp)):
            continue
        if len(op.results) != 1 or op.regions:
            raise refuse(op, f"'{op.name}'")
        node = _contraction(op, inside) if isinstance(op, ContractOp) else None
        nodes.append(node or Node(op.name, list(op.operands), op.results[0], op))
    position = {op: i for i, op in enumerate(function.body.block.ops)}

    def place(node: Node) -> int:
        owner = node.result.owner
        assert isinstance(owner, Operation)
        return position[owner]

    return sorted(nodes, key=place)


def _contraction(op: ContractOp, inside: set[Operation]) -> Node | None:
    """The node that starts with a contraction; adds the ops it takes in to `inside`."""
    return _product(op, inside) if op.fuse is None else _group(op, inside)


def _group(op: ContractOp, inside: set[Operation]) -> Node:
    """The steps from one whose result is held tile by tile to the first that is held as a whole."""
    steps: list[Node] = []
    last: ContractOp | None = op
    while last is not None:
        step = _step(last) if last.fuse is not None else _product(last, inside)
        if step is None:
            raise HeatcError(
                f"the NumPy backend has no tiles of the step {last.equation.data!r}",
                place=describe_location(last),
                notes=["remove `fuse` from the steps that lead to it"],
            )
        steps.append(step)
        inside.add(last)
        inside.update(_between(steps[-2].result, last) if len(steps) > 1 else ())
        last = only_reader(last.result) if last.fuse is not None else None
    args = [steps[0].args[0], *(arg for step in steps for arg in step.args[1:])]
    return Node(GROUP, args, steps[-1].result, op, steps[-1].attributes, steps)


def _between(value: SSAValue, reader: ContractOp) -> list[Operation]:
    """The reshapes that a value goes through to its reader."""
    found: list[Operation] = []
    inner = reader.inputs[0]
    while inner is not value:
        assert isinstance(inner.owner, nn.ReshapeOp)
        found.append(inner.owner)
        inner = inner.owner.x
    return found


def _step(op: ContractOp) -> Node | None:
    """A contraction alone as a product of matrices, None where it is none."""
    order = linear_weight_order(op)
    if (
        order is not None
        and is_matrix(op.result)
        and is_matrix(op.inputs[0])
        and is_constant_matrix(op.inputs[1])
    ):
        return Node(LINEAR, list(op.inputs), op.result, op, {"order": order})
    if activation_product(op) is None:
        return None
    return Node(CONTRACT, list(op.inputs), op.result, op)


def _product(op: ContractOp, inside: set[Operation]) -> Node | None:
    """A product of matrices with its bias, activation and residual sum."""
    node = _step(op)
    if node is None:
        return None
    for takes in (_takes_reshape, _takes_bias, _takes_activation, _takes_residual):
        reader = _next_op(node)
        # A sum of two products belongs to the first of them, which then reads the second.
        if reader is None or reader in inside:
            break
        if takes(node, reader):
            inside.add(reader)
            node.result = reader.results[0]
    return node


def _next_op(node: Node) -> Operation | None:
    """The one op that reads a node's result, None where several do."""
    user = node.result.get_user_of_unique_use()
    return user if user is not None and len(user.results) == 1 else None


def _other(op: nn.AddOp, value: SSAValue) -> SSAValue:
    return op.rhs if op.lhs is value else op.lhs


def _takes_reshape(node: Node, op: Operation) -> bool:
    """The axes of the outputs as one, which a bias is added to."""
    if not isinstance(op, nn.ReshapeOp) or not is_matrix(op.result):
        return False
    return height(op.result) == height(node.result)


def _takes_bias(node: Node, op: Operation) -> bool:
    if not isinstance(op, nn.AddOp):
        return False
    bias = _other(op, node.result)
    if not is_weight(bias) or len(nn.shape_of(bias)) != 1 or op.result.type != node.result.type:
        return False
    if not is_matrix(node.result):
        return False
    if nn.shape_of(bias)[0] != nn.shape_of(node.result)[1]:
        return False
    node.args.append(bias)
    node.attributes["bias"] = "yes"
    return True


def _takes_activation(node: Node, op: Operation) -> bool:
    name = activation_name(op)
    if name is None or op.results[0].type != node.result.type or not is_matrix(node.result):
        return False
    node.attributes["activation"] = name
    return True


def activation_name(op: Operation) -> str | None:
    """The helper that computes an elementwise op in place, None if there is none."""
    if isinstance(op, nn.GeluOp):
        form = op.approximate.data
        return "gelu" if form == "none" else f"gelu_{form}"
    return _ACTIVATIONS.get(op.name)


def _takes_residual(node: Node, op: Operation) -> bool:
    if not isinstance(op, nn.AddOp) or op.lhs is op.rhs:
        return False
    residual = _other(op, node.result)
    if not is_matrix(residual) or is_weight(residual):
        return False
    if not residual.type == op.result.type == node.result.type:
        return False
    node.args.append(residual)
    node.attributes["residual"] = "yes"
    return True


def used_after(nodes: Iterable[Node], outputs: Iterable[SSAValue]) -> dict[SSAValue, int]:
    """The index of the last node that reads each value; outputs are read past the end."""
    last: dict[SSAValue, int] = {}
    count = 0
    for count, node in enumerate(nodes, 1):
        for arg in node.args:
            last[arg] = count - 1
    for value in outputs:
        last[value] = count
    return last
