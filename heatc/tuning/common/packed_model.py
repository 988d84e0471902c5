"""
The packed model, run in pieces: from one attention to the next.

Calibration replaces attention alone and looks at it again and again, so the ops in between are
run once for every change of what comes before them. Weights and everything else that depends on
no input are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.dialects import attn, nn
from heatc.dialects.einsum import ContractOp, parse_equation
from heatc.errors import HeatcError
from heatc.interpreter import input_names, main_function, make_interpreter, output_names
from heatc.interpreter.values import Packing
from heatc.passes.rewriting import describe_location, module_path
from heatc.samples import table_limits
from heatc.weights import WeightStore

Array = NDArray[Any]
Reals = NDArray[np.float32]


@dataclass(frozen=True)
class Attention:
    """
    One attention of the model.

    `path` is its module path, the key of a plan. `metric` (heads, dim, dim) is W^T W of the linear
    that reads a head's output: `x^T metric x` is the squared size of what the next layer sees of a
    change x of that head. It is the identity where the output is not read by one linear alone.
    """

    index: int
    path: str
    heads: int
    scale: float
    metric: NDArray[np.float64]


@dataclass
class Paused:
    """A batch that waits in front of an attention; `q`, `k`, `v` are (tokens, heads * dim)."""

    attention: Attention
    packing: Packing
    q: Reals
    k: Reals
    v: Reals
    values: dict[SSAValue, Any]


class PackedModel:
    """
    A module at the packed level.

    `run_to_first` takes a batch to the first attention, `resume` from there to the next one or to
    the outputs. `limits` are the rows of the tables that inputs index. Raises `HeatcError` for a model without attention, or with one that no HDP target
    takes (its mask is not key padding).
    """

    def __init__(self, module: ModuleOp, weights: WeightStore):
        self._function = main_function(module)
        self._interpreter = make_interpreter(module, weights)
        self.inputs = input_names(self._function)
        self.outputs = output_names(self._function)
        self.shapes = input_shapes(module)
        self.limits = table_limits(module)
        self._constants: dict[SSAValue, Any] = {}
        self._segments: list[list[Operation]] = [[]]
        self._sdpa: list[attn.SdpaOp] = []
        self._sort()
        self._live = self._live_values()
        self.attentions = tuple(self._attention(i, op) for i, op in enumerate(self._sdpa))

    @property
    def batch(self) -> int:
        """Samples of one batch."""
        return next(iter(self.shapes.values()))[0]

    def run_to_first(self, inputs: Mapping[str, Array]) -> Paused:
        """Run a batch (arrays of the model's own shapes) up to the first attention."""
        arguments = self._function.body.block.args
        values: dict[SSAValue, Any] = {
            a: np.asarray(inputs[n]) for n, a in zip(self.inputs, arguments)
        }
        return cast(Paused, self._run(0, values))

    def resume(self, paused: Paused, result: Array) -> Paused | dict[str, Array]:
        """Go on with `result` (tokens, heads * dim) as the attention's output."""
        index = paused.attention.index
        op = self._sdpa[index]
        values = {**paused.values, op.result: result.astype(np.float32, copy=False)}
        return self._run(index + 1, values)

    # --- Running ------------------------------------------------------------------------------

    def _run(self, segment: int, values: dict[SSAValue, Any]) -> Paused | dict[str, Array]:
        for op in self._segments[segment]:
            if isinstance(op, ReturnOp):
                return dict(zip(self.outputs, (self._get(values, v) for v in op.operands)))
            arguments = tuple(self._get(values, v) for v in op.operands)
            results = self._interpreter.run_op(op, arguments)
            values.update(zip(op.results, results))
        sdpa = self._sdpa[segment]
        live = {v: values[v] for v in self._live[segment] if v in values}
        q, k, v, packing = (self._get(values, x) for x in (sdpa.q, sdpa.k, sdpa.v, sdpa.packing))
        return Paused(self.attentions[segment], packing, q, k, v, live)

    def _get(self, values: Mapping[SSAValue, Any], value: SSAValue | None) -> Any:
        assert value is not None
        return values[value] if value in values else self._constants[value]

    # --- Looking at the module ----------------------------------------------------------------

    def _sort(self) -> None:
        """Cut the ops at attentions; compute what depends on no input."""
        for op in self._function.body.block.ops:
            if isinstance(op, attn.SdpaOp):
                _check(op)
                self._sdpa.append(op)
                self._segments.append([])
            elif op.results and all(v in self._constants for v in op.operands):
                arguments = tuple(self._constants[v] for v in op.operands)
                self._constants.update(zip(op.results, self._interpreter.run_op(op, arguments)))
            else:
                self._segments[-1].append(op)

    def _live_values(self) -> list[set[SSAValue]]:
        """For each attention: the values computed before it that are read after it."""
        live: list[set[SSAValue]] = []
        later: set[SSAValue] = set()
        for segment in reversed(range(1, len(self._segments))):
            later |= {v for op in self._segments[segment] for v in op.operands}
            if segment < len(self._sdpa):
                later |= set(self._sdpa[segment].operands)
            live.append(set(later))
        return live[::-1]

    def _attention(self, index: int, op: attn.SdpaOp) -> Attention:
        heads = op.heads.value.data
        return Attention(
            index,
            module_path(op),
            heads,
            op.scale.value.data,
            self._head_metric(op, heads),
        )

    def _head_metric(self, op: attn.SdpaOp, heads: int) -> NDArray[np.float64]:
        """W_h^T W_h of the linear that reads the attention, for every head's columns."""
        width = attn.tensor_of(op.result).get_shape()[-1]
        dim = width // heads
        columns = self._projection(op, width).astype(np.float64).reshape(heads, dim, -1)
        return np.einsum("hdo,heo->hde", columns, columns)

    def _projection(self, op: attn.SdpaOp, width: int) -> Array:
        """
        The weight (heads * dim, out) of the one linear that reads the attention.

        A factorised linear is a chain of contractions: the identity is sent through all of it.
        Where nothing linear reads the attention alone, it is the identity that is left.
        """
        value, rows = op.result, np.eye(width, dtype=np.float32)
        while (reader := self._linear_reader(value)) is not None:
            operands = tuple(rows if v is value else self._constants[v] for v in reader.operands)
            (rows,) = self._interpreter.run_op(reader, operands)
            value = reader.results[0]
        return rows.reshape(width, -1)

    def _linear_reader(self, value: SSAValue) -> ContractOp | nn.ReshapeOp | None:
        """The one op that reads a value, if it is linear in it and keeps its rows in front."""
        uses = list(value.uses)
        if len(uses) != 1:
            return None
        reader = uses[0].operation
        if isinstance(reader, nn.ReshapeOp):
            return reader if nn.shape_of(reader.result)[0] == nn.shape_of(value)[0] else None
        if not isinstance(reader, ContractOp):
            return None
        others = [v for v in reader.operands if v is not value]
        if len(others) + 1 < len(reader.operands) or any(v not in self._constants for v in others):
            return None
        terms, result = parse_equation(reader.equation.data)
        own = terms[list(reader.operands).index(value)]
        is_batch = result[:1] == own[:1] and sum(own[0] in term for term in terms) == 1
        return reader if is_batch else None


def input_shapes(module: ModuleOp) -> dict[str, tuple[int, ...]]:
    """The shapes of a module's inputs by name, the batch first."""
    function = main_function(module)
    return {n: nn.shape_of(a) for n, a in zip(input_names(function), function.body.block.args)}


def _check(op: attn.SdpaOp) -> None:
    if op.packing is None or op.masks:
        raise HeatcError(
            "hdp attention needs a mask that is provably key padding (or none)",
            place=describe_location(op),
            notes=["no HDP target takes this model, so there is nothing to calibrate"],
        )
    if not module_path(op):
        raise HeatcError(
            "an attention has no module path, which is its name in a plan",
            place=describe_location(op),
            notes=["capture the model from PyTorch, or keep the locations of its IR"],
        )
