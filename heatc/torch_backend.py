"""
`torch.compile(model, backend="heatc")`: each graph of a model as a NumPy program of heatc.

What heatc refuses runs in PyTorch, and a warning says why. So a model with graph breaks, or with one
op that heatc lacks, runs all the same.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from heatc.api import Compilation
from heatc.backends.numpy.program import LoadedProgram
from heatc.capture.exported import export
from heatc.errors import HeatcError
from heatc.targets import Numpy, Options
from heatc.verify import Settings

Values = Sequence[Any]
"""The arguments of a graph: its weights, sizes that vary, and its inputs, in Dynamo's order."""


_NOT_IN_NUMPY = (torch.bfloat16, torch.complex32)


class NotCompiledWarning(UserWarning):
    """A graph, or one call of it, runs in PyTorch."""


def heatc_backend(graph: torch.fx.GraphModule, examples: Values) -> Callable[..., Values]:
    """
    The backend that `torch.compile` is given; entry point `heatc` of `torch_dynamo_backends`.

    Nothing is compiled before the first call, whose sizes the program has.
    """
    is_weight = [isinstance(value, torch.Tensor) and _is_static(value) for value in examples]
    return Graph(graph, is_weight)


def _is_static(tensor: torch.Tensor) -> bool:
    """Whether Dynamo takes a tensor for part of the model: parameters and buffers are."""
    return getattr(tensor, "_dynamo_static_input_type", None) is not None


class _Program(NamedTuple):
    """A loaded program, its inputs by name, and the dtypes of the graph's outputs in order."""

    program: LoadedProgram
    names: Sequence[str]
    dtypes: Sequence[torch.dtype]


class _State(NamedTuple):
    """Which tensor a weight was, and how often it had been changed; its id may be another one's today."""

    tensor: weakref.ref[torch.Tensor]
    address: int
    version: int

    @classmethod
    def of(cls, tensor: torch.Tensor) -> _State:
        return cls(weakref.ref(tensor), tensor.data_ptr(), tensor._version)

    def is_of(self, tensor: torch.Tensor) -> bool:
        """Whether a program that was made then has the weight of now."""
        found = (tensor.data_ptr(), tensor._version)
        return self.tensor() is tensor and (self.address, self.version) == found


class Graph:
    """
    A graph, with a program for each set of sizes that it was called with.

    Its programs hold copies of the weights: they are made again where a weight is another tensor, or was
    changed in place (`load_state_dict`, an optimizer). A change through `.data` is seen by nobody.
    """

    def __init__(self, graph: torch.fx.GraphModule, is_weight: Sequence[bool]):
        self.graph = graph
        self.is_weight = is_weight
        self._programs: dict[Any, _Program | None] = {}
        self._weights: list[_State] = []
        self._told: set[str] = set()
        self._folder = tempfile.mkdtemp(prefix="heatc-torch-")
        self._open = ExitStack()
        weakref.finalize(self, _leave, self._open, self._folder)

    def __call__(self, *values: Any) -> Values:
        """What the graph computes, by a program where there can be one."""
        weights = [value for value, fixed in zip(values, self.is_weight) if fixed]
        free = [value for value, fixed in zip(values, self.is_weight) if not fixed]
        inputs = [value for value in free if isinstance(value, torch.Tensor)]
        if reason := _why_not(inputs, weights):
            self._tell(reason)
            return self.graph(*values)
        self._forget_other(weights)
        key = tuple((v.shape, v.dtype) if isinstance(v, torch.Tensor) else v for v in free)
        if key not in self._programs:
            self._programs[key] = self._compiled(values, inputs)
        program = self._programs[key]
        if program is None:
            return self.graph(*values)
        arrays = {n: t.detach().numpy() for n, t in zip(program.names, inputs, strict=True)}
        try:
            outputs = program.program(arrays)
        except (HeatcError, ValueError) as error:
            # For example an input whose sequence has no real token.
            self._tell(f"a call is refused: {error}")
            return self.graph(*values)
        found = zip(outputs.values(), program.dtypes, strict=True)
        return [torch.as_tensor(array).to(dtype) for array, dtype in found]

    def _forget_other(self, weights: Sequence[torch.Tensor]) -> None:
        """Leave the programs that were made of other weights than those of now."""
        known = self._weights
        if len(known) == len(weights) and all(s.is_of(w) for s, w in zip(known, weights)):
            return
        self._open.close()
        self._programs.clear()
        self._weights = [_State.of(weight) for weight in weights]

    def _compiled(self, values: Values, inputs: Sequence[torch.Tensor]) -> _Program | None:
        """The program for the sizes of `values`; None where heatc refuses the graph."""
        model = _Fixed(self.graph, values, self.is_weight).eval()
        path = Path(self._folder) / f"program_{len(self._programs)}.py"
        try:
            exported = export(model, tuple(inputs))
            write_program(exported, path)
            # heatc refuses graphs that change an input or draw random numbers: one run more is harmless.
            dtypes = _dtypes(self.graph(*values), values)
            program = self._open.enter_context(LoadedProgram(path))
        except HeatcError as error:
            self._tell(" ".join((error.message, *error.notes[:1])))
            return None
        names = [str(name) for name in exported.graph_signature.user_inputs]
        return _Program(program, names, dtypes)

    def _tell(self, reason: str) -> None:
        """Once for each reason."""
        if reason not in self._told:
            self._told.add(reason)
            text = (
                f"heatc: a graph of {len(self.graph.graph.nodes)} nodes runs in PyTorch: {reason}"
            )
            warnings.warn(text, NotCompiledWarning, stacklevel=2)


class _Fixed(torch.nn.Module):
    """A graph whose weights and sizes are fixed, as a module of its tensors."""

    def __init__(self, graph: torch.fx.GraphModule, values: Values, is_weight: Sequence[bool]):
        super().__init__()
        self.graph = graph
        self.values: list[Any] = []
        self.places: list[int] = []
        for place, (value, fixed) in enumerate(zip(values, is_weight, strict=True)):
            is_free = isinstance(value, torch.Tensor) and not fixed
            if is_free:
                self.places.append(place)
            if fixed:
                self.register_buffer(f"weight_{place}", value.detach())
            self.values.append(f"weight_{place}" if fixed else None if is_free else value)

    def forward(self, *tensors: torch.Tensor) -> Any:
        values = [getattr(self, v) if isinstance(v, str) else v for v in self.values]
        for place, tensor in zip(self.places, tensors, strict=True):
            values[place] = tensor
        return tuple(self.graph(*values))


def _why_not(inputs: Sequence[torch.Tensor], weights: Sequence[torch.Tensor]) -> str:
    """Why a program of heatc cannot take the place of the graph for these arguments."""
    if not inputs:
        return "it has no input that is a tensor"
    if any(t.layout != torch.strided or t.dtype in _NOT_IN_NUMPY for t in inputs):
        return "an input has a layout or a dtype that NumPy lacks"
    tensors = [*inputs, *weights]
    if other := {str(t.device) for t in tensors if t.device.type != "cpu"}:
        return f"its tensors are on {', '.join(sorted(other))}, programs run on the CPU"
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return "gradients are wanted, programs have none: use torch.no_grad() or inference_mode()"
    if any(weight.is_inference() for weight in weights):
        return "a weight was made in inference mode, where changes of it are not counted"
    return ""


def write_program(exported: torch.export.ExportedProgram, path: Path) -> None:
    """
    Write a checked NumPy program that has PyTorch's numbers at masked positions too.

    Raises `HeatcError` for a graph that heatc refuses.
    """
    target = Numpy()
    options = Options(target, padding="compute")
    compilation = Compilation(options, verify=Settings(), quiet=True)
    compilation.capture_exported(exported)
    compilation.run()
    compilation.write(path, target.forms[0].name)


def _dtypes(outputs: Values, values: Values) -> list[torch.dtype]:
    """Dtypes of what the graph gives; `HeatcError` unless those are tensors with a memory of their own."""
    if not all(isinstance(output, torch.Tensor) for output in outputs):
        raise HeatcError("an output is no tensor")
    # What is done to a view in place, later and outside of the graph, is done to the other tensor too.
    given = {_memory(value) for value in values if isinstance(value, torch.Tensor)}
    taken = [_memory(output) for output in outputs]
    if len(set(taken)) < len(taken) or not given.isdisjoint(taken):
        raise HeatcError("an output is a view of an input or of another output")
    return [output.dtype for output in outputs]


def _memory(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _leave(programs: ExitStack, folder: str) -> None:
    programs.close()
    shutil.rmtree(folder, ignore_errors=True)
