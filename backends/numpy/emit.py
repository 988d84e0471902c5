"""
Writes a module at the packed level as a NumPy program and its weights file.

Packed activations (tokens, width) are held transposed, as (width, tokens) matrices in buffers
that are kept from call to call: `weight @ x + bias` then reads the weight as PyTorch stores it,
a head is a block of rows, and every operand of attention is a view. Everything else is plain
NumPy.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from heatc.backends.numpy.buffers import Buffers
from heatc.backends.numpy.loops import Loop, find_loop
from heatc.backends.numpy.names import (
    argument_names,
    identifier,
    port_names,
    quoted,
    readable,
)
from heatc.backends.numpy.nodes import collect_nodes, constants, refuse, used_after
from heatc.backends.numpy.runtime import UNNAMED, command_line, imports, needed, prelude, select
from heatc.backends.numpy.scope import Scope, wrapped
from heatc.backends.numpy.weight_file import WeightTable, dtype_of, tensor_type
from heatc.dialects.attn import PackingOp
from heatc.dialects.nn import TOKENS
from heatc.errors import HeatcError
from heatc.files import together
from heatc.kinds import WEIGHTS
from heatc.names import weights_file
from heatc.passes.analysis.ports import masking_inputs, output_paddings
from heatc.version import VERSION
from heatc.weights import WeightStore


def emit_program(
    module: ModuleOp,
    weights: WeightStore,
    path: str | PathLike[str],
    *,
    model_name: str = "",
    check: Callable[[Path | None, Path | None], None] | None = None,
) -> None:
    """
    Write the program of `main` to `path` and its weights to `<stem>.safetensors` beside it.

    Both files appear, or neither does, and the program takes these weights alone. `check` sees both
    under the names that they have before, None for a device, and raises where they shall not
    appear. The same module and weights give the same bytes. Raises `HeatcError` for an op or a type
    that the backend has no form of, with its location, and for a path that cannot be written or does
    not end in `.py`.
    """
    target = Path(path)
    if target.suffix != ".py":
        raise HeatcError("the name of a NumPy program ends in .py", place=str(target))
    table = WeightTable(weights)
    text = program_text(module, table, model_name or target.stem)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    text = text.replace(UNNAMED, f'PROGRAM = "{digest}"', 1)
    with together() as files:
        # The weights first: a program that does not know them says so, were it left between both.
        beside = files.open(weights_file(target))
        table.write(beside, {"producer": WEIGHTS.mark, "program": digest})
        program = files.open(target, "w")
        program.write(text)
        if check is not None:
            check(files.draft(program), files.draft(beside))


def program_text(module: ModuleOp, table: WeightTable, model_name: str) -> str:
    """The text of the program; fills `table` with the tensors it reads."""
    program = _Program(_main(module), table)
    body = program.run()
    helpers = select(program.used)
    code = "\n\n".join([prelude(), *helpers, program.ports(), *body, command_line()])
    head = f"{program.docstring(model_name)}\n{imports(code)}\n\n"
    text = _tidy(head + code)
    ast.parse(text)
    return text


def _main(module: ModuleOp) -> FuncOp:
    for op in module.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main" and op.body.blocks:
            return op
    raise HeatcError("the module has no function 'main'")


def _tidy(text: str) -> str:
    """Two blank lines at most, one newline at the end."""
    while "\n\n\n\n" in text:
        text = text.replace("\n\n\n\n", "\n\n\n")
    return text.rstrip("\n") + "\n"


class _Program:
    """The text of one function `main` and of the layer function that it calls."""

    def __init__(self, function: FuncOp, table: WeightTable):
        self.function = function
        self.table = table
        self.nodes = collect_nodes(function)
        self.outputs = self._outputs()
        self.input_names, self.output_names = port_names(function)
        self.paddings = output_paddings(function)
        self.masks = [self.input_names[i] for i in masking_inputs(function)]
        self.arguments = argument_names(self.input_names)
        self.used: set[str] = {"array"}
        self.loop = find_loop(self.nodes, self.outputs, table)
        self.buffers = Buffers()

    def _outputs(self) -> list[SSAValue]:
        last = self.function.body.block.last_op
        if not isinstance(last, ReturnOp):
            raise HeatcError("function 'main' does not end with func.return")
        return list(last.operands)

    def run(self) -> list[str]:
        """The texts of the functions, the layer's first."""
        values = self.function.body.block.args
        scope = Scope(self.table, self.buffers, self.used, used_after(self.nodes, self.outputs))
        scope.reserve("w", "tokens", *self.arguments)
        layers: list[str] = []
        for name, value in zip(self.arguments, values):
            scope.bind_input(value, name)
        fixed, once = scope.fixed_scope(self.nodes), constants(self.nodes)
        index = 0
        while index < len(self.nodes):
            if self.loop is not None and index == self.loop.start:
                layers = self._emit_loop(scope, self.loop)
                index = self.loop.stop
                continue
            node = self.nodes[index]
            (fixed if node.result in once else scope).emit(index, node)
            index += 1
        once_text = self._once_text("constants", "", "`main`", scope)
        return [text for text in (*layers, once_text, self._main_text(scope)) if text]

    def _once_text(self, name: str, parameter: str, reader: str, scope: Scope) -> str:
        """The function of what is computed from weights once, where there is any; `scope` calls it."""
        fixed = scope.fixed
        assert fixed is not None
        if not fixed.exports:
            return ""
        names = ", ".join(fixed.exports) + ("," if len(fixed.exports) == 1 else "")
        scope.lines[:0] = wrapped(f"{names} = {name}({parameter})")
        lines = [
            "@functools.cache",
            f"def {name}({parameter}):",
            f'    """What {reader} reads that is computed from weights alone: once, then kept."""',
            "    w = weights()",
            *([f"    layer = f{quoted(fixed.prefix)}"] if fixed.prefix else []),
            *(f"    {line}" if line else "" for line in fixed.lines),
            *(f"    {line}" for line in wrapped(f"return {names}")),
        ]
        return "\n".join(lines) + "\n"

    def _emit_loop(self, scope: Scope, loop: Loop) -> list[str]:
        """Emit the `for` statement; returns the texts of the layer function and what it calls."""
        scope.current = loop.stop - 1
        name = scope.names.new(self._layer_name(loop))
        scope.reserve(f"{name}_constants")
        body = Scope(self.table, self.buffers, self.used, used_after(loop.body, [loop.carried_out]))
        body.weight_names = loop.names
        body.prefix = self._prefix(loop)
        invariants = loop.invariants()
        carried = scope.carry_in(loop.initial, kept=loop.initial in invariants)
        passed = [scope.plain_or_matrix(v) for v in invariants]
        body.reserve("w", "i", "tokens", "layer", name, f"{name}_constants")
        body.bind_carried(loop.carried_in, loop.carried_out, "x", carried)
        parameters = ["w", "i", "x"]
        for value, held in zip(invariants, passed):
            parameters.append(body.bind_invariant(value, held))
        fixed, once = body.fixed_scope(loop.body), constants(loop.body)
        for index, node in enumerate(loop.body):
            (fixed if node.result in once else body).emit(index, node)
        result = body.carry_out(loop.carried_out, carried)
        numbers = f"range({loop.count})"
        if loop.first:
            numbers = f"range({loop.first}, {loop.first + loop.count})"
        target = scope.name_result("hidden") if carried.buffer is None else carried.text
        if target != carried.text:
            scope.line(f"{target} = {carried.text}")
        scope.line(f"for i in {numbers}:")
        arguments = ["w", "i", target, *(held.text for held in passed)]
        scope.line(f"    {target} = {name}({', '.join(arguments)})")
        scope.carry_done(loop.result, target, carried)
        path = body.prefix.rstrip(".") or "layer {i}"
        once_text = self._once_text(f"{name}_constants", "i", f"`{readable(path)}`", body)
        return [once_text, self._layer_text(name, parameters, body, result, loop)]

    def _layer_text(
        self, name: str, parameters: list[str], body: Scope, result: str, loop: Loop
    ) -> str:
        numbers = f"{loop.first} to {loop.first + loop.count - 1}"
        path = body.prefix.rstrip(".") or "layer {i}"
        lines = [
            f"def {name}({', '.join(parameters)}):",
            f'    """`{readable(path)}`, for i from {numbers}."""',
        ]
        if body.uses_tokens:
            lines.append(
                "    tokens = x.shape[1]" if body.carries_matrix else "    tokens = len(x)"
            )
        if body.prefix:
            lines.append(f"    layer = f{quoted(body.prefix)}")
        lines += [f"    {line}" if line else "" for line in body.lines]
        lines.append(f"    return {result}")
        return "\n".join(lines) + "\n"

    def _prefix(self, loop: Loop) -> str:
        """What the names of all numbered weights start with, up to the dot after the number."""
        heads = {n.partition("{i}")[0] + "{i}." for n in loop.names.values() if "{i}." in n}
        return heads.pop() if len(heads) == 1 else ""

    def _layer_name(self, loop: Loop) -> str:
        words = [w for w in self._prefix(loop).split(".") if w.isidentifier()]
        name = identifier("_".join(words[-2:]).lower() or "layer")
        return f"{name}_" if name in {*self.arguments, "layer"} else name

    def _main_text(self, scope: Scope) -> str:
        results = [scope.output(value) for value in self.outputs]
        # As in PyTorch: masks that are added overflow to -inf without a word.
        lines = ['@np.errstate(divide="ignore", over="ignore", invalid="ignore")']
        lines += [f"def main({', '.join(self.arguments)}):", '    """']
        lines += [f"    {line}" if line else "" for line in self._port_lines()]
        lines.append('    """')
        lines += [
            f"    {argument} = _array({quoted(name)}, {argument}, *INPUTS[{quoted(name)}])"
            for argument, name in zip(self.arguments, self.input_names)
        ]
        statements = ["w = weights()"]
        if scope.uses_tokens and not self._binds_tokens():
            statements.append(f"tokens = {self._tokens()}")
        statements += scope.lines
        if "workers" in needed(self.used):
            lines.append("    with workers:")
            lines += [f"        {line}" if line else "" for line in statements]
        else:
            lines += [f"    {line}" if line else "" for line in statements]
        lines.append("    return {")
        lines += [f"        {quoted(n)}: {r}," for n, r in zip(self.output_names, results)]
        lines.append("    }")
        return "\n".join(lines) + "\n"

    def _binds_tokens(self) -> bool:
        return any(isinstance(node.op, PackingOp) for node in self.nodes)

    def _tokens(self) -> str:
        for name, value in zip(self.arguments, self.function.body.block.args):
            type_ = value.type
            if isinstance(type_, TensorType) and type_.get_shape()[:1] == (TOKENS,):
                return f"len({name})"
        raise HeatcError("function 'main' has packed tensors but no attn.packing")

    # --- Ports --------------------------------------------------------------------------------

    def ports(self) -> str:
        """The table of inputs that `main` and the command line check against, and that of outputs."""
        lines = ["INPUTS = {"]
        for name, value in zip(self.input_names, self.function.body.block.args):
            dtype, extents = self._port(value)
            shape = tuple(None if e == TOKENS else e for e in extents)
            lines.append(f'    {quoted(name)}: ("{dtype}", {shape}),')
        lines += [
            "}",
            "# The last word says what stands at masked positions of a token axis.",
            "OUTPUTS = {",
        ]
        for name, value, padding in zip(self.output_names, self.outputs, self.paddings):
            dtype, extents = self._port(value)
            shape = tuple(None if e == TOKENS else e for e in extents)
            lines.append(f'    {quoted(name)}: ("{dtype}", {shape}, "{padding}"),')
        masks = ", ".join(quoted(name) for name in self.masks)
        lines += ["}", "# The inputs that mask positions.", f"MASKS = [{masks}]\n"]
        return "\n".join(lines)

    def _port(self, value: SSAValue) -> tuple[str, tuple[int, ...]]:
        """The dtype and shape of an input or output."""
        type_ = tensor_type(value.type)
        dtype = dtype_of(value.type)
        if type_ is None or dtype is None:
            raise refuse(self.function, f"an input or output of type {value.type}")
        return dtype, type_.get_shape()

    def _port_lines(self) -> list[str]:
        def describe(name: str, value: SSAValue) -> str:
            dtype, shape = self._port(value)
            extents = ", ".join("?" if e == TOKENS else str(e) for e in shape)
            return f"    {readable(name)}: {dtype} ({extents})"

        inputs = zip(self.input_names, self.function.body.block.args)
        outputs = zip(self.output_names, self.outputs)
        masks = ", ".join(readable(name) for name in self.masks)
        notes = {"zero": f", 0 where {masks} masks a position", "computed": ""}
        return [
            "Run the model.",
            "",
            "Args:",
            *(describe(*port) for port in inputs),
            "",
            "Returns a dict of:",
            *(describe(*port) + notes[note] for port, note in zip(outputs, self.paddings)),
        ]

    def docstring(self, model_name: str) -> str:
        """The head of the file."""
        lines = [
            '"""',
            f"{readable(model_name)} as a NumPy program, written by heatc {VERSION}.",
            "",
            "Needs numpy and the file of weights beside it, nothing else:",
            "",
            f"    import {model_name if model_name.isidentifier() else 'prog'}",
            f"    outputs = {model_name if model_name.isidentifier() else 'prog'}"
            f".main({', '.join(self.arguments)})",
            "",
            f"or `python {readable(model_name)}.py in.npz out.npz`.",
            "",
            *self._port_lines()[2:],
            "",
            "Activations are (width, tokens) matrices in buffers kept from call to call. Masked",
            "positions are computed only where something reads them: `pack` drops the others.",
            "One call runs at a time, on as many cores as OMP_NUM_THREADS allows.",
            '"""',
        ]
        return "\n".join(lines) + "\n"
