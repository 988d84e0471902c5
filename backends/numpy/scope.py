"""
The statements of one function of the program, and the buffers that its matrices live in.

A value is held as a `Held`: the expression that reads it, whether that is a (width, tokens)
matrix, and the buffer it lies in. A buffer is free again after the last read of all values in
it; an op that may work in place takes over the buffer of an operand that it is the last to read.
"""

from __future__ import annotations

import ast
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xdsl.ir import SSAValue

from heatc.backends.numpy import plain
from heatc.backends.numpy.buffers import Buffer, Buffers
from heatc.backends.numpy.names import Names, identifier, quoted, readable
from heatc.backends.numpy.nodes import (
    CONTRACT,
    GROUP,
    LINEAR,
    Node,
    activation_name,
    activation_product,
    height,
    is_activation,
    is_matrix,
    is_weight,
    refuse,
    used_after,
)
from heatc.backends.numpy.weight_file import WeightTable, dtype_of
from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.passes.analysis.constants import first_weight
from heatc.passes.analysis.products import ProductForm
from heatc.passes.rewriting import module_path

_WIDTH = 92
_GENERIC_WORDS = {"dense", "LayerNorm", "self", "layer", "default"}
_WORDS = {
    LINEAR: "y",
    CONTRACT: "part",
    "einsum.contract": "contracted",
    GROUP: "y",
    "attn.pack": "packed",
    "attn.sdpa": "context",
    "attn.token": "rows",
    "attn.unpack": "padded",
    "nn.add": "total",
    "nn.embedding": "embedded",
    "nn.gelu": "activated",
    "nn.layer_norm": "normed",
    "nn.relu": "activated",
    "nn.slice": "part",
    "nn.tanh": "activated",
}
_OWN = (attn.UnpackOp, attn.TokenOp, nn.TanhOp, nn.SoftmaxOp)
_VIEWS = (nn.ReshapeOp, nn.TransposeOp, nn.ExpandOp, nn.SliceOp)


@dataclass(frozen=True)
class Held:
    """
    How a value is read: the expression, whether it is (width, tokens), its buffer.

    `own` says that the value is an array of its own, which nothing else is a view of. `axes` are
    the extents that a matrix's rows stand for, where there is more than one.
    """

    text: str
    matrix: bool = False
    buffer: Buffer | None = None
    own: bool = False
    axes: tuple[int, ...] = ()

    @property
    def rows(self) -> str:
        """The expression of the value as the IR has it, tokens first."""
        if not self.matrix:
            return self.text
        axes = f".reshape(-1, {', '.join(map(str, self.axes))})" if self.axes else ""
        return f"{self.text}.T{axes}"


def _axes(value: SSAValue) -> tuple[int, ...]:
    """What `Held.axes` is for a packed value."""
    shape = nn.shape_of(value)
    return shape[1:] if len(shape) > 2 else ()


def _form(node: Node) -> ProductForm:
    """The product of a `contract` node."""
    assert isinstance(node.op, ContractOp)
    form = activation_product(node.op)
    assert form is not None
    return form


def _tuple(numbers: Sequence[int]) -> str:
    """Numbers as a tuple."""
    return f"({', '.join(map(str, numbers))}{',' if len(numbers) == 1 else ''})"


def _columns(matrix: str) -> str:
    """Columns `t` of a matrix, which may be rows of another."""
    return f"{matrix[:-1]}, t]" if matrix.endswith("]") else f"{matrix}[:, t]"


def _with_out(arguments: Sequence[str], out: str) -> list[str]:
    """Arguments with the one that is written, after those that have no names."""
    keywords = [a for a in arguments if "=" in a.partition("[")[0]]
    return [*(a for a in arguments if a not in keywords), out, *keywords]


def _call_parts(expression: str) -> tuple[str, list[str]] | None:
    """Function and arguments of an expression, where it is one call."""
    call = ast.parse(expression, mode="eval").body
    if not isinstance(call, ast.Call):
        return None

    def text(node: ast.AST) -> str:
        return ast.get_source_segment(expression, node) or ""

    return text(call.func), [text(part) for part in (*call.args, *call.keywords)]


def wrapped(text: str) -> list[str]:
    """A statement of names between commas, one a line in brackets where it is too long."""
    head, equals, call = text.rpartition(" = ")
    names = head or text.removeprefix("return ")
    if len(text) <= _WIDTH:
        return [text]
    before, after = ("(", f"){equals}{call}") if equals else ("return (", ")")
    return [before, *(f"    {name}," for name in names.rstrip(",").split(", ")), after]


class Scope:
    """
    The statements of one function.

    `current` is the index of the node at hand, `last` when each value is read for the last time.
    What is computed from weights alone is in the scope `fixed`, which runs once; its `exports` are
    the names that are read here.
    """

    def __init__(
        self,
        table: WeightTable,
        buffers: Buffers,
        used: set[str],
        last: dict[SSAValue, int],
    ):
        self.table = table
        self.buffers = buffers
        self.used = used
        self.last = last
        self.current = 0
        self.lines: list[str] = []
        self.held: dict[SSAValue, Held] = {}
        self.names = Names()
        self.weight_names: dict[SSAValue, str] = {}
        self.prefix = ""
        self.uses_tokens = False
        self.carries_matrix = False
        self.fixed: Scope | None = None
        self.exports: list[str] = []
        self._indent = ""
        self._carry: Buffer | None = None
        self._carry_value: SSAValue | None = None
        self._path = ""
        self._ends: list[tuple[int, int, int, SSAValue]] = []

    # --- Names and lines ----------------------------------------------------------------------

    def reserve(self, *names: str) -> None:
        """Keep names from being given to values."""
        self.names.reserve(names)

    def name_result(self, wish: str) -> str:
        """A new name like `wish`."""
        return self.names.new(identifier(wish))

    def line(self, text: str) -> None:
        """Add a line."""
        self.lines.append(self._indent + text)

    def call(self, target: str, function: str, arguments: Sequence[str]) -> None:
        """Add `target = function(arguments)`, one argument a line where it is too long."""
        head = f"{target} = {function}(" if target else f"{function}("
        text = f"{head}{', '.join(arguments)})"
        if len(self._indent) + len(text) <= _WIDTH:
            self.line(text)
            return
        self.line(head)
        for argument in arguments:
            self.line(f"    {argument},")
        self.line(")")

    def _comment(self, node: Node) -> None:
        """Say which module follows, where it changes."""
        path = node.path(self.table) if not self.weight_names else self._node_path(node)
        path = path.removeprefix(self.prefix)
        if path and path != self._path:
            self.line(f"# {readable(path)}")
            self._path = path

    def _node_path(self, node: Node) -> str:
        for arg in node.args:
            if arg in self.weight_names:
                return self.weight_names[arg].rpartition(".")[0]
        path = module_path(node.op).split(".")
        depth = self.prefix.count(".")
        return ".".join(path[depth:]) if self.prefix else ""

    def _result_name(self, node: Node) -> str:
        named = node.kind in (LINEAR, CONTRACT, GROUP, "einsum.contract") and len(node.args) > 1
        return self.name_result(
            (self._layer_word(node.args[1]) if named else "")
            or _WORDS.get(node.kind, node.kind.partition(".")[2])
        )

    def _layer_word(self, value: SSAValue) -> str:
        """What the layer of a weight, or of what is computed from weights, is called."""
        weight = first_weight(value) if is_weight(value) or self._is_fixed(value) else None
        path = [] if weight is None else self._weight_key(weight.result).split(".")[:-1]
        path = [p for p in path if not p.isdecimal() and "{" not in p and p not in _GENERIC_WORDS]
        return "_".join(path[-1].split("+")) if path else ""

    # --- Weights and operands -----------------------------------------------------------------

    def _weight_key(self, value: SSAValue) -> str:
        owner = value.owner
        assert isinstance(owner, WeightOp)
        return self.weight_names.get(value) or self.table.name(owner)

    def weight(self, value: SSAValue) -> str:
        """The expression that reads a weight."""
        owner = value.owner
        assert isinstance(owner, WeightOp)
        text = f"w[{self._name_of(value)}]"
        if owner.permutation is not None:
            order = ", ".join(str(int(p)) for p in owner.permutation.get_values())
            text += f".transpose({order})"
        return text

    def _name_of(self, value: SSAValue) -> str:
        """The expression of a weight's name in the file."""
        key = self._weight_key(value)
        if self.prefix and key.startswith(self.prefix):
            return f"layer + {quoted(key.removeprefix(self.prefix))}"
        return f"f{quoted(key)}" if "{i}" in key and self.weight_names else quoted(key)

    def rows(self, value: SSAValue) -> str:
        """The expression of any value as the IR has it."""
        if is_weight(value):
            return self.weight(value)
        return self._read(value).rows

    def _read(self, value: SSAValue) -> Held:
        """How a value is read that is no weight; one that is computed once is then exported."""
        if value in self.held or self.fixed is None:
            return self.held[value]
        held = self.fixed.held[value]
        self.fixed.export(held.text)
        return held

    def export(self, name: str) -> None:
        """Say that a value of this scope, which runs once, is read by the one that runs often."""
        if name not in self.exports:
            self.exports.append(name)

    def fixed_scope(self, nodes: Sequence[Node]) -> Scope:
        """A scope for what is computed from weights alone; no name is in both."""
        self.fixed = Scope(self.table, Buffers(), self.used, used_after(nodes, ()))
        self.fixed.weight_names, self.fixed.prefix = self.weight_names, self.prefix
        self.fixed.names = self.names
        return self.fixed

    def _laid_out(self, value: SSAValue, expression: str) -> str:
        """What an expression makes of a value that is computed once, computed once as well."""
        assert self.fixed is not None
        word = self._layer_word(value)
        name = self.name_result(f"{word}_weight" if word else "weight")
        self.fixed.line(f"{name} = {expression.format(self.fixed.held[value].text)}")
        self.fixed.export(name)
        return name

    def _is_fixed(self, value: SSAValue) -> bool:
        return self.fixed is not None and value in self.fixed.held and value not in self.held

    def matrix(self, value: SSAValue) -> str:
        """The expression of a packed activation as (width, tokens); copied there if need be."""
        held = self.held.get(value)
        if held is not None and held.matrix:
            return held.text
        self.used.add("transposed")
        name = self.name_result("x")
        buffer = self.buffers.take(height(value))
        text = self.buffer(buffer)
        flat = f".reshape(-1, {buffer.rows})" if _axes(value) else ""
        self.call(name, "transposed", [self.rows(value) + flat, text])
        if held is None:
            return name
        self.hold(value, Held(name, True, buffer, axes=_axes(value)))
        return name

    def buffer(self, buffer: Buffer) -> str:
        """The expression of a buffer; remembers that it needs the number of tokens."""
        self.uses_tokens = True
        self.used.add("matrix")
        return buffer.text

    # --- Life of values -----------------------------------------------------------------------

    def hold(self, value: SSAValue, held: Held) -> None:
        """Say how a value is read from now on."""
        self.held[value] = held
        if held.buffer is not None and value in self.last:
            self.buffers.hold(held.buffer, value)
            heapq.heappush(self._ends, (self.last[value], len(self.held), id(value), value))

    def bind_input(self, value: SSAValue, name: str) -> None:
        """An argument of the program."""
        self.hold(value, Held(name))

    def _release(self) -> None:
        """Free the buffers of what is read no more."""
        while self._ends and self._ends[0][0] <= self.current:
            value = heapq.heappop(self._ends)[-1]
            buffer = self.held[value].buffer
            if buffer is not None:
                self.buffers.release(buffer, value)

    def _pin(self, values: Iterable[SSAValue]) -> None:
        """Keep the buffers of values that something else may be a view of."""
        for value in values:
            held = self.held.get(value)
            if held is not None and held.buffer is not None:
                self.buffers.pin(held.buffer)

    def _target(self, node: Node, in_place: Sequence[SSAValue]) -> Buffer:
        """The buffer for a node's result, an operand's own where it may be overwritten."""
        rows = height(node.result)
        if node.result is self._carry_value and self._carry is not None:
            read = [v for v in in_place if self.last[v] == self.current]
            if self._carry.rows == rows and not self.buffers.others(self._carry, read):
                return self._carry
        for value in in_place:
            held = self.held.get(value)
            if held is None or held.buffer is None or held.buffer.rows != rows:
                continue
            if self.buffers.is_pinned(held.buffer) or held.buffer is self._carry:
                continue
            alone = not self.buffers.others(held.buffer, [value])
            if alone and self.last.get(value, -1) == self.current:
                return held.buffer
        return self.buffers.take(rows)

    # --- Loops --------------------------------------------------------------------------------

    def carry_in(self, value: SSAValue, kept: bool) -> Held:
        """
        What the first iteration reads, in a buffer that every iteration may overwrite.

        `kept` says that every iteration reads it too, beside what the one before left.
        """
        if not is_activation(value):
            return self._read(value)
        text = self.matrix(value)
        held = self.held[value]
        read_later = kept or self.last.get(value, -1) > self.current
        assert held.buffer is not None or held.matrix
        shared = held.buffer is None or self.buffers.others(held.buffer, [value])
        if read_later or shared or self.buffers.is_pinned(held.buffer):
            buffer = self.buffers.take(height(value))
            name = self.name_result("hidden")
            self.line(f"{name} = {self.buffer(buffer)}")
            self.line(f"np.copyto({name}, {text})")
            held = Held(name, True, buffer, axes=_axes(value))
        assert held.buffer is not None
        # Nothing of the layers may live there but the value that passes through them.
        self.buffers.pin(held.buffer)
        return held

    def plain_or_matrix(self, value: SSAValue) -> Held:
        """How a value is handed to the layer function."""
        return self._read(value)

    def bind_carried(self, value: SSAValue, result: SSAValue, name: str, outer: Held) -> None:
        """The parameter that carries `value` from layer to layer, where `result` replaces it."""
        self._carry_value = result
        self.reserve(name)
        self._carry = outer.buffer
        self.carries_matrix = outer.matrix
        if outer.buffer is not None:
            self.buffers.empty(outer.buffer)
            self.buffers.pin(outer.buffer)
        self.hold(value, Held(name, outer.matrix, outer.buffer, axes=outer.axes))

    def bind_invariant(self, value: SSAValue, outer: Held) -> str:
        """A parameter that is the same for every layer; returns its name."""
        name = self.name_result(outer.text if outer.text.isidentifier() else "given")
        self.held[value] = Held(name, outer.matrix, None, axes=outer.axes)
        return name

    def carry_out(self, value: SSAValue, carried: Held) -> str:
        """The result of an iteration, in the buffer that the next one reads."""
        held = self.held[value]
        if carried.buffer is None:
            return held.rows
        if held.buffer is not carried.buffer or not held.matrix:
            flat = f".reshape(-1, {height(value)})" if _axes(value) else ""
            self.line(f"np.copyto(x, {held.text if held.matrix else f'{held.rows}{flat}.T'})")
            return "x"
        return held.text

    def carry_done(self, result: SSAValue, name: str, carried: Held) -> None:
        """After the loop: the buffer holds its result."""
        if carried.buffer is not None:
            self.buffers.keep_only(self.held.keys())
            self.buffers.empty(carried.buffer)
        self.hold(result, Held(name, carried.matrix, carried.buffer, axes=carried.axes))
        self._release()

    # --- Nodes --------------------------------------------------------------------------------

    def emit(self, index: int, node: Node) -> None:
        """Add the statement of a node."""
        self.current = index
        self._check_types(node)
        view = self._column_slice(node) or self._same_rows(node)
        if view is not None:
            self.hold(node.result, view)
            self._release()
            return
        self._comment(node)
        if not self._emit_matrix(node):
            self._emit_plain(node)
        self._release()

    def _check_types(self, node: Node) -> None:
        for value in (*node.args, node.result):
            type_ = value.type
            if isinstance(type_, attn.PackingType):
                continue
            if dtype_of(type_) is None:
                raise refuse(node.op, f"'{node.op.name}' on a value of type {type_}")

    def _column_slice(self, node: Node) -> Held | None:
        """Columns of a packed activation are rows of its matrix: a view."""
        op = node.op
        if not isinstance(op, nn.SliceOp) or not is_matrix(op.x) or op.x not in self.held:
            return None
        held = self.held[op.x]
        starts, steps = ([int(i) for i in a.get_values()] for a in (op.starts, op.steps))
        if (
            not held.matrix
            or starts[0]
            or steps != [1, 1]
            or nn.shape_of(op.result)[0] != nn.TOKENS
        ):
            return None
        stop = starts[1] + nn.shape_of(op.result)[1]
        if not held.text.isidentifier():
            return None
        return Held(f"{held.text}[{starts[1]}:{stop}]", True, held.buffer)

    def _same_rows(self, node: Node) -> Held | None:
        """Other axes of a packed activation are the same matrix."""
        op = node.op
        if not isinstance(op, nn.ReshapeOp) or not is_activation(op.x) or op.x not in self.held:
            return None
        if not is_activation(op.result) or height(op.x) != height(op.result):
            return None
        if any(isinstance(use.operation, ContractOp) for use in op.result.uses):
            self.matrix(op.x)
        held = self.held[op.x]
        if not held.matrix:
            return None
        return Held(held.text, True, held.buffer, axes=_axes(op.result))

    def _emit_matrix(self, node: Node) -> bool:
        """Emit a node that has a form on matrices; False if it has none."""
        if node.kind in (LINEAR, CONTRACT):
            self._product(node)
            return True
        if node.kind == GROUP:
            self._group(node)
            return True
        if not is_matrix(node.result):
            return False
        if isinstance(node.op, nn.LayerNormOp):
            self._layer_norm(node)
        elif isinstance(node.op, attn.SdpaOp):
            self._attention(node)
        elif isinstance(node.op, nn.AddOp):
            return self._add(node)
        elif activation_name(node.op) is not None and is_matrix(node.args[0]):
            self._activation(node)
        else:
            return False
        return True

    def _finish(
        self, node: Node, function: str, arguments: list[str], in_place: Sequence[SSAValue] = ()
    ) -> None:
        """Add the call that fills the result's buffer, its last argument."""
        buffer = self._target(node, in_place)
        name = self._result_name(node)
        self.call(name, function, _with_out(arguments, self.buffer(buffer)))
        self.hold(node.result, Held(name, True, buffer, axes=_axes(node.result)))

    def _product(self, node: Node) -> None:
        residual = self.matrix(node.args[-1]) if "residual" in node.attributes else None
        self._finish(node, *self._product_call(node, self.matrix(node.args[0]), residual))

    def _product_call(self, node: Node, x: str, residual: str | None) -> tuple[str, list[str]]:
        """The helper that computes a product of matrices, and its arguments but for the result."""
        self.used.add(node.kind)
        arguments, keywords = [self._oriented(node)], list[str]()
        bias = self.weight(node.args[2]) if "bias" in node.attributes else None
        if node.kind == LINEAR:
            arguments += [str(bias), x]
        else:
            arguments.append(x)
            form = _form(node)
            keywords += [f"lead={_tuple(form.lead)}"]
            keywords += [f"rest={_tuple(form.rest)}"] if form.differs_behind else []
            keywords += [] if bias is None else [f"bias={bias}"]
        activation = node.attributes.get("activation")
        if activation is not None:
            self.used.update({activation} - {"np.tanh"})
            keywords.append(f"activation={activation}")
        if residual is not None:
            keywords.append(f"residual={residual}")
        return node.kind, arguments + keywords

    def _oriented(self, node: Node) -> str:
        """The weight of a product with its summed axes last and those of the result before them."""
        value = node.args[1]
        order, cut = self._layout(node)
        moved = order != tuple(range(len(order)))
        if moved and self._is_fixed(value):
            made = f"np.ascontiguousarray({{}}.transpose{_tuple(order)})"
            return self._laid_out(value, made + (f".reshape{_tuple(cut)}" if cut else ""))
        weight, owner = self.rows(value), value.owner
        copied = moved and bool(cut or len(order) > 2)
        if copied and isinstance(owner, WeightOp) and owner.permutation is None:
            self.used.add("oriented")
            shape = cut or tuple(nn.shape_of(value)[a] for a in order)
            return f"oriented({self._name_of(value)}, {_tuple(order)}, {_tuple(shape)})"
        weight += "" if not moved else f".transpose{_tuple(order)}" if len(order) > 2 else ".T"
        return weight + (f".reshape{_tuple(cut)}" if cut else "")

    def _layout(self, node: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The order in which a product reads its weight's axes, and its shape where it differs."""
        if node.kind == LINEAR:
            return ((1, 0) if node.attributes["order"] == "io" else (0, 1)), ()
        form, shape = _form(node), nn.shape_of(node.args[1])
        same = form.weight_shape == tuple(shape[a] for a in form.order)
        return form.order, () if same else form.weight_shape

    def _group(self, node: Node) -> None:
        """A loop over tiles of tokens; what its steps leave each other is one tile large."""
        assert isinstance(node.op, ContractOp)
        assert node.op.fuse is not None
        self.used.update({"slices", "matrix"})
        x = _columns(self.matrix(node.args[0]))
        residual = None
        if "residual" in node.attributes:
            residual = _columns(self.matrix(node.args[-1]))
        buffer = self._target(node, ())
        name = self._result_name(node)
        self.line(f"{name} = {self.buffer(buffer)}")
        self.line(f"for t in slices(tokens, {node.op.fuse.data}):")
        self._indent = "    "
        for number, step in enumerate(node.steps[:-1]):
            tile = f'tile("{"ab"[number % 2]}", {height(step.result)}, t.stop - t.start)'
            function, arguments = self._product_call(step, x, None)
            x = self.name_result("part")
            self.call(x, function, _with_out(arguments, tile))
        function, arguments = self._product_call(node.steps[-1], x, residual)
        self.call("", function, _with_out(arguments, f"{name}[:, t]"))
        self._indent = ""
        self.hold(node.result, Held(name, True, buffer, axes=_axes(node.result)))

    def _layer_norm(self, node: Node) -> None:
        self.used.add("layer_norm")
        assert isinstance(node.op, nn.LayerNormOp)
        x, weight, bias = node.args
        eps = repr(node.op.eps.value.data)
        arguments = [self.matrix(x), self.rows(weight), self.rows(bias), eps]
        self._finish(node, "layer_norm", arguments, [x])

    def _add(self, node: Node) -> bool:
        types = {a.type for a in node.args}
        held = [self.held.get(a) for a in node.args]
        if types != {node.result.type} or not any(h is not None and h.matrix for h in held):
            return False
        self.used.add("add")
        self._finish(node, "add", [self.matrix(a) for a in node.args], node.args)
        return True

    def _activation(self, node: Node) -> None:
        name = activation_name(node.op)
        assert name is not None
        self.used.update({"apply", name} - {"np.tanh"})
        self._finish(node, "apply", [name, self.matrix(node.args[0])], node.args)

    def _attention(self, node: Node) -> None:
        op = node.op
        assert isinstance(op, attn.SdpaOp)
        assert op.packing is not None
        self.used.add("attention")
        heads, scale = op.heads.value.data, op.scale.value.data
        arguments = [self.matrix(v) for v in (op.q, op.k, op.v)]
        arguments += [self.rows(op.packing), str(heads), repr(scale)]
        batch, length = attn.packing_of(op.packing).shape
        shape = (batch, heads, length, length)

        def whole(mask: SSAValue) -> str:
            name = self.name_result("mask")
            self.line(f"{name} = np.broadcast_to({self.rows(mask)}, {shape})")
            return name

        arguments += plain.mask_arguments(op, whole)
        self._finish(node, "attention", arguments)

    def _emit_plain(self, node: Node) -> None:
        """Emit a node on arrays as the IR has them."""
        made = plain.expression(node.op, self.rows, self.used)
        if made is None:
            raise refuse(node.op, f"'{node.op.name}'")
        if re.search(r"\btokens\b", made):
            self.uses_tokens = True
        if isinstance(node.op, _VIEWS) or node.kind == "einsum.contract":
            self._pin(node.args)
        name = self._result_name(node)
        self._assign(name, made)
        self.hold(node.result, Held(name, own=isinstance(node.op, _OWN)))
        if isinstance(node.op, attn.PackingOp):
            self.line(f"tokens = {name}.tokens")

    def _assign(self, name: str, expression: str) -> None:
        text = f"{name} = {expression}"
        parts = _call_parts(expression) if len(self._indent) + len(text) > _WIDTH else None
        if parts is None:
            self.line(text)
        else:
            self.call(name, *parts)

    def output(self, value: SSAValue) -> str:
        """The expression of an output: an array of its own, never a buffer."""
        held = self.held.get(value)
        if held is not None and held.own:
            self.held[value] = Held(held.text)
            return held.text
        return f"np.array({self.rows(value)}, {plain.dtype(value.type)})"
