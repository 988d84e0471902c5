"""The packed model with some layers replaced, run by PyTorch from the first of them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, SSAValue

from heatc.tuning.common.torch_model import TorchModel
from heatc.tuning.search.replacements import Replacement
from heatc.weights import WeightStore

Array = NDArray[Any]


@dataclass
class _State:
    """Values of a batch in front of op number `place`."""

    values: dict[SSAValue, Any]
    place: int = 0
    replaced: Mapping[Operation, Replacement] = field(default_factory=dict[Operation, Replacement])

    def fork(self, replaced: Mapping[Operation, Replacement]) -> _State:
        """The same, going on with other layers."""
        return _State(dict(self.values), self.place, replaced)


class PatchedModel(TorchModel):
    """
    Runs batches with layers replaced; values are dropped after their last use.

    Raises `HeatcError` as `TorchModel` does.
    """

    def __init__(self, module: ModuleOp, weights: WeightStore):
        super().__init__(module, weights)
        self._dying: list[list[SSAValue]] = [[] for _ in self._ops]
        last: dict[SSAValue, int] = {}
        for place, op in enumerate(self._ops):
            last.update((v, place) for v in (*op.operands, *op.results))
        for value, place in last.items():
            if value not in self._constants:
                self._dying[place].append(value)

    def outputs_of(
        self, inputs: Mapping[str, Array], replaced: Mapping[Operation, Replacement]
    ) -> dict[str, Array]:
        """The outputs of a batch by name, with linears replaced by their contractions."""
        with torch.no_grad():
            return self._finish(self._start(inputs).fork(replaced))

    def one_by_one(
        self,
        inputs: Mapping[str, Array],
        layers: Sequence[tuple[Sequence[Operation], Sequence[Callable[[], Replacement]]]],
    ) -> Iterator[tuple[int, int, dict[str, Array]]]:
        """
        The outputs of a batch with each layer alone replaced by each of some replacements.

        A layer is its contractions, in the order of the module. Yields the numbers of layer and
        replacement, and the outputs. What comes before a layer is run once for all that is tried in
        its place.
        """
        places = {op: k for k, op in enumerate(self._ops)}
        firsts = [min(places[op] for op in ops) for ops, _ in layers]
        with torch.no_grad():
            state = self._start(inputs)
            for number in sorted(range(len(layers)), key=firsts.__getitem__):
                self._advance(state, firsts[number])
                ops, replacements = layers[number]
                for place, make in enumerate(replacements):
                    yield number, place, self._finish(state.fork(dict.fromkeys(ops, make())))

    def _start(self, inputs: Mapping[str, Array]) -> _State:
        values: dict[SSAValue, Any] = dict(self._constants)
        for name, argument in zip(self.inputs, self._function.body.block.args):
            array = np.asarray(inputs[name])
            is_real = array.dtype.kind == "f"
            values[argument] = self._tensor(array.astype(np.float32)) if is_real else array
        return _State(values)

    def _advance(self, state: _State, stop: int) -> None:
        """Run the ops before number `stop`."""
        for place in range(state.place, stop):
            op = self._ops[place]
            operands = [state.values[v] for v in op.operands]
            other = state.replaced.get(op)
            if other is None:
                found = self._run(op, operands, [])
            else:
                found = [other(self._real(operands[0]))]
            state.values.update(zip(op.results, found))
            for value in self._dying[place]:
                state.values.pop(value, None)
        state.place = stop

    def _finish(self, state: _State) -> dict[str, Array]:
        end = next(k for k, op in enumerate(self._ops) if isinstance(op, ReturnOp))
        self._advance(state, end)
        found = (self._real(state.values[v]) for v in self._ops[end].operands)
        return {name: value.numpy() for name, value in zip(self.outputs, found)}
