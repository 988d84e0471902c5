"""The graph of a model as a module, its planned products replaced by factorised layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from heatc.capture.graph import Arg, AtenCall, AtenGraph, Ref
from heatc.capture.origin import Origin
from heatc.capture.rebuild import Rebuilding, from_array
from heatc.errors import HeatcError
from heatc.export.factors import PlannedLayer
from heatc.export.live import fill
from heatc.export.runtime.graph import place
from heatc.export.runtime.layers import make_layer

_PRODUCTS: Mapping[str, tuple[str, str, str, int]] = {
    "aten.linear.default": ("input", "weight", "bias", 1),
    "aten.addmm.default": ("mat1", "mat2", "self", 0),
    "aten.mm.default": ("self", "mat2", "", 0),
    "aten.matmul.default": ("self", "other", "", 0),
    "aten.embedding.default": ("indices", "weight", "", 0),
}
"""
Calls that a factorised layer replaces: the arguments of input, weight and bias, and the axis of the
weight that the input meets.
"""

_SAME = ("aten.alias.default", "aten.detach.default", "aten.contiguous.default")
_FLIPS = ("aten.t.default", "aten.numpy_T.default")


@dataclass(frozen=True)
class GraphModel:
    """
    A model that is its graph.

    Attributes:
        module: takes inputs by name and gives a dict of outputs by name.
        layers: the description of each factorised layer by its module path.
    """

    module: fx.GraphModule
    layers: Mapping[str, Mapping[str, Any]]


def graph_model(origin: Origin, layers: Iterable[PlannedLayer]) -> GraphModel:
    """
    The model of a captured graph, its weights those of the origin.

    Raises `HeatcError` for a planned layer whose weight is read in a way that no factorised layer
    replaces.
    """
    tensors = {bound.weight: _elements(origin, bound.weight) for bound in origin.graph.weights}
    return _Replacing(origin, tensors, layers).model()


def _elements(origin: Origin, name: str) -> Tensor:
    """A weight that has its elements."""
    tensor = origin.tensors[name]
    loaded = origin.loaded
    source = None if loaded is None else loaded.placeholders.source(tensor)
    return tensor.detach() if source is None else from_array(source.read())


def varying_values(graph: AtenGraph) -> set[str]:
    """The values that depend on an input; what the others give is folded before factors are made."""
    found = {named.value for named in graph.inputs}
    for call in graph.calls:
        if any(name in found for arg in call.args.values() for name in _names(arg)):
            found.update(call.outputs)
    return found


def _names(arg: Arg) -> Iterator[str]:
    if isinstance(arg, Ref):
        yield arg.name
    for item in arg if isinstance(arg, list) else ():
        yield from _names(item)


def folded_product(graph: AtenGraph, layers: Iterable[PlannedLayer]) -> str | None:
    """
    A layer of the plan whose weight is applied to what no input decides, if there is one.

    The plan's program has folded that product, with the weight as it was.
    """
    bound = {b.value: b.weight for b in graph.weights}
    varying = varying_values(graph)
    planned = {layer.weight: layer.path for layer in layers if not layer.on_constants}
    for call in graph.calls:
        if call.target not in _PRODUCTS:
            continue
        x, weight = (call.args.get(name) for name in _PRODUCTS[call.target][:2])
        name = bound.get(weight.name) if isinstance(weight, Ref) else None
        if name in planned and isinstance(x, Ref) and x.name not in varying:
            return planned[name]
    return None


@dataclass(frozen=True)
class _View:
    """A value that is a weight as it is stored, or its transpose."""

    weight: str
    flipped: bool = False


class _Replacing(Rebuilding):
    """A rebuilding whose weights are attributes of a module, and whose planned products are layers."""

    def __init__(
        self, origin: Origin, tensors: dict[str, Tensor], layers: Iterable[PlannedLayer]
    ) -> None:
        super().__init__(origin.graph, tensors)
        self.layers: dict[tuple[str, bool], list[PlannedLayer]] = {}
        for layer in layers:
            self.layers.setdefault((layer.weight, layer.is_table), []).append(layer)
        self.views: dict[str, _View] = {}
        self.varying = varying_values(origin.graph)
        self.calls: dict[fx.Node, PlannedLayer] = {}

    def model(self) -> GraphModel:
        """The whole model."""
        self._declare()
        for call in self.source.calls:
            self.add(call)
        self._check_all_replaced()
        outputs = {named.name: self.nodes[named.value] for named in self.source.outputs}
        self.graph.output(outputs)
        self.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))
        root, descriptions = self._root()
        return GraphModel(fx.GraphModule(root, self.graph, "FactorisedModel"), descriptions)

    # --- The graph ----------------------------------------------------------------------------

    def _declare(self) -> None:
        """The nodes of inputs and weights."""
        for named in self.source.inputs:
            self.placeholder(named.value, named.name)
        for bound in self.source.weights:
            node = self.graph.get_attr(bound.weight)
            with self.mode:
                tensor = self.tensors[bound.weight]
                node.meta["val"] = torch.empty(tensor.shape, dtype=tensor.dtype)
            self.nodes[bound.value] = node
            self.views[bound.value] = _View(bound.weight)

    def add(self, call: AtenCall) -> None:
        """A factorised layer for a planned product, else the call as it was."""
        layer = self._layer(call)
        if layer is not None:
            self._replace(call, layer)
        elif call.outputs:  # what has no result checks what torch.export checked
            super().add(call)
            self._follow(call)

    def argument(self, arg: Arg) -> Any:
        """As for the reader of archives; of a live program layouts and memory formats are there too."""
        if isinstance(arg, str) and arg.startswith("torch."):
            return getattr(torch, arg.removeprefix("torch."))
        return super().argument(arg)

    def _follow(self, call: AtenCall) -> None:
        """Note what is a weight still, moved alone."""
        source = call.args.get("self")
        if not isinstance(source, Ref) or source.name not in self.views or not call.outputs:
            return
        view = self.views[source.name]
        if call.target in _SAME:
            self.views[call.outputs[0]] = view
        if _is_flip(call):
            self.views[call.outputs[0]] = replace(view, flipped=not view.flipped)

    def _layer(self, call: AtenCall) -> PlannedLayer | None:
        """The planned layer that a call computes."""
        if call.target not in _PRODUCTS:
            return None
        input_name, name, _, axis = _PRODUCTS[call.target]
        x = call.args.get(input_name)
        weight = call.args.get(name)
        view = self.views.get(weight.name) if isinstance(weight, Ref) else None
        if view is None or not _is_plain(call) or not self._adds_weight(call):
            return None
        is_constant = not isinstance(x, Ref) or x.name not in self.varying
        is_table = call.target == "aten.embedding.default"
        for layer in self.layers.get((view.weight, is_table), ()):
            is_user = layer.users is None or call.place.module in layer.users
            if is_constant and not layer.on_constants:
                continue
            if is_user and layer.axis == (axis ^ 1 if view.flipped else axis):
                return layer
        return None

    def _adds_weight(self, call: AtenCall) -> bool:
        """Whether the bias of a product is a weight, if it has one."""
        bias = call.args.get(_PRODUCTS[call.target][2])
        return not isinstance(bias, Ref) or bias.name in self.views

    def _replace(self, call: AtenCall, layer: PlannedLayer) -> None:
        input_name, _, bias_name, _ = _PRODUCTS[call.target]
        x, bias = call.args[input_name], call.args.get(bias_name)
        assert isinstance(x, Ref)
        source = self.nodes[x.name]
        node = self.graph.call_module(_base(layer), (source,))
        self.describe(node, call)
        lead = source.meta["val"].shape if layer.is_table else source.meta["val"].shape[:-1]
        with self.mode:
            node.meta["val"] = torch.empty((*lead, layer.width))
        self.calls[node] = self._with_bias(layer, bias)
        self.nodes[call.outputs[0]] = node

    def _with_bias(self, layer: PlannedLayer, bias: Arg) -> PlannedLayer:
        """The layer with what it adds: the plan's bias, or the call's; an op of its own may add one."""
        if isinstance(bias, Ref):
            added = self.tensors[self.views[bias.name].weight].numpy()
            return layer if layer.bias is not None else replace(layer, bias=added)
        if layer.bias is None or layer.own_bias is None:
            return layer
        own = np.asarray(self.tensors[layer.own_bias].numpy(), np.float32)
        return replace(layer, bias=layer.bias - own)

    def _check_all_replaced(self) -> None:
        replaced = {layer.path for layer in self.calls.values()}
        for layer in (layer for group in self.layers.values() for layer in group):
            if layer.path not in replaced:
                raise HeatcError(
                    f"the layer {layer.path!r} of the plan cannot be exported: no linear, matrix "
                    f"product or embedding of the graph reads {layer.weight!r} as it is",
                    notes=["leave the layer out of the plan, or write it as torch.nn.Linear"],
                )

    # --- The module ---------------------------------------------------------------------------

    def _root(self) -> tuple[nn.Module, dict[str, dict[str, Any]]]:
        """The module that has the layers and the weights that are read still."""
        root = nn.Module()
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        layers: dict[str, PlannedLayer] = {}
        for node, layer in self.calls.items():
            name = _base(layer)
            if any(other.startswith(f"{name}.") for other in read):
                name += "_factors"
            # Modules that share a weight may each have a bias of their own.
            while name in layers and not _is_same(layers[name].bias, layer.bias):
                name += "_too"
            layers[name] = layer
            node.target = name
        for name, layer in layers.items():
            bias = None if layer.bias is None else nn.Parameter(torch.empty(layer.width))
            module = make_layer(layer.description, bias)
            fill(module, layer)
            place(root, name, module)
        for name in sorted(read):
            place(root, name, self.tensors[name])
        return root.requires_grad_(False), {n: layer.description for n, layer in layers.items()}


def _is_same(bias: Any, other: Any) -> bool:
    return bias is other or (bias is not None and other is not None and np.array_equal(bias, other))


def _is_flip(call: AtenCall) -> bool:
    if call.target in _FLIPS:
        return True
    if call.target == "aten.transpose.int":
        axes = {call.args.get("dim0"), call.args.get("dim1")}  # pyright: ignore[reportUnhashable]
        return {int(str(axis)) % 2 for axis in axes} == {0, 1}
    return call.target == "aten.permute.default" and call.args.get("dims") in ([1, 0], [-1, -2])


def _is_plain(call: AtenCall) -> bool:
    """Whether a product has no factors of its own."""
    return all(call.args.get(name, 1) == 1 for name in ("alpha", "beta"))


def _base(layer: PlannedLayer) -> str:
    """The module path of a factorised layer: `encoder.query` of `encoder.query.weight`."""
    return layer.weight.removesuffix("weight").rstrip("._") or "factorised"
