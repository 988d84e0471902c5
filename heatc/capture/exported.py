"""
Live `ExportedProgram`s: walks torch's graph into an `AtenGraph`.

The only module, beside `folder`, that imports torch, and only inside of functions.
"""

from __future__ import annotations

import contextlib
import logging
import operator
import warnings
from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from xdsl.dialects.builtin import ModuleOp

from heatc.capture.convert import convert, weights_used
from heatc.capture.functional import decomposed, unknown_targets
from heatc.capture.graph import (
    SUPPORTED_DTYPES,
    Arg,
    AtenCall,
    AtenGraph,
    AtenTensor,
    Bound,
    Dtype,
    Place,
    Ref,
    dynamic_shape_error,
    is_plain_number,
    name_inputs,
    name_outputs,
    place_of,
    refused_output,
)
from heatc.capture.placeholders import Absent, Placeholders, absent_error
from heatc.errors import HeatcError
from heatc.readers.json_text import parse_json
from heatc.weights import Array, WeightStore

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Node

_DTYPES = {
    "float32": "f32",
    "float64": "f64",
    "float16": "f16",
    "bfloat16": "bf16",
    "int64": "i64",
    "int32": "i32",
    "int16": "i16",
    "int8": "i8",
    "uint8": "u8",
    "bool": "i1",
}
TORCH_DTYPES = {ours: name for name, ours in _DTYPES.items()}
"""What torch calls the dtypes of a graph."""

_WEIGHT_KINDS = ("PARAMETER", "BUFFER", "CONSTANT_TENSOR")


def import_torch(what: str) -> Any:
    """The module torch; raises `HeatcError` naming what needs it where it is not installed."""
    try:
        import torch
    except ImportError as error:
        raise HeatcError(
            f"{what} needs PyTorch, which cannot be imported: {error}",
            notes=["pip install 'heatc[torch]', or give a torch.export archive, which needs none"],
        ) from None
    return torch


def export(
    module: torch.nn.Module,
    example_inputs: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...],
) -> ExportedProgram:
    """`torch.export` with static shapes; raises `HeatcError` where torch cannot export."""
    torch = import_torch("exporting a module")
    by_name = isinstance(example_inputs, Mapping)
    # Clones: torch.export takes one tensor object given twice for one input.
    args = () if by_name else tuple(_clone(x) for x in example_inputs)
    named = cast(Mapping[str, Any], example_inputs) if by_name else {}
    kwargs = {name: _clone(x) for name, x in named.items()}
    try:
        with warnings.catch_warnings(), torch.no_grad(), quiet_torch():
            warnings.simplefilter("ignore")
            return torch.export.export(module, args, kwargs=kwargs, strict=False)
    # Export runs the model's own code, which may raise anything.
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        raise HeatcError(
            f"torch.export cannot export the model: {type(error).__name__}: {lines[0][:200]}",
            notes=["run the model on the same inputs, and torch.export.export alone, to see why"],
        ) from error


@contextlib.contextmanager
def quiet_torch() -> Generator[None]:
    """torch logs a traceback before it raises; what matters becomes an error here."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _clone(value: Any) -> Any:
    return value.clone() if hasattr(value, "clone") else value


def capture_program(
    program: ExportedProgram, placeholders: Placeholders | None = None
) -> tuple[ModuleOp, WeightStore]:
    """
    The module of a live program, and its weights as views of the program's tensors.

    The elements of `placeholders` are made when they are read. Raises `HeatcError` where an output is
    computed from one that has none.
    """
    return capture_graph(*known_graph(program), placeholders)


def known_graph(program: ExportedProgram) -> tuple[AtenGraph, dict[str, torch.Tensor]]:
    """The graph of a program in ops that have converters, where there are any, and its tensors."""
    graph, tensors = read_program(program)
    if not unknown_targets(graph):
        return graph, tensors
    with quiet_torch():
        return read_program(decomposed(program))


def capture_graph(
    graph: AtenGraph, tensors: Mapping[str, torch.Tensor], placeholders: Placeholders | None = None
) -> tuple[ModuleOp, WeightStore]:
    """The module of such a graph, and its weights, as `capture_program` gives them."""
    module = convert(graph)
    known = placeholders or Placeholders()
    sources = {name: known.source(tensors[name]) for name in weights_used(module)}
    absent = [source.name for source in sources.values() if isinstance(source, Absent)]
    if absent:
        raise absent_error(absent)
    arrays = {n: array_of(n, tensors[n]) if s is None else s for n, s in sources.items()}
    return module, WeightStore(arrays)


def array_of(name: str, tensor: torch.Tensor) -> Array:
    """A read-only view of a tensor's memory."""
    torch = import_torch("reading weights")
    if type(tensor.data) is not torch.Tensor or tensor.is_meta or tensor.is_sparse:
        raise HeatcError(
            f"weight {name!r} is no plain dense tensor in memory",
            notes=["load the model's weights, as plain tensors, before exporting it"],
        )
    array = tensor.detach().cpu().numpy().view()
    array.flags.writeable = False
    return array


def read_program(program: ExportedProgram) -> tuple[AtenGraph, dict[str, torch.Tensor]]:
    """
    The graph of a program, and its parameters, buffers and constants by name.

    Raises `HeatcError` for dynamic shapes, side effects, and inputs or outputs that are no
    tensors.
    """
    graph = AtenGraph()
    tensors = cast("dict[str, torch.Tensor]", {**program.state_dict, **program.constants})
    _declare(graph, program)
    _read_inputs(graph, program, tensors)
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target is not operator.getitem:
            graph.calls.append(_read_call(graph, node))
    _read_outputs(graph, program)
    return graph, tensors


def _declare(graph: AtenGraph, program: ExportedProgram) -> None:
    """The types of all placeholders, the model's own inputs first."""
    user = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node in sorted(nodes, key=lambda node: node.name not in user):
        value = node.meta.get("val")
        if _is_tensor(value):
            graph.tensors[node.name] = _tensor(node.name, value)


def _is_tensor(value: object) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _tensor(name: str, value: torch.Tensor) -> AtenTensor:
    for axis, extent in enumerate(value.shape):
        if type(extent) is not int:
            raise dynamic_shape_error(name, axis, str(extent)[:40])
    return AtenTensor(tuple(value.shape), _dtype(value.dtype))


def _dtype(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    return _DTYPES.get(name, name)


def _read_inputs(
    graph: AtenGraph, program: ExportedProgram, tensors: Mapping[str, torch.Tensor]
) -> None:
    canonical: dict[object, str] = {}
    values: list[str | None] = []
    for spec in program.graph_signature.input_specs:
        kind, value = spec.kind.name, getattr(spec.arg, "name", "")
        if kind == "USER_INPUT":
            constant = type(spec.arg).__name__ == "ConstantArgument"
            if not constant and value not in graph.tensors:
                raise HeatcError(
                    f"input {value!r} of the model is no tensor",
                    notes=["export the model with tensors as its only inputs"],
                )
            values.append(None if constant else value)
        elif kind in _WEIGHT_KINDS:
            name = str(spec.target)
            key = _storage_key(tensors[name])
            graph.weights.append(Bound(value, canonical.setdefault(key, name)))
            if kind == "CONSTANT_TENSOR":
                _read_number(graph, value, tensors[name])
        else:
            raise HeatcError(
                f"the model has an input of kind {kind.lower()!r}",
                notes=["supported are tensors, parameters, buffers and constants"],
            )
    signature = program.module_call_graph[0].signature
    first_names = list((signature and signature.forward_arg_names) or ())
    in_spec = signature.in_spec if signature else program.call_spec.in_spec
    graph.inputs = name_inputs(values, _tree(in_spec), first_names)


def _read_number(graph: AtenGraph, value: str, tensor: torch.Tensor) -> None:
    """Note the value of a constant that is a scalar."""
    if not tensor.shape and not tensor.is_meta and graph.tensor(value).dtype in SUPPORTED_DTYPES:
        number = tensor.item()
        if is_plain_number(number):
            graph.numbers[value] = number


def _storage_key(tensor: torch.Tensor) -> object:
    """Equal for tensors that are the same view of the same memory: tied weights."""
    if not tensor.data_ptr():
        return id(tensor)
    view = (tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype)
    return tensor.data_ptr(), *view


def _tree(spec: object) -> object:
    """A tree of inputs or outputs in the JSON form that archives hold, None if it has none."""
    from torch.utils._pytree import TreeSpec, treespec_dumps

    try:
        text = treespec_dumps(cast(TreeSpec, spec), 1)
    # Containers that cannot be written to an archive.
    except (NotImplementedError, ValueError, TypeError):
        return None
    parsed = parse_json(b'{"spec": ' + text.encode() + b"}", "the tree of inputs and outputs")
    return parsed["spec"][1]


def _read_outputs(graph: AtenGraph, program: ExportedProgram) -> None:
    values: list[str | None] = []
    for spec in program.graph_signature.output_specs:
        kind = spec.kind.name
        if kind != "USER_OUTPUT":
            raise refused_output(kind.lower())
        constant = type(spec.arg).__name__ == "ConstantArgument"
        if constant and getattr(spec.arg, "value", None) is not None:
            raise HeatcError("an output of the model is no tensor", notes=["return tensors only"])
        values.append(None if constant else getattr(spec.arg, "name", ""))
    signature = program.module_call_graph[0].signature
    out_spec = signature.out_spec if signature else program.call_spec.out_spec
    graph.outputs = name_outputs(values, _tree(out_spec))


def _read_call(graph: AtenGraph, node: Node) -> AtenCall:
    target = cast(Any, node.target)
    schema = getattr(target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    args = {name: _read_arg(arg) for name, arg in (*zip(names, node.args), *node.kwargs.items())}
    stack = node.meta.get("nn_module_stack") or {}
    module = list(stack.values())[-1][0] if stack else ""
    place = place_of(str(module), node.meta.get("stack_trace"))
    text = str(target) if schema else f"higher_order.{getattr(target, '__name__', node.name)}"
    return AtenCall(text, args, tuple(_results(graph, node, place)), place)


def _results(graph: AtenGraph, node: Node, place: Place) -> Iterable[str]:
    """The names of the results; those of a list are the names of the nodes that unpack it."""
    value = node.meta.get("val")
    if _is_tensor(value):
        graph.tensors[node.name] = _tensor(node.name, cast("torch.Tensor", value))
        return [node.name]
    if not isinstance(value, list | tuple):
        return []
    users: dict[object, str] = {}
    for user in node.users:
        if user.target is operator.getitem:
            users.setdefault(user.args[1], user.name)
    names: list[str] = []
    for i, item in enumerate(value):
        if _is_tensor(item):
            names.append(users.get(i, f"{node.name}_unused_{i}"))
            graph.tensors[names[-1]] = _tensor(names[-1], cast("torch.Tensor", item))
    return names


def _read_arg(arg: object) -> Arg:
    import torch

    if isinstance(arg, torch.fx.Node):
        return Ref(_unaliased(arg))
    if isinstance(arg, torch.dtype):
        return Dtype(_dtype(arg))
    if arg is None or isinstance(arg, bool | int | float | str):
        return arg
    if isinstance(arg, list | tuple):
        return [_read_arg(item) for item in cast("list[object]", arg)]
    if isinstance(arg, torch.device | torch.layout | torch.memory_format):
        return str(arg)
    return f"an unsupported argument ({type(arg).__name__})"


def _unaliased(node: Node) -> str:
    """The first node that unpacks the same element of a list."""
    if node.target is not operator.getitem:
        return node.name
    source, index = node.args
    for user in cast("Node", source).users:
        if user.target is operator.getitem and user.args[1] == index:
            return user.name
    return node.name
