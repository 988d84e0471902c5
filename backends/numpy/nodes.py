"""
What the emitter emits: one node a statement.

A linear layer with its bias, activation and residual sum is one node (`linear`), a step of a
factorised layer whose axes lie so that it is a product of matrices is one (`contract`); every other
op is a node of its own. A node is placed where its last op stands.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from xdsl.dialects.builtin import TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.backends.numpy.weight_file import WeightTable, dtype_of, tensor_type
from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, WeightOp, parse_equation
from heatc.passes.rewriting import module_path

LINEAR = "linear"
CONTRACT = "contract"
_ACTIVATIONS = {"nn.relu": "relu", "nn.tanh": "np.tanh"}


@dataclass
class Node:
    """
    One statement of the program.

    `args` are values and weights; of a linear layer they are x, weight and, where `attributes`
    says so, bias and residual. `op` is the op whose location and properties count.
    """

    kind: str
    args: list[SSAValue]
    result: SSAValue
    op: Operation
    attributes: dict[str, str] = field(default_factory=dict[str, str])

    def signature(self) -> tuple[object, ...]:
        """What nodes of different iterations of a loop have in common, weights aside."""
        properties = tuple(sorted((k, str(v)) for k, v in self.op.properties.items()))
        kinds = tuple(isinstance(a.owner, WeightOp) for a in self.args)
        types = tuple(str(a.type) for a in self.args)
        attributes = tuple(sorted(self.attributes.items()))
        return self.kind, properties, attributes, kinds, types, str(self.result.type)

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


def is_constant_matrix(value: SSAValue) -> bool:
    """Whether a value is a matrix that no token is in: a weight, or what factors make."""
    shape = nn.shape_of(value)
    return dtype_of(value.type) == "float32" and len(shape) == 2 and nn.TOKENS not in shape


@dataclass(frozen=True)
class ProductForm:
    """
    A contraction as out[lead, n, rest] = weight[lead, n, k] x[lead, k, rest].

    Attributes:
        lead: the extents of the axes before the summed ones.
        order: the permutation that brings the weight's axes to (those in lead, n, k).
        weight_shape: its shape then, 1 for axes in lead that it has not; (n, k) without any.
    """

    lead: tuple[int, ...]
    order: tuple[int, ...]
    weight_shape: tuple[int, ...]


def product_form(op: ContractOp) -> ProductForm | None:
    """The product of matrices that a step of an activation with a constant is, if it is one."""
    terms, result = parse_equation(op.equation.data)
    if len(terms) != 2 or not is_activation(op.inputs[0]) or not is_activation(op.result):
        return None
    if not isinstance(op.inputs[1].type, TensorType) or nn.TOKENS in nn.shape_of(op.inputs[1]):
        return None
    x, w = terms
    if len(set(x)) < len(x) or len(set(w)) < len(w) or result[0] != x[0]:
        return None
    summed = "".join(c for c in x if c in w and c not in result)
    own = "".join(c for c in result if c not in x)
    start = x.find(summed) if summed else len(x)
    lead, rest = x[1:start], x[start + len(summed) :]
    if start < 1 or result != x[0] + lead + own + rest or set(rest) & set(w):
        return None
    shared = "".join(c for c in lead if c in w)
    if sorted(shared + own + summed) != sorted(w):
        return None
    extents = dict(zip(w, nn.shape_of(op.inputs[1]))) | dict(zip(x, nn.shape_of(op.inputs[0])))
    size = math.prod(extents[c] for c in own), math.prod(extents[c] for c in summed)
    outer = tuple(extents[c] if c in w else 1 for c in lead) if shared else ()
    order = tuple(w.index(c) for c in shared + own + summed)
    return ProductForm(tuple(extents[c] for c in lead), order, (*outer, *size))


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
        node = _linear(op, inside) or _contract(op) if isinstance(op, ContractOp) else None
        nodes.append(node or Node(op.name, list(op.operands), op.results[0], op))
    position = {op: i for i, op in enumerate(function.body.block.ops)}

    def place(node: Node) -> int:
        owner = node.result.owner
        assert isinstance(owner, Operation)
        return position[owner]

    return sorted(nodes, key=place)


def _linear(op: ContractOp, inside: set[Operation]) -> Node | None:
    """The linear layer that starts with a contraction; adds the ops it takes in to `inside`."""
    order = linear_weight_order(op)
    if order is None or not is_matrix(op.result) or not is_matrix(op.inputs[0]):
        return None
    if not is_constant_matrix(op.inputs[1]):
        return None
    node = Node(LINEAR, list(op.inputs), op.result, op, {"order": order})
    for step in (_take_bias, _take_activation, _take_residual):
        taken = step(node)
        if taken is not None:
            inside.add(taken)
            node.result = taken.results[0]
    return node


def _contract(op: ContractOp) -> Node | None:
    form = product_form(op)
    return None if form is None else Node(CONTRACT, list(op.inputs), op.result, op)


def _next_op(node: Node) -> Operation | None:
    user = node.result.get_user_of_unique_use()
    return user if user is not None and len(user.results) == 1 else None


def _other(op: nn.AddOp, value: SSAValue) -> SSAValue:
    return op.rhs if op.lhs is value else op.lhs


def _take_bias(node: Node) -> Operation | None:
    op = _next_op(node)
    if not isinstance(op, nn.AddOp):
        return None
    bias = _other(op, node.result)
    if not is_weight(bias) or len(nn.shape_of(bias)) != 1 or op.result.type != node.result.type:
        return None
    if nn.shape_of(bias)[0] != nn.shape_of(node.result)[1]:
        return None
    node.args.append(bias)
    node.attributes["bias"] = "yes"
    return op


def _take_activation(node: Node) -> Operation | None:
    op = _next_op(node)
    if op is None:
        return None
    name = activation_name(op)
    if name is None or op.results[0].type != node.result.type:
        return None
    node.attributes["activation"] = name
    return op


def activation_name(op: Operation) -> str | None:
    """The helper that computes an elementwise op in place, None if there is none."""
    if isinstance(op, nn.GeluOp):
        return "gelu" if op.approximate.data == "none" else "gelu_tanh"
    return _ACTIVATIONS.get(op.name)


def _take_residual(node: Node) -> Operation | None:
    op = _next_op(node)
    if not isinstance(op, nn.AddOp) or op.lhs is op.rhs:
        return None
    residual = _other(op, node.result)
    if not is_matrix(residual) or is_weight(residual):
        return None
    if not residual.type == op.result.type == node.result.type:
        return None
    node.args.append(residual)
    node.attributes["residual"] = "yes"
    return op


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
