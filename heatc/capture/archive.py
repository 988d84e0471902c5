"""
torch.export archives, read without torch.

The archive's own JSON (`models/<name>.json`) holds the graph and names everything; its weights
are stored members, mapped from the file. Nothing is unpickled and nothing is executed: an entry
that would have to be is refused before any of its bytes is read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from heatc.capture.blocks import block_of
from heatc.capture.graph import (
    Arg,
    AtenCall,
    AtenGraph,
    AtenTensor,
    Bound,
    Dtype,
    Named,
    Ref,
    dynamic_shape_error,
    is_plain_number,
    name_inputs,
    name_outputs,
    place_of,
    refused_output,
)
from heatc.capture.mapped import NUMPY_DTYPES, MappedZip, Strided, view
from heatc.errors import HeatcError
from heatc.readers.fields import expect, get, only_field
from heatc.readers.json_text import parse_json
from heatc.weights import WeightStore

# What torch 2.9 to 2.13 write; a new major version may mean anything.
SCHEMA_MAJOR = 8

_MARKS = {
    "archive_format": (b"pt2", "of another format than pt2", "write it with torch.export.save"),
    "archive_version": (
        b"0",
        "of another version than 0",
        "export it with torch 2.9 or a later one",
    ),
    "byteorder": (b"little", "big-endian", "export it on a little-endian machine"),
}
"""Members that say what the others are: their content, what is said of another, and what to do."""

SCALAR_TYPES = {
    1: "u8",
    2: "i8",
    3: "i16",
    4: "i32",
    5: "i64",
    6: "f16",
    7: "f32",
    8: "f64",
    9: "c32",
    10: "c64",
    11: "c128",
    12: "i1",
    13: "bf16",
}

_DEEPEST_BLOCK = 16
_STRIDED_LAYOUT = 7
_IGNORED_ARGS = ("as_device", "as_layout", "as_memory_format")
_WEIGHT_KINDS = {
    "parameter": ("parameter_name", "weights"),
    "buffer": ("buffer_name", "weights"),
    "tensor_constant": ("tensor_constant_name", "constants"),
}


@dataclass(frozen=True)
class _Entry:
    """One row of a weight table: the member that holds the weight, and its view of it."""

    member: str
    spec: Strided


@dataclass
class Archive:
    """What an archive holds: the graph, and the rows of the weight tables by name."""

    file: MappedZip
    graph: AtenGraph
    table: dict[str, _Entry] = field(default_factory=dict[str, _Entry])

    def weights(self, names: set[str]) -> WeightStore:
        """The weights of these names, mapped."""
        arrays: dict[str, NDArray[Any]] = {}
        for name in sorted(names):
            entry = self.table[name]
            arrays[name] = view(self.file.member(entry.member), entry.spec, name)
        return WeightStore(arrays, self.file.path)


def is_archive(file: MappedZip) -> bool:
    """Whether a zip file is a torch.export archive, of any version."""
    names = file.members
    return any(_model_name(n) for n in names) or "archive_format" in names


def read_archive(file: MappedZip) -> Archive:
    """
    The graph and the weight tables of a torch.export archive.

    Raises `HeatcError`: damaged, of another schema version, with pickled entries, with dynamic
    shapes, or with inputs and outputs that are no tensors.
    """
    name = _only_model(file)
    try:
        return _read(file, name)
    except HeatcError as error:
        place = error.place or f"{file.path}:models/{name}.json"
        raise HeatcError(error.message, place=place, notes=error.notes) from None


def _model_name(member: str) -> str | None:
    folder, _, name = member.rpartition("/")
    return name[:-5] if folder == "models" and name.endswith(".json") else None


def _only_model(file: MappedZip) -> str:
    names = [name for name in map(_model_name, file.members) if name]
    if len(names) != 1:
        raise HeatcError(
            f"the torch.export archive holds {len(names)} models",
            place=str(file.path),
            notes=["expected one: write it with torch.export.save(exported_program, path)"],
        )
    return names[0]


def _read(file: MappedZip, name: str) -> Archive:
    program = file.json(f"models/{name}.json")
    _check_version(program, file)
    table = _weight_table(file, name, "weights") | _weight_table(file, name, "constants")
    module = get(program, "graph_module", dict)
    return Archive(file, _read_graph(module, file, table), table)


def _check_version(program: Mapping[str, Any], file: MappedZip) -> None:
    major = get(get(program, "schema_version", dict), "major", int)
    if major != SCHEMA_MAJOR:
        raise HeatcError(
            f"the archive has schema version {major}, supported is {SCHEMA_MAJOR}",
            notes=[
                f"torch {str(program.get('torch_version'))[:20]} wrote it: export it with "
                "torch 2.9 or a later one that heatc knows"
            ],
        )
    for name, (value, what, remedy) in _MARKS.items():
        if name in file.members and file.member(name).tobytes() != value:
            raise HeatcError(f"the archive is {what}", notes=[remedy])


# The weight tables.


def _weight_table(file: MappedZip, name: str, kind: str) -> dict[str, _Entry]:
    """The rows of a weight table; raises `HeatcError` if any is pickled."""
    folder = f"data/{kind}/"
    if f"{folder}{name}.pt" in file.members:
        raise HeatcError(
            f"the {kind} are pickled ({folder}{name}.pt)",
            notes=["reading them could run code: export the model again with torch 2.9 or later"],
        )
    member = f"{folder}{name}_{kind}_config.json"
    if member not in file.members:
        raise file.error(f"the archive has no member {member!r}")
    config = get(file.json(member), "config", dict)
    for weight, row in config.items():
        _refuse_pickle(weight, row)
    return {weight: _entry(folder, weight, row) for weight, row in config.items()}


def _refuse_pickle(weight: str, row: object) -> None:
    path = get(row, "path_name", str)
    if get(row, "use_pickle", bool) or not path.startswith(("weight_", "tensor_")):
        raise HeatcError(
            f"{weight!r} is pickled in the archive",
            notes=[
                "nothing of it was read, because reading it could run code: "
                "export the model with plain tensors (no tensor subclasses, no script objects)"
            ],
        )


def _entry(folder: str, weight: str, row: object) -> _Entry:
    tensor, strides, offset = _tensor_meta(get(row, "tensor_meta", dict), weight)
    return _Entry(
        folder + get(row, "path_name", str), Strided(tensor.dtype, tensor.shape, strides, offset)
    )


def _tensor_meta(meta: object, name: str) -> tuple[AtenTensor, tuple[int, ...], int]:
    """Type, strides and storage offset of a tensor."""
    code = get(meta, "dtype", int)
    shape = tuple(_static(n, name, i) for i, n in enumerate(get(meta, "sizes", list)))
    if min(shape, default=0) < 0:
        raise HeatcError(f"tensor {name!r} has a negative extent: {shape}")
    strides = tuple(_static(n, name, i) for i, n in enumerate(get(meta, "strides", list)))
    if get(meta, "layout", int) != _STRIDED_LAYOUT:
        raise HeatcError(f"tensor {name!r} is sparse", notes=["only dense tensors are supported"])
    offset = _static(get(meta, "storage_offset", dict), name, 0)
    return AtenTensor(shape, SCALAR_TYPES.get(code, f"scalar type {code}")), strides, offset


def _static(size: object, name: str, axis: int) -> int:
    kind, value = only_field(size, f"a size of {name!r}")
    if kind != "as_int":
        expression = value.get("expr_str") if isinstance(value, dict) else value
        raise dynamic_shape_error(name, axis, str(expression)[:40])
    return expect(value, int, f"a size of {name!r}")


# The graph.


def _read_graph(
    module: Mapping[str, Any], file: MappedZip, table: Mapping[str, _Entry]
) -> AtenGraph:
    body = get(module, "graph", dict)
    graph = AtenGraph()
    signature = get(module, "signature", dict)
    # The inputs come first, so that a dynamic shape is reported by an input's name.
    declared = get(body, "tensor_values", dict)
    user = [
        s
        for s in get(signature, "input_specs", list)
        if "user_input" in expect(s, dict, "an input")
    ]
    first = [n for n in map(_user_input_name, user) if n in declared]
    for name in dict.fromkeys((*first, *declared)):
        graph.tensors[name] = _tensor_meta(declared[name], name)[0]
    _read_inputs(graph, module, signature, file, table)
    renamed = _read_calls(graph, body, {}, "", 0)
    _read_outputs(graph, module, signature)
    graph.outputs = [Named(renamed.get(n.value, n.value), n.name) for n in graph.outputs]
    return graph


def _read_calls(
    graph: AtenGraph, body: Mapping[str, Any], outer: Mapping[str, str], prefix: str, depth: int
) -> dict[str, str]:
    """
    Add the calls of a graph, and those of the blocks in it where these stand.

    `outer` says what the inputs of a block are outside, `prefix` keeps its other names apart.
    Returns the names in `graph` of those that are called otherwise in `body`.
    """
    names = dict(outer)
    for number, node in enumerate(get(body, "nodes", list)):
        block = block_of(node) if depth < _DEEPEST_BLOCK else None
        if block is None:
            graph.calls.append(_read_call(node, names, prefix))
            continue
        inside = f"{prefix}block{number}."
        for name, meta in get(block.body, "tensor_values", dict).items():
            graph.tensors[inside + name] = _tensor_meta(meta, name)[0]
        given = [names.get(name, prefix + name) for name in block.given]
        entered = dict(zip(block.inner_inputs, given))
        found = _read_calls(graph, block.body, entered, inside, depth + 1)
        for result, inner in zip(block.results, block.inner_outputs):
            names[result] = found.get(inner, inside + inner)
    return names


def _user_input_name(spec: Mapping[str, Any]) -> str:
    kind, arg = only_field(get(spec["user_input"], "arg", dict), "an input")
    if kind != "as_tensor":
        raise HeatcError(
            f"an input of the model is no tensor ({kind})",
            notes=["export the model with tensors as its only inputs"],
        )
    return get(arg, "name", str)


def _root_spec(module: Mapping[str, Any], key: str) -> object:
    """The tree of the root module's inputs or outputs, None where there is none."""
    for entry in get(module, "module_call_graph", list):
        signature = entry.get("signature") if isinstance(entry, dict) else None
        if isinstance(signature, dict) and entry.get("fqn") == "":
            return _treespec(signature.get(key))
    return None


def _treespec(text: object) -> object:
    """torch writes a tree as JSON text `[version, tree]`."""
    if not isinstance(text, str):
        return None
    parsed = parse_json(b'{"spec": ' + text.encode() + b"}", "the tree of inputs and outputs")
    spec = parsed["spec"]
    return spec[1] if isinstance(spec, list) and len(spec) == 2 else None


def _first_names(module: Mapping[str, Any]) -> list[str]:
    for entry in get(module, "module_call_graph", list):
        signature = entry.get("signature") if isinstance(entry, dict) else None
        if isinstance(signature, dict) and entry.get("fqn") == "":
            return [str(name) for name in signature.get("forward_arg_names") or ()]
    return []


def _read_inputs(
    graph: AtenGraph,
    module: Mapping[str, Any],
    signature: Mapping[str, Any],
    file: MappedZip,
    table: Mapping[str, _Entry],
) -> None:
    canonical: dict[_Entry, str] = {}
    values: list[str | None] = []
    for spec in get(signature, "input_specs", list):
        kind, content = only_field(spec, "an input")
        if kind == "user_input":
            values.append(_user_input_name(spec))
        elif kind == "constant_input":
            values.append(None)
        elif kind in _WEIGHT_KINDS:
            value = get(get(content, "arg", dict), "name", str)
            weight = get(content, _WEIGHT_KINDS[kind][0], str)
            if weight not in table:
                raise HeatcError(f"weight {weight!r} is in no weight table of the archive")
            _check_weight(graph.tensor(value), table[weight], weight)
            graph.weights.append(Bound(value, canonical.setdefault(table[weight], weight)))
            if kind == "tensor_constant":
                _read_number(graph, value, file, table[weight])
        else:
            raise HeatcError(
                f"the model has an input of kind {kind!r}",
                notes=["supported are tensors, parameters, buffers and constants"],
            )
    graph.inputs = name_inputs(values, _root_spec(module, "in_spec"), _first_names(module))


def _read_number(graph: AtenGraph, value: str, file: MappedZip, entry: _Entry) -> None:
    """Note the value of a constant that is a scalar."""
    if entry.spec.shape == () and entry.spec.dtype in NUMPY_DTYPES:
        number = view(file.member(entry.member), entry.spec, value).item()
        if is_plain_number(number):
            graph.numbers[value] = number


def _check_weight(tensor: AtenTensor, entry: _Entry, weight: str) -> None:
    if (tensor.shape, tensor.dtype) != (entry.spec.shape, entry.spec.dtype):
        raise HeatcError(
            f"weight {weight!r} is {tensor} in the graph but "
            f"{AtenTensor(entry.spec.shape, entry.spec.dtype)} in the weight table"
        )


def _read_outputs(
    graph: AtenGraph, module: Mapping[str, Any], signature: Mapping[str, Any]
) -> None:
    values: list[str | None] = []
    for spec in get(signature, "output_specs", list):
        kind, content = only_field(spec, "an output")
        if kind != "user_output":
            raise refused_output(kind)
        form, arg = only_field(get(content, "arg", dict), "an output")
        if form not in ("as_tensor", "as_none"):
            raise HeatcError(
                f"an output of the model is no tensor ({form})", notes=["return tensors only"]
            )
        values.append(get(arg, "name", str) if form == "as_tensor" else None)
    graph.outputs = name_outputs(values, _root_spec(module, "out_spec"))


def _read_call(node: object, names: Mapping[str, str], prefix: str) -> AtenCall:
    """A call; tensors are called as `names` say, all others with the prefix before their name."""

    def within(arg: Arg) -> Arg:
        if isinstance(arg, list):
            return [within(item) for item in arg]
        return Ref(names.get(arg.name, prefix + arg.name)) if isinstance(arg, Ref) else arg

    target = get(node, "target", str).removeprefix("torch.ops.")
    args: dict[str, Arg] = {}
    for item in get(node, "inputs", list):
        kind, content = only_field(get(item, "arg", dict), "an argument")
        if kind not in _IGNORED_ARGS:
            args[get(item, "name", str)] = within(_read_arg(kind, content))
    outputs: list[str] = []
    for item in get(node, "outputs", list):
        kind, content = only_field(item, "a result")
        if kind == "as_tensor":
            outputs.append(get(content, "name", str))
        elif kind == "as_tensors":
            outputs += [get(tensor, "name", str) for tensor in expect(content, list, "a result")]
    metadata = get(node, "metadata", dict)
    place = place_of(
        _module_path(metadata.get("nn_module_stack")), _text(metadata.get("stack_trace"))
    )
    return AtenCall(target, args, tuple(prefix + name for name in outputs), place)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _module_path(stack: object) -> str:
    """The innermost module of `key,path,type;key,path,type;...`."""
    if not isinstance(stack, str) or not stack:
        return ""
    parts = stack.rpartition(";")[2].split(",")
    return parts[1] if len(parts) > 1 else ""


def _read_arg(kind: str, content: Any) -> Arg:
    if kind == "as_none":
        return None
    if kind == "as_tensor":
        return Ref(get(content, "name", str))
    if kind == "as_scalar_type":
        return Dtype(SCALAR_TYPES.get(expect(content, int, "a dtype"), f"scalar type {content}"))
    if kind == "as_optional_tensor":
        return _read_arg(*only_field(content, "an argument"))
    if kind == "as_tensors":
        return [Ref(get(item, "name", str)) for item in expect(content, list, "an argument")]
    if kind == "as_optional_tensors":
        return [
            _read_arg(*only_field(item, "an argument"))
            for item in expect(content, list, "an argument")
        ]
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        form, value = only_field(content, "an argument")
        return f"symbol {str(value)[:40]}" if form == "as_name" else _plain(value)
    if kind == "as_sym_ints":
        return [_read_arg("as_sym_int", item) for item in expect(content, list, "an argument")]
    if kind == "as_float" and isinstance(content, str):
        return _infinite(content)
    return _plain(content)


def _infinite(text: str) -> float:
    """JSON has no number for them, so torch writes `Infinity`, `-Infinity` and `NaN` as text."""
    numbers = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
    if text not in numbers:
        raise HeatcError(f"expected a number, got {text[:40]!r}")
    return numbers[text]


def _plain(content: Any) -> Arg:
    if isinstance(content, bool | int | float | str):
        return content
    if isinstance(content, list):
        return [_plain(item) for item in content]
    return "an unsupported argument"
