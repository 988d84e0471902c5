"""The ops of a factorised layer: its factors, one contraction, and what splits and joins modes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import TensorType, f32, f64, i64
from xdsl.ir import Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from heatc.dialects import nn
from heatc.dialects.einsum import ContractOp, DecompositionAttr, PathAttr, WeightOp
from heatc.errors import HeatcError
from heatc.heat.decompose import Factors
from heatc.heat.formats import LEADING
from heatc.passes.factorising.targets import Target, layer_path
from heatc.passes.rewriting import describe_location, insert_before, replace_value
from heatc.weights import WeightStore


def provenance(factors: Factors) -> DecompositionAttr:
    """Where a contraction's weights come from."""
    spec = factors.spec
    return DecompositionAttr((spec.format, spec.shape, spec.ranks, round(factors.error, 6)))


def factors_path(op: ContractOp) -> str:
    """The module path of the layer that a contraction with factors computes."""
    for value in op.inputs:
        owner = value.owner
        while isinstance(owner, nn.ReshapeOp | nn.EmbeddingOp):
            owner = owner.operands[0].owner
        # The table of an embedding that the layer itself reads is no factor.
        if isinstance(owner, WeightOp) and owner.keys[0].rpartition(".")[2].isdigit():
            return layer_path(owner)
    return ""


def emit(
    target: Target,
    factors: Factors,
    bias: NDArray[np.float64] | None,
    weights: WeightStore,
    path: PathAttr | None = None,
) -> list[Operation]:
    """
    Put a layer's factors into the store and its contraction, along `path`, in the layer's place.

    `bias` replaces the layer's own, or is added where it has none. Returns the new ops in order.
    Raises `HeatcError` where the contraction has another number of operands than the path.
    """
    make = _table if target.is_table else _linear
    ops = make(target, factors, weights)
    result = ops[-1].results[0]
    contract = next(op for op in reversed(ops) if isinstance(op, ContractOp))
    if path is not None:
        _follow(contract, path, target)
    if bias is not None:
        own = _store(target, len(factors.arrays), bias, weights)
        ops.append(own)
        if target.bias is not None:
            add, old = target.bias
            add.operands[list(add.operands).index(old.result)] = own.result
        else:
            ops.append(nn.AddOp(result, own.result, result.type))
            result = ops[-1].results[0]
    insert_before(target.op, *ops)
    replace_value(target.op.results[0], result)
    target.op.detach()
    target.op.erase()
    return ops


def _follow(contract: ContractOp, path: PathAttr, target: Target) -> None:
    try:
        path.check(len(contract.inputs))
    except VerifyException as error:
        raise HeatcError(
            f"the plan's path of {target.path} is none: {error}",
            place=describe_location(target.op),
            notes=[f"its operands: {len(contract.inputs)}, {contract.equation.data!r}"],
        ) from None
    contract.path = path


def _store(
    target: Target, number: int, array: NDArray[np.float64], weights: WeightStore
) -> WeightOp:
    """The op that reads factor `number` of a layer, which the store gets in float32."""
    name = f"{target.path}.{number}"
    if name not in weights:
        weights.add(name, np.ascontiguousarray(array, np.float32))
    return WeightOp(name, TensorType(f32, array.shape))


def _linear(target: Target, factors: Factors, weights: WeightStore) -> list[Operation]:
    spec = factors.spec
    lead = nn.shape_of(target.x)[:-1]
    ops: list[Operation] = []
    x = target.x
    if len(spec.inputs) > 1:
        ops.append(nn.ReshapeOp(x, (*lead, *spec.inputs)))
        x = ops[-1].results[0]
    read = [_store(target, k, array, weights) for k, array in enumerate(factors.arrays)]
    letters = LEADING[: len(lead)]
    terms = [letters + spec.input_letters, *spec.terms]
    return [*ops, *read, *_contract(factors, lead, terms, [x, *(w.result for w in read)])]


def _contract(
    factors: Factors, lead: Sequence[int], terms: Sequence[str], operands: Sequence[SSAValue]
) -> list[Operation]:
    """The contraction to (lead..., modes...), joined to (lead..., outputs)."""
    spec = factors.spec
    equation = f"{','.join(terms)}->{LEADING[: len(lead)]}{spec.output_letters}"
    contract = ContractOp(
        equation,
        operands,
        TensorType(f32, (*lead, *spec.outputs)),
        decomposition=provenance(factors),
    )
    if len(spec.outputs) == 1:
        return [contract]
    return [contract, nn.ReshapeOp(contract.result, (*lead, math.prod(spec.outputs)))]


# ---- embedding tables -------------------------------------------------------------------------


def _table(target: Target, factors: Factors, weights: WeightStore) -> list[Operation]:
    """
    Rows of the factors that hold a mode of the rows, by the digits of the ids; then contract.

    Such a factor is stored with that mode first and the others as one axis.
    """
    spec = factors.spec
    lead = nn.shape_of(target.x)
    letters = LEADING[: len(lead)]
    ops, digits = _digits(target.x, spec.inputs)
    terms: list[str] = []
    operands: list[SSAValue] = []
    for number, (term, array) in enumerate(zip(spec.terms, factors.arrays)):
        mode = next((c for c in term if c in spec.input_letters), "")
        if not mode:
            ops.append(_store(target, number, array, weights))
            terms.append(term)
            operands.append(ops[-1].results[0])
            continue
        rest = term.replace(mode, "")
        first = np.moveaxis(array, term.index(mode), 0)
        flat = first.reshape(len(first), -1)
        read = _store(target, number, flat, weights)
        rows = nn.EmbeddingOp(read.result, digits[spec.input_letters.index(mode)])
        ops += [read, rows]
        if len(rest) > 1:
            ops.append(nn.ReshapeOp(rows.result, (*lead, *first.shape[1:])))
        terms.append(letters + rest)
        operands.append(ops[-1].results[0])
    return [*ops, *_contract(factors, lead, terms, operands)]


def _digits(ids: SSAValue, modes: Sequence[int]) -> tuple[list[Operation], list[SSAValue]]:
    """The digits of ids in a mixed radix, the last mode counting fastest."""
    ops: list[Operation] = []
    digits: list[SSAValue] = []
    shape = nn.shape_of(ids)

    def add(op: Operation) -> SSAValue:
        ops.append(op)
        return op.results[0]

    rest = ids
    for mode in reversed(modes[1:]):
        # The quotient of integers below 2^53 never rounds up to the next one in float64.
        number = add(nn.FullOp(float(mode), TensorType(f64, ())))
        real = add(nn.CastOp(rest, TensorType(f64, shape)))
        above = add(nn.CastOp(add(nn.DivOp(real, number, real.type)), ids.type))
        count = add(nn.FullOp(mode, TensorType(i64, ())))
        whole = add(nn.MulOp(above, count, ids.type))
        digits.append(add(nn.SubOp(rest, whole, ids.type)))
        rest = above
    return ops, [rest, *reversed(digits)]
