"""What each layer that a plan names became: its factors, and how its input meets them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass

from heatc.dialects.attn import PackingOp
from heatc.dialects.einsum import ContractOp, WeightOp
from heatc.heat.formats import Spec
from heatc.passes.apply_plan import ApplyPlanPass
from heatc.passes.factorising.emit import factors_path
from heatc.passes.factorising.reference import spec_of
from heatc.passes.factorising.targets import Target, find_targets
from heatc.passes.order_contractions import OrderContractionsPass
from heatc.passes.rewriting import module_path
from heatc.pipeline import Instrument
from heatc.weights import WeightStore

Array = NDArray[np.float32]


@dataclass(frozen=True)
class PlannedLayer:
    """
    A layer y = W x (+ b), or an embedding table, and its factors.

    Attributes:
        path: its name in the plan.
        weight: the name of W in the state dict.
        is_table: whether it is an embedding table.
        axis: the axis of the stored weight that inputs are summed over, or looked up by.
        on_constants: whether what no input decides meets its factors too. Such products are folded
            with W itself before there are factors, where heatc folds them.
        users: module paths of the calls that are replaced; None for all calls that read the weight.
        spec: format, modes and ranks.
        order: the contraction path; operand 0 is the input, of a table the first factor.
        factors: their arrays by name, in order, float32; those of a table have its mode first.
        indices: the indices of each factor's axes by name, as `Spec` calls them.
        bias: the bias (outputs,) that makes up for the factors, None where the layer's own stays.
        own_bias: the name of a bias that is added by an op of its own, if there is one.
        rows, width: inputs and outputs of the layer.
    """

    path: str
    weight: str
    is_table: bool
    axis: int
    on_constants: bool
    users: frozenset[str] | None
    spec: Spec
    order: tuple[tuple[int, int], ...]
    factors: Mapping[str, Array]
    indices: Mapping[str, str]
    bias: Array | None
    own_bias: str | None
    rows: int
    width: int

    @property
    def description(self) -> dict[str, Any]:
        """What `heatc.export.runtime.layers` makes the layer of."""
        return {
            "kind": "embedding" if self.is_table else "linear",
            "format": self.spec.format,
            "inputs": list(self.spec.inputs),
            "outputs": list(self.spec.outputs),
            "ranks": list(self.spec.ranks),
            "factors": {
                name: {"indices": self.indices[name], "shape": list(array.shape)}
                for name, array in self.factors.items()
            },
            "path": [list(pair) for pair in self.order],
            "bias": self.bias is not None,
            "rows": self.rows,
            "width": self.width,
        }


@dataclass
class NotePlanned(Instrument):
    """
    Notes every planned layer while the passes run; `layers` has them by path when they are done.

    Attributes:
        weights: the store that `heat-decompose` puts factors into.
    """

    weights: WeightStore
    layers: dict[str, PlannedLayer] = field(default_factory=dict[str, PlannedLayer])
    _facts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])

    def after(self, pass_: ModulePass, module: ModuleOp) -> None:
        """Look at the targets when the plan was applied, and at their factors when they have paths."""
        if pass_.name == ApplyPlanPass.name:
            self._note_targets(module)
        if pass_.name == OrderContractionsPass.name:
            self._note_factors(module)

    def _note_targets(self, module: ModuleOp) -> None:
        tables = find_targets(module, "*", tables=True)
        looked_up = {target.weight.keys for target in tables}
        for target in (*tables, *find_targets(module, "*", tables=False)):
            if target.op.planned is None:
                continue
            users = frozenset({module_path(target.op)}) if target.weight.keys in looked_up else None
            before = self._facts.get(target.path, {"on_constants": False})
            self._facts[target.path] = {
                "on_constants": before["on_constants"] or not _is_decided_by_input(target.x),
                "path": target.path,
                "weight": target.weight.keys[0],
                "is_table": target.is_table,
                "axis": _axis(target),
                "users": None if target.is_table else users,
                "own_bias": _own_bias(target),
                "rows": target.inputs,
                "width": target.outputs,
            }

    def _note_factors(self, module: ModuleOp) -> None:
        for op in module.walk():
            if not isinstance(op, ContractOp) or op.decomposition is None:
                continue
            facts = self._facts[factors_path(op)]
            path, spec = facts["path"], spec_of(op.decomposition)
            arrays, indices = _factors(spec, path, self.weights, is_table=facts["is_table"])
            name = f"{path}.{len(arrays)}"
            bias = np.asarray(self.weights[name], np.float32) if name in self.weights else None
            order = () if len(op.inputs) == 1 else ((0, 1),) if op.path is None else op.path.data
            self.layers[path] = PlannedLayer(
                **facts, spec=spec, order=order, factors=arrays, indices=indices, bias=bias
            )


def _is_decided_by_input(value: SSAValue) -> bool:
    """Whether a value depends on an argument of the function; which tokens are real is none of it."""
    seen, ahead = {value}, [value]
    while ahead:
        owner = ahead.pop().owner
        if isinstance(owner, Block):
            return True
        if isinstance(owner, PackingOp):
            continue
        new = [operand for operand in owner.operands if operand not in seen]
        seen.update(new)
        ahead += new
    return False


def _axis(target: Target) -> int:
    """The axis of the weight as it is stored that the layer's input meets."""
    read = 0 if target.swapped or target.is_table else 1
    permutation = target.weight.permutation
    return read if permutation is None else int(permutation.get_values()[read])


def _own_bias(target: Target) -> str | None:
    """The name of the bias that is added to the layer's product."""
    if target.bias is None:
        return None
    weight: WeightOp = target.bias[1]
    return weight.keys[0]


def _factors(
    spec: Spec, path: str, weights: WeightStore, *, is_table: bool
) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and indices of the factors by name; the store has those of a table as matrices."""
    arrays: dict[str, Array] = {}
    indices: dict[str, str] = {}
    for number, (name, term) in enumerate(zip(factor_names(spec), spec.terms)):
        mode = next((c for c in term if c in spec.input_letters), "") if is_table else ""
        letters = mode + term.replace(mode, "", 1)
        shape = [spec.extents[c] for c in letters]
        arrays[name] = np.asarray(weights[f"{path}.{number}"], np.float32).reshape(shape)
        indices[name] = letters
    return arrays, indices


def factor_names(spec: Spec) -> list[str]:
    """
    The names of a format's factors in a state dict.

    Low-rank has `a` and `b`, trains have cores; of others a factor of one mode is named by it.
    """
    if spec.format == "low-rank":
        return ["a", "b"]
    if spec.format in ("tt", "ttm"):
        return [f"core_{number}" for number in range(len(spec.terms))]
    names = [_mode_name(spec, term) for term in spec.terms]
    if len(set(names)) == len(names):
        return names
    return [f"factor_{number}" for number in range(len(names))]


def _mode_name(spec: Spec, term: str) -> str:
    inputs = [spec.input_letters.index(c) for c in term if c in spec.input_letters]
    outputs = [spec.output_letters.index(c) for c in term if c in spec.output_letters]
    if len(inputs) + len(outputs) != 1:
        return "core" if not inputs and not outputs else "factor"
    return f"input_{inputs[0]}" if inputs else f"output_{outputs[0]}"
