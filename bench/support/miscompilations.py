"""
Faults of a compiler, one at a time: what the check after compiling has to find.

Each breaks one pass, one step of an emitter or of the encoder, as a slip of its author would. They
are written for BERT-like models with at least two layers.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, f64
from xdsl.ir import Operation

from heatc.backends.hdp import encode
from heatc.backends.hdp.encode import WeightItem
from heatc.backends.numpy import emit
from heatc.backends.numpy.weight_file import WeightTable
from heatc.dialects import attn, nn
from heatc.dialects.einsum import WeightOp
from heatc.passes.fixing import common
from heatc.passes.insert_hdp import InsertHdpPass
from heatc.passes.pack_tokens import PackTokensPass
from heatc.passes.raise_attention import RaiseAttentionPass
from heatc.passes.raise_einsum import RaiseEinsumPass
from heatc.passes.rewriting import module_path, replace_value
from heatc.passes.tiling.emitter import Emitter
from heatc.weights import WeightStore

Inject = Callable[[], AbstractContextManager[Any]]

BOTH = ("numpy", "hdp")


@dataclass(frozen=True)
class Miscompilation:
    """
    One fault.

    Attributes:
        name: what is wrong.
        step: the pass, emitter or encoder that is broken.
        targets: the targets whose programs are wrong.
        inject: breaks it while the context is entered.
        layer: the end of the first module path that is wrong, empty where no layer can be named.
    """

    name: str
    step: str
    targets: tuple[str, ...]
    inject: Inject
    layer: str = ""


# ---- how a step is broken ----------------------------------------------------------------------


def after(pass_: Any, change: Callable[[ModuleOp], None]) -> Inject:
    """The pass, and then a change of its result."""
    right = pass_.apply

    def apply(self: Any, ctx: Context, op: ModuleOp) -> None:
        right(self, ctx, op)
        change(op)

    return lambda: mock.patch.object(pass_, "apply", apply)


def helper(old: str, new: str) -> Inject:
    """Another text in a helper of the NumPy program."""
    right = emit.select

    def select(used: Any) -> list[str]:
        texts = right(used)
        assert any(old in text for text in texts), f"no helper has {old!r}"
        return [text.replace(old, new) for text in texts]

    return lambda: mock.patch.object(emit, "select", select)


def instruction(mnemonic: str, change: Callable[[dict[str, Any]], None]) -> Inject:
    """Other operands of an instruction of the machine."""
    right = Emitter.do

    def do(self: Emitter, name: str, **fields: Any) -> Any:
        if name == mnemonic:
            change(fields)
        return right(self, name, **fields)

    return lambda: mock.patch.object(Emitter, "do", do)


def ops(module: ModuleOp, kind: type[Any], path: str = "") -> list[Any]:
    """The ops of a kind whose module path ends so."""
    found = [op for op in module.walk() if isinstance(op, kind)]
    return [op for op in found if module_path(op).endswith(path)]


# ---- the faults --------------------------------------------------------------------------------


def _wrong_scale(module: ModuleOp) -> None:
    op = ops(module, attn.SdpaOp)[1]
    op.properties["scale"] = FloatAttr(1.25 * op.scale.value.data, f64)


def _dropped_bias(module: ModuleOp) -> None:
    for op in ops(module, nn.AddOp, "layer.0.attention.self.query"):
        replace_value(op.result, op.lhs)


def _swapped(module: ModuleOp) -> None:
    for op in ops(module, attn.SdpaOp)[:1]:
        op.operands[0], op.operands[1] = op.operands[1], op.operands[0]


def _mask_ignored(module: ModuleOp) -> None:
    for op in ops(module, attn.PackingOp):
        batch, length = attn.packing_of(op.result).shape
        every = attn.PackingOp(None, batch, length)
        block = op.parent
        assert block is not None
        block.insert_op_before(every, op)
        op.result.replace_all_uses_with(every.result)


def _wrong_residual(module: ModuleOp) -> None:
    """The sum after the first attention takes its product twice."""
    op = ops(module, nn.AddOp, "layer.0.attention.output")[0]
    product = op.lhs if "dense" in module_path(_owner(op.lhs)) else op.rhs
    op.operands[0] = op.operands[1] = product


def _owner(value: Any) -> Operation:
    assert isinstance(value.owner, Operation)
    return value.owner


def _stale(module: ModuleOp) -> None:
    """The second layer reads a weight of the first."""
    for op in ops(module, WeightOp):
        if op.keys == ("encoder.layer.1.output.dense.weight",):
            again = WeightOp(("encoder.layer.0.output.dense.weight",), op.result.type)
            block = op.parent
            assert block is not None
            block.insert_op_before(again, op)
            op.result.replace_all_uses_with(again.result)


def _square_transposed() -> AbstractContextManager[Any]:
    right = vars(WeightItem)["_parts"]

    def parts(self: WeightItem, store: WeightStore) -> Any:
        for part in right(self, store):
            square = part.ndim == 2 and part.shape[0] == part.shape[1]
            yield part.T if square and "layer.1" in self.key else part

    return mock.patch.object(WeightItem, "_parts", parts)


def _stale_item() -> AbstractContextManager[Any]:
    right = vars(encode)["_weight_item"]

    def item(op: Any) -> WeightItem:
        found = right(op)
        names = tuple(
            n.replace("layer.1.output.dense.w", "layer.0.output.dense.w") for n in found.names
        )
        return WeightItem(
            found.key, found.dtype, found.shape, names, found.permutation, found.point, found.values
        )

    return mock.patch.object(encode, "_weight_item", item)


def _stale_file() -> AbstractContextManager[Any]:
    right = WeightTable.write

    def write(self: WeightTable, stream: Any, metadata: dict[str, str]) -> None:
        arrays = {name: self.weights[name] for name in self.weights}
        arrays["encoder.layer.1.output.dense.weight"] = arrays[
            "encoder.layer.0.output.dense.weight"
        ]
        self.weights = WeightStore(arrays)
        right(self, stream, metadata)

    return mock.patch.object(WeightTable, "write", write)


def _wrong_point() -> AbstractContextManager[Any]:
    right = vars(WeightItem)["_encode"]

    def encoded(self: WeightItem, values: Any, dtype: np.dtype[Any]) -> Any:
        codes = right(self, values, dtype)
        return codes // 2 if self.key.endswith("layer.0.intermediate.dense.weight") else codes

    return mock.patch.object(WeightItem, "_encode", encoded)


def _too_fine() -> AbstractContextManager[Any]:
    right = common.point_for
    return mock.patch.object(common, "point_for", lambda bound, width: right(bound, width) + 7)


def _larger_eps(fields: dict[str, Any]) -> None:
    fields["eps"] = 0.25


def _fewer_heads(fields: dict[str, Any]) -> None:
    fields["limit"] -= 1


def _added_to_itself(fields: dict[str, Any]) -> None:
    fields["g"] = fields["h"]


MISCOMPILATIONS = (
    Miscompilation(
        "wrong scale of scores", "raise-attention", BOTH,
        after(RaiseAttentionPass, _wrong_scale), "layer.1.attention.self",
    ),
    Miscompilation(
        "dropped bias", "raise-einsum", BOTH,
        after(RaiseEinsumPass, _dropped_bias), "layer.0.attention.self.query",
    ),
    Miscompilation(
        "queries and keys swapped", "pack-tokens", BOTH,
        after(PackTokensPass, _swapped), "layer.0.attention.self",
    ),
    Miscompilation(
        "queries and keys swapped where pruning is chosen", "insert-hdp", ("hdp",),
        after(InsertHdpPass, lambda m: _swap_scores(m)), "layer.0.attention.self",
    ),
    Miscompilation("mask ignored", "pack-tokens", BOTH, after(PackTokensPass, _mask_ignored)),
    Miscompilation(
        "wrong residual", "raise-einsum", BOTH,
        after(RaiseEinsumPass, _wrong_residual), "layer.0.attention.output",
    ),
    Miscompilation(
        "stale weight", "raise-einsum", BOTH,
        after(RaiseEinsumPass, _stale), "layer.1.output.dense",
    ),
    Miscompilation(
        "stale weight in the file", "NumPy emitter", ("numpy",),
        _stale_file, "layer.1.output.dense",
    ),
    Miscompilation(
        "stale weight in the program", "HDP encoder", ("hdp",),
        _stale_item, "layer.1.output.dense",
    ),
    Miscompilation(
        "square weights transposed", "HDP encoder", ("hdp",),
        _square_transposed, "layer.1.attention.self.query",
    ),
    Miscompilation(
        "wrong binary point of a weight", "HDP encoder", ("hdp",),
        _wrong_point, "layer.0.intermediate.dense",
    ),
    Miscompilation(
        "binary points too fine", "assign-fixed-point", ("hdp",), _too_fine, "LayerNorm"
    ),
    Miscompilation(
        "epsilon of layer norms", "tile-for-hdp", ("hdp",),
        instruction("hln", _larger_eps), "embeddings.LayerNorm",
    ),
    Miscompilation(
        "dropped head", "tile-for-hdp", ("hdp",),
        instruction("heads", _fewer_heads), "layer.0.attention.self",
    ),
    Miscompilation(
        "a sum of a value with itself", "tile-for-hdp", ("hdp",),
        instruction("hadd", _added_to_itself), "embeddings.LayerNorm",
    ),
    Miscompilation(
        "epsilon of layer norms in the program", "NumPy emitter", ("numpy",),
        helper("np.float32(eps)", "np.float32(eps + 0.25)"), "embeddings.LayerNorm",
    ),
    Miscompilation(
        "padding in front read as tokens", "NumPy emitter", ("numpy",),
        helper("[packing.positions]\n\n\ndef unpack", "[: packing.tokens]\n\n\ndef unpack"), "embeddings.word_embeddings",
    ),
    Miscompilation(
        "last token pooled", "NumPy emitter", ("numpy",),
        helper("[:, position]", "[:, position - 1]"), "pooler",
    ),
    Miscompilation(
        "rows one off where padding returns", "NumPy emitter", ("numpy",),
        helper("] = x[rows]", "] = np.roll(x[rows], 1, 0)"), "output.LayerNorm",
    ),
    Miscompilation(
        "other constants of GELU", "NumPy emitter", ("numpy",),
        helper("-0.797665334799351", "-0.79"), "layer.0.intermediate.dense",
    ),
    Miscompilation(
        "softmax over all scores", "NumPy emitter", ("numpy",),
        helper("sums = scores.sum(axis=1, keepdims=True)", "sums = scores.sum(axis=(1, 2), keepdims=True)"),
        "layer.0.attention.self",
    ),
    Miscompilation(
        "dropped head in the program", "NumPy emitter", ("numpy",),
        helper("workers.run(part, heads)", "workers.run(part, heads - 1)"), "layer.0.attention.self",
    ),
)  # fmt: skip


def _swap_scores(module: ModuleOp) -> None:
    for op in ops(module, attn.ScoresOp)[:1]:
        op.operands[0], op.operands[1] = op.operands[1], op.operands[0]
