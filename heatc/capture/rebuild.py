"""
An `ExportedProgram` of a graph that was read from an archive.

torch's own loader would read the weights into memory and unpickle the sample inputs; here nothing
of the archive is executed: calls of ATen ops are made again on tensors without memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from heatc.capture.exported import TORCH_DTYPES, import_torch, quiet_torch, read_program
from heatc.capture.functional import decomposed
from heatc.capture.graph import Arg, AtenCall, AtenGraph, Dtype, Named, Ref
from heatc.errors import HeatcError
from heatc.weights import Array

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram
    from torch.fx import Graph, Node

    Tensors = dict[str, torch.Tensor]


def decomposed_graph(graph: AtenGraph, arrays: Mapping[str, Array]) -> tuple[AtenGraph, Tensors]:
    """
    A graph in the ops that have converters, and the tensors of its weights by name.

    `arrays` are the weights of the graph, of which the tensors are views. Raises `HeatcError`
    without torch, and where torch cannot run the calls or cannot decompose them.
    """
    import_torch("a graph with ops that heatc has to decompose")
    with quiet_torch():
        found, tensors = read_program(decomposed(rebuilt(graph, arrays)))
    names = [replace(old, value=new.value) for old, new in zip(graph.inputs, found.inputs)]
    found.inputs = names
    found.outputs = [Named(n.value, o.name) for n, o in zip(found.outputs, graph.outputs)]
    return found, tensors


def from_array(array: Array) -> torch.Tensor:
    """A tensor on the memory of an array, which may be read-only, and so is what is done with it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def rebuilt(graph: AtenGraph, arrays: Mapping[str, Array]) -> ExportedProgram:
    """The program of a graph; raises `HeatcError` where torch cannot run the calls."""
    try:
        tensors = {name: from_array(array) for name, array in arrays.items()}
        return Rebuilding(graph, tensors).program()
    except HeatcError:
        raise
    # A damaged graph calls torch's ops in ways that fail anywhere.
    except Exception as error:
        raise HeatcError(
            f"torch cannot run the graph: {type(error).__name__}: {str(error)[:200]}",
            notes=["the graph contradicts itself: export the model again"],
        ) from error


class Rebuilding:
    """
    The state of one rebuilding: torch's graph so far, and its nodes by the name of the value.

    `tensors` are what the weights of the source are bound to.
    """

    def __init__(self, source: AtenGraph, tensors: Tensors):
        import torch
        from torch._subclasses.fake_tensor import FakeTensorMode

        self.source = source
        self.mode = FakeTensorMode(allow_non_fake_inputs=False)
        self.graph: Graph = torch.fx.Graph()
        self.nodes: dict[str, Node] = {}
        self.tensors = tensors
        self.numbers: Tensors = {}

    def program(self) -> ExportedProgram:
        """The whole graph."""
        from torch._export.verifier import TrainingIRVerifier
        from torch.export import ExportedProgram, ModuleCallEntry, ModuleCallSignature
        from torch.export.graph_signature import (
            ExportGraphSignature,
            OutputKind,
            OutputSpec,
            TensorArgument,
        )
        from torch.nn import Module
        from torch.utils import _pytree as pytree

        inputs = self.placeholders()
        for call in self.source.calls:
            self.add(call)
        results = tuple(self.nodes[named.value] for named in self.source.outputs)
        self.graph.output(results)
        outputs = [
            OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(n.name), None) for n in results
        ]
        given = tuple(0 for _ in self.source.inputs)
        trees = [pytree.tree_structure(tree) for tree in ((given, {}), results)]
        signature = ModuleCallSignature([], [], trees[0], trees[1])
        return ExportedProgram(
            root=Module(),
            graph=self.graph,
            graph_signature=ExportGraphSignature(inputs, outputs),
            state_dict=dict(self.tensors),
            range_constraints={},
            module_call_graph=[ModuleCallEntry("", signature)],
            constants=dict(self.numbers),
            # The one that admits calls in place.
            verifiers=[TrainingIRVerifier],
        )

    def placeholders(self) -> list[Any]:
        """The nodes of weights, numbers and inputs, in that order; what torch says of them."""
        import torch
        from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

        specs: list[Any] = []
        for bound in self.source.weights:
            name, kind = bound.weight, InputKind.BUFFER
            if bound.value in self.source.numbers:
                name, kind = f"{bound.weight}.{bound.value}", InputKind.CONSTANT_TENSOR
                number = self.source.numbers[bound.value]
                dtype = _dtype(self.source.tensor(bound.value).dtype)
                self.numbers[name] = torch.tensor(number, dtype=dtype)
            node = self.placeholder(bound.value)
            persistent = True if kind is InputKind.BUFFER else None
            specs.append(InputSpec(kind, TensorArgument(node.name), name, persistent))
        for named in self.source.inputs:
            node = self.placeholder(named.value)
            specs.append(InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None))
        return specs

    def placeholder(self, value: str, name: str = "") -> Node:
        """The node of an input that the graph has under this name, that of its value without one."""
        import torch

        tensor = self.source.tensor(value)
        node = self.graph.placeholder(name or value)
        with self.mode:
            node.meta["val"] = torch.empty(tensor.shape, dtype=_dtype(tensor.dtype))
        self.nodes[value] = node
        return node

    def add(self, call: AtenCall) -> None:
        """The node of a call, and those that unpack its results."""
        import operator

        target = _aten(call.target)
        args, kwargs = self.arguments(target, call)
        node = self.graph.call_function(target, args, kwargs)
        self.describe(node, call)
        value = self.run(node)
        node.meta["val"] = value
        if not isinstance(value, list | tuple):
            for name in call.outputs[:1]:
                self.nodes[name] = node
            return
        for i, (name, item) in enumerate(zip(call.outputs, value)):
            part = self.graph.call_function(operator.getitem, (node, i))
            self.describe(part, call)
            part.meta["val"] = item
            self.nodes[name] = part

    def describe(self, node: Node, call: AtenCall) -> None:
        """The place of a call, in the form in which torch keeps places."""
        place = call.place
        node.meta["nn_module_stack"] = {"place": (place.module, "")}
        if place.file:
            folder = f"/site-packages/{place.library}/" if place.library else ""
            line = f'File "{folder}{place.file}", line {place.line}, in forward\n'
            node.meta["stack_trace"] = line

    def run(self, node: Node) -> Any:
        """The tensors without memory that a call returns."""
        import torch
        from torch.fx.node import map_arg

        args, kwargs = map_arg((node.args, node.kwargs), lambda inner: inner.meta["val"])
        with self.mode, torch.no_grad():
            return node.target(*args, **kwargs)  # pyright: ignore

    def arguments(self, target: Any, call: AtenCall) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call by position, and those that only have a name."""
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for argument in target._schema.arguments:
            if argument.name in call.args:
                value = self.argument(call.args[argument.name])
            elif argument.has_default_value():
                value = argument.default_value
            else:
                value = self.left_out(argument.name, call)
            if not argument.kwarg_only:
                args.append(value)
            elif argument.name in call.args:
                kwargs[argument.name] = value
        return tuple(args), kwargs

    def left_out(self, name: str, call: AtenCall) -> Any:
        """An argument that the reader of archives leaves out: the device of a copy."""
        import torch

        if name != "device":
            raise HeatcError(f"{call.target} in {call.place} lacks its argument {name!r}")
        return torch.device("cpu")

    def argument(self, arg: Arg) -> Any:
        if isinstance(arg, Ref):
            return self.nodes[arg.name]
        if isinstance(arg, Dtype):
            return _dtype(arg.name)
        return [self.argument(item) for item in arg] if isinstance(arg, list) else arg


def _aten(target: str) -> Any:
    """An op of torch by its name, `aten.<name>.<overload>`; raises `HeatcError`."""
    import torch

    namespace, _, rest = target.partition(".")
    name, _, overload = rest.partition(".")
    packet = getattr(torch.ops.aten, name, None) if namespace == "aten" else None
    found = getattr(packet, overload, None)
    if found is None or not hasattr(found, "_schema"):
        raise HeatcError(f"torch has no op {target[:80]!r}")
    return found


def _dtype(name: str) -> Any:
    """The dtype of torch that the graph calls so; raises `HeatcError`."""
    import torch

    if name not in TORCH_DTYPES:
        raise HeatcError(f"element type {name}, known are {', '.join(TORCH_DTYPES)}")
    return getattr(torch, TORCH_DTYPES[name])
