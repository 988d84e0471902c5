"""
From an ATen graph to a module of `nn` ops.

What cannot be converted is collected over the whole graph and reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.builder import Builder
from xdsl.dialects import func
from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FileLineColLoc,
    IntAttr,
    ModuleOp,
    NameLoc,
    StringAttr,
    TensorType,
    f32,
)
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint
from xdsl.utils.exceptions import VerifyException

from heatc.capture.aten import ELEMENTS, Call, Tensors, Unsupported, tensor_type
from heatc.capture.families import converters
from heatc.capture.graph import SUPPORTED_DTYPES, Arg, AtenCall, AtenGraph, Place, Ref
from heatc.dialects import nn
from heatc.dialects.einsum import WeightOp
from heatc.errors import HeatcError
from heatc.passes.rewriting import name_hint


@dataclass(frozen=True)
class _Problem:
    target: str
    reason: str
    place: Place


def convert(graph: AtenGraph) -> ModuleOp:
    """
    The module of a graph: `func.func @main` over `nn` ops and `einsum.weight`.

    Every op has the location `NameLoc(module path, source line)`. A weight is bound where it is
    first used. Raises `HeatcError`, for all unsupported calls at once.
    """
    _check_dtypes(graph)
    return _Conversion(graph).run()


def weights_used(module: ModuleOp) -> set[str]:
    """The names of the weights that a module reads."""
    return {key for op in module.walk() if isinstance(op, WeightOp) for key in op.keys}


def _check_dtypes(graph: AtenGraph) -> None:
    """Refuse models in another precision before their ops are reported one by one."""
    ends = [(named.value, f"input {named.name!r}") for named in graph.inputs]
    ends += [(named.value, f"output {named.name!r}") for named in graph.outputs]
    weights = [(bound.value, f"weight {bound.weight!r}") for bound in graph.weights]
    remedies = {
        "weight": "convert the model with model.float() before exporting it",
        "input": "export it with float32 example inputs, and give it such inputs",
        "output": "end the model with a cast, such as .float(), before exporting it",
    }
    for value, what in (*weights, *ends):
        tensor = graph.tensor(value)
        if tensor.dtype not in SUPPORTED_DTYPES:
            remedy = remedies[what.partition(" ")[0]]
            raise HeatcError(
                f"{what} has element type {tensor.dtype}",
                notes=[f"supported are {', '.join(SUPPORTED_DTYPES)}: {remedy}"],
            )


class _Conversion:
    """The state of one conversion."""

    def __init__(self, graph: AtenGraph):
        self.graph = graph
        self.converters = converters(call.target for call in graph.calls)
        self.values: dict[str, SSAValue] = {}
        self.bound: dict[str, str] = {b.value: b.weight for b in graph.weights}
        self.shared: dict[str, SSAValue] = {}
        self.problems: list[_Problem] = []
        types = [self.input_type(named.value) for named in graph.inputs]
        self.block = Block(arg_types=types)
        self.builder = Builder(InsertPoint.at_end(self.block))

    def input_type(self, value: str) -> TensorType[Attribute]:
        try:
            return tensor_type(self.graph.tensor(value))
        except Unsupported as reason:
            raise HeatcError(f"input {value!r} is {reason}") from None

    def run(self) -> ModuleOp:
        for named, argument in zip(self.graph.inputs, self.block.args, strict=True):
            argument.name_hint = name_hint(named.name)
            self.values[named.value] = argument
        for call in self.graph.calls:
            self.convert(call)
        if self.problems:
            raise _report(self.problems)
        self.finish()
        return self.module()

    def convert(self, call: AtenCall) -> None:
        location = _location(call.place)
        before = self.block.last_op
        for name in _names_in(list(call.args.values())):
            self.bind(name, call.place)
        fn = self.converters.get(call.target)
        try:
            if fn is None:
                raise Unsupported(_refusal(call.target))
            result = fn(Call(call, self.graph, self.values, self.builder, location))
            self.define(call, result)
            self.check(call, before)
        except Unsupported as reason:
            self.problems.append(_Problem(call.target, str(reason), call.place))
            self.stand_in(call)
        except VerifyException as error:
            raise HeatcError(
                f"{call.target} is inconsistent: {error}",
                place=str(call.place),
                notes=["the graph contradicts itself: export the model again"],
            ) from None

    def bind(self, name: str, place: Place) -> None:
        """Make the weight behind a graph input a value, once for all its uses."""
        weight = self.bound.get(name)
        if weight is None or name in self.values:
            return
        if name in self.graph.numbers:
            op = nn.FullOp(float(self.graph.numbers[name]), self.input_type(name))
            op.location = _location(place)
            self.builder.insert(op)
            self.values[name] = op.results[0]
            return
        if weight not in self.shared:
            op = WeightOp(weight, self.input_type(name))
            op.location = _location(Place(weight.rpartition(".")[0], place.file, place.line))
            self.builder.insert(op)
            op.results[0].name_hint = name_hint(weight)
            self.shared[weight] = op.results[0]
        self.values[name] = self.shared[weight]

    def define(self, call: AtenCall, result: Tensors | None) -> None:
        if result is None:
            return
        results = [result] if isinstance(result, SSAValue) else list(result)
        if len(results) > len(call.outputs):
            raise HeatcError(f"{call.target} in {call.place} declares too few results")
        for name, value in zip(call.outputs, results):
            tensor = self.graph.tensor(name)
            expected = tensor_type(tensor)
            if value.type != expected:
                raise VerifyException(f"the result is {value.type}, the graph says {expected}")
            if value.name_hint is None:
                value.name_hint = name_hint(name)
            self.values[name] = value

    def check(self, call: AtenCall, before: Operation | None) -> None:
        """Verify the ops that a call became, so that an error names the call."""
        op = self.block.first_op if before is None else before.next_op
        while op is not None:
            op.verify()
            op = op.next_op

    def stand_in(self, call: AtenCall) -> None:
        """Give the results of an unsupported call some value, so that the rest is looked at too."""
        for name in call.outputs:
            if name in self.graph.tensors:
                tensor = self.graph.tensors[name]
                element = ELEMENTS.get(tensor.dtype, f32)
                op = nn.FullOp(0.0, TensorType(element, tensor.shape))
                self.builder.insert(op)
                self.values[name] = op.results[0]

    def finish(self) -> None:
        results: list[SSAValue] = []
        for named in self.graph.outputs:
            self.bind(named.value, Place())
            if named.value not in self.values:
                raise HeatcError(f"output {named.name!r} is {named.value!r}, defined nowhere")
            results.append(self.values[named.value])
        if not results:
            raise HeatcError("the model has no output tensor")
        self.builder.insert(func.ReturnOp(*results))
        for op in reversed(list(self.block.ops)):
            if op.results and not any(result.uses for result in op.results):
                op.detach()
                op.erase()

    def module(self) -> ModuleOp:
        last = self.block.last_op
        assert last is not None
        main = func.FuncOp(
            "main",
            (self.block.arg_types, [value.type for value in last.operands]),
            Region(self.block),
            arg_attrs=_names_attribute([named.name for named in self.graph.inputs]),
            res_attrs=_names_attribute([named.name for named in self.graph.outputs]),
        )
        main.location = last.location = _location(Place())
        module = ModuleOp([main])
        try:
            module.verify()
        except VerifyException as error:
            raise HeatcError(f"the graph is inconsistent: {error}") from None
        return module


def _names_attribute(names: Sequence[str]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(DictionaryAttr({"heatc.name": StringAttr(name)}) for name in names)


def _location(place: Place) -> NameLoc:
    line = FileLineColLoc(StringAttr(place.file or "-"), IntAttr(place.line), IntAttr(0))
    return NameLoc(StringAttr(place.module), line)


def _names_in(args: Sequence[Arg]) -> list[str]:
    names: list[str] = []
    for arg in args:
        if isinstance(arg, Ref):
            names.append(arg.name)
        elif isinstance(arg, list):
            names += _names_in(arg)
    return names


_NEEDS_TORCH = "PyTorch, which rewrites it, is not here: pip install 'heatc[torch]'"
_HINTS = {
    "aten.sort.default": "unsupported, as are all ops that put elements in an order of their own",
    "aten.topk.default": "unsupported, as are all ops that put elements in an order of their own",
}


def _refusal(target: str) -> str:
    """Why a target without a converter is refused."""
    name = target.removeprefix("aten.").partition(".")[0]
    if target.startswith("aten.") and name.endswith("_") and not name.endswith("__"):
        return f"it changes a tensor in place; {_NEEDS_TORCH}"
    if target.startswith("higher_order."):
        return "unsupported; take such blocks out of forward"
    return _HINTS.get(target, "unsupported")


def _report(problems: Sequence[_Problem]) -> HeatcError:
    """One error for all problems: a note for each op and reason, with its first occurrence."""
    groups: dict[tuple[str, str], list[_Problem]] = {}
    for problem in problems:
        groups.setdefault((problem.target, problem.reason), []).append(problem)
    notes = [_group_note(target, reason, found) for (target, reason), found in groups.items()]
    kinds = len({problem.target for problem in problems})
    return HeatcError(
        f"the model has {len(problems)} unsupported call{'s' * (len(problems) > 1)} "
        f"of {kinds} op{'s' * (kinds > 1)}",
        place=str(problems[0].place),
        notes=[
            *notes,
            _remedy(problems),
        ],
    )


def _remedy(problems: Sequence[_Problem]) -> str:
    """What to do about calls in one's own lines, and about those in the lines of a library."""
    libraries = sorted({p.place.library for p in problems if p.place.library})
    if not libraries:
        return (
            "rewrite these lines with other ops, or export only the part of the model without them"
        )
    return (
        f"these lines are {' and '.join(libraries)}': give the model without them (the base model "
        "without its head, or its encoder alone, as a torch.export archive), try the other "
        "attn_implementation ('eager' or 'sdpa') where they belong to attention, or report the op"
    )


def _group_note(target: str, reason: str, found: Sequence[_Problem]) -> str:
    times = f"{len(found)} call{'s' * (len(found) > 1)}"
    return f"{target}: {times}, first in {found[0].place}: {reason}"
