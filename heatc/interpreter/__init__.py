"""
Executes any level of the IR above the instruction stream, with NumPy semantics.

A package that brings a dialect says what its ops compute by an entry point of the group
`heatc.semantics`, which has the dialect's name and gives an object of xDSL's
`InterpreterFunctions`. One semantics per op: the arithmetic of fixed-point and HDP ops is `heatc.fixed_point` and
`heatc.isa.units`, which the simulator runs as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.interpreter import Interpreter, InterpreterFunctions
from xdsl.interpreters.func import FuncFunctions
from xdsl.ir import Operation

from heatc.errors import HeatcError
from heatc.extensions import Registry
from heatc.interpreter.attn import AttnFunctions
from heatc.interpreter.attn_masks import AttnMaskFunctions
from heatc.interpreter.einsum import EinsumFunctions
from heatc.interpreter.fixed import FixedFunctions
from heatc.interpreter.host import HostFunctions
from heatc.interpreter.nn import NnFunctions
from heatc.interpreter.nn_math import NnMathFunctions
from heatc.interpreter.values import dtype_of, element_type
from heatc.universe import DIALECTS
from heatc.weights import WeightStore

Arrays = Mapping[str, NDArray[Any]]
Observer = Callable[[Operation, Sequence[Any]], None]


_DIALECTS = {"builtin", "func", *DIALECTS}
"""Those whose semantics are here."""

SEMANTICS: Registry[InterpreterFunctions] = Registry(
    "heatc.semantics",
    "the semantics of the dialect",
    InterpreterFunctions,
    {},
    repr,
    is_named=False,
)
"""What ops of other packages compute, by dialect."""


class _Watch(Interpreter.Listener):
    def __init__(self, observer: Observer):
        self.observer = observer

    def will_interpret_op(self, op: Operation, args: tuple[Any, ...]) -> None:
        """Nothing is observed before an op runs."""

    def did_interpret_op(self, op: Operation, results: tuple[Any, ...]) -> None:
        self.observer(op, results)


def main_function(module: ModuleOp) -> FuncOp:
    """The function `main` of a module; `HeatcError` if there is none."""
    for op in module.ops:
        if isinstance(op, FuncOp) and op.sym_name.data == "main":
            return op
    raise HeatcError("the module has no function 'main'")


def _names(attributes: Sequence[DictionaryAttr] | None, count: int, kind: str) -> list[str]:
    names = [f"{kind}_{i}" for i in range(count)]
    for i, attribute in enumerate(attributes or ()):
        name = attribute.data.get("heatc.name")
        if isinstance(name, StringAttr):
            names[i] = name.data
    return names


def input_names(function: FuncOp) -> list[str]:
    """The model's own input names, in order."""
    attributes = None if function.arg_attrs is None else function.arg_attrs.data
    return _names(attributes, len(function.function_type.inputs), "input")


def output_names(function: FuncOp) -> list[str]:
    """The model's own output names, in order."""
    attributes = None if function.res_attrs is None else function.res_attrs.data
    return _names(attributes, len(function.function_type.outputs), "output")


def make_interpreter(
    module: ModuleOp, weights: WeightStore, observer: Observer | None = None
) -> Interpreter:
    """An interpreter of every dialect above `hdp`; `observer` sees each op's results."""
    listeners = () if observer is None else (_Watch(observer),)
    interpreter = Interpreter(module, listeners=listeners)
    for functions in (
        FuncFunctions(),
        NnFunctions(),
        NnMathFunctions(),
        EinsumFunctions(weights),
        FixedFunctions(),
        AttnFunctions(),
        AttnMaskFunctions(),
        HostFunctions(),
        *_foreign(module),
    ):
        interpreter.register_implementations(functions)
    return interpreter


def _foreign(module: ModuleOp) -> list[InterpreterFunctions]:
    """The semantics of the dialects of other packages that a module has ops of."""
    dialects = {op.name.partition(".")[0] for op in module.walk()} - _DIALECTS
    found = [SEMANTICS.find(name) for name in sorted(dialects)]
    return [functions for functions in found if functions is not None]


def execute(
    module: ModuleOp, inputs: Arrays, weights: WeightStore, observer: Observer | None = None
) -> dict[str, NDArray[Any]]:
    """
    Run `main` on arrays by input name; returns arrays by output name.

    Fixed-point tensors are int64 codes. Raises `HeatcError` for a missing or misshapen input.
    """
    function = main_function(module)
    arguments: list[NDArray[Any]] = []
    for name, argument in zip(input_names(function), function.body.block.args):
        if name not in inputs:
            raise HeatcError(f"input {name!r} is missing, got {sorted(inputs)}")
        array = np.asarray(inputs[name])
        shape = argument.type.get_shape()  # pyright: ignore
        if array.shape != shape:
            raise HeatcError(f"input {name!r} has shape {array.shape}, expected {shape}")
        arguments.append(array.astype(dtype_of(element_type(argument)), copy=False))
    results = make_interpreter(module, weights, observer).call_op("main", tuple(arguments))
    return dict(zip(output_names(function), results))
