"""Every case of the FileCheck files computes the same before and after its pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, SSAValue
from xdsl.parser import Parser

from heatc.api import make_context
from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.interpreter import make_interpreter
from heatc.interpreter.values import Packing, dtype_of
from heatc.intervals import contained
from heatc.pipeline import build
from heatc.remarks import drop_remark
from heatc.weights import WeightStore

FOLDER = Path(__file__).parent
PASSES = {
    "raise_einsum": "raise-einsum",
    "raise_attention": "raise-attention",
    "raise_attention_left": "raise-attention",
    "raise_activations": "raise-activations",
    "pack_tokens": "pack-tokens",
    "insert_hdp": "insert-hdp",
    "fuse_projections": "fuse-projections",
    "partition_host": "partition-host",
}


def cases() -> Iterator[Any]:
    for stem, name in PASSES.items():
        text = (FOLDER / f"{stem}.mlir").read_text()
        for part in text.split("// -----"):
            for label in re.findall(r"^func\.func @(\w+)\(", part, re.M):
                yield pytest.param(part, label, name, id=f"{stem}-{label}")


def random_value(value: SSAValue, rng: np.random.Generator) -> Any:
    """Masks have a real token in each sequence; ids are 0 and 1."""
    if isinstance(value.type, attn.PackingType):
        mask = rng.random(value.type.shape) < 0.7
        mask[:, 0] = True
        return Packing.of(mask)
    shape, dtype = nn.shape_of(value), dtype_of(nn.element_of(value))
    if dtype is np.float32:
        return rng.normal(size=shape).astype(np.float32)
    values = rng.integers(0, 2, shape)
    values[:, 0] = 1
    return values.astype(dtype)


def random_inputs(function: FuncOp, rng: np.random.Generator) -> list[Any]:
    """Packed operands have one row for each token of the packing."""
    values: dict[SSAValue, Any] = dict.fromkeys(function.body.block.args)
    packing: Packing | None = None
    for argument in values:
        if isinstance(argument.type, attn.PackingType):
            values[argument] = packing = random_value(argument, rng)
    for argument in values:
        if values[argument] is not None:
            continue
        shape = nn.shape_of(argument)
        if nn.TOKENS in shape:
            tokens = 5 if packing is None else len(packing.rows)
            values[argument] = rng.normal(size=(tokens, *shape[1:])).astype(np.float32)
        else:
            values[argument] = random_value(argument, rng)
    return list(values.values())


def random_weights(function: FuncOp, rng: np.random.Generator) -> WeightStore:
    arrays: dict[str, NDArray[np.generic]] = {}
    for op in function.walk():
        if isinstance(op, WeightOp):
            assert len(op.keys) == 1
            shape = nn.shape_of(op.result)
            if op.permutation is not None:
                shape = tuple(shape[i] for i in np.argsort(op.permutation.get_values()))
            arrays.setdefault(op.keys[0], rng.normal(size=shape).astype(np.float32))
    return WeightStore(arrays)


def function_of(module: ModuleOp, label: str) -> FuncOp:
    return next(op for op in module.ops if isinstance(op, FuncOp) and op.sym_name.data == label)


def real_tokens(module: ModuleOp, label: str, inputs: list[Any]) -> NDArray[np.bool_] | None:
    """The real tokens of a packed function, by the values that its packing declares."""
    function = function_of(module, label)
    for op in function.walk():
        if isinstance(op, attn.PackingOp) and op.mask is not None and op.real is not None:
            mask = op.mask
            while isinstance(mask.owner, Operation):
                mask = mask.owner.operands[0]
            assert isinstance(mask, BlockArgument)
            shape = attn.packing_of(op.result).shape
            return contained(inputs[mask.index].reshape(shape), op.real.intervals)
    return None


def fit_masks(module: ModuleOp, label: str, inputs: list[Any]) -> None:
    """Make random floats of a packing's mask numbers that it declares: real ones, and masked ones."""
    for op in function_of(module, label).walk():
        if not isinstance(op, attn.PackingOp) or not isinstance(op.mask, BlockArgument):
            continue
        given = inputs[op.mask.index]
        if given.dtype.kind == "f" and op.real is not None and op.masked is not None:
            (low, high), (masked, _) = op.real.intervals[0], op.masked.intervals[0]
            between = high - (high - low) * 1e-3 * np.abs(np.sin(given))
            inputs[op.mask.index] = np.where(given > 0, between, masked).astype(given.dtype)


def zero_outputs(module: ModuleOp, label: str) -> list[bool]:
    """Which outputs are 0 at masked positions."""
    function = function_of(module, label)
    count = len(function.function_type.outputs)
    attributes = function.res_attrs or [DictionaryAttr({})] * count
    return ["heatc.padding" in a.data for a in attributes]


@pytest.mark.parametrize(("text", "label", "name"), list(cases()))
def test_same_values(text: str, label: str, name: str):
    context = make_context()
    context.remarks = drop_remark
    before = Parser(context, text).parse_module()
    after = before.clone()
    (pass_,) = build(name)
    pass_.apply(context, after)
    after.verify()
    function = function_of(before, label)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weights, inputs = random_weights(function, rng), random_inputs(function, rng)
        fit_masks(after, label, inputs)
        expected, found = (
            make_interpreter(module, weights).call_op(label, tuple(inputs))
            for module in (before, after)
        )
        real = real_tokens(after, label, inputs)
        for one, other, is_zero in zip(expected, found, zero_outputs(after, label)):
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            if is_zero:
                assert real is not None
                rows = real.T if label == "turned" else real
                assert not other[~rows].any()
                one, other = one[rows], other[rows]
            np.testing.assert_allclose(other, one, rtol=1e-4, atol=1e-5)
